"""`stowkeeper events`: what other systems are told, who is told, and telling it once more; with a server and without."""

import json
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import click
from sqlalchemy import Connection, func, select

from stowkeeper.app.commands.acting_user import acting_user
from stowkeeper.app.commands.columns import Column, print_rows
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import SettingsArguments, archive_option, json_option
from stowkeeper.app.commands.parameters import moment
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.log_lines import printable
from stowkeeper.app.setting_problems import SettingsError
from stowkeeper.archive import audit, catalog
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.changes import newest_change
from stowkeeper.database.engine import Database
from stowkeeper.database.schema import changes, consumers
from stowkeeper.jobs.submission import submit
from stowkeeper.services.events.delivery_job import replay_request, target_of
from stowkeeper.services.events.document import event_object
from stowkeeper.services.events.feed import (
    EVERY_KIND,
    Event,
    EventKind,
    count_events_after,
    events_after,
    newest_events,
)

FOLLOW_SECONDS = 0.5
"""How often `tail --follow` looks for more."""

PAGE_EVENTS = 500
"""Events read at a time."""


@click.group(epilog="docs/events.md tells more.")
def events() -> None:
    """Look at events: instances received, studies that begin, are quiet, or go on late.

    The settings say who is told of them, in [[event_targets]]: a command, a URL, or a folder.
    """


_kinds_option = click.option(
    "--event",
    "words",
    type=click.Choice([kind.value for kind in EventKind]),
    multiple=True,
    help="Only events of this kind; several may be named.",
)
_study_option = click.option("--study", metavar="UID", default="", help="Only events of this study.")


@events.command("tail", epilog="Example: stowkeeper events tail --follow --event study.quiet --json")
@archive_option
@click.option("-n", "--limit", type=click.IntRange(0), default=20, show_default=True, help="Show the last N.")
@click.option("--after", type=click.IntRange(0), help="Show all after the event of this number instead.")
@click.option("-f", "--follow", is_flag=True, help="Go on until Ctrl-C, with each event as it happens.")
@_kinds_option
@_study_option
@json_option
def tail(
    *,
    archive: Path,
    limit: int,
    after: int | None,
    follow: bool,
    words: tuple[str, ...],
    study: str,
    as_json: bool,
) -> None:
    """Show the last events, the newest last."""
    kinds = [EventKind(word) for word in words] or EVERY_KIND
    with closing(ArchiveReader(str(archive), to_read=True)) as reader:
        with reader.database.read() as connection:
            archive_id = catalog.archive_id(connection) or ""
            seq = newest_change(connection) if after is None else after
            found = []
            if after is None:
                found = newest_events(connection, limit, kinds=kinds, study_instance_uid=study)
        shown = 0
        for event in found:
            _show(archive_id, event, as_json=as_json)
            shown += 1
        while True:
            for event in _after(reader.database, seq, kinds, study):
                _show(archive_id, event, as_json=as_json)
                seq = event.seq
                shown += 1
            if not follow:
                break
            time.sleep(FOLLOW_SECONDS)
    if not shown:
        click.echo("There are no such events.", err=True)


def _after(database: Database, seq: int, kinds: Collection[EventKind], study: str) -> Iterator[Event]:
    while True:
        with database.read() as connection:
            found = events_after(connection, seq, PAGE_EVENTS, kinds=kinds, study_instance_uid=study)
        yield from found
        if len(found) < PAGE_EVENTS:
            return
        seq = found[-1].seq


def _show(archive_id: str, event: Event, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(event_object(archive_id, event)))
        return
    subject = event.study_instance_uid if event.revision else event.sop_instance_uid
    words = f"  {event.words}" if event.words else ""
    # UIDs are what a peer made them.
    click.echo(
        printable(f"{event.seq:>8}  {event.at[:19].replace('T', ' ')}  {event.kind:<17}  {subject}{words}")
    )


_COLUMNS = (
    Column(title="Target", text=lambda row: row["target"]),
    Column(title="Told up to", text=lambda row: str(row["told_to"]), right=True),
    Column(title="Behind", text=lambda row: str(row["behind"]), right=True),
)


@events.command("targets", epilog="Example: stowkeeper events targets")
@archive_option
@json_option
def targets(*, archive: Path, as_json: bool) -> None:
    """List who was told of events, and how many events each is still to be told of.

    `stowkeeper jobs ls --kind deliver` tells why. Of a target that the archive's settings do not name, all events count.
    """
    kinds = _kinds_by_target(archive)
    query = select(consumers.c.name, consumers.c.seq).order_by(consumers.c.name)
    with (
        closing(ArchiveReader(str(archive), to_read=True)) as reader,
        reader.database.read() as connection,
    ):
        rows = [
            {
                "target": name,
                "told_to": seq,
                "behind": count_events_after(connection, seq, kinds.get(name, EVERY_KIND)),
            }
            for consumer, seq in connection.execute(query)
            if (name := target_of(consumer))
        ]
    nothing = "Nobody was told of events yet: the settings name no [[event_targets]]."
    print_rows(_COLUMNS, rows, as_json=as_json, nothing=nothing)


def _kinds_by_target(archive: Path) -> Mapping[str, Collection[EventKind]]:
    """Return what each target is told of by the settings of an archive; nothing where they cannot be used."""
    try:
        settings = (
            SettingsArguments(config_file=None, overrides={"archive": str(archive)})
            .as_served(asks=False)
            .load()
        )
    except SettingsError:
        return {}
    told: dict[str, Collection[EventKind]] = {entry.name: entry.events for entry in settings.event_targets}
    copied = {folder.name: (EventKind.INSTANCE_RECEIVED,) for folder in settings.export_folders}
    return told | copied


@events.command("replay", epilog="Example: stowkeeper events replay router --since 2026-03-01T00:00")
@archive_option
@click.argument("target")
@click.option("--after", type=click.IntRange(0), help="From the event behind this number on.")
@click.option(
    "--since",
    metavar="TIME",
    help="From this time on: 2026-03-01 or 2026-03-01T08:00, UTC, or 7d for a week.",
)
@_study_option
@json_option
def replay(
    *, archive: Path, target: str, after: int | None, since: str | None, study: str, as_json: bool
) -> ExitCode:
    """Tell TARGET once more what it was told, or what happened before it was there.

    The events keep their ids. A server of the archive delivers them, in their order, as a job. Of one --study it is
    all of them, where nothing says from when on.
    """
    if after is not None and since is not None:
        raise click.UsageError("Say where to begin once: either --after NUMBER or --since TIME.")
    if after is None and since is None:
        if not study:
            raise click.UsageError(
                "Say where to begin: either --after NUMBER or --since TIME; or name a --study."
            )
        after = 0  # of one study, all there is
    with closing(ArchiveReader(str(archive))) as reader:
        with reader.database.read() as connection:
            known = [target_of(name) for name in connection.execute(select(consumers.c.name)).scalars()]
            until = newest_change(connection)
            first = after if after is not None else _before(connection, _moment(since or ""))
        if target not in known:
            there = ", ".join(sorted(filter(None, known))) or "none"
            raise CommandError(
                f"No target {target} was told of events yet; there is {there}.", ExitCode.FINDINGS
            )
        request = replay_request(
            target, after=first, until=until, study_instance_uid=study, created_by=acting_user()
        )
        with reader.database.write() as transaction:
            job = submit(transaction, request)
            detail = f"after change {first} up to {until}" + (f", study {study}" if study else "")
            audit.note(transaction, acting_user(), "events replayed", target, detail)
    if as_json:
        click.echo(json.dumps({"job_id": job.job_id, "after": first, "until": until}))
    else:
        click.echo(f"Job {job.job_id} tells {target} of the events after {first}, up to {until}.")
    return ExitCode.OK


def _moment(text: str) -> str:
    try:
        exact = datetime.fromisoformat(text)
    except ValueError:
        return moment(text)
    if exact.tzinfo is None:
        exact = exact.replace(tzinfo=UTC)
    return exact.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _before(connection: Connection, at: str) -> int:
    """Return the number of the last change before a time."""
    first = connection.execute(select(func.min(changes.c.seq)).where(changes.c.at >= at)).scalar()
    return newest_change(connection) if first is None else int(first) - 1
