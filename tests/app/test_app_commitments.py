"""`stowkeeper commitments`: both roles are listed, shown and resent, beside a server and without."""

from pathlib import Path

import pytest

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.dicom.commitment_information import ActionInformation
from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.acceptance import Asker, take
from stowkeeper.services.commitment.commitment_values import (
    WAY_NEW_ASSOCIATION,
    Commitment,
    CommitmentState,
    InstanceOutcome,
    Outcome,
)
from stowkeeper.services.commitment.reports_received import take_report_on_request
from stowkeeper.services.peers import Peer
from support.catalog_rows import open_database
from support.command_line import CommandLine, keep
from support.commitment_asking import PEER, ask_for, event, references_to, state_of
from support.instances import make_instance
from support.job_engine_thread import job_of

OTHER = Peer(name="other", ae_title="OTHER", host="127.0.0.1", port=9)


@pytest.fixture
def stow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    archive = tmp_path / "archive"
    keep(archive, *(make_instance(number) for number in (1, 2, 3)))
    return CommandLine(archive, capsys)


def ask(stow: CommandLine, *numbers: int, peer: Peer = PEER) -> Commitment:
    with open_database(stow.archive) as database:
        return ask_for(database, references_to(*numbers), peer=peer)


def report(stow: CommandLine, commitment: Commitment, committed: list[int], failed: list[int]) -> None:
    information = event(commitment.transaction_uid, references_to(*committed), references_to(*failed))
    with open_database(stow.archive) as database:
        assert take_report_on_request(database, PEER, 2 if failed else 1, information) == (0, "")


def asked_of_us(stow: CommandLine, uid: str, *numbers: int, state: str = "undelivered") -> Commitment:
    """Write a transaction that a peer asked of us, checked and brought into a state."""
    information = ActionInformation(uid, tuple(references_to(*numbers)))
    asker = Asker(way="DIMSE", peer="ct", peer_ae_title="CT", own_ae_title="US", peer_address="192.0.2.1")
    with open_database(stow.archive) as database:
        with database.write() as transaction:
            _, commitment = take(transaction, asker, information)
        with database.write() as transaction:
            key = commitment.commitment_key
            rows.set_outcomes(
                transaction,
                key,
                [Outcome(position=0, outcome=InstanceOutcome.FAILED, reason=0x0112, words="gone")],
            )
            rows.change(
                transaction,
                key,
                state=CommitmentState(state),
                failures=1,
                checked_at=transaction.at,
                error="dead",
            )
            rows.note_report(
                transaction,
                key,
                at=transaction.at,
                way=WAY_NEW_ASSOCIATION,
                status=None,
                words="dead",
                seconds=1.0026989000034519,
            )
            transaction.connection.exec_driver_sql(
                "UPDATE jobs SET state = 'failure' WHERE kind = 'commitment'"
            )
    return commitment


def listed(stow: CommandLine, *arguments: str) -> list[str]:
    ended = stow("commitments ls", "--json", *arguments)
    assert ended.code == ExitCode.OK, ended.err
    return [line["transaction_uid"] for line in ended.lines]


@pytest.mark.slow
def test_both_roles_are_listed_the_newest_first_and_filtered(stow: CommandLine) -> None:
    one = ask(stow, 1)
    two = ask(stow, 2, peer=OTHER)
    theirs = asked_of_us(stow, "1.2.777", 3)
    report(stow, one, [1], [])
    uids = [theirs.transaction_uid, two.transaction_uid, one.transaction_uid]
    assert listed(stow) == uids
    assert listed(stow, "--role", "user") == uids[1:]
    assert listed(stow, "--role", "provider") == uids[:1]
    assert listed(stow, "--state", "committed", "--state", "undelivered") == [uids[0], uids[2]]
    assert listed(stow, "--peer", "other") == [uids[1]]
    assert listed(stow, "--since", "2999") == []
    assert listed(stow, "--until", "2999") == uids
    assert listed(stow, "--since", "1h") == uids


@pytest.mark.slow
def test_a_long_list_goes_on_behind_a_number(stow: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    from stowkeeper.app.commands import commitments

    monkeypatch.setattr(commitments, "COMMITMENTS_PER_PAGE", 2)  # so that a page is read after the other
    uids = [ask(stow, 1).transaction_uid for _ in range(5)][::-1]
    assert listed(stow, "--limit", "50") == uids
    first = stow("commitments ls", "--json", "--limit", "3").lines
    assert [line["transaction_uid"] for line in first] == uids[:3]
    assert listed(stow, "--limit", "3", "--before", str(first[-1]["number"])) == uids[3:]


def test_the_table_is_for_people(stow: CommandLine) -> None:
    assert stow("commitments ls").err == "There are no such storage commitments.\n"
    commitment = ask(stow, 1, 2)
    report(stow, commitment, [1], [2])
    head, line = stow("commitments ls").out.splitlines()
    assert head.split()[:5] == ["No.", "Role", "Peer", "State", "Inst."]
    assert line.split()[:6] == ["1", "user", "pacs", "partial", "2", "1"]
    assert line.endswith(commitment.transaction_uid)


def test_what_we_asked_is_shown_with_what_may_be_deleted(stow: CommandLine) -> None:
    commitment = ask(stow, 1, 2)
    report(stow, commitment, [1, 7], [2])
    shown = stow("commitments show", commitment.transaction_uid)
    assert shown.code == ExitCode.OK
    assert "state: partial: some of it is committed" in shown.out
    assert "  1.2.3.2: 0112H the peer says 0112H Failed: no such SOP instance" in shown.out
    assert "reported though nobody asked: 1" in shown.out
    assert "safe to delete here: 1" in shown.out
    assert [line for line in shown.out.splitlines() if line.startswith("  ")] == [
        "  1.2.3.2: 0112H the peer says 0112H Failed: no such SOP instance",
        "  1.2.3.1: committed, safe to delete here",
        "  1.2.3.7: reported though nobody asked for it",
    ]
    assert "received 0000H" in shown.out
    (line,) = stow("commitments show", commitment.transaction_uid, "--json").lines
    assert [(one["outcome"], one.get("safe_to_delete")) for one in line["instances_named"]] == [
        ("committed", True),
        ("failed", False),
        ("unasked", None),
    ]
    assert line["instances_named"][1]["reason"] == "0112H"
    assert line["reports"][0]["status"] == 0


@pytest.mark.slow
def test_what_is_committed_and_not_safe_says_why(stow: CommandLine) -> None:
    commitment = ask(stow, 1, 2)
    assert "  1.2.3.1: open\n" in stow("commitments show", commitment.transaction_uid).out
    report(stow, commitment, [1, 2], [])
    keep(stow.archive, make_instance(1, content=1))
    shown = stow("commitments show", commitment.transaction_uid).out
    assert "  1.2.3.1: committed, and not safe to delete here: another version of it differs\n" in shown
    assert "  1.2.3.2: committed, safe to delete here\n" in shown


def test_many_instances_are_not_all_shown(stow: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    from stowkeeper.app.commands import commitment_lines

    monkeypatch.setattr(commitment_lines, "INSTANCES_SHOWN_MAX", 2)
    commitment = ask(stow, 1, 2, 3)
    shown = stow("commitments show", commitment.transaction_uid)
    assert [line for line in shown.out.splitlines() if line.startswith("  ")] == [
        "  1.2.3.1: open",
        "  1.2.3.2: open",
    ]
    assert shown.err == "  … and 1 more; --json names all\n"


def test_what_was_asked_of_us_is_shown_with_its_reports(stow: CommandLine) -> None:
    asked_of_us(stow, "1.2.777", 3)
    shown = stow("commitments show", "1.2.777")
    assert "state: undelivered: the report could not be delivered" in shown.out
    assert "  1.2.3.3: 0112H gone" in shown.out
    assert "new association no answer: dead" in shown.out
    assert "safe to delete" not in shown.out
    (line,) = stow("commitments show", "1.2.777", "--json").lines
    assert line["reports"][0]["seconds"] == 1.003


def test_what_is_not_there_is_said(stow: CommandLine) -> None:
    for command in ("show", "resend"):
        ended = stow(f"commitments {command}", "1.2.3.4.5")
        assert (ended.code, ended.out) == (ExitCode.NO_INPUT, "")
        assert "There is no storage commitment 1.2.3.4.5" in ended.err
    ask(stow, 1)
    uid = listed(stow)[0]
    assert stow("commitments show", uid, "--role", "provider").code == ExitCode.NO_INPUT


@pytest.mark.slow
def test_what_was_not_committed_is_asked_for_again_under_a_new_uid(stow: CommandLine) -> None:
    commitment = ask(stow, 1, 2, 3)
    report(stow, commitment, [1], [2])
    ended = stow("commitments resend", commitment.transaction_uid)
    assert ended.code == ExitCode.OK, ended.err
    new, old = listed(stow)
    assert old == commitment.transaction_uid
    assert f"it is asked for again, as {new}" in ended.out
    with open_database(stow.archive) as database:
        again = state_of(database, new)
        assert (again.replaces, again.instances, again.peer) == (commitment.commitment_key, 2, "pacs")
        assert job_of(database, again.job_id).state is JobState.PENDING
        with database.read() as connection:
            audited = connection.exec_driver_sql("SELECT action, subject, detail FROM audit").all()
    assert audited == [("commitment asked again", old, new)]


@pytest.mark.parametrize("committed", [[], [1]])
def test_what_is_open_or_committed_is_not_asked_for_again(stow: CommandLine, committed: list[int]) -> None:
    commitment = ask(stow, 1)
    if committed:
        report(stow, commitment, committed, [])
    ended = stow("commitments resend", commitment.transaction_uid)
    assert (ended.code, ended.out) == (ExitCode.FINDINGS, "")
    assert ("is committed" if committed else "can still come") in ended.err
    assert len(listed(stow)) == 1


def test_what_was_asked_of_us_is_reported_again_under_its_uid(stow: CommandLine) -> None:
    asked_of_us(stow, "1.2.777", 3)
    (line,) = stow("commitments resend", "1.2.777", "--json").lines
    assert line["transaction_uid"] == "1.2.777"
    with open_database(stow.archive) as database:
        job = job_of(database, line["job_id"])
    assert (job.kind, job.lane, job.state) == ("commitment", "peer:ct", JobState.PENDING)


def test_what_was_reported_and_is_gone_since_is_not_reported_again(stow: CommandLine) -> None:
    commitment = asked_of_us(stow, "1.2.777", 3, state="reported")
    with open_database(stow.archive) as database, database.write() as transaction:
        rows.set_outcomes(
            transaction, commitment.commitment_key, [Outcome(position=0, outcome=InstanceOutcome.COMMITTED)]
        )
        rows.change(transaction, commitment.commitment_key, reported_at=transaction.at)
    ended = stow("commitments resend", "1.2.777")
    assert (ended.code, ended.out) == (ExitCode.FINDINGS, "")
    assert "1.2.777: the peer was told that 1.2.3.3 is committed, which is not so any more" in ended.err


def test_what_is_still_checked_is_not_reported_yet(stow: CommandLine) -> None:
    asked_of_us(stow, "1.2.777", 3, state="received")
    # Its job is gone, so another is put in; while that is there, nothing is to be asked for.
    assert stow("commitments resend", "1.2.777").code == ExitCode.OK
    ended = stow("commitments resend", "1.2.777")
    assert ended.code == ExitCode.FINDINGS
    assert "still being checked" in ended.err


@pytest.mark.slow
def test_a_uid_of_both_roles_wants_the_role(stow: CommandLine) -> None:
    commitment = ask(stow, 1, 2)
    report(stow, commitment, [1], [2])
    asked_of_us(stow, commitment.transaction_uid, 1)
    assert len(stow("commitments show", commitment.transaction_uid, "--json").lines) == 2
    assert stow("commitments resend", commitment.transaction_uid).code == ExitCode.USAGE
    ended = stow("commitments resend", commitment.transaction_uid, "--role", "user")
    assert "it is asked for again" in ended.out
