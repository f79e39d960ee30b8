"""The drop-in command `stowkeeper storescp` beside DCMTK's program of that name, with the same command line.

Neither syncs. Both have a turn in every round, every other round the other way around: what one leaves behind, as the
memory that it freed, then makes the next turn slower or faster for either of them. Each turn has a folder of its own, and
nothing is removed before the last turn of all.
"""

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import shipped
import stowkeeper
import throughput
from contenders import (
    CONTENDERS,
    DROP_IN,
    DROP_IN_SHIPPED,
    SHIPPED_STORESCP,
    Contender,
)
from shipped import ShippedTurn
from support.processes import START_SECONDS_MAX, ProgramFailed, free_port, is_listening
from throughput import EncodedSet, Turn

SPEED: tuple[tuple[Contender, Contender], ...] = (
    (DROP_IN["drop-in-b"], CONTENDERS["storescp-b"]),
    (DROP_IN["drop-in"], CONTENDERS["storescp"]),
)
"""Who is compared with whom."""
SHIPPED: tuple[Contender, ...] = (DROP_IN_SHIPPED, SHIPPED_STORESCP)
POLL_SECONDS = 0.001
WARM, COLD, UNCOMPILED = "warm", "cold", "uncompiled"
STATES = {
    WARM: "all files in the page cache",
    COLD: "no file in the page cache, but those that other programs have mapped",
    UNCOMPILED: "warm, but every module compiled anew, Python's own too",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How long a receiver took from its exec until it listened; `problem` says why it counts for nothing."""

    contender: str
    state: str
    round_number: int
    seconds: float = 0.0
    problem: str | None = None


def in_turns(
    contenders: Sequence[Contender], rounds: int, folder: Path
) -> Iterator[tuple[int, Contender, Path]]:
    """Yield the round, the contender and a folder that is not there yet, for every turn."""
    for round_number in range(1, rounds + 1):
        for contender in contenders if round_number % 2 else reversed(contenders):
            yield round_number, contender, folder / f"{round_number}-{contender.name}"


# Speed


def speed_rounds(
    encoded: EncodedSet,
    contenders: Sequence[Contender],
    *,
    rounds: int,
    folder: Path,
    report: Callable[[Turn], None],
) -> Iterator[Turn]:
    """Send a set over one association, from a sender that costs next to nothing.

    A turn before the first round does not count: nobody came before it.
    """
    within = folder / f"{encoded.name}-{contenders[0].name}"

    def take_turn(contender: Contender, round_number: int, place: Path) -> Turn:
        return throughput.take_turn(
            contender,
            encoded,
            associations=1,
            round_number=round_number,
            folder=place,
        )

    take_turn(contenders[-1], 0, within / "before")
    for round_number, contender, place in in_turns(contenders, rounds, within):
        turn = take_turn(contender, round_number, place)
        report(turn)
        yield turn


def shipped_rounds(
    set_name: str,
    files: Sequence[Path],
    *,
    rounds: int,
    folder: Path,
    report: Callable[[ShippedTurn], None],
) -> Iterator[ShippedTurn]:
    """Let an unchanged storescu send to both as they are shipped: no option, no environment variable."""
    for round_number, contender, place in in_turns(SHIPPED, rounds, folder / f"shipped-{set_name}"):
        blank = ShippedTurn(
            set_name=set_name, round_number=round_number, contender=contender.name, instances=len(files)
        )
        turn = shipped.take_turn(contender, files, blank, place)
        report(turn)
        yield turn


# Starting


def start_rounds(*, rounds: int, folder: Path, report: Callable[[Start], None]) -> Iterator[Start]:
    """Start both several times in each state; a start before them that does not count makes files warm."""
    for contender in SHIPPED:
        time_start(contender, WARM, 0, folder / f"first-{contender.name}")
    for state in STATES:
        for round_number, contender, place in in_turns(SHIPPED, rounds, folder / f"starts-{state}"):
            if state == UNCOMPILED and contender is not DROP_IN_SHIPPED:
                continue
            start = time_start(contender, state, round_number, place)
            report(start)
            yield start


def time_start(contender: Contender, state: str, round_number: int, folder: Path) -> Start:
    """Start a receiver once, end it, and return how long it took to listen."""
    folder.mkdir(parents=True)
    environment = {**os.environ, **contender.environment}
    if state == UNCOMPILED:
        environment["PYTHONPYCACHEPREFIX"] = str(folder.with_name(f"{folder.name}.bytecode"))
    port = free_port()
    argv = [*contender.command(folder, port)]
    if state == COLD:
        forget(files_read_by(argv[0]))
    start = Start(contender=contender.name, state=state, round_number=round_number)
    try:
        return replace(start, seconds=seconds_to_listen(argv, port, environment, folder))
    except (ProgramFailed, OSError) as error:
        return replace(start, problem=f"{type(error).__name__}: {error}")


def seconds_to_listen(argv: Sequence[str], port: int, environment: dict[str, str], folder: Path) -> float:
    """Run a program until it accepts connections; raise ProgramFailed when it never does."""
    log = folder.with_name(f"{folder.name}.log")
    with log.open("wb") as output:
        begin = time.perf_counter()
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment
        )
        try:
            while not is_listening(port):
                if process.poll() is not None:
                    end = log.read_text(encoding="utf-8", errors="replace")[-500:]
                    raise ProgramFailed(f"it ended with {process.returncode} before it listened:\n{end}")
                if time.perf_counter() - begin > START_SECONDS_MAX:
                    raise ProgramFailed(f"it did not listen within {START_SECONDS_MAX:g} s")
                time.sleep(POLL_SECONDS)
            return time.perf_counter() - begin
        finally:
            process.kill()
            process.wait()


def files_read_by(program: str) -> Iterator[Path]:
    """Yield the files that a program may read when it starts: Python's modules, or its shared libraries."""
    if program == sys.executable:
        paths = sysconfig.get_paths()
        roots = {paths["stdlib"], paths["purelib"], paths["platlib"], *stowkeeper.__path__}
        for root in roots:
            yield from Path(root).rglob("*.py*")
            yield from Path(root).rglob("*.so")
        return
    yield Path(program)
    libraries = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for word in libraries.split():
        if word.startswith("/"):
            yield Path(word)


def forget(files: Iterator[Path]) -> None:
    """Drop files from the page cache, as far as nothing has them mapped (Linux)."""
    for path in files:
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(descriptor)
