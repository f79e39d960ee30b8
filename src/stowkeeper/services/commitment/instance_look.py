"""One look at some instances of a transaction: what is certain of each by now, without writing anything.

What the rows alone say comes first; the policy is asked of the rest. An instance that may still arrive, or whose rows
changed while it was checked, stays open and is looked at again.
"""

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection

from stowkeeper.archive.catalog_values import VersionState
from stowkeeper.archive.choosing import Asker, Choice, choose_versions
from stowkeeper.archive.versions import find_versions, find_versions_by_key
from stowkeeper.database.engine import Database
from stowkeeper.dicom.status import Status
from stowkeeper.services.commitment.commitment_values import (
    CommitmentInstance,
    InstanceOutcome,
    Outcome,
)
from stowkeeper.services.commitment.policies import (
    FAILURE_REASONS,
    CheckAnswer,
    CheckContext,
    CheckPolicy,
    CheckQuestion,
    PolicyOutcome,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances:
    """What holds for all instances of a look.

    `asker` is for whom versions are chosen and held. `unlisted` are on their way into the catalog.
    `grace_is_over` tells that what is unknown now is not waited for. With `is_last_look` a file that cannot be read counts
    as failed. `accepts_class` tells of a SOP class whether it is taken for storage from this peer. With `was_told` the peer
    may have heard what is committed already: then no other bytes of the instance stand for it.
    """

    asker: Asker
    context: CheckContext
    unlisted: frozenset[str]
    grace_is_over: bool
    is_last_look: bool
    accepts_class: Callable[[str], bool]
    was_told: bool = False


@dataclass(slots=True, kw_only=True)
class Look:
    """What a look found: what is certain, and what is open still.

    `arriving` and `unknown` may still come, `unreadable` could not be read, of `not_yet` the policy wants to be asked
    later, and the versions of `changed` changed while they were checked.
    """

    certain: list[Outcome] = field(default_factory=list)
    arriving: list[CommitmentInstance] = field(default_factory=list)
    unknown: list[CommitmentInstance] = field(default_factory=list)
    unreadable: list[CommitmentInstance] = field(default_factory=list)
    not_yet: list[CommitmentInstance] = field(default_factory=list)
    changed: list[CommitmentInstance] = field(default_factory=list)


def look_at(
    instances: Sequence[CommitmentInstance],
    circumstances: Circumstances,
    *,
    policy: CheckPolicy,
    database: Database,
    root: str,
    stopping: threading.Event,
) -> Look:
    """Look at some instances. Blocks; raises what `CheckPolicy.check` raises."""
    found = Look()
    present: list[CommitmentInstance] = []
    for instance in instances:
        here = found.arriving if instance.sop_instance_uid in circumstances.unlisted else present
        here.append(instance)
    with database.read() as connection:
        choices = choose_versions(
            connection, [instance.sop_instance_uid for instance in present], circumstances.asker
        )
        damaged = _damaged(connection, choices)
        held = _held_before(connection, present, choices, was_told=circumstances.was_told)
    asked: list[_Asked] = []
    for instance in present:
        choice = held.get(instance.position) or choices[instance.sop_instance_uid]
        outcome = _by_rows(instance, choice, circumstances, is_damaged=instance.sop_instance_uid in damaged)
        if outcome is not None:
            found.certain.append(outcome)
        elif choice.version is None and not circumstances.grace_is_over:
            found.unknown.append(instance)
        else:
            path = "" if choice.version is None else os.path.join(root, choice.version.path)
            question = CheckQuestion(reference=instance.reference, version=choice.version, path=path)
            asked.append(_Asked(instance=instance, question=question, words=choice.words))
    _ask(asked, found, circumstances, policy=policy, database=database, stopping=stopping)
    return found


def _by_rows(
    instance: CommitmentInstance, choice: Choice, circumstances: Circumstances, *, is_damaged: bool
) -> Outcome | None:
    """Say what is certain by the rows alone; None where there is a version to check, or none that is known."""
    version = choice.version
    if choice.conflict or is_damaged:
        return failed(instance.position, Status.PROCESSING_FAILURE, choice.words)
    if version is None:
        if circumstances.accepts_class(instance.sop_class_uid):
            return None
        return failed(
            instance.position, Status.SOP_CLASS_NOT_SUPPORTED, "its SOP class is not accepted for storage"
        )
    if version.sop_class_uid != instance.sop_class_uid:
        return failed(
            instance.position,
            Status.CLASS_INSTANCE_CONFLICT,
            "it is kept as an instance of another SOP class",
        )
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """An instance that a policy decides on; `words` say why there is no version of it, if so."""

    instance: CommitmentInstance
    question: CheckQuestion
    words: str

    @property
    def version_key(self) -> int | None:
        return None if self.question.version is None else self.question.version.version_key


def _ask(
    asked: Sequence[_Asked],
    found: Look,
    circumstances: Circumstances,
    *,
    policy: CheckPolicy,
    database: Database,
    stopping: threading.Event,
) -> None:
    """Ask the policy, and sort what it says."""
    to_policy = [one for one in asked if one.version_key is not None or policy.decides_on_unknown]
    answers: dict[int, CheckAnswer] = {}
    if to_policy:
        given = policy.check([one.question for one in to_policy], circumstances.context, stopping)
        for one, answer in zip(to_policy, given, strict=True):
            answers[one.instance.position] = answer
    changed = _changed(asked, answers, circumstances.asker, database)
    for one in asked:
        position = one.instance.position
        answer = answers.get(position) or CheckAnswer(outcome=PolicyOutcome.NO_SUCH_INSTANCE, words=one.words)
        if answer.outcome is PolicyOutcome.SUCCESS:
            found.certain.append(
                Outcome(position=position, outcome=InstanceOutcome.COMMITTED, version_key=one.version_key)
            )
        elif one.instance.sop_instance_uid in changed:
            found.changed.append(one.instance)
        elif answer.outcome is PolicyOutcome.NOT_YET:
            found.not_yet.append(one.instance)
        elif answer.is_unreadable and not circumstances.is_last_look:
            found.unreadable.append(one.instance)
        else:
            reason = FAILURE_REASONS[answer.outcome]
            found.certain.append(failed(position, reason, answer.words, one.version_key))


def _changed(
    asked: Sequence[_Asked], answers: dict[int, CheckAnswer], asker: Asker, database: Database
) -> frozenset[str]:
    """Return the instances whose check failed and that would be checked in another version by now."""
    failing = {
        one.instance.sop_instance_uid: one.version_key
        for one in asked
        if one.version_key is not None and answers[one.instance.position].outcome is not PolicyOutcome.SUCCESS
    }
    if not failing:
        return frozenset()
    with database.read() as connection:
        choices = choose_versions(connection, list(failing), asker)
    return frozenset(
        uid
        for uid, key in failing.items()
        if (version := choices[uid].version) is not None and version.version_key != key
    )


def _held_before(
    connection: Connection,
    instances: Sequence[CommitmentInstance],
    choices: dict[str, Choice],
    *,
    was_told: bool,
) -> dict[int, Choice]:
    """Return, of instances that are committed already, the versions that are held for it and kept still.

    Where one is not kept and the peer may have been told, another file of the same bytes may stand for it and nothing else.
    """
    committed = {
        instance.position: (instance, instance.version_key)
        for instance in instances
        if instance.outcome is InstanceOutcome.COMMITTED and instance.version_key is not None
    }
    if not committed:
        return {}
    versions = find_versions_by_key(connection, [key for _, key in committed.values()])
    gone = {
        instance.sop_instance_uid
        for instance, key in committed.values()
        if key in versions and versions[key].state is not VersionState.KEPT
    }
    kept = find_versions(connection, gone, (VersionState.KEPT,)) if gone and was_told else {}
    found: dict[int, Choice] = {}
    for position, (instance, key) in committed.items():
        version = versions.get(key)
        uid = instance.sop_instance_uid
        if version is None:
            continue
        if version.state is VersionState.KEPT:
            found[position] = Choice(version=version)
        elif was_told and (chosen := choices[uid].version) is not None and chosen.content != version.content:
            same = [one for one in kept.get(uid, ()) if one.content == version.content]
            found[position] = Choice(version=same[-1]) if same else _OTHER_BYTES
    return found


_OTHER_BYTES = Choice(
    version=None, conflict=True, words="what was committed is not kept any more, and other bytes of it are"
)


def _damaged(connection: Connection, choices: dict[str, Choice]) -> frozenset[str]:
    """Return the instances of which none is kept since what was kept went bad."""
    without = [uid for uid, choice in choices.items() if choice.version is None and not choice.conflict]
    if not without:
        return frozenset()
    return frozenset(find_versions(connection, without, (VersionState.DAMAGED,)))


def failed(position: int, reason: int, words: str, version_key: int | None = None) -> Outcome:
    """Return the outcome of an instance that cannot be committed, with its Failure Reason (0008,1197)."""
    return Outcome(
        position=position,
        outcome=InstanceOutcome.FAILED,
        reason=reason,
        words=words,
        version_key=version_key,
    )
