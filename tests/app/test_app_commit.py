"""`stowkeeper commit`: what it asks, what it says of the answer, and that only a report of everything is success."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.dicom.commitment_information import COMMITMENT_TRANSFER_SYNTAXES, decode_action_information
from stowkeeper.dicom.uid import STORAGE_COMMITMENT_PUSH_MODEL
from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment import asking_limits
from stowkeeper.services.commitment.commitment_values import CommitmentState
from stowkeeper.upperlayer.negotiation import AcceptancePolicy
from support.catalog_rows import open_database
from support.command_line import CommandLine, Ended, environment, keep, program, serving
from support.commitment_asking import references_to, state_of
from support.commitment_provider import Asked, Provider, commits_all_on_same, event_information, providing
from support.instances import make_instance
from support.job_engine_thread import job_of, wait_until
from support.processes import Program, free_port, running
from support.scripted_acceptor import Act, Script, scripted_acceptor

pytestmark = [pytest.mark.slow, pytest.mark.peer("pynetdicom")]

STUDY = "1.2.10"


@pytest.fixture
def stow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Return the commands of an archive with three instances of a study, and one of another."""
    archive = tmp_path / "archive"
    keep(
        archive,
        *(make_instance(number) for number in (1, 2, 3)),
        make_instance(9, study="1.2.99", series="1.2.99.1"),
    )
    return CommandLine(archive, capsys)


def asked_as(ended: Ended) -> str:
    """Return the Transaction UID that was said at the beginning."""
    return ended.err.splitlines()[0].rpartition(" as ")[2]


def now(stow: CommandLine, uid: str) -> Any:
    with open_database(stow.archive) as database:
        return state_of(database, uid)


def test_a_study_is_committed_by_a_report_on_the_same_association(stow: CommandLine) -> None:
    with providing(on_request=commits_all_on_same) as provider:
        ended = stow("commit", provider.address, "--study", STUDY)
        (asked,) = provider.asked
        assert provider.wait_for_statuses() == [0]
    assert ended.code == ExitCode.OK, ended.err
    uid = asked_as(ended)
    assert ended.out == f"{uid}: PACS: 3 of 3 instances committed\n"
    assert asked.transaction_uid == uid
    assert asked.references == references_to(1, 2, 3)
    assert now(stow, uid).state is CommitmentState.COMMITTED


def test_uids_of_all_levels_are_asked_for_once(stow: CommandLine) -> None:
    with providing(on_request=commits_all_on_same) as provider:
        ended = stow("commit", provider.address, "1.2.3.9", "1.2.10.1", "1.2.3.1", "--json")
    assert ended.code == ExitCode.OK, ended.err
    (line,) = ended.lines
    assert line["state"] == "committed"
    assert [one["sop_instance_uid"] for one in line["instances_named"]] == [
        "1.2.3.9",
        "1.2.3.1",
        "1.2.3.2",
        "1.2.3.3",
    ]
    assert all(one["safe_to_delete"] for one in line["instances_named"])


def test_a_report_on_an_association_of_its_own_is_heard_where_it_listens(stow: CommandLine) -> None:
    port = free_port()

    def report(provider: Provider, asked: Asked) -> None:
        foreign = event_information(asked.transaction_uid, asked.references)
        provider.report_anew(port, foreign, 1, calling="STRANGER")
        provider.report_anew(port, event_information(asked.transaction_uid, asked.references), 1)

    with providing(on_request=report) as provider:
        ended = stow("commit", provider.address, "--study", STUDY, "--listen", f"127.0.0.1:{port}")
        assert provider.wait_for_statuses(2) == [0x0124, 0x0000]
    assert ended.code == ExitCode.OK, ended.err


def test_what_the_peer_does_not_commit_is_named(stow: CommandLine) -> None:
    def report(provider: Provider, asked: Asked) -> None:
        one, two, _ = asked.references
        provider.report_on(asked.association, event_information(asked.transaction_uid, [one], [two]), 2)

    with providing(on_request=report) as provider:
        ended = stow("commit", provider.address, "--study", STUDY)
    assert ended.code == ExitCode.FINDINGS
    assert "1 of 3 instances committed" in ended.out
    assert "  1.2.3.2: 0112H the peer says 0112H Failed: no such SOP instance" in ended.out
    assert "  1.2.3.3: the report does not name it" in ended.out


def test_without_a_report_it_is_not_known_and_goes_on(stow: CommandLine) -> None:
    with providing() as provider:
        ended = stow("commit", provider.address, "--study", STUDY, "--wait", "0.6")
    assert ended.code == ExitCode.TRY_AGAIN
    assert "the peer took the request, and has not reported yet" in ended.out
    assert "The next server on this archive goes on with it" in ended.err
    assert now(stow, asked_as(ended)).state is CommitmentState.ACCEPTED


def test_a_peer_that_is_not_there_is_not_known_and_goes_on(stow: CommandLine) -> None:
    ended = stow("commit", "PACS@127.0.0.1:9", "1.2.3.1", "--wait", "0.6")
    assert ended.code == ExitCode.TRY_AGAIN
    assert "127.0.0.1:9 cannot be reached" in ended.out
    assert now(stow, asked_as(ended)).state is CommitmentState.REQUESTED


def test_a_refusal_is_told_with_the_peers_status(stow: CommandLine) -> None:
    with providing(status=0x0124) as provider:
        ended = stow("commit", provider.address, "1.2.3.1")
    assert ended.code == ExitCode.FINDINGS
    assert "0124H" in ended.out
    assert now(stow, asked_as(ended)).state is CommitmentState.REFUSED


def test_without_waiting_it_is_only_written_down(stow: CommandLine) -> None:
    with providing() as provider:
        ended = stow("commit", provider.address, "1.2.3.1", "--no-wait")
        assert provider.asked == []
    assert (ended.code, ended.out) == (ExitCode.OK, "")
    assert now(stow, asked_as(ended)).state is CommitmentState.REQUESTED
    with providing(on_request=commits_all_on_same, ae_title="OTHER") as other:
        # Whoever runs jobs next, a command too, carries out what was left.
        assert stow("commit", other.address, "1.2.3.2").code == ExitCode.OK


def test_a_known_peer_goes_by_its_name_and_its_own_settings(stow: CommandLine) -> None:
    with providing(on_request=commits_all_on_same) as provider:
        added = stow("peers add", "archive", provider.address, "--own-ae-title", "US")
        assert added.code == ExitCode.OK, added.err
        by_name = stow("commit", "archive", "1.2.3.1")
        by_place = stow("commit", provider.address, "1.2.3.2")
        other = stow("commit", "archive", "1.2.3.3", "--calling-ae-title", "WE")
        callers = [str(asked.association.requestor.ae_title) for asked in provider.asked]
    assert [one.code for one in (by_name, by_place, other)] == [ExitCode.OK] * 3
    assert [now(stow, asked_as(one)).peer for one in (by_name, by_place)] == ["archive"] * 2
    assert callers == ["US", "US", "WE"]


def test_more_than_fits_one_request_makes_several(stow: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    from stowkeeper.app.commands import commit

    monkeypatch.setattr(commit, "REFERENCES_PER_REQUEST_MAX", 2)
    assert asking_limits.REFERENCES_PER_REQUEST_MAX > 2
    with providing(on_request=commits_all_on_same) as provider:
        ended = stow("commit", provider.address, "--study", STUDY, "--json")
        assert [len(asked.references) for asked in provider.wait_for_requests(2)] == [2, 1]
    assert ended.code == ExitCode.OK, ended.err
    assert [line["instances"] for line in ended.lines] == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["PACS@127.0.0.1:9"], ExitCode.USAGE, "Say what is to be committed"),
        (["PACS@127.0.0.1", "1.2.3.1"], ExitCode.USAGE, "AET@HOST:PORT"),
        (["nobody", "1.2.3.1"], ExitCode.NO_INPUT, "There is no peer 'nobody'"),
        (["PACS@127.0.0.1:9", "1.2.3.1", "1.2.3.77"], ExitCode.NO_INPUT, "Nothing is kept here of 1.2.3.77"),
        (["PACS@127.0.0.1:9", "1.2.3.1", "--listen", "4711"], ExitCode.USAGE, "HOST:PORT"),
        (["PACS@127.0.0.1:9", "1.2.3.1", "--calling-ae-title", "\\"], ExitCode.USAGE, "no AE title"),
    ],
)
def test_what_cannot_be_asked_is_said_and_nothing_written(
    stow: CommandLine, arguments: list[str], code: ExitCode, words: str
) -> None:
    ended = stow("commit", *arguments)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err
    assert stow("commitments ls", "--json").lines == []


def test_an_address_that_is_taken_is_said_and_nothing_written(stow: CommandLine) -> None:
    with providing() as provider:
        ended = stow("commit", provider.address, "1.2.3.1", "--listen", f"127.0.0.1:{provider.port}")
        assert provider.asked == []
    assert ended.code == ExitCode.UNAVAILABLE
    assert stow("commitments ls", "--json").lines == []


# With a server, and through the death of who asks.


@pytest.mark.slow
def test_beside_a_server_it_submits_and_the_server_asks_and_hears(stow: CommandLine, tmp_path: Path) -> None:
    def report(provider: Provider, asked: Asked) -> None:
        provider.report_anew(port, event_information(asked.transaction_uid, asked.references), 1)

    with (
        serving(stow.archive, tmp_path / "serve.log") as (server, port),
        providing(on_request=report) as provider,
    ):
        assert stow("peers add", "archive", provider.address).code == ExitCode.OK
        ended = stow("commit", "archive", "--study", STUDY, "--listen", f"127.0.0.1:{free_port()}")
        assert provider.wait_for_statuses() == [0]
        assert "what=requested" in server.log_text()
    assert ended.code == ExitCode.OK, ended.err
    assert "--listen is not used" in ended.err


@pytest.mark.slow
def test_beside_a_server_the_peer_is_called_by_the_title_of_the_server(
    stow: CommandLine, tmp_path: Path
) -> None:
    """The server was started under another title than the settings say to the command."""
    with (
        serving(stow.archive, tmp_path / "serve.log", "--ae-title", "SECOND"),
        providing(on_request=commits_all_on_same) as provider,
    ):
        ended = stow("commit", provider.address, "1.2.3.1")
        (asked,) = provider.asked
    assert ended.code == ExitCode.OK, ended.err
    assert str(asked.association.requestor.ae_title) == "SECOND"
    assert now(stow, asked_as(ended)).own_ae_title == "SECOND"


@contextmanager
def committing(stow: CommandLine, log: Path, *arguments: str) -> Iterator[Program]:
    """Run the command as a process of its own."""
    argv = program("commit", "--archive", stow.archive, *arguments)
    with running("commit", argv, log=log, environment=environment(), from_scratch=False) as started:
        yield started


def kill(started: Program) -> None:
    started.process.send_signal(signal.SIGKILL)
    started.process.wait(30)


@pytest.mark.slow
def test_killed_before_the_answer_the_same_request_goes_out_again(stow: CommandLine, tmp_path: Path) -> None:
    answers: list[Any] = [Act.SILENCE, 0]
    script = Script(
        answer=lambda _received: answers.pop(0),
        policy=AcceptancePolicy(
            accepts_abstract_syntax=lambda uid: uid == STORAGE_COMMITMENT_PUSH_MODEL,
            transfer_syntaxes=COMMITMENT_TRANSFER_SYNTAXES,
        ),
    )
    with scripted_acceptor(script) as acceptor:
        address = f"PACS@127.0.0.1:{acceptor.port}"
        with committing(stow, tmp_path / "commit.log", address, "--study", STUDY) as started:
            wait_until(lambda: len(acceptor.received) == 1, "the request")
            kill(started)
        with serving(stow.archive, tmp_path / "serve.log"):
            wait_until(lambda: len(acceptor.received) == 2, "the request again")
            (line,) = stow("commitments ls", "--json").lines
            wait_until(lambda: now(stow, line["transaction_uid"]).state is CommitmentState.ACCEPTED)
        uids = {
            decode_action_information(one.data_set, one.context.transfer_syntax).transaction_uid
            for one in acceptor.received
        }
    assert uids == {line["transaction_uid"]}


@pytest.mark.slow
def test_killed_after_the_answer_the_report_is_taken_by_the_next_server(
    stow: CommandLine, tmp_path: Path
) -> None:
    with providing() as provider:
        assert stow("peers add", "archive", provider.address).code == ExitCode.OK
        with committing(stow, tmp_path / "commit.log", "archive", "--study", STUDY) as started:
            (asked,) = provider.wait_for_requests()
            wait_until(lambda: now(stow, asked.transaction_uid).state is CommitmentState.ACCEPTED)
            kill(started)
        with serving(stow.archive, tmp_path / "serve.log") as (_, port):
            information = event_information(asked.transaction_uid, asked.references)
            assert provider.report_anew(port, information, 1) == 0
            assert provider.report_anew(port, information, 1) == 0
            job_id = now(stow, asked.transaction_uid).job_id
            wait_until(
                lambda: stow("jobs show", job_id, "--json").lines[0]["state"] == "success",
                "the end of the job",
            )
        assert len(provider.asked) == 1
    assert now(stow, asked.transaction_uid).state is CommitmentState.COMMITTED
    shown = stow("commitments show", asked.transaction_uid)
    assert "safe to delete here: 3" in shown.out


@pytest.mark.slow
def test_interrupted_it_ends_at_once_and_forgets_nothing(stow: CommandLine, tmp_path: Path) -> None:
    with providing() as provider:
        log = tmp_path / "commit.log"
        with committing(stow, log, provider.address, "--study", STUDY) as started:
            (asked,) = provider.wait_for_requests()
            wait_until(lambda: now(stow, asked.transaction_uid).state is CommitmentState.ACCEPTED)
            started.process.send_signal(signal.SIGINT)
            assert started.process.wait(30) == ExitCode.INTERRUPTED
        assert "Interrupted." in log.read_text(encoding="utf-8")
        assert "Traceback" not in log.read_text(encoding="utf-8")
        with open_database(stow.archive) as database:
            job = job_of(database, now(stow, asked.transaction_uid).job_id)
    assert (job.state, job.owner) == (JobState.PENDING, "")
