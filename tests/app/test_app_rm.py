"""`rm` takes away what it was asked for, leaves a line, and says what it left."""

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from stowkeeper.app.commands import rm as rm_command
from stowkeeper.app.commands.acting_user import acting_user
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.limits import HELD_SHOWN_MAX
from stowkeeper.archive import audit, catalog
from stowkeeper.archive.removal import RemovalPlan
from support.catalog_rows import open_database
from support.command_line import CommandLine, environment, keep, program, serving, write_part10
from support.instances import make_instance
from support.peers import run_peer

STUDY, OTHER = "1.2.10", "1.2.20"
REASON = "sent to the wrong archive"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with four versions of three instances, in two studies."""
    archive = tmp_path_factory.mktemp("template") / "archive"
    keep(
        archive,
        make_instance(1, study=STUDY, series="1.2.10.1"),
        make_instance(2, study=STUDY, series="1.2.10.2"),
        make_instance(2, study=STUDY, series="1.2.10.2", content=1),
        make_instance(3, study=OTHER, series="1.2.20.1"),
    )
    return archive


@pytest.fixture
def stow(template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Commands on a copy of that archive."""
    return CommandLine(Path(shutil.copytree(template, tmp_path / "archive")), capsys)


def uids(stow: CommandLine) -> set[str]:
    return {row["sop_instance_uid"] for row in stow.list("instances")}


def hold(stow: CommandLine, path: Path, reason: str = "storage commitment 2.25.7") -> None:
    with open_database(stow.archive) as database, database.write() as transaction:
        version = catalog.find_version_by_path(transaction.connection, str(path.relative_to(stow.archive)))
        assert version is not None
        catalog.hold(transaction, [version.version_key], reason)


@pytest.mark.slow
def test_a_study_goes_with_its_files_and_a_line_stays(stow: CommandLine) -> None:
    ended = stow("rm", "--reason", REASON, STUDY)
    assert ended.code == ExitCode.OK
    assert ended.out == "1.2.10: 3 versions removed\n"
    assert uids(stow) == {"1.2.3.3"}
    assert not (stow.archive / "objects/1.2.10").exists()
    (line,) = stow.list("removals")
    assert line["removed_at"].startswith("20")
    assert {key: line[key] for key in ("reason", "study_instance_uid", "instances", "removed", "left")} == {
        "reason": REASON,
        "study_instance_uid": STUDY,
        "instances": 2,
        "removed": 3,
        "left": 0,
    }
    assert len(stow.list("receipts")) == 4
    assert stow("verify").code == ExitCode.OK


def test_several_uids_of_any_kind(stow: CommandLine) -> None:
    ended = stow("rm", "--reason", REASON, "1.2.10.1", "1.2.3.3", "1.2.10.1", "--json")
    assert ended.code == ExitCode.OK
    assert [(line["uid"], line["removed"]) for line in ended.lines] == [("1.2.10.1", 1), ("1.2.3.3", 1)]
    assert uids(stow) == {"1.2.3.2"}


def test_a_uid_that_is_not_there_is_told_and_the_others_go(stow: CommandLine) -> None:
    ended = stow("rm", "--reason", REASON, "9.9", "1.2.3.1")
    assert ended.code == ExitCode.FINDINGS
    assert "9.9: not in the archive" in ended.err
    assert uids(stow) == {"1.2.3.2", "1.2.3.3"}
    again = stow("rm", "--reason", REASON, "1.2.3.1", "--json")
    assert (again.code, again.lines[0]["found"]) == (ExitCode.FINDINGS, False)


def test_held_versions_stay_and_the_reason_is_told(stow: CommandLine) -> None:
    hold(stow, stow.path_of("1.2.3.1"))
    ended = stow("rm", "--reason", REASON, STUDY)
    assert ended.code == ExitCode.FINDINGS
    assert "1.2.10: 1 held, not removed:" in ended.err
    assert "1.2.3.1: storage commitment 2.25.7" in ended.err
    assert uids(stow) == {"1.2.3.1", "1.2.3.3"}
    ended = stow("rm", "--reason", REASON, STUDY, "--json")
    assert (ended.code, ended.lines[0]["removed"]) == (ExitCode.FINDINGS, 0)
    assert ended.lines[0]["held"] == [
        {"sop_instance_uid": "1.2.3.1", "reasons": ["storage commitment 2.25.7"]}
    ]


def test_an_override_removes_what_is_held_and_leaves_a_line(stow: CommandLine) -> None:
    hold(stow, stow.path_of("1.2.3.1"))
    ended = stow("rm", "--reason", REASON, "--override-holds", STUDY)
    assert ended.code == ExitCode.OK
    assert "1.2.10: 1 held, and to go all the same:\n  1.2.3.1: storage commitment 2.25.7" in ended.err
    assert uids(stow) == {"1.2.3.3"}
    with open_database(stow.archive) as database, database.read() as connection:
        (entry,) = audit.list_audit(connection)
    assert entry.who == acting_user()
    assert (entry.action, entry.subject) == ("hold overridden", "1.2.3.1")
    assert REASON in entry.detail


@pytest.mark.parametrize("as_json", [False, True])
def test_an_override_leaves_what_became_held_after_it_was_shown(
    stow: CommandLine, monkeypatch: pytest.MonkeyPatch, *, as_json: bool
) -> None:
    path = stow.path_of("1.2.3.1")
    hold(stow, path)
    show = rm_command._print_plan

    def show_and_hold(plan: RemovalPlan, **options: bool) -> None:
        show(plan, **options)
        hold(stow, path, "storage commitment 2.25.8")

    monkeypatch.setattr(rm_command, "_print_plan", show_and_hold)
    ended = stow("rm", "--reason", REASON, "--override-holds", STUDY, *(["--json"] if as_json else []))
    assert ended.code == ExitCode.FINDINGS
    reasons = ["storage commitment 2.25.7", "storage commitment 2.25.8"]
    if as_json:
        (line,) = ended.lines
        assert (line["removed"], line["passed_over"], line["overridden"]) == (2, 1, [])
        assert line["held"] == [{"sop_instance_uid": "1.2.3.1", "reasons": reasons}]
    else:
        assert f"held, and to go all the same:\n  1.2.3.1: {reasons[0]}\n" in ended.err
        assert f"1 held since, not removed:\n  1.2.3.1: {', '.join(reasons)}\n" in ended.err
    assert uids(stow) == {"1.2.3.1", "1.2.3.3"}


def test_a_dry_run_of_an_override_says_what_would_go_and_releases_nothing(stow: CommandLine) -> None:
    hold(stow, stow.path_of("1.2.3.1"))
    ended = stow("rm", "--reason", REASON, "--override-holds", "--dry-run", STUDY, "--json")
    assert (ended.code, ended.lines[0]["versions"], ended.lines[0]["held"]) == (ExitCode.OK, 3, [])
    assert [held["sop_instance_uid"] for held in ended.lines[0]["overridden"]] == ["1.2.3.1"]
    assert stow("rm", "--reason", REASON, STUDY).code == ExitCode.FINDINGS
    with open_database(stow.archive) as database, database.read() as connection:
        assert audit.list_audit(connection) == []


def test_of_many_held_ones_some_are_named(stow: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert HELD_SHOWN_MAX == 20
    monkeypatch.setattr("stowkeeper.app.commands.rm.HELD_SHOWN_MAX", 1)
    for uid in ("1.2.3.1", "1.2.3.2"):
        hold(stow, stow.path_of(uid))
    assert "… and 1 more; --json names all" in stow("rm", "--reason", REASON, "--dry-run", STUDY).err


def test_a_dry_run_says_the_same_and_removes_nothing(stow: CommandLine) -> None:
    ended = stow("rm", "--reason", REASON, "--dry-run", STUDY)
    assert (ended.code, ended.err) == (ExitCode.OK, "")
    assert ended.out.startswith("1.2.10: 2 instances, 3 versions, ")
    assert len(uids(stow)) == 3
    ended = stow("rm", "--reason", REASON, "--dry-run", STUDY, "9.9", "--json")
    assert ended.code == ExitCode.FINDINGS
    assert [(line["uid"], line["versions"], line["removed"], line["dry_run"]) for line in ended.lines] == [
        (STUDY, 3, 0, True),
        ("9.9", 0, 0, True),
    ]


@pytest.mark.slow
def test_damaged_files_stay_and_their_place_is_told(stow: CommandLine) -> None:
    path = stow.path_of("1.2.3.3")
    path.write_bytes(path.read_bytes()[:-1])
    assert stow("verify").code == ExitCode.FINDINGS
    ended = stow("rm", "--reason", REASON, OTHER)
    assert ended.code == ExitCode.OK
    assert f"quarantine/{path.name} was damaged and stays there" in ended.err
    assert (stow.archive / "quarantine" / path.name).is_file()
    assert stow("verify").code == ExitCode.OK
    assert stow("rm", "--reason", REASON, OTHER).code == ExitCode.FINDINGS


@pytest.mark.parametrize("arguments", [(STUDY,), ("--reason", REASON), ("--reason", " ", STUDY)])
def test_a_reason_and_a_uid_are_needed(stow: CommandLine, arguments: tuple[str, ...]) -> None:
    assert stow("rm", *arguments).code == ExitCode.USAGE
    assert len(uids(stow)) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("answer", "arguments", "left"), [("n\n", (), 3), ("y\n", (), 1), ("", ("--yes",), 1)]
)
def test_a_person_at_a_terminal_is_asked(
    stow: CommandLine, answer: str, arguments: tuple[str, ...], left: int
) -> None:
    master, slave = pty.openpty()
    os.write(master, answer.encode())
    ended = subprocess.run(
        program("rm", "--archive", stow.archive, "--reason", REASON, *arguments, STUDY),
        stdin=slave,
        capture_output=True,
        env=environment(),
        timeout=60,
        check=False,
    )
    os.close(slave)
    os.close(master)
    assert (b"Remove this?" in ended.stderr) is bool(answer)
    assert ended.returncode == (ExitCode.INTERRUPTED if answer == "n\n" else ExitCode.OK)
    assert len(uids(stow)) == left


@pytest.mark.slow
@pytest.mark.peer("storescu")
def test_beside_a_server_what_was_removed_can_come_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "archive"
    for number in range(20):
        write_part10(tmp_path / f"in/{number:02}.dcm", make_instance(number, study=STUDY))
    stow = CommandLine(archive, capsys)
    with serving(archive, tmp_path / "server.log") as (server, port):
        for round_number in range(4):
            sent = run_peer(
                "storescu", "-aec", "STOWKEEPER", "+sd", "127.0.0.1", str(port), str(tmp_path / "in")
            )
            assert sent.returncode == 0, sent.stdout
            server.wait_until(lambda: len(uids(stow)) == 20, "before all was listed")
            assert stow("verify").code == ExitCode.OK
            assert stow("rm", "--reason", REASON, STUDY).code == ExitCode.OK
            assert (uids(stow), len(stow.list("removals"))) == (set(), round_number + 1)
    assert stow("verify").code == ExitCode.OK
    assert len(stow.list("receipts")) == 80
