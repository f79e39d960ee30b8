"""Whether what a peer was told is committed is kept still, before the same report is sent again.

A report that a peer has answered never says anything else later (decision 11). So where it would not be true any more it is
not sent again, and the peer has to be told by a new request. Here the rows are asked, which takes no reading of files.
"""

from collections.abc import Sequence

from sqlalchemy import Connection

from stowkeeper.archive.catalog_values import VersionState
from stowkeeper.archive.choosing import GONE, UNKNOWN
from stowkeeper.archive.versions import find_versions, find_versions_by_key
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.commitment_values import (
    Commitment,
    CommitmentInstance,
    InstanceOutcome,
)
from stowkeeper.services.commitment.limits import INSTANCES_PER_PAGE


def words_of_loss(connection: Connection, commitment: Commitment) -> str:
    """Say which instance that was reported as committed is not kept any more, and why; '' where all of them are.

    One whose very bytes came again since is kept, whoever sent them. Ten thousand take a fifth of a second at most.
    """
    after = -1
    while True:
        portion = rows.instances_of(
            connection,
            commitment.commitment_key,
            after,
            INSTANCES_PER_PAGE,
            InstanceOutcome.COMMITTED,
        )
        for instance, words in _lost(connection, portion):
            return refusal(instance.sop_instance_uid, words)
        if len(portion) < INSTANCES_PER_PAGE:
            return ""
        after = portion[-1].position


def refusal(sop_instance_uid: str, words: str) -> str:
    """Return why a report is not sent again, for people. `words` say what became of the instance."""
    return (
        f"the peer was told that {sop_instance_uid} is committed, which is not so any more ({words}): that is not said again,"
        " and the peer has to be told by a new request"
    )


def _lost(
    connection: Connection, portion: Sequence[CommitmentInstance]
) -> list[tuple[CommitmentInstance, str]]:
    held = find_versions_by_key(
        connection, [instance.version_key for instance in portion if instance.version_key is not None]
    )
    missing = [
        instance
        for instance in portion
        if instance.version_key not in held or held[instance.version_key].state is not VersionState.KEPT
    ]
    if not missing:
        return []
    kept = find_versions(
        connection, {instance.sop_instance_uid for instance in missing}, (VersionState.KEPT,)
    )
    lost: list[tuple[CommitmentInstance, str]] = []
    for instance in missing:
        gone = None if instance.version_key is None else held.get(instance.version_key)
        if gone is None:
            lost.append((instance, UNKNOWN.words))
        elif all(version.content != gone.content for version in kept.get(instance.sop_instance_uid, ())):
            lost.append((instance, GONE[gone.state]))
    return lost
