"""`ls` lists everything as tables that fit and as JSON lines, one at a time however many there are."""

import json
import os
import pty
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from rich.cells import cell_len
from sqlalchemy import update

from stowkeeper.app.commands.columns import Column, lay_out
from stowkeeper.app.commands.ls import NOUNS
from stowkeeper.app.commands.parameters import byte_rate, moment
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.limits import LISTING_SAMPLE_ROWS
from stowkeeper.archive import ledger
from stowkeeper.archive.inquiries import removals, requests
from stowkeeper.archive.ledger import AssociationRecord, RequestRecord
from stowkeeper.archive.listing import ListingFilter
from stowkeeper.archive.removal import Removal
from stowkeeper.database import schema
from stowkeeper.database.engine import Database
from stowkeeper.dicom.attributes import InstanceAttributes
from stowkeeper.durable.filesystem import FileSystem
from support.catalog_rows import open_database
from support.command_line import CommandLine, environment, keep, program, serving, write_part10
from support.instances import make_instance
from support.peers import run_peer

STUDY, OTHER = "1.2.10", "1.2.20"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with four versions of three instances, and a ledger."""
    archive = tmp_path_factory.mktemp("template") / "archive"
    keep(
        archive,
        make_instance(1, study=STUDY, series="1.2.10.1"),
        make_instance(2, study=STUDY, series="1.2.10.2"),
        make_instance(2, study=STUDY, series="1.2.10.2", content=1),
        make_instance(3, study=OTHER, series="1.2.20.1"),
        make_instance(3, study=OTHER, series="1.2.20.1"),
    )
    with open_database(archive, sync=False) as database, database.write() as transaction:
        ledger.record_associations(
            transaction,
            [
                AssociationRecord(
                    association_id="a-1",
                    opened_at="2026-01-02T08:00:00.000000Z",
                    peer_address="192.0.2.1",
                    calling_ae_title="CT1",
                    ended="released",
                )
            ],
        )
        ledger.record_requests(
            transaction, [request(1, 0, "kept"), request(2, 0xA700, "refused"), request(3, None, "lost")]
        )
    return archive


@pytest.fixture
def stow(template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Commands on a copy of that archive."""
    return CommandLine(Path(shutil.copytree(template, tmp_path / "archive")), capsys)


def request(number: int, status: int | None, outcome: str) -> RequestRecord:
    return RequestRecord(
        association_id="a-1",
        message_id=number,
        sop_class_uid="1.2",
        sop_instance_uid=f"1.2.3.{number}",
        transfer_syntax_uid="1.2.840.10008.1.2",
        requested_at=f"2026-01-02T08:00:0{number}.000000Z",
        status=status,
        outcome=outcome,
        receipt_id="r" if outcome == "kept" else "",
    )


# Nouns.


def damage(stow: CommandLine, sop_instance_uid: str) -> Path:
    """Turn one bit of an instance's file, and have it put away."""
    path = stow.path_of(sop_instance_uid)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    os.chmod(path, 0o600)
    path.write_bytes(content)
    assert stow("verify").code == ExitCode.FINDINGS
    return path


@pytest.mark.slow
def test_every_noun_is_listed_for_people_and_for_scripts(stow: CommandLine) -> None:
    stow("rm", "--reason", "wrong patient", "1.2.3.1")
    damage(stow, "1.2.3.3")
    for noun, description in NOUNS.items():
        table = stow("ls", noun)
        lines = stow("ls", noun, "--json")
        assert (table.code, lines.code) == (ExitCode.OK, ExitCode.OK)
        heading, *rows = table.out.splitlines()
        assert [column.title for column in description.columns if column.title not in heading] == []
        assert len(rows) == len(lines.lines) > 0, noun
        assert (table.err, lines.err) == ("", "")


def test_studies_are_listed_when_nothing_is_named(stow: CommandLine) -> None:
    assert stow("ls").out == stow("ls", "studies").out
    row = next(row for row in stow.list() if row["study_instance_uid"] == STUDY)
    assert (row["patient_name"], row["number_of_study_related_instances"], row["modalities_in_study"]) == (
        "Test^Patient",
        2,
        ["CT"],
    )


def test_instances_carry_what_a_script_needs(stow: CommandLine) -> None:
    for row in stow.list("instances"):
        for key in ("sop_class_uid", "study_instance_uid", "series_instance_uid", "transfer_syntax_uid"):
            assert row[key]
        path = stow.archive / row["path"]
        assert path.stat().st_size == row["size"]
        assert row["sop_instance_uid"] in path.name
        assert row["digest"][:32] in path.name
    assert len(stow.list("instances")) == 3
    assert len(stow.list("instances", "--all-versions")) == 4
    assert [(row["current"], row["conflict"]) for row in stow.list("instances", "--instance", "1.2.3.2")] == [
        (False, True),
        (True, True),
    ]


def test_times_have_no_more_digits_than_mean_something(stow: CommandLine) -> None:
    with open_database(stow.archive) as database, database.write() as transaction:
        transaction.execute(
            update(schema.requests).values(seconds_network=0.1 + 0.2, seconds_disk=0.00021349998)
        )
    found = [(row["seconds_network"], row["seconds_disk"]) for row in stow.list("requests")]
    assert found == [(0.3, 0.000213)] * 3


def test_requests_tell_what_was_refused(stow: CommandLine) -> None:
    found = [(row["sop_instance_uid"], row["status"], row["outcome"]) for row in stow.list("requests")]
    assert found == [
        ("1.2.3.1", "0000H", "kept"),
        ("1.2.3.2", "A700H", "refused"),
        ("1.2.3.3", None, "lost"),
    ]


@pytest.mark.slow
def test_an_empty_listing_says_so_on_the_side(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(tmp_path / "archive")
    stow = CommandLine(tmp_path / "archive", capsys)
    for noun in NOUNS:
        ended = stow("ls", noun)
        assert (ended.code, ended.out, ended.err) == (ExitCode.OK, "", f"No {NOUNS[noun].words}.\n")
        assert stow.list(noun) == []


def test_where_no_archive_is_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert CommandLine(tmp_path / "none", capsys)("ls").code == ExitCode.NO_INPUT


@pytest.mark.slow
def test_the_reference_page_names_every_key(stow: CommandLine) -> None:
    stow("rm", "--reason", "wrong patient", "1.2.3.1")
    damage(stow, "1.2.3.3")
    page = (Path(__file__).parents[2] / "docs/commands.md").read_text(encoding="utf-8")
    told = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    attributes = {field.name for field in fields(InstanceAttributes)} - {
        "study_instance_uid",
        "series_instance_uid",
    }
    for noun in NOUNS:
        documented = set(re.findall(r"`([a-z_]+)`", told[noun]))
        keys = set(stow.list(noun)[0])
        assert keys - attributes <= documented, noun
        assert documented - keys <= {
            noun,
            "stored",
            "conflict",
            "identical",
            "known",
            "unknown",
            "kept",
            "refused",
            "lost",
            "damaged",
            "removed",
        }


# Conflicts.


def test_versions_that_differ_are_shown_side_by_side(stow: CommandLine) -> None:
    lines = stow.list("--conflicts")
    assert [(line["sop_instance_uid"], line["current"], line["conflict"]) for line in lines] == [
        ("1.2.3.2", False, True),
        ("1.2.3.2", True, True),
    ]
    assert stow.list("instances", "--conflicts") == lines
    heading, older, current = stow("ls", "--conflicts").out.splitlines()
    assert heading.split()[:4] == ["SOP", "Instance", "UID", "State"]
    assert (older.split()[:2], current.split()[:2]) == (["1.2.3.2", "older"], ["1.2.3.2", "current"])
    for line, shown in zip(lines, (older, current), strict=True):
        assert line["digest"][:12] in shown
        assert shown.endswith(line["path"])


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("--study", STUDY), 2),
        (("--study", OTHER), 0),
        (("--instance", "1.2.3.2"), 2),
        (("--instance", "1.2.3.1"), 0),
        (("--since", "1h"), 2),
        (("--until", "2000"), 0),
        (("--calling-ae-title", "OTHER"), 0),
        (("--limit", "1"), 1),
        (("--all-versions",), 2),
    ],
)
def test_filters_choose_among_conflicts(stow: CommandLine, arguments: tuple[str, ...], count: int) -> None:
    assert len(stow.list("--conflicts", *arguments)) == count


def test_where_nothing_conflicts_it_is_said_on_the_side(stow: CommandLine) -> None:
    stow("rm", "--reason", "both wrong", "1.2.3.2")
    ended = stow("ls", "--conflicts")
    assert (ended.code, ended.out, ended.err) == (ExitCode.OK, "", "No instances in conflict.\n")


def test_conflicts_are_those_of_instances(stow: CommandLine) -> None:
    ended = stow("ls", "series", "--conflicts")
    assert ended.code == ExitCode.USAGE
    assert "--conflicts lists instances and not series: leave one of them out." in ended.err


# Quarantine.


@pytest.mark.slow
def test_what_was_put_away_is_listed_with_why_and_whose_it_is(stow: CommandLine) -> None:
    path = damage(stow, "1.2.3.3")
    (line,) = stow.list("quarantine")
    kept = stow.archive / line["path"]
    assert (kept.parent.name, kept.name, path.exists()) == ("quarantine", path.name, False)
    assert line["size"] == kept.stat().st_size
    assert (line["origin"], line["state"]) == (str(path.relative_to(stow.archive)), "damaged")
    assert (line["sop_instance_uid"], line["study_instance_uid"]) == ("1.2.3.3", OTHER)
    assert line["calling_ae_title"] == "SCANNER"
    assert line["reason"] in kept.with_name(kept.name + ".txt").read_text(encoding="utf-8")
    heading, row = stow("ls", "quarantine").out.splitlines()
    assert "Put away (UTC)" in heading
    assert row.startswith(line["put_away_at"][:19].replace("T", " "))
    for shown in (line["reason"], "damaged", "1.2.3.3", line["path"]):
        assert shown in row


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("--study", OTHER), 1),
        (("--study", STUDY), 0),
        (("--series", "1.2.20.1"), 1),
        (("--instance", "1.2.3.3"), 1),
        (("--instance", "1.2.3.1"), 0),
        (("--study", STUDY, "--instance", "1.2.3.3"), 0),
        (("--since", "1h"), 1),
        (("--until", "2000"), 0),
        (("--calling-ae-title", "SCANNER"), 1),
        (("--calling-ae-title", "OTHER"), 0),
    ],
)
def test_filters_choose_in_quarantine(stow: CommandLine, arguments: tuple[str, ...], count: int) -> None:
    damage(stow, "1.2.3.3")
    assert len(stow.list("quarantine", *arguments)) == count


# Filters.


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("instances", "--study", STUDY), 2),
        (("instances", "--series", "1.2.10.1"), 1),
        (("instances", "--instance", "1.2.3.3"), 1),
        (("instances", "--study", OTHER, "--series", "1.2.10.1"), 0),
        (("instances", "--study", STUDY, "--series", "1.2.10.1"), 1),
        (("instances", "--series", "1.2.10.1", "--instance", "1.2.3.2"), 0),
        (("series", "--study", STUDY), 2),
        (("studies", "--instance", "1.2.3.3"), 1),
        (("receipts", "--study", OTHER), 2),
        (("receipts", "--limit", "3"), 3),
        (("receipts", "--since", "2999"), 0),
        (("receipts", "--since", "1h"), 5),
        (("receipts", "--until", "2000-01-01"), 0),
        (("receipts", "--calling-ae-title", "SCANNER"), 5),
        (("receipts", "--calling-ae-title", "OTHER"), 0),
        (("associations", "--calling-ae-title", "CT1"), 1),
        (("requests", "--calling-ae-title", "CT1"), 3),
        (("requests", "--calling-ae-title", "CT2"), 0),
        (("requests", "--instance", "1.2.3.2"), 1),
        (("requests", "--since", "2026-01-02T08:00:02"), 2),
        (("requests", "--until", "2026-01-02T08:00:02"), 1),
    ],
)
def test_filters_choose_what_is_listed(stow: CommandLine, arguments: tuple[str, ...], count: int) -> None:
    assert len(stow.list(*arguments)) == count


@pytest.mark.parametrize(
    "arguments", [("patients",), ("--limit", "0"), ("--since", "soon"), ("studies", "series")]
)
def test_wrong_values_are_wrong_usage(stow: CommandLine, arguments: tuple[str, ...]) -> None:
    assert stow("ls", *arguments).code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026", "2026"),
        ("2026-3-2", "2026-03-02"),
        ("2026-03-02 08:15", "2026-03-02T08:15"),
        ("2026-03-02T08:15:30Z", "2026-03-02T08:15:30"),
        ("2026-03-02T08:15:30.25", "2026-03-02T08:15:30.250000"),
    ],
)
def test_a_moment_is_the_beginning_of_a_time(text: str, found: str) -> None:
    assert moment(text) == found


def test_a_moment_may_be_an_age() -> None:
    for text, age in (("90m", timedelta(minutes=90)), ("2w", timedelta(weeks=2))):
        then = datetime.fromisoformat(moment(text)).replace(tzinfo=UTC)
        assert abs(datetime.now(UTC) - age - then) < timedelta(minutes=1)


@pytest.mark.parametrize("text", ["", "now", "2026-13", "12x", "99999d", "2026-03-02T08:15+02:00"])
def test_what_is_no_moment_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(click.BadParameter, match=r"Allowed: a time in UTC such as 2026-03-02"):
        moment(text)


def test_a_rate_is_a_size() -> None:
    assert (byte_rate("1500"), byte_rate("2 MB")) == (1500, 2_000_000)


# The ledger, page by page.


@pytest.mark.slow
def test_requests_and_removals_are_read_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for size in (1, 2, 3, 1000):
        monkeypatch.setattr("stowkeeper.archive.inquiries.ROWS_PER_PAGE", size)
        with ledger_of(tmp_path / str(size)) as database:
            assert [row["message_id"] for row in requests(database)] == [1, 2, 3, 1, 2]
            assert [row["message_id"] for row in requests(database, ListingFilter(uid="a-2"))] == [1, 2]
            assert [row["message_id"] for row in requests(database, ListingFilter(uid="r"))] == [1]
            told = [
                (row["reason"], row["study_instance_uid"], row["instances"]) for row in removals(database)
            ]
            assert told == [
                ("first", STUDY, 1),
                ("second", STUDY, 1),
                ("second", OTHER, 2),
                ("third", None, 1),
            ]
            assert len(list(removals(database, ListingFilter(uid=STUDY)))) == 2
            assert list(removals(database, ListingFilter(received_before="2000"))) == []
            assert len(list(removals(database, ListingFilter(received_from="2000")))) == 4


def ledger_of(archive: Path) -> Database:
    instances = [
        make_instance(number, study=study)
        for number, study in ((1, STUDY), (2, STUDY), (3, OTHER), (4, OTHER))
    ]
    keep(archive, *instances, make_instance(5, study="", sop_class_uid="1.2.840.10008.5.1.4.38.1"))
    database = open_database(archive, sync=False)
    removal = Removal(FileSystem(), str(archive), database)
    removal.carry_out(removal.plan("1.2.3.1"), "first")
    plan = removal.plan(STUDY)
    plan.kept += removal.plan(OTHER).kept
    removal.carry_out(plan, "second")
    removal.carry_out(removal.plan("1.2.3.5"), "third")
    with database.write() as transaction:
        ledger.record_requests(
            transaction, [request(1, 0, "kept"), request(2, 0, "lost"), request(3, 0, "lost")]
        )
        ledger.record_requests(
            transaction,
            [
                RequestRecord(
                    association_id="a-2",
                    message_id=number,
                    sop_class_uid="",
                    sop_instance_uid="",
                    transfer_syntax_uid="",
                    requested_at="2026",
                    status=0x0117,
                    outcome="refused",
                )
                for number in (1, 2)
            ],
        )
    return database


def test_a_removal_that_is_not_done_says_what_is_left(stow: CommandLine) -> None:
    from stowkeeper.archive import catalog

    with open_database(stow.archive, sync=False) as database, database.write() as transaction:
        catalog.mark_removing(transaction, [1, 2], reason="wrong patient")
    (row,) = stow.list("removals")
    assert (row["removed"], row["left"], row["instances"]) == (0, 2, 2)


# Tables.

Row = dict[str, Any]


def columns(**more: Any) -> tuple[Column, ...]:
    return (
        Column(title="Name", text=lambda row: str(row["name"]), cut_to=6),
        Column(title="Number", text=lambda row: str(row["number"]), right=True, **more),
        Column(title="UID", text=lambda row: str(row["uid"])),
    )


def row(name: str = "a name", number: int = 7, uid: str = "1.2.3") -> Row:
    return {"name": name, "number": number, "uid": uid}


def test_columns_are_as_wide_as_what_is_in_them() -> None:
    rows = [row(), row(name="a much longer name", number=123456789)]
    assert list(lay_out(columns(), rows, None)) == [
        "Name                   Number  UID",
        "a name                      7  1.2.3",
        "a much longer name  123456789  1.2.3",
    ]


def test_a_narrow_terminal_cuts_what_may_be_cut() -> None:
    lines = list(lay_out(columns(), [row(name="a much longer name")], 24))
    assert lines == ["Name       Number  UID", "a much l…       7  1.2.3"]
    assert list(lay_out(columns(), [row(name="a much longer name")], 5))[1] == "a muc…       7  1.2.3"


def test_a_narrower_one_drops_what_may_be_dropped() -> None:
    assert list(lay_out(columns(drop=1), [row(uid="1.2.3.4.5.6.7.8.9")], 26)) == [
        "Name    UID",
        "a name  1.2.3.4.5.6.7.8.9",
    ]


def test_names_of_every_script_line_up_and_are_cut_by_their_width() -> None:
    names = ["山田^太郎=やまだ^たろう", "Yamada^Tarou", "김희중", "Люкceмбypг"]
    lines = list(lay_out(columns(), [row(name=name) for name in names], 25))
    assert {cell_len(line.rpartition("  ")[0]) for line in lines} == {18}
    assert "…" in lines[1]


def test_what_a_sender_wrote_cannot_draw_on_the_terminal(stow: CommandLine) -> None:
    (line,) = list(lay_out(columns(), [row(name="\x1b[2J\r\nHello\u202e")], None))[1:]
    assert line.startswith("\\x1b[2J\\r\\nHello\\u202e ")


def test_a_listing_is_printed_while_it_is_read() -> None:
    read: list[int] = []

    def rows() -> Iterator[Row]:
        for number in range(LISTING_SAMPLE_ROWS + 100):
            read.append(number)
            yield row(number=number)

    lines = lay_out(columns(), rows(), None)
    next(lines)
    assert len(read) == LISTING_SAMPLE_ROWS == 200
    for _ in range(LISTING_SAMPLE_ROWS + 1):
        next(lines)
    assert len(read) == LISTING_SAMPLE_ROWS + 1
    assert len(list(lines)) == 99


def test_a_row_that_is_wider_than_those_before_is_not_cut_where_it_has_to_be_whole() -> None:
    rows = [row()] * LISTING_SAMPLE_ROWS + [row(name="a much longer name", uid="1.2.3.4.5.6.7")]
    *_, last = lay_out(columns(), rows, 40)
    assert last == "a muc…       7  1.2.3.4.5.6.7"


# As a program.


@pytest.mark.slow
def test_on_a_terminal_the_table_fits_and_in_a_pipe_it_is_whole(stow: CommandLine) -> None:
    def listed(width: int) -> list[str]:
        master, slave = pty.openpty()
        subprocess.run(
            program("ls", "instances", "--archive", stow.archive),
            stdout=slave,
            env={**environment(), "COLUMNS": str(width)},
            timeout=60,
            check=True,
        )
        os.close(slave)
        text = os.read(master, 65536).decode()
        os.close(master)
        return text.splitlines()

    for width in (60, 80, 200):
        lines = listed(width)
        assert all(cell_len(line) <= width for line in lines)
        assert all(f"1.2.3.{number}" in "\n".join(lines) for number in (1, 2, 3))
    assert any(cell_len(line) > 100 for line in stow("ls", "instances").out.splitlines())


@pytest.mark.slow
def test_a_reader_that_goes_away_ends_it_quietly(stow: CommandLine) -> None:
    ended = subprocess.run(
        [
            "sh",
            "-c",
            '"$@" | head -n 1',
            "sh",
            *program("ls", "receipts", "--json", "--archive", stow.archive),
        ],
        env=environment(),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.stderr == b""
    assert json.loads(ended.stdout)["received_by"] == "C-STORE"


@pytest.mark.slow
@pytest.mark.peer("storescu")
def test_beside_a_server_everything_is_listed_soon(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "archive"
    path = write_part10(tmp_path / "a.dcm", make_instance(1))
    stow = CommandLine(archive, capsys)
    with serving(archive, tmp_path / "server.log") as (server, port):
        sent = run_peer("storescu", "-aet", "CT1", "-aec", "STOWKEEPER", "127.0.0.1", str(port), str(path))
        assert sent.returncode == 0
        server.wait_until(
            lambda: [row["ended"] for row in stow.list("associations")] == ["released"],
            "before it was listed",
        )
        (association,) = stow.list("associations")
        (asked,) = stow.list("requests")
        (receipt,) = stow.list("receipts")
        assert (association["calling_ae_title"], association["ended"], association["requests_kept"]) == (
            "CT1",
            "released",
            1,
        )
        assert (asked["status"], asked["receipt_id"], asked["association_id"]) == (
            "0000H",
            receipt["receipt_id"],
            association["association_id"],
        )
        assert (receipt["answer"], receipt["outcome"]) == ("known", "stored")
