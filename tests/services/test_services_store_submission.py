"""What the UIDs of a store job stand for, and what cannot be asked for."""

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from sqlalchemy import select

from stowkeeper.archive.removal import Removal
from stowkeeper.database.schema import jobs as jobs_table
from stowkeeper.jobs.job import Job
from stowkeeper.services import store_submission
from stowkeeper.services.peers import Peer
from stowkeeper.services.store_submission import CannotStoreError, peer_in
from support.command_line import keep
from support.instances import make_instance
from support.store_rig import StoreRig, peer_at, store_rig

PEER = peer_at(104)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[StoreRig]:
    """Give two studies: 1.2.10 with two series, 1.2.20 with one, and an instance outside of studies."""
    with store_rig(
        tmp_path / "archive",
        make_instance(1, study="1.2.10", series="1.2.10.1"),
        make_instance(2, study="1.2.10", series="1.2.10.2"),
        make_instance(3, study="1.2.10", series="1.2.10.1"),
        make_instance(4, study="1.2.20", series="1.2.20.1"),
        make_instance(5, study="", sop_class_uid="1.2.840.10008.5.1.4.38.1"),
    ) as made:
        yield made


def names(rig: StoreRig, job: Job) -> list[str]:
    return [item.name.removeprefix("1.2.3.") for item in rig.items(job)]


@pytest.mark.parametrize(
    ("uids", "instances"),
    [
        (["1.2.10"], "132"),
        (["1.2.20"], "4"),
        (["1.2.10.1"], "13"),
        (["1.2.3.2"], "2"),
        (["1.2.3.5"], "5"),
        (["1.2.20", "1.2.10"], "4132"),
        (["1.2.3.3", "1.2.10"], "312"),
        (["1.2.10", "1.2.10.1", "1.2.3.1", "1.2.10"], "132"),
    ],
)
def test_uids_of_every_level_become_instances_once_each(
    rig: StoreRig, uids: list[str], instances: str
) -> None:
    job = rig.submit(PEER, *uids)
    assert "".join(names(rig, job)) == instances
    assert job.items_total == len(instances)


def test_the_job_says_what_it_is_about(rig: StoreRig) -> None:
    job = rig.submit(PEER, "1.2.10", priority=7)
    assert (job.kind, job.peer, job.lane, job.subject) == ("store", "pacs", "peer:pacs", "1.2.10")
    assert (job.created_by, job.priority, job.arguments) == ("tester", 7, {"commit": False})
    assert rig.submit(PEER, "1.2.10", "1.2.20").subject == ""
    asked = rig.submit(PEER, "1.2.10", commit=True)
    assert asked.arguments["commit"] is True
    assert asked.arguments["terms"]["re_ask_times"] == 0


def test_a_peer_without_a_name_stands_in_the_arguments(rig: StoreRig) -> None:
    peer = peer_at(104, name="", tls=True, own_ae_title="US")
    job = rig.job(rig.submit(peer, "1.2.10"))
    assert peer_in(job.arguments) == peer
    assert peer_in(rig.submit(PEER, "1.2.10").arguments) is None


@pytest.mark.slow
def test_only_current_versions_count(rig: StoreRig) -> None:
    # Its newer version belongs to another series: that of the older one does not hold it any more.
    keep(rig.folder, make_instance(1, study="1.2.20", series="1.2.20.1", content=1))
    removal = Removal(rig.archive.files, rig.archive.root, rig.database)
    removal.carry_out(removal.plan("1.2.3.3"), "a test")
    assert names(rig, rig.submit(PEER, "1.2.10")) == ["2"]
    assert names(rig, rig.submit(PEER, "1.2.20")) == ["1", "4"]
    with pytest.raises(CannotStoreError, match=r"nothing is kept here of 1\.2\.3\.3, 1\.2\.10\.1$"):
        rig.submit(PEER, "1.2.3.3", "1.2.10.1")


@pytest.mark.parametrize(
    ("peer", "uids", "words"),
    [
        (PEER, [], "there is nothing to send: name studies, series or instances"),
        (PEER, ["1.2.10", "9.9"], r"nothing is kept here of 9\.9$"),
        (
            PEER,
            [f"9.{n}" for n in range(8)],
            r"nothing is kept here of 9\.0, 9\.1, 9\.2, 9\.3, 9\.4 and 3 more$",
        ),
        (
            Peer(name="ct", ae_title="CT"),
            ["1.2.10"],
            "nobody said where the peer ct is called: it needs ae_title",
        ),
        (Peer(name="", ae_title="CT"), ["1.2.10"], "nobody said where a peer is called"),
    ],
)
def test_what_cannot_be_sent_is_said_and_leaves_no_job(
    rig: StoreRig, peer: Peer, uids: list[str], words: str
) -> None:
    with pytest.raises(CannotStoreError, match=words) as raised:
        rig.submit(peer, *uids)
    assert list(raised.value.unknown) == [uid for uid in uids if uid.startswith("9.")]
    with rig.database.read() as connection:
        assert connection.execute(select(jobs_table)).all() == []


def test_there_is_a_bound_to_the_instances_of_a_job(rig: StoreRig) -> None:
    with patch.object(store_submission, "STORE_INSTANCES_MAX", 2):
        assert names(rig, rig.submit(PEER, "1.2.10.1")) == ["1", "3"]
        for uids in (["1.2.10"], ["1.2.10.1", "1.2.20"], ["1.2.3.1", "1.2.3.2", "1.2.3.4"]):
            with pytest.raises(CannotStoreError, match="there are more than 2 instances"):
                rig.submit(PEER, *uids)


@pytest.mark.slow
def test_a_list_longer_than_a_statement_takes_is_looked_up(rig: StoreRig) -> None:
    keep(rig.folder, *(make_instance(number, size=10) for number in range(10, 700)))
    uids = [f"1.2.3.{number}" for number in range(1, 700) if number not in range(6, 10)]
    job = rig.submit(PEER, *reversed(uids))
    with rig.database.read() as connection:
        count = connection.execute(select(jobs_table.c.items_total)).scalar_one()
    assert count == len(uids)
    assert names(rig, job)[:2] == ["699", "698"]
