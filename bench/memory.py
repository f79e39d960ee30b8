"""How much memory a receiver needs: large instances together, one larger than any buffer, and idle associations.

Nothing here is timed. Memory is read from /proc: VmHWM, the highest mark, for the large instances, and VmRSS for the idle
associations. The 5 GB instance exists in no file and in no memory: its PDUs are made while they are sent.
"""

import struct
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from contenders import Contender, Receiver, started
from cstore_load import (
    Association,
    Context,
    Instance,
    PeerFailed,
    contexts_of,
    encode_command,
    encode_requests,
    negotiate,
    p_data_header,
)
from process_memory import footprint
from support.processes import ProgramFailed

GIANT_BYTES = 5 * 10**9
GIANT_FRAGMENT_BYTES = 64 << 20
GIANT_TRANSFER_SYNTAX = "1.2.840.10008.1.2.4.90"
"""JPEG 2000 lossless: native pixel data cannot be longer than 2^32 - 2 bytes (PS3.5 §7.1.1), fragments together can."""
PIXEL_DATA_ENCAPSULATED = struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF)
EMPTY_OFFSET_TABLE = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
SEQUENCE_DELIMITER = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
SETTLE_SECONDS_MAX = 5.0
STEADY_SECONDS = 0.5
IDLE_CONFIGURATION = """\
[dicom]
associations_max = {associations}
associations_per_peer_max = {associations}
"""

Send = Callable[[Receiver], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryResult:
    """Memory of one receiver in one scenario, in units of 10^6 bytes."""

    scenario: str
    contender: str
    resident_before: float = 0.0
    peak: float = 0.0
    an_association: float | None = None
    """What each idle association added."""
    seconds: float = 0.0
    problem: str | None = None


def large_together(contender: Contender, instances: Sequence[Instance], folder: Path) -> MemoryResult:
    """Send several large instances at the same time, one on each association; read the highest mark."""

    def send(receiver: Receiver) -> None:
        contexts = contexts_of(instances)
        context_ids, max_pdu_length = negotiate(receiver.port, receiver.ae_title, contexts)
        requests = encode_requests(instances, context_ids, max_pdu_length)
        with ThreadPoolExecutor(len(requests)) as threads:
            statuses = list(threads.map(lambda request: _exchange(receiver, contexts, request), requests))
        if any(statuses):
            raise PeerFailed(f"answered {[f'{status:04X}H' for status in statuses]}")

    title = f"{len(instances)} × {len(instances[0].data_set) / 1e6:.0f} MB together"
    return _highest_mark(title, contender, folder, send)


def giant(contender: Contender, like: Instance, folder: Path, size: int = GIANT_BYTES) -> MemoryResult:
    """Send one instance of several gigabytes; read the highest mark."""

    def send(receiver: Receiver) -> None:
        context = (like.sop_class_uid, GIANT_TRANSFER_SYNTAX)
        association = Association(receiver.port, receiver.ae_title, [context])
        try:
            if context not in association.context_ids:
                raise PeerFailed("JPEG 2000 lossless is not accepted")
            _send_giant(association, context, like, size)
            status = association.receive_status()
            association.release()
        finally:
            association.close()
        if status:
            raise PeerFailed(f"answered {status:04X}H")

    return _highest_mark(f"one instance of {size / 1e9:g} GB", contender, folder, send)


def _highest_mark(title: str, contender: Contender, folder: Path, send: Send) -> MemoryResult:
    try:
        with started(contender, folder) as receiver:
            before = footprint(receiver.program.pid).resident
            start = time.perf_counter()
            send(receiver)
            seconds = time.perf_counter() - start
            peak = footprint(receiver.program.pid).peak_resident
    except (ProgramFailed, PeerFailed, OSError) as error:
        return MemoryResult(
            scenario=title, contender=contender.name, problem=f"{type(error).__name__}: {error}"
        )
    return MemoryResult(
        scenario=title,
        contender=contender.name,
        resident_before=before / 1e6,
        peak=peak / 1e6,
        seconds=seconds,
    )


def _exchange(receiver: Receiver, contexts: Sequence[Context], request: bytes) -> int:
    association = Association(receiver.port, receiver.ae_title, contexts)
    try:
        association.send(request)
        status = association.receive_status()
        association.release()
    finally:
        association.close()
    return status


def _send_giant(association: Association, context: Context, like: Instance, size: int) -> None:
    """Send a data set of encapsulated pixel data whose fragments are all the same buffer."""
    context_id = association.context_ids[context]
    step = (association.max_pdu_length - 6) & ~1
    attributes = like.data_set[: like.data_set.rindex(struct.pack("<HH", 0x7FE0, 0x0010) + b"OW")]
    noise = bytes(range(256)) * (step // 256 + 1)

    def send(data: bytes, flags: int = 0) -> None:
        association.send(p_data_header(context_id, len(data), flags) + data)

    whole = p_data_header(context_id, step, 0) + noise[:step]
    association.send(encode_command(context_id, 1, like.sop_class_uid, like.sop_instance_uid))
    send(attributes + PIXEL_DATA_ENCAPSULATED + EMPTY_OFFSET_TABLE)
    left = size
    while left > 0:
        fragment = min(left, GIANT_FRAGMENT_BYTES)
        send(struct.pack("<HHI", 0xFFFE, 0xE000, fragment))
        for _ in range(fragment // step):
            association.send(whole)
        if fragment % step:
            send(noise[: fragment % step])
        left -= fragment
    send(SEQUENCE_DELIMITER, flags=2)


def idle(contender: Contender, contexts: Sequence[Context], associations: int, folder: Path) -> MemoryResult:
    """Open associations that stay silent; read what each of them adds to the resident memory."""
    title = f"{associations} idle associations"
    options: list[str] = []
    if contender.announces_itself:
        configuration = folder.parent / "idle.toml"
        configuration.write_text(IDLE_CONFIGURATION.format(associations=associations + 10), encoding="utf-8")
        options = ["--config", str(configuration)]
    opened: list[Association] = []
    try:
        with started(contender, folder, options) as receiver:
            negotiate(
                receiver.port, receiver.ae_title, contexts
            )  # what the first association loads is not its own
            before = _settled(receiver.program.pid)
            start = time.perf_counter()
            opened.extend(
                Association(receiver.port, receiver.ae_title, contexts) for _ in range(associations)
            )
            seconds = time.perf_counter() - start
            after = _settled(receiver.program.pid)
    except (ProgramFailed, PeerFailed, OSError) as error:
        problem = f"{type(error).__name__}: {error} (after {len(opened)} associations)"
        return MemoryResult(scenario=title, contender=contender.name, problem=problem)
    finally:
        for association in opened:
            association.close()
    return MemoryResult(
        scenario=title,
        contender=contender.name,
        resident_before=before / 1e6,
        peak=after / 1e6,
        an_association=(after - before) / associations / 1e6,
        seconds=seconds,
    )


def _settled(pid: int) -> int:
    """Return the resident memory once it has stood still for a moment."""
    deadline = time.monotonic() + SETTLE_SECONDS_MAX
    resident = footprint(pid).resident
    while time.monotonic() < deadline:
        time.sleep(STEADY_SECONDS)
        last, resident = resident, footprint(pid).resident
        if last == resident:
            break
    return resident
