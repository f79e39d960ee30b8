"""What `stowkeeper storescp` and `dcmrecv` leave on the disk: whole files and nothing else, whatever happens to them."""

import os
import re
import shutil
import signal
import subprocess
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from support.dropin import Receiver, instance, listens, program_of, receiving, wait_for
from support.peers import run_peer, send_by_pynetdicom
from support.processes import free_port
from support.raw_peer import (
    ASSOCIATE_AC,
    RELEASE_RP,
    RawPeer,
    store_message,
)
from support.small_filesystem import small_filesystem

pytestmark = pytest.mark.slow

OUT_OF_RESOURCES = 0xA700
NAME = "CT.1.2.3.1"
BOTH = pytest.mark.parametrize("tool", ["storescp", "dcmrecv"])


def send_most(receiver: Receiver, peer: RawPeer, size: int = 2_000_000) -> None:
    """Send an instance but for its end, and wait until some of it is on the disk."""
    assert peer.associate().kind == ASSOCIATE_AC
    peer.send(store_message(1, "1.2.3.1", instance(1, size=size).data)[:-100])
    receiver.wait_until(lambda: bool(receiver.hidden()), "before there was a hidden file")


# Whole files


@pytest.mark.parametrize(("tool", "mode"), [("storescp", []), ("dcmrecv", ["+B"])])
def test_a_file_appears_when_it_is_whole(tmp_path: Path, tool: str, mode: list[str]) -> None:
    with receiving(tmp_path, *mode, tool=tool) as receiver, RawPeer(receiver.port) as peer:
        send_most(receiver, peer)
        assert receiver.files() == []
        sent = instance(1, size=2_000_000).data
        peer.send(store_message(1, "1.2.3.1", sent)[-100:])
        assert peer.read_answer().status == 0
        assert receiver.files() == [NAME]
        assert (receiver.folder / NAME).read_bytes().endswith(sent)


@pytest.mark.parametrize(
    ("tool", "mode", "how"),
    [
        ("storescp", [], RawPeer.close),
        ("storescp", ["+B"], RawPeer.reset),
        ("dcmrecv", [], RawPeer.reset),
        ("dcmrecv", ["+B"], RawPeer.close),
    ],
)
def test_a_transfer_that_breaks_off_harms_no_good_copy(
    tmp_path: Path, tool: str, mode: list[str], how: object
) -> None:
    good = instance(1).data
    with receiving(tmp_path, *mode, tool=tool) as receiver:
        assert receiver.store(instance(1)) == [0]
        peer = RawPeer(receiver.port)
        send_most(receiver, peer)
        how(peer)  # type: ignore[operator]  # a way to end, as the table has it
        receiver.wait_until(lambda: receiver.hidden() == [], "before the rest was gone")
        assert receiver.files() == [NAME]
        assert (receiver.folder / NAME).read_bytes().endswith(good)
        assert receiver.store(instance(1, content=2)) == [0]
        assert (receiver.folder / NAME).read_bytes().endswith(instance(1, content=2).data)


def test_a_data_set_that_cannot_be_read_harms_no_good_copy(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        receiver.store(instance(1))
        with RawPeer(receiver.port) as peer:
            peer.associate()
            peer.send(store_message(1, "1.2.3.1", instance(1, content=2).data[:-7]))
            assert peer.read_pdu().reasons == (0, 0)
        receiver.wait_until(lambda: receiver.hidden() == [], "before the rest was gone")
        assert receiver.files() == [NAME]
        assert (receiver.folder / NAME).read_bytes().endswith(instance(1).data)


# Ends of the process


@pytest.mark.parametrize(
    ("number", "model"),
    [
        (signal.SIGTERM, "--single-process"),
        (signal.SIGINT, "--single-process"),
        (signal.SIGHUP, "--single-process"),
        (signal.SIGTERM, "--fork"),
    ],
)
def test_a_signal_ends_the_process_and_leaves_no_part_of_a_file(
    tmp_path: Path, number: signal.Signals, model: str
) -> None:
    with receiving(tmp_path, model) as receiver:
        receiver.store(instance(5))
        with RawPeer(receiver.port) as peer:
            send_most(receiver, peer)
            for child in receiver.children():
                with suppress(ProcessLookupError):  # that of the first association may be gone by now
                    os.kill(child, number)
            receiver.signal(number)
            assert receiver.wait() == -number
            wait_for(lambda: not receiver.hidden(), "for the end of the child")
        assert receiver.files() == ["CT.1.2.3.5"]


def test_a_signal_ends_a_process_that_does_nothing(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        receiver.signal(signal.SIGTERM)
        assert receiver.wait() == -signal.SIGTERM
        assert receiver.log() == ""


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path, number: signal.Signals) -> None:
    """As with nohup, and with what a script starts in the background."""
    ignoring = ("/bin/sh", "-c", f"trap '' {number.name[3:]}; exec \"$@\"", "sh")
    with receiving(tmp_path, wrapper=ignoring) as receiver:
        receiver.signal(number)
        assert receiver.is_serving()
        receiver.signal(signal.SIGTERM)
        assert receiver.wait() == -signal.SIGTERM


def test_a_kill_leaves_a_hidden_file_that_the_next_start_removes(tmp_path: Path) -> None:
    with receiving(tmp_path) as receiver:
        with RawPeer(receiver.port) as peer:
            send_most(receiver, peer)
            receiver.program.kill()
        assert receiver.files() == []
        (hidden,) = receiver.hidden()
        folder = receiver.folder
        assert hidden.startswith(".stowkeeper-")
    with receiving(tmp_path, folder=folder) as receiver:
        receiver.wait_for_log("removed 1 unfinished file")
        assert receiver.hidden() == []
        assert receiver.store(instance(2)) == [0]
        assert receiver.files() == ["CT.1.2.3.2"]


def test_who_reads_standard_output_may_go(tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "out"
    folder.mkdir()
    reading, writing = os.pipe()
    argv = program_of("storescp", "-v", "-od", folder, str(port))
    process = subprocess.Popen(argv, stdout=writing, stderr=writing)
    os.close(writing)
    os.close(reading)
    try:
        wait_for(lambda: listens(port), "for it to listen")
        with RawPeer(port) as peer:
            peer.associate()
            assert [peer.store(f"1.2.3.{n}", instance(n).data).status for n in (1, 2)] == [0, 0]
    finally:
        process.terminate()
        assert process.wait(30) == -signal.SIGTERM


def test_a_file_made_ahead_goes_with_the_association_or_the_process(tmp_path: Path) -> None:
    """What is made ready for the next object of an association is nothing that stays."""
    with receiving(tmp_path) as receiver:
        with receiver.association() as peer:
            peer.store("1.2.3.1", instance(1).data)
        receiver.wait_until(lambda: not receiver.hidden(), "before nothing was left")
        with RawPeer(receiver.port) as peer:
            peer.associate()
            peer.store("1.2.3.1", instance(1).data)
            receiver.signal(signal.SIGTERM)
            assert receiver.wait() == -signal.SIGTERM
        assert receiver.hidden() == []
        assert receiver.files() == [NAME]


# Disks that fail


@pytest.mark.parametrize(
    ("tool", "options"),
    [
        ("storescp", []),
        ("storescp", ["+B"]),
        ("storescp", ["+tb"]),
        ("dcmrecv", []),
        ("dcmrecv", ["+ssd"]),
    ],
)
def test_a_full_disk(tmp_path: Path, tool: str, options: list[str]) -> None:
    with (
        small_filesystem(tmp_path, size=1 << 20, inodes=30) as folder,
        receiving(tmp_path, *options, tool=tool, folder=folder) as receiver,
    ):
        sizes = {1: 300_000, 2: 900_000, 3: 3_000_000, 4: 100}
        objects = [instance(number, size=size) for number, size in sizes.items()]
        assert receiver.store(*objects) == [0, OUT_OF_RESOURCES, OUT_OF_RESOURCES, 0]
        again = instance(1, size=900_000, content=2)
        assert receiver.store(again) == [OUT_OF_RESOURCES]
        found = {name.rpartition("/")[2]: folder / name for name in receiver.files()}
        assert sorted(found) == [NAME, "CT.1.2.3.4"]
        assert found[NAME].read_bytes()[-300_000:] == objects[0].data[-300_000:]
        assert receiver.log().count("No space left on device") == 3


@pytest.mark.parametrize(("tool", "mode"), [("storescp", ["+B"]), ("dcmrecv", [])])
def test_an_output_directory_that_goes_and_comes_again(tmp_path: Path, tool: str, mode: list[str]) -> None:
    with receiving(tmp_path, *mode, tool=tool) as receiver:
        receiver.store(instance(1))
        shutil.rmtree(receiver.folder)
        assert receiver.store(instance(1), instance(2, size=900_000)) == [OUT_OF_RESOURCES] * 2
        assert receiver.is_serving()
        receiver.folder.mkdir()
        assert receiver.store(instance(3)) == [0]
        assert receiver.files() == ["CT.1.2.3.3"]


@BOTH
def test_an_output_directory_that_is_another_one_in_mid_association(tmp_path: Path, tool: str) -> None:
    with receiving(tmp_path, tool=tool) as receiver, receiver.association() as peer:
        assert peer.store("1.2.3.1", instance(1).data).status == 0
        shutil.move(receiver.folder, tmp_path / "done")
        receiver.folder.mkdir()
        assert peer.store("1.2.3.2", instance(2).data).status == 0
        assert receiver.files() == ["CT.1.2.3.2"]


def test_the_directory_of_a_study_that_goes_is_made_again(tmp_path: Path) -> None:
    with receiving(tmp_path, "-su", "s") as receiver:
        receiver.store(instance(1))
        shutil.rmtree(receiver.folder / "s_1.2.10")
        assert receiver.store(instance(2), instance(3, size=900_000)) == [0, 0]
        assert receiver.files() == ["s_1.2.10/CT.1.2.3.2", "s_1.2.10/CT.1.2.3.3"]
        shutil.rmtree(receiver.folder)
        assert receiver.store(instance(4)) != [0]
        assert receiver.store(instance(5, size=900_000)) == [OUT_OF_RESOURCES]
        receiver.folder.mkdir()
        assert receiver.store(instance(6)) == [0]
        assert receiver.files() == ["s_1.2.10/CT.1.2.3.6"]


@pytest.mark.parametrize("tool", ["storescp"])
def test_a_disk_that_becomes_read_only(tmp_path: Path, tool: str) -> None:
    with (
        small_filesystem(tmp_path, size=1 << 20, inodes=30) as folder,
        receiving(tmp_path, tool=tool, folder=folder) as receiver,
    ):
        receiver.store(instance(1))
        subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
        assert receiver.store(instance(1, content=2), instance(2, size=500_000)) == [OUT_OF_RESOURCES] * 2
        subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
        assert receiver.store(instance(2)) == [0]
        assert receiver.files() == [NAME, "CT.1.2.3.2"]
        assert (folder / NAME).read_bytes().endswith(instance(1).data)


def test_a_study_directory_on_another_disk(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with small_filesystem(tmp_path, size=1 << 20, inodes=30) as other:
        (out / "1.2.10").symlink_to(other)
        with receiving(tmp_path, "-su", "", folder=out) as receiver:
            assert receiver.store(instance(1, size=300_000), instance(2, size=900_000)) == [
                0,
                OUT_OF_RESOURCES,
            ]
            assert receiver.hidden() == []
        assert [path.name for path in other.iterdir()] == [NAME]
        assert (other / NAME).read_bytes().endswith(instance(1, size=300_000).data)


# On the medium


def traced_calls(log: Path, folder: Path) -> list[str]:
    """Return what a trace tells of syncing, naming and answering, in order."""
    calls = []
    for line in log.read_text(encoding="latin-1").splitlines():
        found = re.search(r"(fsync|rename|link|mkdir|sendto)\((.*)", line)
        if found is None:
            continue
        name, rest = found.groups()
        if name == "fsync":
            path = re.search(r"<(.*?)>", rest)
            where = "" if path is None else path[1]
            below = os.path.relpath(where, folder)
            calls.append("fsync file" if ".stowkeeper-" in where else f"fsync {below}")
        elif name != "sendto":
            calls.append(name)
        elif '"\\4' in rest:
            calls.append("answer")
    return calls


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_files_and_their_names_are_on_the_medium_before_the_answer(tmp_path: Path) -> None:
    log = tmp_path / "trace"
    strace = ("strace", "-f", "-y", "-o", str(log), "-e", "trace=fsync,rename,link,mkdir,sendto")
    if subprocess.run([*strace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("nothing can be traced here")
    synchronizing = {"STOWKEEPER_SYNC": "1"}
    with receiving(tmp_path, "-su", "", wrapper=strace, environment=synchronizing) as receiver:
        assert receiver.store(instance(1), instance(2, size=900_000)) == [0, 0]
        folder = receiver.folder
    one = ["fsync file", "rename", "fsync 1.2.10", "answer"]
    assert traced_calls(log, folder) == ["mkdir", "fsync .", *one, *one]
    with receiving(tmp_path, wrapper=strace) as receiver:
        assert receiver.store(instance(1)) == [0]
    assert traced_calls(log, receiver.folder) == ["rename", "answer"]


# Many at once


def test_names_by_time_are_never_taken_twice(tmp_path: Path) -> None:
    """Processes that store in the same millisecond are as much in each other's way as they can be."""
    count = 60
    with receiving(tmp_path, "--fork", "-tn") as receiver:
        statuses: list[int] = []

        def send(first: int) -> None:
            objects = [instance(first + number) for number in range(count)]
            statuses.extend(receiver.store(*objects))

        senders = [threading.Thread(target=send, args=(1000 * number,)) for number in range(3)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(30)
        assert statuses == [0] * (3 * count)
        assert len(receiver.files()) == 3 * count
        assert len({(receiver.folder / name).read_bytes() for name in receiver.files()}) == 3 * count


# Real senders


@pytest.mark.parametrize("tool", ["dcmrecv"])
@pytest.mark.peer("storescu")
def test_dcmtk_sends(tmp_path: Path, tool: str) -> None:
    with receiving(tmp_path, tool=tool) as receiver:
        files = _source(tmp_path, receiver)
        run = run_peer("storescu", "127.0.0.1", str(receiver.port), *map(str, files))
        assert run.returncode == 0, run.stdout
        assert receiver.files() == [NAME, "CT.1.2.3.2"]


@pytest.mark.parametrize("tool", ["storescp"])
@pytest.mark.peer("pynetdicom")
def test_pynetdicom_sends(tmp_path: Path, tool: str) -> None:
    with receiving(tmp_path, tool=tool) as receiver:
        assert send_by_pynetdicom(_source(tmp_path, receiver), port=receiver.port) == [0, 0]
        assert receiver.files() == [NAME, "CT.1.2.3.2"]


def _source(tmp_path: Path, receiver: Receiver) -> list[Path]:
    """Let the receiver itself make the files that are to be sent to it again."""
    receiver.store(instance(1), instance(2, size=300_000))
    paths = []
    for name in receiver.files():
        paths.append(tmp_path / f"{name}.dcm")
        (receiver.folder / name).rename(paths[-1])
    return paths


def test_a_signal_to_one_child_is_no_matter_of_the_others(tmp_path: Path) -> None:
    with receiving(tmp_path, "--fork") as receiver, RawPeer(receiver.port) as calm:
        assert calm.associate().kind == ASSOCIATE_AC
        before = set(receiver.children())
        with RawPeer(receiver.port) as peer:
            send_most(receiver, peer)
            (hit,) = set(receiver.children()) - before
            os.kill(hit, signal.SIGTERM)
            receiver.wait_until(lambda: not receiver.hidden(), "before the file was gone")
        assert calm.store("1.2.3.2", instance(2).data).status == 0
        assert calm.release().kind == RELEASE_RP
        assert receiver.files() == ["CT.1.2.3.2"]
