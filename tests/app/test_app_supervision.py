"""What a service manager is told, on a real datagram socket, and the sockets that it hands over."""

import asyncio
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from stowkeeper.app.settings import Settings
from stowkeeper.app.socket_activation import InheritedSocketError, InheritedSockets, inherited_sockets
from stowkeeper.app.supervision import ServiceManager


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(30)
        yield listening


def read(listening: socket.socket) -> list[str]:
    return listening.recv(4096).decode().split("\n")


def nothing_more(listening: socket.socket) -> bool:
    listening.setblocking(False)
    try:
        return not listening.recv(4096)
    except BlockingIOError:
        return True


def test_each_word_is_a_datagram(heard: socket.socket) -> None:
    manager = ServiceManager(heard.getsockname())
    manager.tell_status("Opening the archive")
    manager.tell_status("Opening the archive")
    manager.tell_ready("Receiving\non a port")
    assert read(heard) == ["STATUS=Opening the archive"]
    assert read(heard) == ["READY=1", "STATUS=Receiving on a port"]
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    manager.tell_reloading()
    reloading, at, _ = read(heard)
    assert reloading == "RELOADING=1"
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert before <= int(at.removeprefix("MONOTONIC_USEC=")) <= now
    manager.tell_stopping("Stopping")
    assert read(heard)[0] == "STOPPING=1"
    manager.tell_alive()
    assert read(heard) == ["WATCHDOG=1"]


@pytest.mark.skipif(not os.path.exists("/proc/net/unix"), reason="abstract sockets are Linux's own")
def test_an_abstract_socket_is_found_by_its_at_sign() -> None:
    name = f"stowkeeper-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(30)
        ServiceManager(f"@{name}").tell_alive()
        assert read(listening) == ["WATCHDOG=1"]


def test_the_variables_are_for_this_process_alone(tmp_path: Path) -> None:
    environment = {
        "NOTIFY_SOCKET": "/run/notify",
        "WATCHDOG_USEC": "4000000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    manager = ServiceManager.from_environment(environment)
    assert (manager.watchdog_seconds, environment) == (4.0, {})
    for changed in (
        {"WATCHDOG_PID": "1"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": ""},
    ):
        environment = {"NOTIFY_SOCKET": "/run/notify", "WATCHDOG_USEC": "4000000", **changed}
        assert ServiceManager.from_environment(environment).watchdog_seconds is None


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "/gone/notify", "@nobody-is-here", "/" + "x" * 200])
def test_who_does_not_listen_disturbs_nobody(address: str) -> None:
    manager = ServiceManager.from_environment({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"})
    manager.tell_ready("ready")
    manager.tell_reloading()
    manager.tell_stopping("stopping")


def test_a_full_queue_stops_nobody_for_long(heard: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stowkeeper.app.supervision.NOTIFY_SEND_SECONDS", 0.01)
    manager = ServiceManager(heard.getsockname())
    for _ in range(2000):  # systems queue some ten, or some hundred
        manager.tell_alive()
        if manager_queue_is_full(heard):
            break
    manager.tell_ready("ready")


def manager_queue_is_full(listening: socket.socket) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as trial:
        trial.setblocking(False)
        try:
            trial.sendto(b"", listening.getsockname())
        except BlockingIOError:
            return True
        return False


def test_the_watchdog_hears_nothing_once_something_is_broken(heard: socket.socket) -> None:
    manager = ServiceManager(heard.getsockname(), watchdog_seconds=0.02)
    looks = iter(["", "", "a thread has ended"])
    asyncio.run(asyncio.wait_for(manager.keep_telling_alive(lambda: next(looks), lambda: "well"), 30))
    assert [read(heard)[0] for _ in range(3)] == ["WATCHDOG=1", "STATUS=well", "WATCHDOG=1"]
    assert nothing_more(heard)


def test_nobody_is_told_where_no_watchdog_asks(heard: socket.socket) -> None:
    manager = ServiceManager(heard.getsockname())
    asyncio.run(asyncio.wait_for(manager.keep_telling_alive(lambda: "", lambda: ""), 30))
    assert nothing_more(heard)


# Sockets that are handed over


def in_child(sockets: list[socket.socket], names: str | None, look: Callable[[InheritedSockets], str]) -> str:
    """Hand sockets to a child as systemd does, from descriptor 3 on, and return what it says of them."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Later versions of Python warn of threads of ours; the child makes a few system calls and ends.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        said = "the child failed"
        try:
            # First out of the way, so that none is overwritten before it is moved.
            high = [os.dup2(each.fileno(), 200 + number) for number, each in enumerate(sockets)]
            answer = os.dup2(writing, 250)
            for number, descriptor in enumerate(high):
                os.dup2(descriptor, 3 + number)
            environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(sockets))}
            if names is not None:
                environment["LISTEN_FDNAMES"] = names
            said = look(inherited_sockets(environment)) + (
                "" if not environment else " and variables are left"
            )
        except InheritedSocketError as error:
            said = f"refused: {error}"
        finally:
            os.write(answer, said.encode())
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        said = stream.read().decode()
    os.waitpid(child, 0)
    return said


@pytest.fixture
def listeners() -> Iterator[list[socket.socket]]:
    made = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    yield made
    for each in made:
        each.close()


def ports(found: InheritedSockets) -> str:
    dicom = "none" if found.dicom is None else found.dicom.getsockname()[1]
    return f"{dicom} {[each.getsockname()[1] for each in found.http]}"


@pytest.mark.slow
def test_sockets_are_found_by_their_names(listeners: list[socket.socket]) -> None:
    first, second = (each.getsockname()[1] for each in listeners)
    assert in_child(listeners, "http:dicom", ports) == f"{second} [{first}]"
    assert in_child(listeners[:1], None, ports) == f"{first} []"
    assert in_child(listeners[:1], "stowkeeper.socket", ports) == f"{first} []"
    assert in_child(listeners[:1], "http", ports) == f"none [{first}]"


def test_the_settings_get_the_addresses_of_the_sockets(listeners: list[socket.socket]) -> None:
    first, second = (each.getsockname()[1] for each in listeners)

    def look(found: InheritedSockets) -> str:
        made = found.in_settings(Settings())
        return f"{made.dicom.host} {made.dicom.port} {made.http.port}"

    assert in_child(listeners, "dicom:http", look) == f"127.0.0.1 {first} {second}"


@pytest.mark.slow
def test_what_cannot_be_served_is_refused(listeners: list[socket.socket]) -> None:
    assert "'backup' is for nothing here" in in_child(listeners, "dicom:backup", ports)
    assert "'nameless' is for nothing here" in in_child(listeners, None, ports)
    assert "two sockets were handed over for DICOM" in in_child(listeners, "dicom:dicom", ports)
    with socket.socket() as bound, socket.socket(socket.AF_UNIX) as local:
        local.bind("")  # the system chooses an abstract name
        local.listen()
        assert "no listening TCP socket" in in_child([bound], "dicom", ports)
        assert "no listening TCP socket" in in_child([local], "http", ports)
    without_http = Settings().model_copy(update={"http": Settings().http.model_copy(update={"port": "off"})})
    said = in_child(
        listeners[:1], "http", lambda found: ports(found) + found.in_settings(without_http).archive
    )
    assert 'http.port is "off"' in said


def test_sockets_of_another_process_are_left_alone() -> None:
    environment = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "dicom"}
    assert not inherited_sockets(environment)
    assert not inherited_sockets({"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "0"})
    assert not inherited_sockets({})
