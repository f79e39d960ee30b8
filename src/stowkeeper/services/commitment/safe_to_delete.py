"""Which instances may be deleted here since a peer has taken responsibility for them (PS3.4 §J.1).

Yes is said only where all of this holds, at this moment:

- a peer that we asked has reported the instance as committed, and nothing it reported since says otherwise, by the order
  in which its reports came and not by the clock, which may have been set back;
- what we keep is the version that we had when we asked: it is current, whole as far as is known, and no other version
  of the instance differs from it. A version never changes, so its row stands for its digest;
- nobody holds it: we have not promised it to others ourselves.

It is said of rows, and nothing is read from the disk. What is said here is advice: who removes asks again for holds.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, func, select

from stowkeeper.archive.catalog_values import Version, VersionState, portions
from stowkeeper.archive.versions import COUNTED, find_versions
from stowkeeper.database.engine import Database
from stowkeeper.database.schema import (
    commitment_instances,
    commitment_reports,
    commitments,
    instances,
    series,
    studies,
    uid_hash,
    versions,
)
from stowkeeper.services.commitment.commitment_values import (
    WAY_RECEIVED,
    CommitmentRole,
    CommitmentState,
    InstanceOutcome,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deletability:
    """Whether an instance may be deleted here, and why not; `words` of a yes are empty.

    `peer` is who answers for it, by name or as AE title, `transaction_uid` where it said so, `committed_at` when. They
    are those of the newest answer that there is, yes or no, and empty where there is none.
    """

    sop_instance_uid: str
    is_safe: bool
    words: str
    peer: str = ""
    transaction_uid: str = ""
    committed_at: str = ""


def safe_to_delete(
    database: Database, sop_instance_uids: Iterable[str], peer: str = ""
) -> list[Deletability]:
    """Say of each instance whether it may be deleted here, in the order given; with `peer`, by that peer's word alone.

    A peer is named by its name; one without a definition by its AE title.
    """
    answers: list[Deletability] = []
    for portion in portions(dict.fromkeys(sop_instance_uids)):
        with database.read() as connection:
            found = find_versions(connection, portion, COUNTED)
            answered = _answers(connection, portion, peer)
        answers += [_judge(uid, found.get(uid, []), answered.get(uid, [])) for uid in portion]
    return answers


def instances_of_study(database: Database, study_instance_uid: str) -> list[str]:
    """Return the SOP Instance UIDs of a study, those of which something is kept, in the order of arrival."""
    with database.read() as connection:
        query = (
            select(instances.c.sop_instance_uid)
            .distinct()
            .join(versions, versions.c.instance_key == instances.c.instance_key)
            .join(series, series.c.series_key == versions.c.series_key)
            .join(studies, studies.c.study_key == series.c.study_key)
            .where(studies.c.study_instance_uid == study_instance_uid, versions.c.state.in_(COUNTED))
            .order_by(instances.c.instance_key)
        )
        return list(connection.execute(query).scalars())


# What peers said.


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    """What the newest transaction with a peer says of an instance."""

    peer: str
    transaction_uid: str
    reported_at: str | None
    state: CommitmentState
    was_contradicted: bool
    sop_class_uid: str
    outcome: InstanceOutcome
    words: str
    version_key: int | None

    @property
    def is_yes(self) -> bool:
        return self.outcome is InstanceOutcome.COMMITTED and not self.was_contradicted


_TAKEN_REPORT = (
    select(func.min(commitment_reports.c.report_key))
    .where(
        commitment_reports.c.commitment_key == commitments.c.commitment_key,
        commitment_reports.c.way == WAY_RECEIVED,
    )
    .scalar_subquery()
)
"""The report that was taken: the first one. Its key grows with each report that comes."""


def _answers(connection: Connection, uids: Sequence[str], peer: str) -> dict[str, list[_Answer]]:
    """Return what was answered for each instance, newest first: of each peer the last report, else the open question."""
    table = commitment_instances
    query = (
        select(
            table.c.sop_instance_uid,
            table.c.sop_class_uid,
            table.c.outcome,
            table.c.words,
            table.c.version_key,
            commitments.c.peer,
            commitments.c.peer_ae_title,
            commitments.c.peer_address,
            commitments.c.transaction_uid,
            commitments.c.state,
            commitments.c.reported_at,
            commitments.c.error,
        )
        .join(commitments, commitments.c.commitment_key == table.c.commitment_key)
        .where(
            table.c.uid_hash.in_([uid_hash(uid) for uid in uids]),
            table.c.sop_instance_uid.in_(uids),
            table.c.outcome != InstanceOutcome.UNASKED,
            commitments.c.role == CommitmentRole.USER,
        )
        # The last word of a peer counts, and what was reported at all counts before what is open. Of an instance that
        # was asked for under two SOP classes, "failed" comes before "committed".
        .order_by(
            commitments.c.reported_at.is_(None),
            _TAKEN_REPORT.desc().nulls_last(),
            commitments.c.commitment_key.desc(),
            table.c.outcome.desc(),
        )
    )
    found: dict[str, dict[tuple[str, ...], _Answer]] = {}
    for row in connection.execute(query):
        shown = row.peer or row.peer_ae_title
        if peer in ("", shown):
            who = (row.peer,) if row.peer else (row.peer, row.peer_ae_title, row.peer_address)
            found.setdefault(row.sop_instance_uid, {}).setdefault(who, _answer(shown, row))
    return {uid: list(answers.values()) for uid, answers in found.items()}


def _answer(peer: str, row: Any) -> _Answer:  # noqa: ANN401 - a row has its query's columns, no type of its own
    return _Answer(
        peer=peer,
        transaction_uid=row.transaction_uid,
        reported_at=row.reported_at,
        state=CommitmentState(row.state),
        was_contradicted=row.reported_at is not None and bool(row.error),
        sop_class_uid=row.sop_class_uid,
        outcome=InstanceOutcome(row.outcome),
        words=row.words,
        version_key=row.version_key,
    )


# What we have.


def _judge(uid: str, found: Sequence[Version], answers: Sequence[_Answer]) -> Deletability:
    """Judge an instance by its versions and by what was answered, newest first."""
    yes = [answer for answer in answers if answer.is_yes]
    if not yes:
        return _no(uid, _why_uncommitted(answers), answers)
    defect = _defect_of(found)
    if defect:
        return _no(uid, defect, yes)
    current = next(version for version in found if version.is_current)
    wanted = (current.version_key, current.sop_class_uid)
    same = [answer for answer in yes if (answer.version_key, answer.sop_class_uid) == wanted]
    if not same:
        return _no(uid, "what we keep now is another version than the one that was committed", yes)
    return _say(uid, "", same[0], is_safe=True)


def _why_uncommitted(answers: Sequence[_Answer]) -> str:
    if not answers:
        return "no peer was asked to commit it"
    newest = answers[0]
    if newest.reported_at is None:
        return _OPEN_WORDS.get(newest.state, "no report on it has come yet")
    if newest.outcome is InstanceOutcome.COMMITTED:
        return "the peer committed it, and said otherwise in a later report"
    return f"it was not committed: {newest.words}"


_OPEN_WORDS = {
    CommitmentState.REFUSED: "the peer refused the request",
    CommitmentState.EXPIRED: "no report on it came in time",
    CommitmentState.CANCELLED: "the request was cancelled",
}


def _defect_of(found: Sequence[Version]) -> str:
    """Say what speaks against deleting whatever version of an instance, whoever committed it; '' where nothing does."""
    current = next((version for version in found if version.is_current), None)
    if current is None or current.state is not VersionState.KEPT:
        return "no whole version of it is kept here"
    if current.conflict:
        return "another version of it differs"
    if any(version.is_held for version in found):
        return "it is held here: it was promised to others"
    return ""


def _no(uid: str, words: str, answers: Sequence[_Answer]) -> Deletability:
    return _say(uid, words, answers[0] if answers else None, is_safe=False)


def _say(uid: str, words: str, answer: _Answer | None, *, is_safe: bool) -> Deletability:
    if answer is None:
        return Deletability(sop_instance_uid=uid, is_safe=is_safe, words=words)
    return Deletability(
        sop_instance_uid=uid,
        is_safe=is_safe,
        words=words,
        peer=answer.peer,
        transaction_uid=answer.transaction_uid,
        committed_at=answer.reported_at or "",
    )
