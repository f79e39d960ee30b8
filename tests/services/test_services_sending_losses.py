"""Sending files to peers that break off, fall silent, or are not to be had."""

import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from stowkeeper.net.association_errors import AssociationRejectedError, PeerUnreachableError
from stowkeeper.services.limits import READ_PIECE_BYTES
from stowkeeper.services.send_plan import plan_sending
from stowkeeper.services.sending import Result
from stowkeeper.upperlayer.pdu import REJECTED_CALLED_AE_TITLE, REJECTED_TEMPORARY_CONGESTION
from support.processes import free_port
from support.scripted_acceptor import Act, Answer, Received, Script, scripted_acceptor
from support.send_files import write_file
from support.sending_rig import IMPATIENT, QUICK, make_files, options_with, send, uid_of

# Associations that end early


@pytest.mark.parametrize("act", [Act.ABORT, Act.CLOSE, Act.RELEASE])
@pytest.mark.parametrize("window", [None, 4])
def test_a_lost_association_is_replaced_and_goes_on_with_what_was_not_answered(
    tmp_path: Path, act: Act, window: int | None
) -> None:
    files = make_files(tmp_path, 20)
    acts = iter([act, act])

    def answer(received: Received) -> Answer:
        number = int(uid_of(received).rpartition(".")[2])
        return (
            next(acts, 0) if number in {5, 11} and received.association == len(acceptor.requests) - 1 else 0
        )

    with scripted_acceptor(Script(answer=answer, window=window)) as acceptor:
        observer, error = send(files, acceptor.port)
    assert error is None
    assert observer.results == {Result.ACCEPTED: 20}
    assert len(acceptor.requests) >= 2
    assert any("A new association is tried" in notice for notice in observer.notices)
    # What was answered was not sent again.
    answered_once = [outcome.file.sop_instance_uid for outcome in observer.outcomes if outcome.attempts == 1]
    sent = Counter(uid_of(received) for received in acceptor.stored)
    assert all(sent[uid] == 1 for uid in answered_once)


def test_a_file_at_which_the_peer_gives_up_fails_alone(tmp_path: Path) -> None:
    files = make_files(tmp_path, 12)

    def answer(received: Received) -> Answer:
        return Act.ABORT if uid_of(received) == "1.2.3.4" else 0

    with scripted_acceptor(Script(answer=answer, window=8)) as acceptor:
        observer, error = send(files, acceptor.port, options_with(retries=2))
    assert error is None
    assert observer.results == {Result.ACCEPTED: 11, Result.FAILED: 1}
    failed = observer.result_of(4)
    assert failed.attempts == 3
    assert "no answer" in failed.words
    assert "aborted (0,0)" in failed.words


def test_an_abort_in_the_middle_of_a_data_set_is_a_loss(tmp_path: Path) -> None:
    files = make_files(tmp_path, 3, pixels=bytes(4 * READ_PIECE_BYTES))
    times = itertools.count()

    def on_data(count: int) -> Act | None:
        return Act.ABORT if count > READ_PIECE_BYTES and next(times) == 0 else None

    with scripted_acceptor(Script(on_data=on_data)) as acceptor:
        observer, _ = send(files, acceptor.port)
    assert observer.results == {Result.ACCEPTED: 3}
    assert len(acceptor.requests) == 2


def test_a_peer_that_falls_silent_is_given_up_and_asked_again(tmp_path: Path) -> None:
    files = make_files(tmp_path, 3)
    answers: dict[int, Answer] = {1: Act.SILENCE}

    def answer(received: Received) -> Answer:
        return answers.pop(int(uid_of(received).rpartition(".")[2]), 0)

    with scripted_acceptor(Script(answer=answer)) as acceptor:
        observer, _ = send(files, acceptor.port, options_with(timeouts=IMPATIENT))
    assert observer.results == {Result.ACCEPTED: 3}
    assert any("nothing moved" in notice for notice in observer.notices)


def test_a_peer_that_is_lost_for_good_leaves_the_rest_unsent(tmp_path: Path) -> None:
    files = make_files(tmp_path, 30)

    def answer(received: Received) -> Answer:
        return Act.CLOSE if len(acceptor.stored) > 5 else 0

    with scripted_acceptor(Script(answer=answer)) as acceptor:
        observer, error = send(files, acceptor.port, options_with(retries=2))
    assert error is None
    assert observer.results == {Result.ACCEPTED: 5, Result.FAILED: 25}
    words = observer.result_of(29).words
    assert "not sent" in words
    assert "connection" in words
    assert len(acceptor.requests) == 4


def test_without_retries_a_loss_fails_only_what_was_on_the_way(tmp_path: Path) -> None:
    files = make_files(tmp_path, 10)

    def answer(received: Received) -> Answer:
        return Act.ABORT if uid_of(received) == "1.2.3.3" else 0

    with scripted_acceptor(Script(answer=answer)) as acceptor:
        observer, _ = send(files, acceptor.port, options_with(retries=0))
    assert observer.results == {Result.ACCEPTED: 9, Result.FAILED: 1}
    assert len(acceptor.requests) == 2


# Peers that are not to be had


def test_a_peer_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    observer, error = send(make_files(tmp_path, 3), free_port())
    assert isinstance(error, PeerUnreachableError)
    assert observer.results == {Result.FAILED: 3}
    assert all("not sent" in outcome.words and outcome.attempts == 0 for outcome in observer.outcomes)
    assert observer.notices == []


def test_a_peer_that_is_not_there_is_called_once_even_for_several_requests(tmp_path: Path) -> None:
    for number in range(150):
        write_file(tmp_path / f"{number}", number, sop_class_uid=f"1.2.840.10008.5.1.4.1.1.2.{number}")
    with scripted_acceptor(Script(on_request=lambda _: REJECTED_CALLED_AE_TITLE)) as acceptor:
        _, error = send(plan_sending([str(tmp_path)]).files, acceptor.port)
    assert isinstance(error, AssociationRejectedError)
    assert len(acceptor.requests) == 1


def test_a_transient_rejection_is_tried_again(tmp_path: Path) -> None:
    script = Script(on_request=lambda number: REJECTED_TEMPORARY_CONGESTION if number < 2 else None)
    with scripted_acceptor(script) as acceptor:
        observer, error = send(make_files(tmp_path, 2), acceptor.port)
    assert error is None
    assert observer.results == {Result.ACCEPTED: 2}
    assert len(acceptor.requests) == 3


def test_a_peer_that_stays_busy_is_given_up(tmp_path: Path) -> None:
    with scripted_acceptor(Script(on_request=lambda _: REJECTED_TEMPORARY_CONGESTION)) as acceptor:
        observer, error = send(make_files(tmp_path, 2), acceptor.port, options_with(retries=2))
    assert isinstance(error, AssociationRejectedError)
    assert observer.results == {Result.FAILED: 2}
    assert len(acceptor.requests) == 3


def test_associations_that_the_peer_does_not_grant_are_done_without(tmp_path: Path) -> None:
    script = Script(on_request=lambda number: REJECTED_CALLED_AE_TITLE if number else None)
    with scripted_acceptor(script) as acceptor:
        observer, error = send(make_files(tmp_path, 20), acceptor.port, options_with(associations=4))
    assert error is None
    assert observer.results == {Result.ACCEPTED: 20}


def test_an_association_that_the_peer_leaves_waiting_does_not_hold_up_the_end(tmp_path: Path) -> None:
    # As a server does that serves one association at a time.
    script = Script(on_request=lambda number: Act.SILENCE if number else None)
    with scripted_acceptor(script) as acceptor:
        options = options_with(associations=3, timeouts=replace(QUICK.timeouts, association_seconds=600))
        observer, error = send(make_files(tmp_path, 20), acceptor.port, options)
    assert error is None
    assert observer.results == {Result.ACCEPTED: 20}
