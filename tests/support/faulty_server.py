"""A nursery of real servers that kill themselves at a step of an instance's path.

`Nursery` starts this file as a program, which loads the product and serves once, and then forks a server for each order
it reads, so that a test can afford hundreds of them. A child runs `stowkeeper serve` itself. What is changed in it: its
file system and its database are watched, and at the step it was told of it sends itself SIGKILL. And it finds the
statements compiled that the first serving took: to compile them takes longer than to serve.

A step is an operation of the file system on a kind of path, or "commit", which is about the catalog; and which
occurrence of it since the server was ready. Paths are told without what differs from run to run.
"""

import contextlib
import ctypes
import gc
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from support.catalog_rows import open_database
from support.instances import make_instance
from support.quick_statements import share_compiled_statements
from support.raw_peer import RawPeer

_HERE = Path(__file__).resolve()
_TETHER = str(_HERE.with_name("tethered.py"))
_SOURCE = str(_HERE.parents[2] / "src")
SMALL = {
    "SLOT_POOL_SIZE": "16",
    "SYNC_EVERY": "1MiB",
    "RESERVE_SIZE": "1MiB",
    "REFUSE_INSTANCE_BELOW": "0",
    "REFUSE_ASSOCIATION_BELOW": "0",
    "REFUSE_INSTANCE_BELOW_INODES": "0",
    "REFUSE_ASSOCIATION_BELOW_INODES": "0",
}
"""Settings under `storage` of a server that is started a hundred times, or on a disk smaller than what is kept free."""
ALONE = {"STOWKEEPER_HTTP__PORT": "off", "STOWKEEPER_JOBS__SCRUB_DAYS": "0"}
"""Settings of a server that does nothing but receive: the steps of the receiver are what is counted."""
LARGE = make_instance(2, size=2_500_000)
PR_SET_PDEATHSIG = 1
END_SECONDS_MAX = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The `occurrence`-th time (1 is the first) that an operation is done to a kind of path, `before` it or after."""

    operation: str
    place: str
    occurrence: int
    before: bool = True

    def __str__(self) -> str:
        when = "before" if self.before else "after"
        return f"{when} {self.operation} {self.place} ({self.occurrence})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A server to start: its archive, where its output goes, and what it is to do apart from serving.

    `watch` names a file that gets a line for each step; `kill_at` is the step at which it dies. Of dead neighbours it
    looks for every `look_seconds`. `settings` are more of those in the environment.
    """

    archive: str
    log: str
    arguments: tuple[str, ...] = ()
    kill_at: Step | None = None
    watch: str = ""
    look_seconds: float = 30.0
    settings: Mapping[str, str] = field(default_factory=dict)


def place_of(path: str, archive: str) -> str:
    """Tell what kind of path it is: what differs from run to run is left out."""
    place = os.path.relpath(path, archive)
    place = re.sub(r"^depot/[^/]+", "depot/*", place)
    return re.sub(r"_[0-9a-f]{32,64}(_[0-9]+)?\.dcm$", ".dcm", re.sub(r"/[0-9a-f]+$", "/slot", place))


# In the test


ANSWERED_AFTER = frozenset({"commit", "synchronize"})
"""Operations after which a peer may be told something before the next one."""


def telling_steps(watched: Path, occurrences_max: int) -> list[Step]:
    """Return the steps of a watched run at which a kill leaves what no other one leaves.

    The system closes what a killed process had open, so a close is none. And what there is just after an operation there is
    just before the next one of its thread too, unless somebody was told of it in between.
    """
    found = []
    for line in watched.read_text(encoding="ascii").splitlines():
        operation, kind, occurrence = line.split("\t")
        if operation != "close" and int(occurrence) <= occurrences_max:
            found += [
                Step(operation=operation, place=kind, occurrence=int(occurrence), before=before)
                for before in ((True, False) if operation in ANSWERED_AFTER else (True,))
            ]
    return found


class ChildServer:
    """A server that the nursery forked."""

    def __init__(self, nursery: "Nursery", order: Order, pid: int) -> None:
        self._nursery = nursery
        self.order = order
        self.pid = pid
        self.archive = Path(order.archive)
        self.port = 0

    def log_text(self) -> str:
        """Return what it has printed and logged so far."""
        return Path(self.order.log).read_text(encoding="utf-8", errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def ended(self) -> bool:
        """Tell whether it has ended."""
        return self._nursery.ended(self)

    def wait(self) -> int:
        """Wait for its end and return its exit code, negative for the signal that ended it."""
        return self._nursery.wait(self)


class Nursery:
    """The program that forks servers, for the length of a block."""

    def __init__(self) -> None:
        path = os.pathsep.join([_SOURCE, str(_HERE.parents[1])])
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", _TETHER, sys.executable, str(_HERE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        self._ended: dict[int, int] = {}
        self._living: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in list(self._living):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()
        self._process.wait(END_SECONDS_MAX)

    def start(self, order: Order, *, wait: bool = True) -> ChildServer:
        """Start a server, and wait until it is ready unless told otherwise."""
        if not Path(order.archive).exists():
            Path(order.archive).mkdir()
            open_database(Path(order.archive)).close()  # without waiting for the migrations
        answer = self._ask({"start": asdict(order)})
        child = ChildServer(self, order, answer["pid"])
        self._living.add(child.pid)
        if wait:
            ready = self._ask({"ready": child.pid})
            assert ready["port"], f"the server ended before it was ready:\n{child.log_text()}"
            child.port = ready["port"]
        return child

    def ended(self, child: ChildServer) -> bool:
        """Tell whether a server has ended."""
        return self._look(child, "poll") is not None

    def wait(self, child: ChildServer) -> int:
        """Wait for the end of a server and return its exit code."""
        code = self._look(child, "wait")
        assert code is not None
        return code

    def _look(self, child: ChildServer, how: str) -> int | None:
        if child.pid not in self._ended:
            code = self._ask({how: child.pid})["code"]
            if code is None:
                return None
            self._ended[child.pid] = code
            self._living.discard(child.pid)
        return self._ended[child.pid]

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer


# In the nursery


def main(serve_once: Callable[[Path], None]) -> None:
    """Serve once in a folder, then answer questions, a line of JSON each, until there are no more."""
    share_compiled_statements()
    with tempfile.TemporaryDirectory(prefix="nursery-") as folder:
        serve_once(Path(folder))
    assert threading.active_count() == 1, "the first serving has left a thread, which no child would have"
    gc.collect()
    gc.freeze()  # a look for dead cycles in a child would copy every page of this process
    waiting: dict[int, int] = {}
    answer: dict[str, int | None]
    for line in sys.stdin:
        match json.loads(line):
            case {"start": order}:
                kill_at = order.pop("kill_at")
                chosen = Order(**order, kill_at=Step(**kill_at) if kill_at else None)
                pid, waiting_for = fork(chosen)
                waiting[pid] = waiting_for
                answer = {"pid": pid}
            case {"ready": pid}:
                with os.fdopen(waiting.pop(pid)) as pipe:
                    answer = {"port": int(pipe.readline() or 0)}
            case {"wait": pid}:
                answer = {"code": os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}
            case {"poll": pid}:
                found, status = os.waitpid(pid, os.WNOHANG)
                answer = {"code": os.waitstatus_to_exitcode(status) if found else None}
        print(json.dumps(answer), flush=True)


def fork(order: Order) -> tuple[int, int]:
    """Start a child; return its process id, and the pipe on which it tells its port."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, reading
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.close(reading)
        output = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        for number in (1, 2):
            os.dup2(output, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = run(order, writing)
    except BaseException:  # noqa: BLE001 - a forked child must not go on in its parent's code, whatever happened
        import traceback

        traceback.print_exc()
        code = 99
    os._exit(code)


def run(order: Order, tell_port: int) -> int:
    """Serve as `stowkeeper serve` does, watched."""
    from stowkeeper.app import commands
    from stowkeeper.app.commands import serve
    from stowkeeper.archive import archive

    watcher = Watcher(order)
    # In place of the class itself, and sooner than as shipped.
    vars(archive).update(FileSystem=watched_filesystem(watcher), RECOVERY_SCAN_SECONDS=order.look_seconds)
    watch_commits(watcher)
    announce = serve._Serving._announce

    def announce_and_tell(self: Any, host: str, port: int, http: Any) -> None:
        announce(self, host, port, http)
        os.write(tell_port, f"{port}\n".encode())
        os.close(tell_port)
        watcher.begin()

    serve._Serving._announce = announce_and_tell  # type: ignore[method-assign]  # tells when it is ready
    os.environ.update({f"STOWKEEPER_STORAGE__{name}": value for name, value in SMALL.items()})
    os.environ.update(ALONE)
    os.environ.update(order.settings)
    arguments = ["serve", "--archive", order.archive, "--port", "0", *order.arguments]
    code = commands.run(arguments)
    sys.stdout.flush()
    return code


def serve_once(folder: Path) -> None:
    """Serve in this process, unwatched, while a peer stores something of each kind."""
    from stowkeeper.app import commands
    from stowkeeper.app.commands import serve

    peers: list[threading.Thread] = []
    archive = folder / "archive"
    archive.mkdir()
    open_database(archive).close()

    def announce(_: Any, _host: str, port: int, _http: Any) -> None:
        peers.append(threading.Thread(target=_store_and_stop, args=(port,)))
        peers[0].start()

    variables = {**ALONE, **{f"STOWKEEPER_STORAGE__{name}": value for name, value in SMALL.items()}}
    with (
        patch.object(serve._Serving, "_announce", announce),
        patch.dict(os.environ, variables),
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        code = commands.run(["serve", "--archive", str(archive), "--port", "0"])
    assert code == 0
    peers[0].join()


def _store_and_stop(port: int) -> None:
    """Send a small instance twice, another version of it and a large one, and then SIGTERM to this process."""
    try:
        with RawPeer(port) as peer:
            peer.associate()
            for instance in (make_instance(1), make_instance(1), make_instance(1, content=1), LARGE):
                assert peer.store(instance.sop_instance_uid, instance.data).status == 0
            peer.release()
    finally:
        os.kill(os.getpid(), signal.SIGTERM)


class Watcher:
    """Counts steps and, at the one it waits for, ends the process as a power switch would."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._begun = False
        self._watching = open(order.watch, "a", buffering=1, encoding="utf-8") if order.watch else None  # noqa: SIM115 - until the end

    def begin(self) -> None:
        """Count from now on: the server is ready."""
        self._begun = True

    @contextlib.contextmanager
    def step(self, operation: str, path: str) -> Iterator[None]:
        """Die before or after what the block does, if it is the step."""
        if not self._begun or threading.current_thread().name == "slot-filler":
            yield
            return
        place = place_of(path, self._order.archive)
        with self._lock:
            self._counts[operation, place] += 1
            occurrence = self._counts[operation, place]
            if self._watching is not None:
                self._watching.write(f"{operation}\t{place}\t{occurrence}\n")
        self._die_if(Step(operation=operation, place=place, occurrence=occurrence))
        yield
        self._die_if(Step(operation=operation, place=place, occurrence=occurrence, before=False))

    def _die_if(self, step: Step) -> None:
        if step == self._order.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


def watched_filesystem(watcher: Watcher) -> type:
    """Return the file system of the archive, with a watcher beside each operation that changes or syncs anything."""
    from stowkeeper.durable.filesystem import FileSystem

    class WatchedFileSystem(FileSystem):
        __slots__ = ()

        def write(self, descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> None:
            with watcher.step("write", path_of(descriptor)):
                super().write(descriptor, buffers, offset)

        def synchronize(self, descriptor: int) -> None:
            with watcher.step("synchronize", path_of(descriptor)):
                super().synchronize(descriptor)

        def close(self, descriptor: int) -> None:
            with watcher.step("close", path_of(descriptor)):
                super().close(descriptor)

        def link(self, source: str, target: str) -> None:
            with watcher.step("link", target):
                super().link(source, target)

    def with_path(name: str) -> Callable[..., Any]:
        original = getattr(FileSystem, name)

        def watched(self: FileSystem, path: str, *more: Any, **named: Any) -> Any:
            with watcher.step(name, path):
                return original(self, path, *more, **named)

        return watched

    for name in ("unlink", "make_directory", "remove_directory", "synchronize_directory"):
        setattr(WatchedFileSystem, name, with_path(name))
    return WatchedFileSystem


def path_of(descriptor: int) -> str:
    """Return the path that a descriptor was opened by (Linux)."""
    return os.readlink(f"/proc/self/fd/{descriptor}")


def watch_commits(watcher: Watcher) -> None:
    """Put a watcher beside each commit of the catalog."""
    from stowkeeper.database.engine import Database, Transaction

    write = Database.write

    @contextlib.contextmanager
    def watched(self: Database) -> Iterator[Transaction]:
        folder = os.path.dirname(self.path)
        with contextlib.ExitStack() as stack, write(self) as transaction:
            yield transaction
            stack.enter_context(watcher.step("commit", f"{folder}/catalog"))

    Database.write = watched  # type: ignore[method-assign]  # the same, with steps


if __name__ == "__main__":
    # Once for all children. What is watched is put in its place after that, in each of them.
    main(serve_once)
