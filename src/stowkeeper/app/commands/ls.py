"""`stowkeeper ls`: list what the archive keeps and what it received."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import click

from stowkeeper.app.commands.byte_progress import human_size
from stowkeeper.app.commands.columns import Column, Row, print_rows
from stowkeeper.app.commands.options import archive_option, json_option
from stowkeeper.app.commands.parameters import moment
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.archive import inquiries, listing
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.listing import ListingFilter
from stowkeeper.database.engine import Database
from stowkeeper.dicom.sop_classes import SOP_CLASSES
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES


class Noun(NamedTuple):
    """What can be listed: its rows, its columns for people, and what there are none of."""

    rows: Callable[[ArchiveReader, ListingFilter], Iterator[dict[str, Any]]]
    columns: tuple[Column, ...]
    words: str


def _from_database(
    rows: Callable[[Database, ListingFilter], Iterator[dict[str, Any]]],
) -> Callable[[ArchiveReader, ListingFilter], Iterator[dict[str, Any]]]:
    return lambda reader, only: rows(reader.database, only)


def _of(key: str) -> Callable[[Row], str]:
    return lambda row: "" if row[key] is None else str(row[key])


def _time(key: str) -> Callable[[Row], str]:
    return lambda row: (row[key] or "")[:19].replace("T", " ")


def _size(key: str) -> Callable[[Row], str]:
    return lambda row: human_size(row[key] or 0)


def _name(key: str, known: Mapping[str, Any]) -> Callable[[Row], str]:
    return lambda row: known[row[key]].name if row[key] in known else str(row[key] or "")


def _joined(key: str) -> Callable[[Row], str]:
    return lambda row: ",".join(row[key])


def _condition(row: Row) -> str:
    """Say what is special about a version."""
    words = [] if row["state"] == "kept" else [row["state"]]
    words += [word for word in ("conflict", "held") if row[word]]
    if not row["current"] and row["state"] == "kept":
        words.append("older")
    return ",".join(words)


def _standing(row: Row) -> str:
    """Say which of several versions this is."""
    words = ["current"] if row["current"] else ["older" if row["state"] == "kept" else row["state"]]
    return ",".join(words + (["held"] if row["held"] else []))


def _beginning(key: str) -> Callable[[Row], str]:
    return lambda row: str(row[key])[:12]


def _requests(row: Row) -> str:
    parts = [
        f"{row[f'requests_{name}']} {name}" for name in ("kept", "refused", "lost") if row[f"requests_{name}"]
    ]
    return ", ".join(parts)


NOUNS: dict[str, Noun] = {
    "studies": Noun(
        _from_database(listing.studies),
        (
            Column(title="Patient", text=_of("patient_name"), cut_to=12),
            Column(title="Patient ID", text=_of("patient_id"), cut_to=10, drop=6),
            Column(title="Date", text=_of("study_date"), drop=7),
            Column(title="Modality", text=_joined("modalities_in_study"), cut_to=8, drop=5),
            Column(title="Description", text=_of("study_description"), cut_to=14, drop=2),
            Column(title="Series", text=_of("number_of_study_related_series"), right=True, drop=4),
            Column(title="Inst.", text=_of("number_of_study_related_instances"), right=True),
            Column(title="Size", text=_size("size"), right=True, drop=3),
            Column(title="Received (UTC)", text=_time("last_received_at"), drop=1),
            Column(title="Study Instance UID", text=_of("study_instance_uid")),
        ),
        "studies",
    ),
    "series": Noun(
        _from_database(listing.series),
        (
            Column(title="Modality", text=_of("modality")),
            Column(title="No.", text=_of("series_number"), right=True, drop=4),
            Column(title="Description", text=_of("series_description"), cut_to=14, drop=3),
            Column(title="Inst.", text=_of("number_of_series_related_instances"), right=True),
            Column(title="Size", text=_size("size"), right=True, drop=5),
            Column(title="Received (UTC)", text=_time("last_received_at"), drop=1),
            Column(title="Study Instance UID", text=_of("study_instance_uid"), drop=2),
            Column(title="Series Instance UID", text=_of("series_instance_uid")),
        ),
        "series",
    ),
    "instances": Noun(
        _from_database(listing.instances),
        (
            Column(title="SOP Class", text=_name("sop_class_uid", SOP_CLASSES), cut_to=12, drop=4),
            Column(
                title="Transfer Syntax",
                text=_name("transfer_syntax_uid", TRANSFER_SYNTAXES),
                cut_to=15,
                drop=2,
            ),
            Column(title="Size", text=_size("size"), right=True, drop=5),
            Column(title="Received (UTC)", text=_time("received_at"), drop=3),
            Column(title="State", text=_condition),
            Column(title="SOP Instance UID", text=_of("sop_instance_uid")),
            Column(title="File", text=_of("path"), drop=1),
        ),
        "instances",
    ),
    "receipts": Noun(
        _from_database(listing.receipts),
        (
            Column(title="Received (UTC)", text=_time("received_at")),
            Column(title="By", text=_of("received_by"), drop=5),
            Column(title="From", text=_of("calling_ae_title"), cut_to=8, drop=6),
            Column(title="Address", text=_of("peer_address"), drop=3),
            Column(title="Outcome", text=_of("outcome")),
            Column(title="Answer", text=_of("answer"), drop=4),
            Column(title="Size", text=_size("data_set_length"), right=True, drop=7),
            Column(title="SOP Instance UID", text=_of("sop_instance_uid")),
            Column(title="State", text=_of("state"), drop=2),
            Column(title="Receipt", text=_of("receipt_id"), drop=1),
        ),
        "receipts",
    ),
    "requests": Noun(
        _from_database(inquiries.requests),
        (
            Column(title="Requested (UTC)", text=_time("requested_at")),
            Column(title="From", text=_of("calling_ae_title"), cut_to=8, drop=3),
            Column(title="Outcome", text=_of("outcome")),
            Column(title="Status", text=_of("status")),
            Column(title="Size", text=_size("data_set_length"), right=True, drop=2),
            Column(title="SOP Instance UID", text=_of("sop_instance_uid"), drop=4),
            Column(title="Comment", text=_of("error_comment"), cut_to=20),
            Column(title="Association", text=_of("association_id"), drop=1),
        ),
        "requests",
    ),
    "associations": Noun(
        _from_database(listing.associations),
        (
            Column(title="Opened (UTC)", text=_time("opened_at")),
            Column(title="From", text=_of("calling_ae_title"), cut_to=8),
            Column(title="Address", text=_of("peer_address"), drop=3),
            Column(title="To", text=_of("called_ae_title"), cut_to=8, drop=2),
            Column(title="Ended", text=_of("ended")),
            Column(title="Requests", text=_requests, cut_to=12),
            Column(title="Bytes", text=_size("bytes_received"), right=True, drop=4),
            Column(title="Words", text=_of("words"), cut_to=16, drop=5),
            Column(title="Association", text=_of("association_id"), drop=1),
        ),
        "associations",
    ),
    "removals": Noun(
        _from_database(inquiries.removals),
        (
            Column(title="Removed (UTC)", text=_time("removed_at")),
            Column(title="Inst.", text=_of("instances"), right=True),
            Column(title="Left", text=_of("left"), right=True, drop=1),
            Column(title="Size", text=_size("size"), right=True, drop=2),
            Column(title="Reason", text=_of("reason"), cut_to=12),
            Column(title="Study Instance UID", text=_of("study_instance_uid")),
        ),
        "removals",
    ),
    "quarantine": Noun(
        lambda reader, only: inquiries.quarantined(reader.database, reader.files, reader.root, only),
        (
            Column(title="Put away (UTC)", text=_time("put_away_at")),
            Column(title="Size", text=_size("size"), right=True, drop=3),
            Column(title="State", text=_of("state"), drop=4),
            Column(title="Reason", text=_of("reason"), cut_to=20),
            Column(title="From", text=_of("calling_ae_title"), cut_to=8, drop=2),
            Column(title="SOP Instance UID", text=_of("sop_instance_uid")),
            Column(title="File", text=_of("path"), drop=1),
        ),
        "files in quarantine",
    ),
}
"""Everything that can be listed, by its name on the command line."""

_CONFLICTS = Noun(
    lambda reader, only: listing.instances(reader.database, only, in_conflict=True),
    (
        Column(title="SOP Instance UID", text=_of("sop_instance_uid")),
        Column(title="State", text=_standing),
        Column(title="Received (UTC)", text=_time("received_at")),
        Column(title="From", text=_of("calling_ae_title"), cut_to=8, drop=4),
        Column(
            title="Transfer Syntax", text=_name("transfer_syntax_uid", TRANSFER_SYNTAXES), cut_to=15, drop=3
        ),
        Column(title="Size", text=_size("size"), right=True, drop=5),
        Column(title="Digest", text=_beginning("digest"), drop=2),
        Column(title="File", text=_of("path"), drop=1),
    ),
    "instances in conflict",
)
"""What `--conflicts` makes of instances."""


@click.command(epilog="docs/commands.md lists the keys of the JSON lines.")
@archive_option
@click.option("--study", metavar="UID", help="Only what belongs to this study.")
@click.option("--series", metavar="UID", help="Only what belongs to this series.")
@click.option("--instance", metavar="UID", help="Only what belongs to this SOP instance, all versions of it.")
@click.option(
    "--since", metavar="TIME", type=moment, help="Received since then: 2026-03-02, or 7d for a week."
)
@click.option("--until", metavar="TIME", type=moment, help="Received before then.")
@click.option("--calling-ae-title", metavar="AET", help="Only what this AE title sent.")
@click.option("--all-versions", is_flag=True, help="Of instances, every version, not the current one alone.")
@click.option(
    "--conflicts",
    is_flag=True,
    help="Of instances, those of which several versions differ, with all of these.",
)
@click.option("--limit", metavar="N", type=click.IntRange(min=1), help="Stop after so many.")
@json_option
@click.argument("noun", metavar=f"[{'|'.join(NOUNS)}]", type=click.Choice(tuple(NOUNS)), required=False)
def ls(  # noqa: PLR0913 - one for each option
    *,
    archive: Path,
    noun: str | None,
    study: str | None,
    series: str | None,
    instance: str | None,
    since: str | None,
    until: str | None,
    calling_ae_title: str | None,
    all_versions: bool,
    conflicts: bool,
    limit: int | None,
    as_json: bool,
) -> ExitCode:
    """List what the archive keeps and what it received.

    Studies, series and instances are what is kept. Receipts prove what came and was kept; requests are all
    C-STORE requests, refused ones too; associations and removals speak for themselves; in quarantine are
    damaged files. --json prints one object a line with all there is, in the order of arrival. Runs beside a
    server.

    Example: stowkeeper ls instances --study 1.2.840.99999.1 --json
    """
    if conflicts and noun not in {None, "instances"}:
        raise click.UsageError(f"--conflicts lists instances and not {noun}: leave one of them out.")
    only = ListingFilter(
        uid=instance or series or study,
        received_from=since,
        received_before=until,
        calling_ae_title=calling_ae_title,
    )
    chosen = _CONFLICTS if conflicts else NOUNS[noun or "studies"]
    with closing(ArchiveReader(str(archive), to_read=True)) as reader:
        if chosen is NOUNS["instances"] and (all_versions or instance):
            rows = listing.instances(reader.database, only, all_versions=True)
        else:
            rows = chosen.rows(reader, only)
        above = {"study_instance_uid": study, "series_instance_uid": series if instance else None}
        rows = islice(_under(rows, above), limit)
        shown = ({key: _rounded(value) for key, value in row.items()} for row in rows)
        print_rows(chosen.columns, shown, as_json=as_json, nothing=f"No {chosen.words}.")
    return ExitCode.OK


def _rounded(value: object) -> object:
    """Return a value as it is shown. Every fraction is a time in seconds, of which nothing below a microsecond means anything."""
    return round(value, 6) if isinstance(value, float) else value


def _under(rows: Iterator[dict[str, Any]], above: Mapping[str, str | None]) -> Iterator[dict[str, Any]]:
    """Yield the rows that belong to all of the UIDs given; the deepest one was asked of the catalog."""
    wanted = [(key, uid) for key, uid in above.items() if uid is not None]
    for row in rows:
        if all(row.get(key, uid) == uid for key, uid in wanted):
            yield row
