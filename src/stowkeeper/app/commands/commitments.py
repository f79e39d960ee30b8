"""`stowkeeper commitments`: storage commitments that were asked of us, and by us; with a running server and without."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stowkeeper.app.commands.acting_user import acting_user
from stowkeeper.app.commands.columns import Column, Row, print_rows
from stowkeeper.app.commands.commitment_lines import STATE_WORDS, as_row, print_instances, whole_row
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import SettingsArguments, archive_option, json_option, place_options
from stowkeeper.app.commands.paging import page_by_page, paging_options
from stowkeeper.app.commands.parameters import moment
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.log_lines import printable
from stowkeeper.archive import audit
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import Database
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.acceptance import CommitmentStateError, resend
from stowkeeper.services.commitment.asking import CannotAskError, ask_again, peer_of
from stowkeeper.services.commitment.commitment_values import (
    Commitment,
    CommitmentFilter,
    CommitmentRole,
    CommitmentState,
)
from stowkeeper.services.commitment.limits import COMMITMENTS_PER_PAGE

if TYPE_CHECKING:  # the listing does not pay for the settings
    from stowkeeper.app.settings import Settings

role_option = click.option(
    "--role",
    type=click.Choice([role.value for role in CommitmentRole]),
    help="provider: what was asked of us; user: what we asked of others.",
)


@click.group(epilog="A running server does what is asked within a second. docs/commands.md tells more.")
def commitments() -> None:
    """Look at storage commitments, and have them reported or asked for again.

    As provider we are asked by others to keep instances, check them, and report. As user we ask others.
    """


def _moment(key: str) -> Callable[[Row], str]:
    return lambda row: (row[key] or "")[:19].replace("T", " ")


def _who(row: Row) -> str:
    return str(row["peer"] or row["peer_ae_title"])


def _failures(row: Row) -> str:
    return str(row["failures"]) if row["checked_at"] else ""


_COLUMNS = (
    Column(title="No.", text=lambda row: str(row["number"]), right=True, drop=2),
    Column(title="Role", text=lambda row: row["role"]),
    Column(title="Peer", text=_who, cut_to=8),
    Column(title="State", text=lambda row: row["state"]),
    Column(title="Inst.", text=lambda row: str(row["instances"]), right=True),
    Column(title="Failed", text=_failures, right=True, drop=4),
    Column(title="Requested (UTC)", text=_moment("requested_at"), drop=3),
    Column(title="Reported (UTC)", text=_moment("reported_at"), drop=1),
    Column(title="Last word", text=lambda row: row["error"], cut_to=12, drop=5),
    Column(title="Transaction UID", text=lambda row: row["transaction_uid"]),
)


@commitments.command("ls", epilog="Example: stowkeeper commitments ls --role user --state partial --since 7d")
@archive_option
@role_option
@click.option(
    "--state",
    "states",
    type=click.Choice([state.value for state in CommitmentState]),
    multiple=True,
    help="Only those in this state; several may be named.",
)
@click.option("--peer", metavar="NAME", default="", help="Only those with the peer of this name.")
@click.option(
    "--since", metavar="TIME", type=moment, help="Requested since then: 2026-03-02, or 7d for a week."
)
@click.option("--until", metavar="TIME", type=moment, help="Requested before then.")
@paging_options
@json_option
def ls(
    *,
    archive: Path,
    role: str | None,
    states: tuple[str, ...],
    peer: str,
    since: str | None,
    until: str | None,
    before: int | None,
    limit: int,
    as_json: bool,
) -> None:
    """List storage commitments, the newest first."""
    only = CommitmentFilter(
        role=None if role is None else CommitmentRole(role),
        states=tuple(CommitmentState(state) for state in states),
        peer=peer,
        requested_from=since or "",
        requested_to=until or "",
    )
    with closing(ArchiveReader(str(archive), to_read=True)) as reader:
        found = (as_row(commitment) for commitment in _pages(reader.database, only, before, limit))
        print_rows(_COLUMNS, found, as_json=as_json, nothing="There are no such storage commitments.")


def _pages(
    database: Database, only: CommitmentFilter, before: int | None, limit: int
) -> Iterator[Commitment]:
    return page_by_page(
        database,
        lambda connection, before, size: rows.list_commitments(
            connection, replace(only, before_key=before, limit=size)
        ),
        lambda commitment: commitment.commitment_key,
        before=before,
        limit=limit,
        page_size=COMMITMENTS_PER_PAGE,
    )


@commitments.command(
    "show",
    short_help="Show a storage commitment, its instances and its reports.",
    epilog="Exit code 66 when there is no such transaction.",
)
@archive_option
@role_option
@click.argument("uid", metavar="UID")
@json_option
def show(*, archive: Path, role: str | None, uid: str, as_json: bool) -> None:
    """Show a storage commitment by its Transaction UID: its instances and every report; --json names all instances.

    Of one that we asked for, it tells of each instance whether it is safe to delete here: the peer committed it, and what
    we keep is what we had when we asked, in one version, and nobody else was promised it.
    """
    with closing(ArchiveReader(str(archive), to_read=True)) as reader:
        for commitment in _found(reader.database, uid, role):
            row = whole_row(reader.database, commitment)
            if as_json:
                click.echo(json.dumps(row))
            else:
                _print(commitment, row)


def _found(database: Database, uid: str, role: str | None) -> list[Commitment]:
    """Return all transactions with a UID, those of both roles unless one is named. Raises CommandError for none."""
    only = CommitmentFilter(role=None if role is None else CommitmentRole(role), transaction_uid=uid)
    found = list(_pages(database, only, None, COMMITMENTS_PER_PAGE))
    if not found:
        raise CommandError(
            f"There is no storage commitment {uid}: `stowkeeper commitments ls` lists them.",
            ExitCode.NO_INPUT,
        )
    return found


_SHOWN = (
    "number",
    "role",
    "way",
    "transaction_uid",
    "peer",
    "peer_ae_title",
    "own_ae_title",
    "peer_address",
    "instances",
    "requested_at",
    "checked_at",
    "reported_at",
    "expires_at",
    "duplicate_of",
    "replaces",
    "job_id",
    "error",
)


def _print(commitment: Commitment, row: Row) -> None:
    click.echo(f"state: {commitment.state}: {STATE_WORDS[commitment.state]}")
    for name in _SHOWN:
        if row[name] not in ("", None):
            click.echo(printable(f"{name.replace('_', ' ')}: {row[name]}"))
    if commitment.checked_at is not None:
        click.echo(f"not committed: {commitment.failures}")
    unasked = sum(one["outcome"] == "unasked" for one in row["instances_named"])
    if unasked:
        click.echo(f"reported though nobody asked: {unasked}")
    if commitment.role is CommitmentRole.USER:
        safe = sum(one.get("safe_to_delete", False) for one in row["instances_named"])
        click.echo(f"safe to delete here: {safe}")
    print_instances(row["instances_named"])
    for report in row["reports"]:
        status = "no answer" if report["status"] is None else f"{report['status']:04X}H"
        words = f": {report['words']}" if report["words"] else ""
        click.echo(printable(f"report {report['at'][:19].replace('T', ' ')} {report['way']} {status}{words}"))


@commitments.command(
    "resend",
    short_help="Have one reported again, or ask for it again.",
    epilog="Exit code 0 when it was written down, 1 when it cannot be done, 66 when there is none.",
)
@place_options
@role_option
@click.argument("uid", metavar="UID")
@json_option
def resend_(
    *, archive: str | None, config: str | None, role: str | None, uid: str, as_json: bool
) -> ExitCode:
    """Have a storage commitment reported again, or ask for it again.

    What was asked of us is reported to the peer again, with the same outcome once a peer has answered. What we asked for
    is asked for again where it is not committed, in a new transaction: a UID is used once.
    """
    settings = SettingsArguments(config_file=config, overrides={"archive": archive}).as_served().load()
    with closing(ArchiveReader(str(settings.archive_path))) as reader:
        found = _found(reader.database, uid, role)
        if len({commitment.role for commitment in found}) > 1:
            raise click.UsageError(
                "We are provider and user in transactions of this UID: say which by --role."
            )
        commitment = found[0]
        try:
            if commitment.role is CommitmentRole.PROVIDER:
                line = _report_again(reader.database, commitment)
            else:
                line = _ask_again(reader.database, commitment, settings)
        except (CannotAskError, CommitmentStateError) as error:
            click.echo(printable(f"{uid}: {error}"), err=True)
            return ExitCode.FINDINGS
    if as_json:
        click.echo(json.dumps(line))
    else:
        new = line["transaction_uid"]
        said = "it is reported again" if new == uid else f"it is asked for again, as {new}"
        click.echo(printable(f"{uid}: {said} (job {line['job_id']})"))
    return ExitCode.OK


def _report_again(database: Database, commitment: Commitment) -> dict[str, str]:
    with database.write() as transaction:
        job_id = resend(transaction, commitment.commitment_key, acting_user())
    return {"transaction_uid": commitment.transaction_uid, "job_id": job_id}


def _ask_again(database: Database, commitment: Commitment, settings: "Settings") -> dict[str, str]:
    from stowkeeper.app.commitment_terms import ask_terms  # noqa: PLC0415 - as above
    from stowkeeper.app.peer_book import configured_peers  # noqa: PLC0415 - likewise
    from stowkeeper.services.peers import PeerBook  # noqa: PLC0415 - likewise

    book = PeerBook(configured_peers(settings), database)
    known = book.find(commitment.peer) if commitment.peer else None

    with database.write() as transaction:
        who = acting_user()
        now = rows.find_by_key(transaction.connection, commitment.commitment_key) or commitment
        asked = ask_again(transaction, now, peer_of(now, known), created_by=who, terms=ask_terms(settings))
        audit.note(transaction, who, "commitment asked again", now.transaction_uid, asked.transaction_uid)
    return {"transaction_uid": asked.transaction_uid, "job_id": asked.job_id}
