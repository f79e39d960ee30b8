"""A store job that asks for the commitment of what was stored: each version that was sent, once."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from stowkeeper.archive.versions import find_versions
from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.jobs import rows as jobs
from stowkeeper.services import store_job
from stowkeeper.services.commitment import rows as commitment_rows
from stowkeeper.services.commitment.asking import AskTerms
from stowkeeper.services.commitment.commitment_values import CommitmentRole, CommitmentState
from support.command_line import keep
from support.instances import make_instance
from support.scripted_acceptor import Answer, Received, Script, scripted_acceptor
from support.store_rig import STUDY, StoreRig, number_of, peer_at, store_rig


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[StoreRig]:
    """Give an archive with ten instances of one study."""
    with store_rig(tmp_path / "archive", *map(make_instance, range(10))) as made:
        yield made


# Commitment of what was stored.


def commitments_of(rig: StoreRig) -> list[Any]:
    with rig.database.read() as connection:
        query = commitment_rows.CommitmentFilter(role=CommitmentRole.USER)
        return commitment_rows.list_commitments(connection, query)


def asked_in(rig: StoreRig, transaction_uid: str) -> dict[str, int | None]:
    with rig.database.read() as connection:
        found = commitment_rows.find(connection, CommitmentRole.USER, transaction_uid)
        assert found is not None
        some = commitment_rows.instances_of(connection, found.commitment_key)
        return {one.sop_instance_uid: one.version_key for one in some}


def current_keys(rig: StoreRig, *numbers: int) -> dict[str, int]:
    uids = [f"1.2.3.{number}" for number in numbers]
    with rig.database.read() as connection:
        found = find_versions(connection, uids)
    return {uid: next(one.version_key for one in some if one.is_current) for uid, some in found.items()}


@pytest.mark.slow
def test_what_was_stored_is_asked_to_be_committed_even_if_some_failed(rig: StoreRig) -> None:
    with scripted_acceptor(Script(answer=lambda got: 0xA900 if number_of(got) == 3 else 0x0000)) as acceptor:
        terms = AskTerms(re_ask_times=2)
        job = rig.submit(peer_at(acceptor.port), STUDY, commit=True, terms=terms)
        ended = rig.run_to_end(job)
    assert ended.state == "failure"
    assert (
        ended.error == "1 of 10 instances was not stored: A900H Error: data set does not match SOP class (1)"
    )
    (commitment,) = commitments_of(rig)
    assert ended.checkpoint["transaction_uid"] == commitment.transaction_uid
    assert (commitment.state, commitment.peer) == (CommitmentState.REQUESTED, "pacs")
    assert asked_in(rig, commitment.transaction_uid) == current_keys(rig, *({*range(10)} - {3}))
    request = rig.job_by_id(commitment.job_id)
    assert (request.kind, request.created_by) == ("commitment-request", "tester")
    assert request.arguments["terms"]["re_ask_times"] == 2


@pytest.mark.slow
def test_the_version_that_was_sent_is_asked_for_whatever_came_since(rig: StoreRig) -> None:
    has_room = threading.Event()

    def answer(received: Received) -> Answer:
        return 0x0000 if has_room.is_set() or number_of(received) == 1 else 0xA700

    with scripted_acceptor(Script(answer=answer)) as acceptor:
        job = rig.submit(peer_at(acceptor.port), "1.2.3.1", "1.2.3.2", commit=True)
        rig.run_to_end(job, "retry")
        assert "transaction_uid" not in rig.job(job).checkpoint
        sent = current_keys(rig, 1)
        keep(rig.folder, make_instance(1, content=1), make_instance(2, content=1))
        assert current_keys(rig, 1) != sent
        has_room.set()
        rig.act(jobs.resubmit, job)
        ended = rig.run_to_end(job)
    assert asked_in(rig, ended.checkpoint["transaction_uid"]) == {**sent, **current_keys(rig, 2)}


@pytest.mark.slow
def test_nothing_is_asked_for_when_nothing_was_stored(rig: StoreRig) -> None:
    with scripted_acceptor(Script(answer=lambda _: 0xA900)) as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY, commit=True)
        ended = rig.run_to_end(job)
    assert ended.state == "failure"
    assert "transaction_uid" not in ended.checkpoint
    assert commitments_of(rig) == []


@pytest.mark.slow
def test_without_the_wish_nothing_is_asked_for(rig: StoreRig) -> None:
    with scripted_acceptor() as acceptor:
        rig.run_to_end(rig.submit(peer_at(acceptor.port), STUDY))
    assert commitments_of(rig) == []


@pytest.mark.slow
def test_more_than_one_request_holds_is_asked_for_in_several(rig: StoreRig) -> None:
    for portion, sizes in ((4, [4, 4, 2]), (5, [5, 5]), (10, [10])):
        with scripted_acceptor() as acceptor, patch.object(store_job, "REFERENCES_PER_REQUEST_MAX", portion):
            ended = rig.run_to_end(rig.submit(peer_at(acceptor.port), STUDY, commit=True))
        uids = ended.checkpoint["transaction_uids"]
        assert ended.checkpoint["transaction_uid"] == uids[0]
        asked = [asked_in(rig, uid) for uid in uids]
        assert [len(one) for one in asked] == sizes
        assert {uid for one in asked for uid in one} == {f"1.2.3.{number}" for number in range(10)}


@pytest.mark.slow
def test_a_death_between_two_requests_asks_for_none_twice(rig: StoreRig) -> None:
    real = store_job.ask
    calls: list[Any] = []

    def die_at_the_second(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise DatabaseUnavailable("it is busy")
        return real(*arguments, **options)

    with (
        scripted_acceptor() as acceptor,
        patch.object(store_job, "REFERENCES_PER_REQUEST_MAX", 4),
        patch.object(store_job, "ask", die_at_the_second),
    ):
        job = rig.submit(peer_at(acceptor.port), STUDY, commit=True)
        waiting = rig.run_to_end(job, "retry")
        (first,) = commitments_of(rig)
        assert waiting.checkpoint["transaction_uid"] == first.transaction_uid
        rig.act(jobs.resubmit, job)
        ended = rig.run_to_end(job)
    assert ended.state == "success"
    assert ended.checkpoint["transaction_uids"][0] == first.transaction_uid
    assert sorted(uid for uid in ended.checkpoint["transaction_uids"]) == sorted(
        one.transaction_uid for one in commitments_of(rig)
    )
    assert [len(asked_in(rig, uid)) for uid in ended.checkpoint["transaction_uids"]] == [4, 4, 2]


@pytest.mark.slow
def test_a_job_submitted_again_asks_anew_when_more_was_stored_and_not_otherwise(rig: StoreRig) -> None:
    refused = {3}
    with scripted_acceptor(
        Script(answer=lambda got: 0xA900 if number_of(got) in refused else 0x0000)
    ) as acceptor:
        job = rig.submit(peer_at(acceptor.port), STUDY, commit=True)
        first = rig.run_to_end(job).checkpoint["transaction_uid"]
        rig.act(jobs.resubmit, job)
        assert rig.run_to_end(job).checkpoint["transaction_uid"] == first
        refused.clear()
        rig.act(jobs.resubmit, job)
        ended = rig.run_to_end(job)
    assert ended.state == "success"
    assert ended.checkpoint["transaction_uid"] != first
    assert len(asked_in(rig, ended.checkpoint["transaction_uid"])) == 10
