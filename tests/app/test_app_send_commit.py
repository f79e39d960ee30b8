"""`stowkeeper send --commit`, of files and of an archive: nothing but a positive report for all of it is success."""

import json
import signal
from pathlib import Path

import pytest

from stowkeeper.app.commands import run
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.dicom.commitment_information import Reference
from stowkeeper.services.commitment.commitment_values import CommitmentState
from support.catalog_rows import open_database
from support.command_line import CommandLine, Ended, environment, keep, program, serving
from support.commitment_asking import references_to, state_of
from support.commitment_provider import (
    Asked,
    Provider,
    commits_all_on_same,
    event_information,
    providing,
)
from support.instances import make_instance
from support.job_engine_thread import wait_until
from support.processes import free_port, running
from support.send_files import write_file

pytestmark = [pytest.mark.slow, pytest.mark.peer("pynetdicom")]

FILES = 3


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(1, FILES + 1):
        write_file(folder / f"{number}.dcm", number)
    return folder


@pytest.fixture
def stow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    archive = tmp_path / "archive"
    keep(archive, *(make_instance(number) for number in (1, 2, 3)))
    return CommandLine(archive, capsys)


class Sending:
    """Runs `send --commit` on files."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder = folder
        self._capsys = capsys

    def __call__(self, provider: Provider, *arguments: str, commit: bool = True) -> Ended:
        self._capsys.readouterr()
        chosen = ["--commit"] if commit else []
        code = run(["send", *chosen, *arguments, provider.address, str(self._folder)])
        out, err = self._capsys.readouterr()
        return Ended(code=code, out=out, err=err)


@pytest.fixture
def send(folder: Path, capsys: pytest.CaptureFixture[str]) -> Sending:
    return Sending(folder, capsys)


def reports(committed: int) -> object:
    """Return a way to report that the first so many are committed, and the others are not."""

    def report(provider: Provider, asked: Asked) -> None:
        good, bad = asked.references[:committed], asked.references[committed:]
        information = event_information(asked.transaction_uid, good, bad, reason=0x0110)
        provider.report_on(asked.association, information, 2 if bad else 1)

    return report


# Files.


def test_files_are_sent_and_committed(send: Sending) -> None:
    with providing(on_request=commits_all_on_same) as provider:
        ended = send(provider)
        (asked,) = provider.asked
    assert ended.code == ExitCode.OK, ended.err
    assert provider.stored == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    assert asked.references == references_to(1, 2, 3)
    assert ended.out.startswith("3 of 3 instances accepted: ")
    assert ended.out.endswith(" 3 committed.\n")


def test_for_scripts_each_file_has_a_line_of_its_own_on_it(send: Sending) -> None:
    with providing(on_request=reports(2)) as provider:
        ended = send(provider, "--json")
    assert ended.code == ExitCode.FINDINGS
    lines = [line for line in ended.lines if "commitment" in line]
    assert [(line["commitment"], line["reason"]) for line in lines] == [
        ("committed", None),
        ("committed", None),
        ("not committed", "0110H"),
    ]
    assert (ended.summary["accepted"], ended.summary["committed"]) == (3, 2)


def test_for_people_files_that_are_not_committed_are_named(send: Sending) -> None:
    with providing(on_request=reports(2)) as provider:
        ended = send(provider)
    assert ended.code == ExitCode.FINDINGS
    assert "Accepted, and not known to be committed: 1" in ended.out
    assert "3.dcm" in ended.out
    assert "2 committed." in ended.out


def test_without_a_report_in_time_nothing_is_known(send: Sending) -> None:
    with providing() as provider:
        ended = send(provider, "--wait", "0.5", "--json")
    assert ended.code == ExitCode.TRY_AGAIN
    assert ended.summary["committed"] == 0
    assert {line.get("commitment") for line in ended.lines} == {None, "unknown"}


def test_a_report_that_leaves_files_out_is_no_success(send: Sending) -> None:
    def report(provider: Provider, asked: Asked) -> None:
        information = event_information(asked.transaction_uid, asked.references[:2])
        provider.report_on(asked.association, information, 1)

    with providing(on_request=report) as provider:
        ended = send(provider)
    assert ended.code == ExitCode.FINDINGS
    assert "the report does not name it" in ended.out


def test_a_report_on_an_association_of_its_own_is_heard(send: Sending) -> None:
    port = free_port()

    def report(provider: Provider, asked: Asked) -> None:
        provider.report_anew(port, event_information(asked.transaction_uid, asked.references), 1)

    with providing(on_request=report) as provider:
        ended = send(provider, "--listen", f"127.0.0.1:{port}")
    assert ended.code == ExitCode.OK, ended.err


def test_what_was_not_accepted_is_not_asked_for_and_no_success(send: Sending) -> None:
    statuses = {"1.2.3.1": 0xA900, "1.2.3.2": 0xB000, "1.2.3.3": 0x0000}
    with providing(on_request=commits_all_on_same, store=lambda uid: statuses[uid]) as provider:
        ended = send(provider)
        (asked,) = provider.asked
    assert ended.code == ExitCode.FINDINGS
    assert asked.references == references_to(2, 3)
    assert "2 committed." in ended.out


def test_when_nothing_was_accepted_nothing_is_asked(send: Sending) -> None:
    with providing(store=lambda _uid: 0xA900) as provider:
        ended = send(provider)
        assert provider.asked == []
    assert ended.code == ExitCode.FINDINGS


def test_a_peer_without_storage_commitment_is_told_beside_what_it_accepted(send: Sending) -> None:
    with providing(contexts=()) as provider:
        ended = send(provider)
    assert ended.code == ExitCode.UNAVAILABLE
    assert "3 of 3 instances accepted" in ended.out
    assert "The files were accepted, and not committed" in ended.err
    assert "does not accept the Storage Commitment Push Model" in ended.err


def test_a_refusal_is_told_with_its_status(send: Sending) -> None:
    with providing(status=0x0213) as provider:
        ended = send(provider)
    assert ended.code == ExitCode.UNAVAILABLE
    assert "0213H" in ended.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--wait", "5"], "--wait has no effect without --commit"),
        (["--listen", "127.0.0.1:0"], "--listen has no effect without --commit"),
        (["--no-wait"], "--no-wait has no effect without --commit"),
        (["--config", "x.toml"], "--config has no effect without --archive"),
        (["--commit", "--no-wait"], "--no-wait is for instances of an archive"),
    ],
)
def test_options_that_make_no_sense_for_files_are_refused(
    send: Sending, arguments: list[str], words: str
) -> None:
    with providing() as provider:
        ended = send(provider, *arguments, commit=False)
        assert provider.stored == []
    assert ended.code == ExitCode.USAGE
    assert words in ended.err


# An archive.


def test_instances_of_an_archive_are_sent_and_committed(stow: CommandLine) -> None:
    with providing(on_request=commits_all_on_same) as provider:
        ended = stow("send", provider.address, "1.2.10", "--commit")
        assert sorted(provider.stored) == ["1.2.3.1", "1.2.3.2", "1.2.3.3"]
    assert ended.code == ExitCode.OK, ended.err
    assert "3 of 3 instances stored." in ended.out
    assert "3 of 3 instances committed" in ended.out


def test_instances_of_an_archive_go_to_a_peer_by_its_name(stow: CommandLine) -> None:
    with providing() as provider:
        assert stow("peers add", "main", provider.address).code == ExitCode.OK
        ended = stow("send", "main", "1.2.3.1")
        assert provider.stored == ["1.2.3.1"]
    assert ended.out == "1 of 1 instance stored.\n"
    assert ended.code == ExitCode.OK, ended.err
    unknown = stow("send", "other", "1.2.3.1")
    assert unknown.code == ExitCode.NO_INPUT
    assert "There is no peer 'other'" in unknown.err


def test_without_commit_they_are_sent_alone(stow: CommandLine) -> None:
    with providing() as provider:
        ended = stow("send", provider.address, "1.2.3.2", "--json")
        assert provider.asked == []
    assert ended.code == ExitCode.OK, ended.err
    assert ended.lines[0]["outcome"] == "stored"
    assert ended.summary["stored"] == 1


def test_what_the_peer_refused_is_no_success_and_the_rest_is_committed(stow: CommandLine) -> None:
    def store(uid: str) -> int:
        return 0xA900 if uid == "1.2.3.2" else 0x0000

    with providing(on_request=commits_all_on_same, store=store) as provider:
        ended = stow("send", provider.address, "1.2.10", "--commit", "--json")
    assert ended.code == ExitCode.FINDINGS
    outcomes = {
        line["sop_instance_uid"]: line["outcome"] for line in ended.lines if "sop_instance_uid" in line
    }
    assert outcomes == {"1.2.3.1": "stored", "1.2.3.2": "failed", "1.2.3.3": "stored"}
    assert (ended.summary["stored"], ended.summary["failed"], ended.summary["committed"]) == (2, 1, 2)


def test_without_a_report_it_is_not_known_and_the_rows_stay(stow: CommandLine) -> None:
    with providing() as provider:
        ended = stow("send", provider.address, "1.2.10", "--commit", "--wait", "0.6")
        (asked,) = provider.asked
    assert ended.code == ExitCode.TRY_AGAIN
    with open_database(stow.archive) as database:
        assert state_of(database, asked.transaction_uid).state is CommitmentState.ACCEPTED


def test_a_peer_that_is_not_there_is_tried_again_later(stow: CommandLine) -> None:
    ended = stow("send", "PACS@127.0.0.1:9", "1.2.10", "--commit", "--wait", "0.6")
    assert ended.code == ExitCode.TRY_AGAIN
    assert "0 of 3 instances stored. 127.0.0.1:9 cannot be reached" in ended.out
    assert "The next server on this archive goes on with it" in ended.err


def test_without_waiting_it_is_written_down(stow: CommandLine) -> None:
    with providing() as provider:
        ended = stow("send", provider.address, "1.2.10", "--commit", "--no-wait")
        assert provider.stored == []
    assert ended.code == ExitCode.OK
    (job,) = stow("jobs ls", "--json").lines
    assert (job["kind"], job["state"], job["items_total"]) == ("store", "pending", 3)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["1.2.3.1", "--window", "2"], ExitCode.USAGE, "--window has no effect with --archive"),
        (["1.2.3.1", "--dry-run"], ExitCode.USAGE, "--dry-run has no effect with --archive"),
        (["1.2.3.1", "--tls-any-certificate"], ExitCode.USAGE, "peers add"),
        (["1.2.77"], ExitCode.NO_INPUT, "Nothing is kept here of 1.2.77"),
    ],
)
def test_what_makes_no_sense_for_an_archive_is_refused(
    stow: CommandLine, arguments: list[str], code: ExitCode, words: str
) -> None:
    ended = stow("send", "PACS@127.0.0.1:9", *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err
    assert stow("jobs ls", "--json").lines == []


@pytest.mark.slow
def test_killed_in_the_middle_a_server_goes_on_to_the_report(stow: CommandLine, tmp_path: Path) -> None:
    def report(provider: Provider, asked: Asked) -> None:
        if is_killed:
            commits_all_on_same(provider, asked)

    def store(uid: str) -> int:
        if uid == "1.2.3.2" and not is_killed:
            is_killed.append(uid)
            command.process.send_signal(signal.SIGKILL)
            command.process.wait(30)
        return 0

    is_killed: list[str] = []
    with providing(on_request=report, store=store) as provider:
        assert stow("peers add", "archive", provider.address).code == ExitCode.OK
        argv = program("send", "--archive", stow.archive, provider.address, "1.2.10", "--commit")
        with running("send", argv, log=tmp_path / "send.log", environment=environment()) as command:
            wait_until(lambda: is_killed, "the kill")
        with serving(stow.archive, tmp_path / "serve.log"):
            asked = provider.wait_for_requests()
            assert provider.wait_for_statuses() == [0]
    assert [set(one.references) for one in asked] == [set[Reference](references_to(1, 2, 3))]
    lines = [json.loads(line) for line in stow("commitments ls", "--json").out.splitlines()]
    assert [line["state"] for line in lines] == ["committed"]


@pytest.mark.slow
def test_the_products_own_server_commits_what_it_was_sent(
    stow: CommandLine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep(tmp_path / "other", make_instance(50, study="1.2.50", series="1.2.50.1"))
    other = CommandLine(tmp_path / "other", capsys)
    with (
        serving(stow.archive, tmp_path / "ours.log") as (_, our_port),
        serving(other.archive, tmp_path / "other.log") as (_, other_port),
    ):
        assert stow("peers add", "other", f"STOWKEEPER@127.0.0.1:{other_port}").code == ExitCode.OK
        assert other("peers add", "us", f"STOWKEEPER@127.0.0.1:{our_port}").code == ExitCode.OK
        # Its server knows us within a second or two; until then it refuses who asks.
        wait_until(
            lambda: "0 of 1 instance committed" in stow("commit", "other", "1.2.3.1").out,
            "the word that it does not have it",
        )
        ended = stow("send", f"STOWKEEPER@127.0.0.1:{other_port}", "1.2.10", "--commit")
        assert ended.code == ExitCode.OK, ended.err + ended.out
    (theirs, *_) = other("commitments ls", "--role", "provider", "--json").lines
    assert (theirs["state"], theirs["instances"], theirs["failures"]) == ("reported", 3, 0)
    (ours, *_) = stow("commitments ls", "--role", "user", "--json").lines
    assert (ours["state"], ours["transaction_uid"]) == ("committed", theirs["transaction_uid"])
    shown = stow("commitments show", ours["transaction_uid"])
    assert "safe to delete here: 3" in shown.out
