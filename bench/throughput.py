"""Turns of the throughput comparison: one set, one number of associations, one receiver at a time.

In every round each receiver has its turn, one after the other, so that two of them are always compared within seconds of
each other: this kind of machine drifts by a factor of two within minutes.
"""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from contenders import Contender, Receiver, started_apart
from cstore_load import (
    Context,
    Instance,
    Load,
    PeerFailed,
    contexts_of,
    encode_requests,
    negotiate,
    run_load,
)
from process_memory import cpu_seconds, footprint
from support.processes import ProgramFailed


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What one receiver did with one set in one round; `problem` says why a turn counts for nothing."""

    set_name: str
    associations: int
    round_number: int
    contender: str
    instances: int = 0
    instances_a_second: float = 0.0
    megabytes_a_second: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    server_cpu_ms_an_instance: float = 0.0
    client_cpu_ms_an_instance: float = 0.0
    server_peak_megabytes: float = 0.0
    max_pdu_length: int = 0
    problem: str | None = None


class EncodedSet:
    """One instance set, and its requests as encoded for each PDU length that a receiver takes."""

    def __init__(self, name: str, instances: Sequence[Instance]) -> None:
        self.name = name
        self.instances = instances
        self._requests: dict[tuple[int, tuple[tuple[Context, int], ...]], list[bytes]] = {}

    def requests(self, context_ids: dict[Context, int], max_pdu_length: int) -> list[bytes]:
        """Return the requests for these context ids and this PDU length, encoded at the first call."""
        key = (max_pdu_length, tuple(sorted(context_ids.items())))
        if key not in self._requests:
            self._requests[key] = encode_requests(self.instances, context_ids, max_pdu_length)
        return self._requests[key]


def take_turn(
    contender: Contender,
    encoded: EncodedSet,
    *,
    associations: int,
    round_number: int,
    folder: Path,
    removals: int = 0,
) -> Turn:
    """Start a receiver on a folder that is not there yet, send it the set, end it; only the sending is timed.

    So many empty files are made and removed beside the folder before that.
    """
    remove_files(removals, folder.with_name("removed"))
    turn = Turn(
        set_name=encoded.name, associations=associations, round_number=round_number, contender=contender.name
    )
    try:
        with started_apart(contender, folder) as receiver:
            return _measure(turn, receiver, encoded)
    except (ProgramFailed, PeerFailed, OSError) as error:
        return replace(turn, problem=f"{type(error).__name__}: {error}")
    finally:
        os.sync()  # what this receiver left unwritten is not the next one's to pay for


def remove_files(count: int, folder: Path) -> None:
    """Make empty files in a new folder and remove them, and the folder: ext4 remembers them for minutes."""
    if not count:
        return
    folder.mkdir()
    for number in range(count):
        (folder / str(number)).touch()
    shutil.rmtree(folder)
    os.sync()


def _measure(turn: Turn, receiver: Receiver, encoded: EncodedSet) -> Turn:
    contexts = contexts_of(encoded.instances)
    context_ids, max_pdu_length = negotiate(receiver.port, receiver.ae_title, contexts)
    requests = encoded.requests(context_ids, max_pdu_length)
    cpu_before = cpu_seconds(receiver.program.pid)
    load = run_load(receiver.port, receiver.ae_title, encoded.instances, requests, turn.associations)
    cpu = cpu_seconds(receiver.program.pid) - cpu_before
    return replace(
        turn,
        instances=load.instances,
        instances_a_second=load.instances_a_second,
        megabytes_a_second=load.megabytes_a_second,
        p50_ms=load.latency_ms(0.5),
        p99_ms=load.latency_ms(0.99),
        server_cpu_ms_an_instance=cpu / load.instances * 1e3,
        client_cpu_ms_an_instance=load.client_cpu_seconds / load.instances * 1e3,
        server_peak_megabytes=footprint(receiver.program.pid).peak_resident / 1e6,
        max_pdu_length=max_pdu_length,
        problem=_refusals(load),
    )


def _refusals(load: Load) -> str | None:
    if not load.refused:
        return None
    counts = ", ".join(
        f"{count} × {status:04X}H" for status, count in sorted(load.statuses.items()) if status
    )
    return f"not Success: {counts}"


def rounds_of(
    encoded: EncodedSet,
    contenders: Sequence[Contender],
    *,
    associations: Sequence[int],
    rounds: int,
    folder: Path,
    removals: int,
    report: Callable[[Turn], None],
) -> Iterator[Turn]:
    """Give every receiver its turn in every round, at each number of associations it can serve.

    Every other round goes the other way around, so that nobody always comes after the same one.
    """
    for round_number in range(1, rounds + 1):
        for count in associations:
            for contender in contenders if round_number % 2 else reversed(contenders):
                if count > 1 and (not contender.many_associations or count > len(encoded.instances)):
                    continue
                turn = take_turn(
                    contender,
                    encoded,
                    associations=count,
                    round_number=round_number,
                    folder=folder / f"{encoded.name}-{count}-{round_number}-{contender.name}",
                    removals=removals,
                )
                report(turn)
                yield turn
