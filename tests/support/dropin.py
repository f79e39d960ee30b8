"""Running `stowkeeper storescp` and `stowkeeper dcmrecv`, and what becomes of what is sent to them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from support import forked
from support.instances import Instance, make_instance
from support.processes import LOOPBACK, POLL_SECONDS, Program, free_port, running
from support.raw_peer import ASSOCIATE_AC, Context, RawPeer

WAIT_SECONDS = 30.0
_LISTENS = "0A"
PROFILE = """
[[TransferSyntaxes]]
[Little]
TransferSyntax1 = LittleEndianExplicit
[[PresentationContexts]]
[Contexts]
PresentationContext1 = VerificationSOPClass\\Little
PresentationContext2 = CTImageStorage\\Little
[[Profiles]]
[Some]
PresentationContexts = Contexts
"""
"""A negotiation profile: without one `dcmrecv` takes no object."""


def program_of(tool: str, *arguments: str | Path) -> list[str]:
    """Return the command line of a drop-in command."""
    return [sys.executable, "-m", "stowkeeper", tool, *map(str, arguments)]


def listens(port: int) -> bool:
    """Tell whether somebody listens on a port, without calling it: a call would be a connection to serve."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == _LISTENS for row in rows)


def children(pid: int) -> dict[int, str]:
    """Return the child processes of a process by their ids, with the letters of their states; Z is a zombie."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            number, _, rest = stat.read_text(encoding="latin-1").partition(" (")
            state, parent = rest.rpartition(") ")[2].split()[:2]
            if int(parent) == pid:
                found[int(number)] = state
    return found


def wait_for(condition: Callable[[], bool], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still waiting {what}"
        time.sleep(POLL_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """A drop-in command that listens, and its output directory."""

    program: Program
    port: int
    folder: Path

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self.program.pid

    def log(self) -> str:
        """Return what it has printed."""
        return self.program.log_text()

    def wait_for_log(self, words: str, times: int = 1) -> None:
        """Wait until it has printed something."""
        self.program.wait_until(lambda: self.log().count(words) >= times, f"before it said {words!r}")

    def wait_until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds while it runs."""
        self.program.wait_until(condition, what, WAIT_SECONDS)

    def files(self) -> list[str]:
        """Return the paths of the files in its output directory, but for unfinished ones."""
        return [name for name in self._all_files() if not _is_hidden(name)]

    def hidden(self) -> list[str]:
        """Return the unfinished files in it; one may be made ahead while an association is open."""
        return [name for name in self._all_files() if _is_hidden(name)]

    def _all_files(self) -> list[str]:
        return sorted(str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file())

    def children(self) -> dict[int, str]:
        """Return its child processes with their states."""
        return children(self.pid)

    def names(self) -> list[str]:
        """Return the paths of all that is in its output directory, directories too, but for unfinished files."""
        paths = (str(path.relative_to(self.folder)) for path in self.folder.rglob("*"))
        return sorted(name for name in paths if not _is_hidden(name))

    @contextlib.contextmanager
    def association(self, *contexts: Context, **more: object) -> Iterator[RawPeer]:
        """Hold an association, released and closed behind the block."""
        with RawPeer(self.port) as peer:
            assert peer.associate(*contexts, **more).kind == ASSOCIATE_AC
            yield peer
            peer.release()

    def store(self, *instances: Instance, **more: object) -> list[int]:
        """Send instances in one association; return their statuses."""
        with self.association(**more) as peer:
            return [peer.store(one.sop_instance_uid, one.data).status for one in instances]

    def is_serving(self) -> bool:
        """Tell whether it answers an echo now."""
        with self.association() as peer:
            return peer.echo().status == 0

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.program.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end and return its exit status."""
        return self.program.process.wait(WAIT_SECONDS)


def _is_hidden(name: str) -> bool:
    return name.rpartition("/")[2].startswith(".stowkeeper-")


@contextlib.contextmanager
def receiving(
    place: Path,
    *options: str | Path,
    tool: str = "storescp",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    wrapper: tuple[str, ...] = (),
    from_scratch: bool = False,
) -> Iterator[Receiver]:
    """Run a drop-in command on a free port for the length of a block; at its end its log tells of no fault of ours, and
    after an end in order there is no unfinished file.

    Its output directory is `folder`, by default a new one in `place`. `wrapper` is a program that runs it. It starts from
    scratch, with an interpreter of its own, where a test is about its start.
    """
    port = free_port()
    if folder is None:
        folder = place / f"out-{port}"
        folder.mkdir()
    if tool == "dcmrecv" and "-xf" not in options:
        profile = place / "profile.cfg"
        profile.write_text(PROFILE)
        options = (*options, "-xf", profile, "Some")
    argv = [*wrapper, *program_of(tool, *options, "-od", folder, str(port))]
    chosen = {"STOWKEEPER_LISTEN": LOOPBACK, **(environment or {})}
    log = place / f"{tool}-{port}.log"
    with running(tool, argv, log=log, environment=chosen, from_scratch=from_scratch) as program:
        program.wait_until(lambda: listens(port), "before it listened")
        receiver = Receiver(program=program, port=port, folder=folder)
        before = receiver.hidden()
        yield receiver
        if program.stop() == -signal.SIGTERM:
            wait_for(
                lambda: set(receiver.hidden()) <= set(before),
                "for unfinished files to be removed, children's too",
            )
        assert "a fault of its own" not in program.log_text(), program.log_text()
        assert " ended by a fault" not in program.log_text(), program.log_text()
        assert " ends by " not in program.log_text(), program.log_text()


def run_to_end(
    tool: str,
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    seconds: float = WAIT_SECONDS,
    from_scratch: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a drop-in command that ends by itself."""
    return forked.run(
        program_of(tool, *arguments),
        from_scratch=from_scratch,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "STOWKEEPER_LISTEN": LOOPBACK, **(environment or {})},
        timeout=seconds,
    )


def instance(number: int = 1, *, study: str = "1.2.10", size: int = 600, content: int = 0) -> Instance:
    """Return a CT instance `1.2.3.<number>` whose file is named `CT.1.2.3.<number>`."""
    return make_instance(number, study=study, series=f"{study}.1", size=size, content=content)
