"""An unchanged `storescu`, as it is shipped, into a receiver: what a modality built on DCMTK sees.

Both ends keep their defaults, so Nagle's algorithm is on at the sender, and PDUs are 16384 bytes. The time is that of the
whole program, from its start to its end.
"""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from contenders import CONTENDERS, SHIPPED_STORESCP, Contender, started_apart
from cstore_load import HOST
from support.peers import PEERS, program_path
from support.processes import ProgramFailed

SECONDS_MAX = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippedTurn:
    """What an unchanged storescu took to send the first instances of a set to one receiver."""

    set_name: str
    round_number: int
    contender: str
    instances: int
    seconds: float = 0.0
    problem: str | None = None

    @property
    def instances_a_second(self) -> float:
        """Return sent instances per second of the sender's whole run."""
        return self.instances / self.seconds if self.seconds else 0.0


def receivers() -> list[Contender]:
    """Return the two that are compared."""
    return [CONTENDERS["stowkeeper"], SHIPPED_STORESCP]


def missing() -> str | None:
    """Say what is not on this machine, or None when the comparison can be made."""
    return (
        None
        if PEERS["storescu"].is_present()
        else f"storescu is not on this machine: {PEERS['storescu'].obtain}"
    )


def send_files(files: Sequence[Path], *, port: int, ae_title: str) -> float:
    """Run storescu on files; return its seconds. Raises ProgramFailed when it reports a failure."""
    environment = {
        key: value for key, value in os.environ.items() if key not in ("TCP_NODELAY", "TCP_BUFFER_LENGTH")
    }
    start = time.perf_counter()
    run = subprocess.run(
        [program_path("storescu"), "-aec", ae_title, HOST, str(port), *map(str, files)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        timeout=SECONDS_MAX,
        check=False,
    )
    seconds = time.perf_counter() - start
    if run.returncode != 0:
        raise ProgramFailed(
            f"storescu ended with {run.returncode}: {run.stdout[-500:].decode(errors='replace')}"
        )
    return seconds


def take_turn(
    contender: Contender,
    files: Sequence[Path],
    turn: ShippedTurn,
    folder: Path,
) -> ShippedTurn:
    """Let storescu send files to a receiver freshly started on a folder that is not there yet."""
    try:
        with started_apart(contender, folder) as receiver:
            return replace(turn, seconds=send_files(files, port=receiver.port, ae_title=receiver.ae_title))
    except (ProgramFailed, OSError, subprocess.TimeoutExpired) as error:
        return replace(turn, problem=f"{type(error).__name__}: {error}")
    finally:
        os.sync()  # what this receiver left unwritten is not the next one's to pay for


def rounds_of(
    set_name: str,
    files: Sequence[Path],
    contenders: Sequence[Contender],
    *,
    rounds: int,
    folder: Path,
    report: Callable[[ShippedTurn], None],
) -> Iterator[ShippedTurn]:
    """Give each receiver its turn in every round."""
    for round_number in range(1, rounds + 1):
        for contender in contenders:
            blank = ShippedTurn(
                set_name=set_name, round_number=round_number, contender=contender.name, instances=len(files)
            )
            turn = take_turn(contender, files, blank, folder / f"{set_name}-{round_number}-{contender.name}")
            report(turn)
            yield turn
