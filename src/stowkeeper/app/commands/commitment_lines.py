"""Storage commitments as commands show them: JSON objects for scripts, lines for people."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import click

from stowkeeper.app.commands.waiting_limits import INSTANCES_SHOWN_MAX
from stowkeeper.app.log_lines import printable
from stowkeeper.database.engine import Database
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.asking_limits import UNASKED_KEPT_MAX
from stowkeeper.services.commitment.commitment_values import (
    Commitment,
    CommitmentInstance,
    CommitmentRole,
    CommitmentState,
    InstanceOutcome,
)
from stowkeeper.services.commitment.safe_to_delete import safe_to_delete

Row = dict[str, Any]

STATE_WORDS = {
    CommitmentState.RECEIVED: "it is being checked",
    CommitmentState.CHECKED: "checked, and not reported yet",
    CommitmentState.REPORTED: "the peer has the report",
    CommitmentState.UNDELIVERED: "the report could not be delivered",
    CommitmentState.REQUESTED: "the peer was not asked yet, or has not answered",
    CommitmentState.ACCEPTED: "the peer took the request, and has not reported yet",
    CommitmentState.REFUSED: "the peer refused the request",
    CommitmentState.COMMITTED: "all of it is committed",
    CommitmentState.PARTIAL: "some of it is committed",
    CommitmentState.FAILED: "nothing of it is committed",
    CommitmentState.EXPIRED: "no report came in time",
    CommitmentState.CANCELLED: "it was cancelled",
}
"""What a state means, for people."""


def as_row(commitment: Commitment) -> Row:
    """Return a transaction as a JSON object. `number` is its place in the list, for --before."""
    row = asdict(commitment)
    row["number"] = row.pop("commitment_key")
    row["role"], row["state"] = commitment.role.value, commitment.state.value
    del row["content"]
    return row


def instance_row(instance: CommitmentInstance) -> Row:
    """Return one of its instances as a JSON object; `reason` as a status is written, None where there is none."""
    return {
        "sop_class_uid": instance.sop_class_uid,
        "sop_instance_uid": instance.sop_instance_uid,
        "outcome": instance.outcome.value or "open",
        "reason": None if instance.reason is None else f"{instance.reason:04X}H",
        "words": instance.words,
        "at": instance.checked_at,
    }


def whole_row(database: Database, commitment: Commitment) -> Row:
    """Return a transaction with its instances and reports; those of a user tell what may be deleted here."""
    row = as_row(commitment)
    instances = [instance_row(one) for one in _instances(database, commitment)]
    if commitment.role is CommitmentRole.USER:
        asked = [one for one in instances if one["outcome"] != InstanceOutcome.UNASKED]
        answers = safe_to_delete(database, [one["sop_instance_uid"] for one in asked])
        safe = {answer.sop_instance_uid: answer for answer in answers}
        for one in asked:
            answer = safe[one["sop_instance_uid"]]
            one["safe_to_delete"], one["why_not"] = answer.is_safe, answer.words
    with database.read() as connection:
        reports = rows.reports_of(connection, commitment.commitment_key)
    told = [{**asdict(report), "seconds": round(report.seconds, 3)} for report in reports]
    return {**row, "instances_named": instances, "reports": told}


def _instances(database: Database, commitment: Commitment) -> Iterator[CommitmentInstance]:
    """Yield the instances of a transaction, page by page, each from a short look of its own."""
    after = -1
    while True:
        with database.read() as connection:
            page = rows.instances_of(connection, commitment.commitment_key, after, UNASKED_KEPT_MAX)
        yield from page
        if len(page) < UNASKED_KEPT_MAX:
            return
        after = page[-1].position


def print_outcome(database: Database, commitment: Commitment) -> None:
    """Say for people what became of a transaction of ours, and name instances that are not committed."""
    who = commitment.peer or commitment.peer_ae_title
    said = STATE_WORDS[commitment.state]
    if commitment.state in (CommitmentState.COMMITTED, CommitmentState.PARTIAL, CommitmentState.FAILED):
        committed = commitment.instances - commitment.failures
        said = f"{committed} of {_count(commitment.instances)} committed"
    because = f" ({commitment.error})" if commitment.error else ""
    click.echo(printable(f"{commitment.transaction_uid}: {who}: {said}{because}"))
    if commitment.failures:
        print_failures(database, commitment)


def print_failures(database: Database, commitment: Commitment) -> None:
    """Name the first instances of a transaction that failed, with the reasons."""
    with database.read() as connection:
        failed = rows.instances_of(
            connection,
            commitment.commitment_key,
            limit=INSTANCES_SHOWN_MAX,
            outcome=InstanceOutcome.FAILED,
        )
    for instance in failed:
        reason = f"{instance.reason:04X}H " if instance.reason is not None else ""
        click.echo(printable(f"  {instance.sop_instance_uid}: {reason}{instance.words}"))
    if commitment.failures > len(failed):
        click.echo(f"  … and {commitment.failures - len(failed)} more; --json names all", err=True)


def print_instances(named: Sequence[Row]) -> None:
    """Name the instances of a transaction as `whole_row` has them, those that failed first, up to INSTANCES_SHOWN_MAX."""
    failed_first = sorted(named, key=lambda one: bool(one["outcome"] != InstanceOutcome.FAILED))
    for one in failed_first[:INSTANCES_SHOWN_MAX]:
        click.echo(printable(f"  {one['sop_instance_uid']}: {_instance_words(one)}"))
    if len(named) > INSTANCES_SHOWN_MAX:
        click.echo(f"  … and {len(named) - INSTANCES_SHOWN_MAX} more; --json names all", err=True)


def _instance_words(row: Row) -> str:
    if row["outcome"] == InstanceOutcome.UNASKED:
        return "reported though nobody asked for it"
    reason = f"{row['reason']} " if row["reason"] else ""
    said = f"{reason}{row['words']}" if row["outcome"] == InstanceOutcome.FAILED else str(row["outcome"])
    if row["outcome"] != InstanceOutcome.COMMITTED or "safe_to_delete" not in row:
        return said
    return (
        f"{said}, safe to delete here"
        if row["safe_to_delete"]
        else f"{said}, and not safe to delete here: {row['why_not']}"
    )


def _count(number: int) -> str:
    return "1 instance" if number == 1 else f"{number} instances"
