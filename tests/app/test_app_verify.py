"""`verify` ends with 1 and names what is wrong, for people and for scripts; and it runs beside a server."""

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from stowkeeper.app.commands.byte_progress import RateLimit, human_rate, human_size
from stowkeeper.app.exit_codes import ExitCode
from support.command_line import CommandLine, environment, keep, program, serving, write_part10
from support.instances import make_instance
from support.peers import run_peer

STUDY, OTHER = "1.2.10", "1.2.20"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive with three instances in two studies."""
    archive = tmp_path_factory.mktemp("template") / "archive"
    keep(
        archive,
        make_instance(1, study=STUDY, series="1.2.10.1"),
        make_instance(2, study=STUDY, series="1.2.10.2"),
        make_instance(3, study=OTHER, series="1.2.20.1"),
    )
    return archive


@pytest.fixture
def stow(template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Commands on a copy of that archive."""
    return CommandLine(Path(shutil.copytree(template, tmp_path / "archive")), capsys)


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_whole_archive_is_told_to_be_whole(stow: CommandLine) -> None:
    ended = stow("verify")
    assert (ended.code, ended.err) == (ExitCode.OK, "")
    assert ended.out.startswith("3 files read, ")
    assert ended.out.endswith(": all whole.\n")
    numbers = stow("verify", "--json").summary
    assert (numbers["files"], numbers["whole"], numbers["damaged"]) == (3, 3, 0)
    assert numbers["bytes"] == sum(row["size"] for row in stow.list("instances"))


def test_what_is_wrong_is_named_with_path_and_uid_and_what_it_is(stow: CommandLine) -> None:
    paths = {number: stow.path_of(f"1.2.3.{number}") for number in (1, 2, 3)}
    spoil(paths[1])
    paths[2].unlink()
    stray = stow.archive / "objects/1.2.20/stray"
    stray.write_text("none of ours")
    ended = stow("verify", "--report-only")
    assert ended.code == ExitCode.FINDINGS
    *named, summary = ended.out.splitlines()
    assert sorted(line.split(": ")[0] for line in named) == ["damaged", "missing", "unlisted"]
    for word, path, uid in (("damaged", paths[1], "1.2.3.1"), ("missing", paths[2], "1.2.3.2")):
        (line,) = [line for line in named if line.startswith(word)]
        assert str(path.relative_to(stow.archive)) in line
        assert f"(SOP Instance {uid})" in line
    assert "objects/1.2.20/stray" in ended.out
    assert "1 whole; 1 damaged, 1 missing, 1 unlisted." in summary
    assert stow("verify", "--report-only").out.splitlines()[:-1] == named


def test_the_same_as_json_lines(stow: CommandLine) -> None:
    path = stow.path_of("1.2.3.1")
    spoil(path)
    ended = stow("verify", "--json")
    assert ended.code == ExitCode.FINDINGS
    one, _ = ended.lines
    relative = str(path.relative_to(stow.archive))
    assert (one["fault"], one["path"], one["sop_instance_uid"]) == ("damaged", relative, "1.2.3.1")
    assert one["moved_to"] == f"quarantine/{path.name}"
    assert (stow.archive / one["moved_to"]).is_file()
    assert ended.summary["damaged"] == 1
    again = stow("verify", "--json")
    assert (again.code, again.lines[0]["moved_to"]) == (ExitCode.FINDINGS, None)


@pytest.mark.slow
def test_a_study_a_series_or_a_time_can_be_verified_alone(stow: CommandLine) -> None:
    for number in (1, 2, 3):
        spoil(stow.path_of(f"1.2.3.{number}"))
    for arguments, count in (
        (("--study", STUDY), 2),
        (("--series", "1.2.10.2"), 1),
        (("--study", STUDY, "--series", "1.2.10.1"), 1),
        (("--since", "2000-01-01"), 3),
        (("--since", "1h"), 3),
    ):
        assert stow("verify", "--report-only", "--json", *arguments).summary["damaged"] == count
    assert stow("verify", "--since", "2999").code == ExitCode.OK


@pytest.mark.parametrize("option", ["--study", "--series"])
def test_a_uid_that_is_not_there_is_no_success(stow: CommandLine, option: str) -> None:
    ended = stow("verify", option, "9.9")
    assert (ended.code, ended.out) == (ExitCode.FINDINGS, "")
    assert "Nothing of 9.9 is in the archive" in ended.err


@pytest.mark.parametrize(
    "arguments", [("--since", "yesterday"), ("--rate-limit", "fast"), ("--rate-limit", "0")]
)
def test_wrong_values_are_wrong_usage(stow: CommandLine, arguments: tuple[str, str]) -> None:
    ended = stow("verify", *arguments)
    assert ended.code == ExitCode.USAGE
    assert arguments[0] in ended.err


def test_where_no_archive_is_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ended = CommandLine(tmp_path / "none", capsys)("verify")
    assert ended.code == ExitCode.NO_INPUT
    assert "there is no archive in" in ended.err
    assert not (tmp_path / "none").exists()


def test_what_was_left_half_done_is_told(stow: CommandLine) -> None:
    from stowkeeper.archive import catalog
    from support.catalog_rows import open_database

    with open_database(stow.archive) as database, database.write() as transaction:
        catalog.mark_removing(transaction, [1], reason="wrong patient")
    assert "1 left half done by an earlier process, and left so." in stow("verify", "--report-only").out
    assert "1 left half done by an earlier process, finished now." in stow("verify").out


# The rate.


def test_a_rate_limit_holds_back_who_is_faster() -> None:
    now = [100.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    limit = RateLimit(1000, clock=lambda: now[0], sleep=sleep)
    for _ in range(10):
        limit.wait(500)
    assert now[0] == pytest.approx(105)
    now[0] += 60  # the disk stood still; that is not made up for
    limit.wait(500)
    limit.wait(500)
    assert now[0] == pytest.approx(166)


def test_a_limited_verification_reads_the_same(stow: CommandLine) -> None:
    assert stow("verify", "--rate-limit", "1 GB").code == ExitCode.OK


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1234567, "1.2 MB"),
        (5e12, "5.0 TB"),
        (5e15, "5000.0 TB"),
    ],
)
def test_sizes_are_written_for_people(count: float, words: str) -> None:
    assert human_size(count) == words


def test_a_rate_of_no_time_is_no_error() -> None:
    assert human_rate(1000, 0.0) == "1.0 kB in 0.0 s, 1.0 MB/s"


# As a program.


@pytest.mark.slow
def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines_alone(stow: CommandLine) -> None:
    master, slave = pty.openpty()
    ended = subprocess.run(
        program("verify", "--archive", stow.archive, "--rate-limit", "20kB"),
        stdout=subprocess.PIPE,
        stderr=slave,
        env={**environment(), "TERM": "xterm", "COLUMNS": "120"},
        timeout=60,
        check=False,
    )
    os.close(slave)
    shown = os.read(master, 65536).decode(errors="replace")
    os.close(master)
    assert ended.returncode == ExitCode.OK
    assert ended.stdout.startswith(b"3 files read")
    assert "Verifying" in shown
    assert "B/s" in shown


@pytest.mark.slow
@pytest.mark.peer("storescu")
def test_beside_a_server_nothing_on_its_way_is_called_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive = tmp_path / "archive"
    for number in range(600):
        write_part10(
            tmp_path / f"in/{number % 3}/{number}.dcm", make_instance(number, study=f"1.2.{number % 7}")
        )
    with serving(archive, tmp_path / "server.log") as (_, port):
        senders = [
            subprocess.Popen(
                [
                    "storescu",
                    "-aec",
                    "STOWKEEPER",
                    "+sd",
                    "127.0.0.1",
                    str(port),
                    str(tmp_path / f"in/{part}"),
                ],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**environment(), "TCP_NODELAY": "1"},
            )
            for part in range(3)
        ]
        stow = CommandLine(archive, capsys)
        looks = 0
        while any(sender.poll() is None for sender in senders) or not looks:
            ended = stow("verify", "--json")
            assert (ended.code, ended.err) == (ExitCode.OK, ""), ended.out
            looks += 1
        assert [sender.returncode for sender in senders] == [0, 0, 0]
        assert (
            run_peer(
                "storescu", "-aec", "STOWKEEPER", "127.0.0.1", str(port), str(tmp_path / "in/0/0.dcm")
            ).returncode
            == 0
        )
    assert stow("verify", "--json").summary["whole"] == 600
    assert looks
