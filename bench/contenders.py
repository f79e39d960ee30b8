"""Who takes part in the benchmark: how each receiver is started, and what it promises.

Every start gets an empty folder of its own, on one disk; a receiver is ended and its folder removed after each turn.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from process_memory import cpu_seconds
from support.peers import SEARCH_PATH, orthanc_configuration
from support.processes import LOOPBACK, Program, ProgramFailed, free_port, running

HERE = Path(__file__).resolve().parent
SUPPORT = HERE.parent / "tests" / "support"
REST_LOOK_SECONDS = 0.1
REST_LOOKS = 3
REST_SECONDS_MAX = 60.0
MAX_PDU_LENGTH = 131072
"""The largest PDU that DCMTK and Orthanc can be told to take."""
NO_DELAY = {"TCP_NODELAY": "1"}
_READY = re.compile(
    r"^stowkeeper ready dicom=(?P<host>.+):(?P<port>\d+) aet=(?P<aet>\S+) (?:http=\S+ )?archive=(?P<archive>.+)$",
    re.MULTILINE,
)

Command = Callable[[Path, int], Sequence[str]]
"""Makes a command line from the folder to store into and the port to listen on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A receiver, and how it is started."""

    name: str
    title: str
    command: Command
    executable: str | None = None
    """What must be on the machine for it, apart from this project."""
    environment: Mapping[str, str] = field(default_factory=dict)
    many_associations: bool = True
    """Whether it is compared over several associations too. A plain storescp serves one at a time, and those that are
    many times slower would only make the run longer."""
    announces_itself: bool = False
    """Whether it chooses its own port and prints Stowkeeper's ready line."""

    def missing(self) -> str | None:
        """Say what is not on this machine, or None when it can take part."""
        if self.executable is None or shutil.which(self.executable, path=SEARCH_PATH) is not None:
            return None
        return f"{self.executable} is not on this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """A contender that runs: where it listens and stores."""

    port: int
    ae_title: str
    folder: Path
    program: Program


def _stowkeeper(*options: str) -> Command:
    return lambda folder, port: [
        *(sys.executable, "-m", "stowkeeper", "serve", "--archive", str(folder), "--port", str(port)),
        *("--http-port", "off"),
        *options,
    ]


def _storescp(*options: str) -> Command:
    return lambda folder, port: [_find("storescp"), *options, "-od", str(folder), str(port)]


def _drop_in(*options: str) -> Command:
    return lambda folder, port: [
        *(sys.executable, "-m", "stowkeeper", "storescp"),
        *(*options, "-od", str(folder), str(port)),
    ]


def _pynetdicom(folder: Path, port: int) -> Sequence[str]:
    return [sys.executable, str(SUPPORT / "pynetdicom_receiver.py"), str(port), str(folder)]


def _orthanc(folder: Path, port: int) -> Sequence[str]:
    configuration = folder / "orthanc.json"
    settings = orthanc_configuration(folder=folder, dicom_port=port, http_port=free_port())
    settings |= {"MaximumPduLength": MAX_PDU_LENGTH}
    configuration.write_text(json.dumps(settings), encoding="utf-8")
    return [_find("Orthanc"), str(configuration)]


def _sink(*options: str) -> Command:
    return lambda folder, port: [str(built_sink(folder.parent)), str(port), str(folder), *options]


def _find(executable: str) -> str:
    path = shutil.which(executable, path=SEARCH_PATH)
    if path is None:
        raise FileNotFoundError(f"{executable} is not on this machine")
    return path


@cache
def built_sink(folder: Path) -> Path:
    """Compile sink.c once for a run of the benchmark; return the program."""
    program = folder / "sink.program"
    subprocess.run([_find("cc"), "-O2", "-o", str(program), str(HERE / "sink.c")], check=True)
    return program


_PDU = ("-pdu", str(MAX_PDU_LENGTH))

CONTENDERS: Mapping[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender(
            name="stowkeeper",
            title="Stowkeeper",
            command=_stowkeeper(),
            announces_itself=True,
        ),
        Contender(
            name="stowkeeper-nosync",
            title="Stowkeeper --no-sync",
            command=_stowkeeper("--no-sync"),
            announces_itself=True,
        ),
        Contender(
            name="storescp-b",
            title="DCMTK storescp +B",
            command=_storescp("+B", *_PDU),
            executable="storescp",
            environment=NO_DELAY,
            many_associations=False,
        ),
        Contender(
            name="storescp",
            title="DCMTK storescp",
            command=_storescp(*_PDU),
            executable="storescp",
            environment=NO_DELAY,
            many_associations=False,
        ),
        Contender(
            name="storescp-fork",
            title="DCMTK storescp --fork +B",
            command=_storescp("--fork", "+B", *_PDU),
            executable="storescp",
            environment=NO_DELAY,
        ),
        Contender(
            name="pynetdicom", title="pynetdicom, raw handler", command=_pynetdicom, many_associations=False
        ),
        Contender(
            name="orthanc",
            title="Orthanc",
            command=_orthanc,
            executable="Orthanc",
            environment=NO_DELAY,  # it is built on DCMTK, which reads this
            many_associations=False,
        ),
        Contender(name="sink", title="bare sink, no sync", command=_sink(), executable="cc"),
        Contender(name="sink-sync", title="bare sink, synced files", command=_sink("-s"), executable="cc"),
        Contender(name="sink-slots", title="bare sink, synced slots", command=_sink("-p"), executable="cc"),
    )
}

SHIPPED_STORESCP = Contender(
    name="storescp-shipped",
    title="DCMTK storescp as shipped",
    command=_storescp(),
    executable="storescp",
    many_associations=False,
)
"""With the settings it comes with: Nagle's algorithm on, PDUs of 16384 bytes."""

_AS_DCMTK = {"STOWKEEPER_LISTEN": LOOPBACK, "STOWKEEPER_SYNC": ""}
"""It does not sync either, whatever the environment of the benchmark says. TCP_NODELAY is not needed."""

DROP_IN: Mapping[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender(
            name="drop-in-b",
            title="stowkeeper storescp +B",
            command=_drop_in("+B", *_PDU),
            environment=_AS_DCMTK,
            many_associations=False,
        ),
        Contender(
            name="drop-in",
            title="stowkeeper storescp",
            command=_drop_in(*_PDU),
            environment=_AS_DCMTK,
            many_associations=False,
        ),
    )
}
"""The drop-in command, with the command lines of DCMTK's program that it is compared with."""

DROP_IN_SHIPPED = Contender(
    name="drop-in-shipped",
    title="stowkeeper storescp as shipped",
    command=_drop_in(),
    environment=_AS_DCMTK,
    many_associations=False,
)


@contextmanager
def started(contender: Contender, folder: Path, options: Sequence[str] = ()) -> Iterator[Receiver]:
    """Run a contender on an empty folder until the block ends, then end it and remove the folder.

    `options` are put at the end of its command line. Raises ProgramFailed when it does not start.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        with serving(contender, folder, options) as receiver:
            yield receiver
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def started_apart(contender: Contender, folder: Path) -> Iterator[Receiver]:
    """Run a contender on a folder that is new, and leave its files there without their bytes.

    It is there once it does nothing any more after its start, and is killed in the end. For ext4 looks, for each new file,
    through all that were removed in the last minutes, which can take twenty times as long as making it: a turn would pay for
    what the one before removed when it ended. Emptied files take no space and are removed with the whole run's folder.
    """
    folder.mkdir(parents=True)
    try:
        with serving(contender, folder) as receiver:
            wait_for_rest(receiver.program.pid)
            yield receiver
            receiver.program.kill()
    finally:
        for path in folder.rglob("*"):
            if path.is_file():
                os.truncate(path, 0)


@contextmanager
def serving(contender: Contender, folder: Path, options: Sequence[str] = ()) -> Iterator[Receiver]:
    """Run a contender on a folder as it is until the block ends, then end it."""
    port = 0 if contender.announces_itself else free_port()
    argv = [*contender.command(folder, port), *options]
    log = folder.with_name(f"{folder.name}.log")
    with running(contender.title, argv, log=log, environment=contender.environment) as program:
        ae_title = "ANY-SCP"
        if contender.announces_itself:
            program.wait_until(lambda: _READY.search(program.log_text()) is not None, "before its ready line")
            port, ae_title = _announced(program.log_text())
        else:
            program.wait_until_listening(port)
        yield Receiver(port=port, ae_title=ae_title, folder=folder, program=program)


def wait_for_rest(pid: int) -> None:
    """Wait until a receiver uses no processor time for some moments, as after filling its stores; a minute at most."""
    end = time.monotonic() + REST_SECONDS_MAX
    used, quiet = -1.0, 0
    while quiet < REST_LOOKS and time.monotonic() < end:
        time.sleep(REST_LOOK_SECONDS)
        now = cpu_seconds(pid)
        used, quiet = now, quiet + 1 if now == used else 0


def _announced(log: str) -> tuple[int, str]:
    ready = _READY.search(log)
    if ready is None:
        raise ProgramFailed("no ready line")
    return int(ready["port"]), ready["aet"]
