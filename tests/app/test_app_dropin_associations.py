"""Associations with `stowkeeper storescp` and `dcmrecv`: what is tried on senders, silence, and what nobody should send."""

import time
from pathlib import Path

import pytest

from support.dropin import instance, receiving
from support.hostile import TWO_CONTEXTS, in_an_association, in_place_of_a_request, interleaved
from support.instances import encode_element
from support.peers import run_peer
from support.raw_peer import (
    ABORT,
    ASSOCIATE_RJ,
    COMMAND,
    CT_IMAGE_STORAGE,
    LAST,
    RELEASE_RP,
    VERIFICATION,
    Context,
    PeerClosed,
    RawPeer,
    associate_rq,
    command_set,
    data_set_pdus,
    echo_command,
    p_data,
    store_command,
    store_message,
)

pytestmark = pytest.mark.slow

BOTH = pytest.mark.parametrize("tool", ["storescp", "dcmrecv"])
OUT_OF_RESOURCES, CANNOT_UNDERSTAND = 0xA700, 0xC000
CONTEXTS = [Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE)]


# What is tried on senders


def test_every_association_is_refused(tmp_path: Path) -> None:
    with receiving(tmp_path, "--refuse") as receiver:
        for _ in range(2):
            with RawPeer(receiver.port) as peer:
                answer = peer.associate()
                assert (answer.kind, answer.reasons) == (ASSOCIATE_RJ, (1, 1, 1))


@BOTH
def test_objects_are_ignored(tmp_path: Path, tool: str) -> None:
    with receiving(tmp_path, "--ignore", tool=tool) as receiver:
        assert receiver.store(instance(1), instance(2, size=2_000_000)) == [0, 0]
        with receiver.association() as peer:
            assert peer.store("1.2.3.3", b"").status == 0
        assert receiver.names() == []


@pytest.mark.parametrize(
    ("option", "mode"), [("--abort-during", []), ("--abort-during", ["+B"]), ("--abort-after", ["--ignore"])]
)
def test_associations_are_aborted_in_and_behind_data_sets(
    tmp_path: Path, option: str, mode: list[str]
) -> None:
    with receiving(tmp_path, option, *mode) as receiver:
        for size in (100, 2_000_000):
            with RawPeer(receiver.port) as peer:
                peer.associate()
                sent = store_message(1, "1.2.3.1", instance(1, size=size).data)
                peer.send(sent if option == "--abort-after" else sent[:20_000])
                answer = peer.read_pdu()
                assert (answer.kind, answer.reasons) == (ABORT, (0, 0))
        assert receiver.is_serving()
        receiver.wait_until(lambda: receiver.names() == [], "before all was gone")


def test_sleeping_in_and_behind_data_sets(tmp_path: Path) -> None:
    with receiving(tmp_path, "--sleep-during", "1") as receiver, receiver.association() as peer:
        began = time.monotonic()
        assert peer.store("1.2.3.1", instance(1).data).status == 0
        assert 2.9 < time.monotonic() - began < 30, (
            "at its begin, behind its one PDV, and before it is stored"
        )
    with receiving(tmp_path, "--sleep-after", "2") as receiver, receiver.association() as peer:
        began = time.monotonic()
        assert peer.store("1.2.3.1", instance(1).data).status == 0
        assert time.monotonic() - began < 1.8, "the answer comes before"
        assert peer.echo().status == 0
        assert time.monotonic() - began > 1.8


def test_our_sleep_is_not_the_peers_silence(tmp_path: Path) -> None:
    options = ("--sleep-during", "2", "-td", "1", "-ts", "1")
    with receiving(tmp_path, *options) as receiver, receiver.association() as peer:
        peer.send(p_data(1, store_command("1.2.3.1"), control=COMMAND | LAST))
        time.sleep(0.2)  # so that the command is read alone
        peer.send(data_set_pdus(1, instance(1).data))
        assert peer.read_answer().status == 0


# Silence


def until_aborted(peer: RawPeer, began: float) -> float:
    """Return how many seconds after `began` the peer gets an A-ABORT."""
    assert peer.read_pdu().kind == ABORT
    return time.monotonic() - began


def test_a_connection_without_a_request_ends_in_time(tmp_path: Path) -> None:
    with receiving(tmp_path, "-ta", "1") as receiver:
        began = time.monotonic()
        with RawPeer(receiver.port) as peer, pytest.raises(PeerClosed):
            peer.read_pdu()
        assert 0.9 < time.monotonic() - began < 10


def test_an_idle_association_of_storescp_ends_by_ts_and_not_by_td(tmp_path: Path) -> None:
    with receiving(tmp_path, "-ts", "2", "-td", "1") as receiver, RawPeer(receiver.port) as peer:
        began = time.monotonic()
        peer.associate()
        assert until_aborted(peer, began) > 1.8
    with receiving(tmp_path, "-ts", "0", "-td", "1", "-ta", "1") as receiver, receiver.association() as peer:
        peer.socket.settimeout(2.5)
        with pytest.raises(TimeoutError):
            peer.read_pdu()
        assert peer.echo().status == 0


@pytest.mark.parametrize("mode", [["+B"]])
def test_a_data_set_that_stops_ends_by_td(tmp_path: Path, mode: list[str]) -> None:
    with receiving(tmp_path, *mode, "-td", "1") as receiver, RawPeer(receiver.port) as peer:
        peer.associate()
        began = time.monotonic()
        peer.send(store_message(1, "1.2.3.1", instance(1, size=900_000).data)[:-10])
        assert until_aborted(peer, began) > 0.8
        receiver.wait_until(lambda: receiver.names() == [], "before the rest was gone")
        assert receiver.is_serving()


def test_silence_ends_associations_of_dcmrecv_by_td(tmp_path: Path) -> None:
    with receiving(tmp_path, "-td", "1", tool="dcmrecv") as receiver:
        with RawPeer(receiver.port) as peer:
            began = time.monotonic()
            peer.associate()
            assert until_aborted(peer, began) > 0.8
        assert receiver.is_serving()


@BOTH
def test_a_peer_that_does_not_close_blocks_nobody(tmp_path: Path, tool: str) -> None:
    with receiving(tmp_path, tool=tool) as receiver, RawPeer(receiver.port) as lingering:
        lingering.associate()
        assert lingering.release().kind == RELEASE_RP
        began = time.monotonic()
        assert receiver.is_serving()
        assert time.monotonic() - began < 5


# What nobody should send


@BOTH
def test_hostile_input_ends_its_association_alone(tmp_path: Path, tool: str) -> None:
    with receiving(tmp_path, "-d", tool=tool) as receiver:
        for contexts, inputs in (
            (None, in_place_of_a_request()),
            (CONTEXTS, in_an_association()),
            (TWO_CONTEXTS, interleaved()),
        ):
            for hostile in inputs:
                with RawPeer(receiver.port) as peer:
                    if contexts is not None:
                        peer.associate(*contexts)
                    peer.send(hostile.data)
                    assert peer.read_pdu().kind in {ABORT, ASSOCIATE_RJ}, hostile.name
        assert receiver.is_serving()
        receiver.wait_until(lambda: receiver.names() == [], "before all was gone")


OTHER_MESSAGES: dict[str, dict[int, bytes | int | str]] = {
    "C-FIND": {0x0002: VERIFICATION, 0x0100: 0x0020, 0x0110: 1, 0x0700: 0, 0x0800: 0x0101},
    "C-CANCEL": {0x0100: 0x0FFF, 0x0120: 1, 0x0800: 0x0101},
    "N-DELETE": {0x0003: "1.2.3", 0x0100: 0x0150, 0x0110: 1, 0x0800: 0x0101},
    "a response": {0x0100: 0x8001, 0x0120: 1, 0x0800: 0x0101, 0x0900: 0},
}
STORE_REQUESTS = {
    "no instance": store_command(None),
    "a long instance": store_command("1." + "2" * 63),
    "no class": store_command("1.2.3", sop_class_uid=None),
    "no data set": store_command("1.2.3", has_data_set=False),
}


@BOTH
def test_messages_that_are_not_served_end_the_association(tmp_path: Path, tool: str) -> None:
    commands = {name: command_set(elements) for name, elements in OTHER_MESSAGES.items()}
    with receiving(tmp_path, "-v", tool=tool) as receiver:
        for name, command in (commands | STORE_REQUESTS).items():
            with RawPeer(receiver.port) as peer:
                peer.associate(*CONTEXTS)
                peer.send(p_data(1, command, control=COMMAND | LAST))
                if name in STORE_REQUESTS:
                    peer.send(data_set_pdus(1, instance(1).data))
                assert peer.read_pdu().kind == ABORT, name
        assert receiver.is_serving()
        assert receiver.names() == []


@pytest.mark.parametrize(
    ("tool", "mode", "status"),
    [
        ("storescp", [], OUT_OF_RESOURCES),
        ("storescp", ["+B"], 0),
        ("dcmrecv", [], CANNOT_UNDERSTAND),
        ("dcmrecv", ["+B"], 0),
    ],
)
def test_an_empty_data_set(tmp_path: Path, tool: str, mode: list[str], status: int) -> None:
    with receiving(tmp_path, *mode, tool=tool) as receiver:
        with receiver.association() as peer:
            assert peer.store("1.2.3.1", b"").status == status
            assert peer.echo().status == 0
        assert receiver.names() == ([] if status else ["CT.1.2.3.1"])


# UIDs with blanks


def padded(value: bytes) -> bytes:
    elements = ((0x00080016, CT_IMAGE_STORAGE.encode()), (0x00080018, value), (0x0020000D, b"1.2.10"))
    return b"".join(encode_element(tag, b"UI", each) for tag, each in elements)


@pytest.mark.parametrize("options", [["-up"]])
def test_blanks_in_uids_are_no_difference(tmp_path: Path, options: list[str]) -> None:
    with receiving(tmp_path, *options) as receiver:
        with receiver.association() as peer:
            assert peer.store("1.2.3.1 ", padded(b"1.2.3.1 ")).status == 0
            assert peer.store("1.2.3.2", padded(b"1.2.3.2 ")).status == 0
            assert peer.store("1.2.3.3 ", padded(b"1.2.3.3")).status == 0
            assert peer.store("1.2 .3.4", padded(b"1.2.3. 4")).status == 0
            assert peer.store("1.2.3.5", padded(b"1.2.3.55")).status == 0xA900
        assert receiver.files() == [f"CT.1.2.3.{number}" for number in range(1, 5)]


# Others


@pytest.mark.peer("echoscu")
def test_dcmtk_echoes_many_times(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        run = run_peer("echoscu", "--repeat", "20", "127.0.0.1", str(receiver.port))
        assert run.returncode == 0, run.stdout


def test_small_objects_take_no_time_each(tmp_path: Path) -> None:
    """Neither Nagle's algorithm nor late acknowledgements make each cost some hundredths of a second."""
    with receiving(tmp_path) as receiver, receiver.association() as peer:
        peer.store("1.2.3.0", instance(0).data)
        for first in (1, 101, 201):
            began = time.monotonic()
            for number in range(first, first + 100):
                assert peer.store(f"1.2.3.{number}", instance(number).data).status == 0
            if time.monotonic() - began < 3.0:
                return
        pytest.fail("three times, a hundred took more than 3 s")


def test_requests_at_once_are_all_answered(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver, RawPeer(receiver.port) as peer:
        peer.send(associate_rq([Context(context_id=3, abstract_syntax=VERIFICATION)]))
        peer.read_association_answer()
        peer.send(
            b"".join(p_data(3, echo_command(number), control=COMMAND | LAST) for number in range(1, 50))
        )
        assert [peer.read_answer().responds_to for _ in range(49)] == list(range(1, 50))
