"""Sustained reception: answered and finished instances a second, over many slot pools.

An answer promises that the instance is kept; *finished* means that it also stands on its shelf and in the catalog. What
a burst shows, a receiver that defers work could not hold: so many more instances are sent than it has slots made, and
the clock for finished ones stops when `stowkeeper ls` lists them all. The same requests are sent again and again, with a
new SOP Instance UID of the same length written into each, so that a million instances need no disk and no memory here.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from contenders import Contender, Receiver, serving, started
from cstore_load import Association, Instance, PeerFailed, contexts_of, encode_c_store, negotiate
from support.processes import ProgramFailed

OUT_OF_RESOURCES = 0xA700
RETRY_SECONDS = 0.05
"""Pause after an A700: the catalog is behind by its bound, and the sender tries again as senders do."""
FINISH_SECONDS_MAX = 600.0
POLL_SECONDS = 0.05
UID_ROOT = "2.25."
PARTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class SustainedResult:
    """What a long run showed."""

    set_name: str
    contender: str
    associations: int
    instances: int
    answered_a_second: float = 0.0
    finished_a_second: float = 0.0
    lag_seconds: float = 0.0
    """From the last answer until everything was listed."""
    asked_again: int = 0
    """Requests sent again after an A700."""
    first_part_a_second: float = 0.0
    """Answered instances a second in the first tenth of the run."""
    last_part_a_second: float = 0.0
    ready_again_seconds: float = 0.0
    """From starting the server anew on the full archive to its ready line."""
    problem: str | None = None


class Template:
    """An encoded request into which a new SOP Instance UID is written before each sending."""

    def __init__(self, instance: Instance, context_id: int, max_pdu_length: int) -> None:
        uid = instance.sop_instance_uid.encode()
        self._request = bytearray(encode_c_store(instance, context_id, 1, max_pdu_length))
        self._length = len(uid)
        self._places = []
        at = self._request.find(uid)
        while at >= 0:
            self._places.append(at)
            at = self._request.find(uid, at + 1)
        if len(self._places) < 2:
            raise ValueError("the SOP Instance UID does not stand whole in command and data set")

    def with_uid(self, number: int) -> bytearray:
        """Return the request for the instance of this number; it is overwritten by the next call."""
        uid = f"{UID_ROOT}9{number:0{self._length - len(UID_ROOT) - 1}d}".encode()
        for at in self._places:
            self._request[at : at + self._length] = uid
        return self._request


def listed_instances(archive: Path) -> int:
    """Count the instances of all studies that `stowkeeper ls` lists; raise ProgramFailed when it fails."""
    command = [sys.executable, "-m", "stowkeeper", "ls", "studies", "--archive", str(archive), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode != 0:
        raise ProgramFailed(f"stowkeeper ls ended with {run.returncode}: {run.stderr[-500:]}")
    return sum(json.loads(line)["number_of_study_related_instances"] for line in run.stdout.splitlines())


def sustain(
    contender: Contender,
    set_name: str,
    like: Sequence[Instance],
    *,
    instances: int,
    associations: int,
    folder: Path,
) -> SustainedResult:
    """Send many instances made from a few, wait until all are listed, then start the server anew."""
    blank = SustainedResult(
        set_name=set_name, contender=contender.name, associations=associations, instances=instances
    )
    try:
        return _sustain(contender, blank, like, folder)
    except (ProgramFailed, PeerFailed, OSError) as error:
        return replace(blank, problem=f"{type(error).__name__}: {error}")


def _sustain(
    contender: Contender, blank: SustainedResult, like: Sequence[Instance], folder: Path
) -> SustainedResult:
    with started(contender, folder) as receiver:
        start = time.perf_counter()
        ends, asked_again = _send_all(receiver, like, blank.instances, blank.associations)
        answered = time.perf_counter()
        finished = _wait_until_listed(receiver, blank.instances)
        receiver.program.stop()
        stopped = time.perf_counter()
        with serving(contender, folder):
            ready_again = time.perf_counter() - stopped
    part = len(ends) // PARTS
    return replace(
        blank,
        answered_a_second=blank.instances / (answered - start),
        finished_a_second=blank.instances / (finished - start),
        lag_seconds=finished - answered,
        asked_again=asked_again,
        first_part_a_second=part / (ends[part - 1] - start),
        last_part_a_second=part / (ends[-1] - ends[-part - 1]),
        ready_again_seconds=ready_again,
    )


def _wait_until_listed(receiver: Receiver, instances: int) -> float:
    """Wait until all instances are listed; return when the listing that showed them was asked for."""
    deadline = time.perf_counter() + FINISH_SECONDS_MAX
    while True:
        asked = time.perf_counter()
        listed = listed_instances(receiver.folder)
        if listed >= instances:
            return asked
        if asked > deadline:
            raise ProgramFailed(f"only {listed} of {instances} instances are listed")
        time.sleep(POLL_SECONDS)


def _send_all(
    receiver: Receiver, like: Sequence[Instance], instances: int, associations: int
) -> tuple[list[float], int]:
    """Send over several associations; return the times of all answers, ascending, and how many were asked again."""
    contexts = contexts_of(like)
    context_ids, max_pdu_length = negotiate(receiver.port, receiver.ae_title, contexts)

    def send_share(share: int) -> tuple[list[float], int]:
        templates = [Template(each, context_ids[each.context], max_pdu_length) for each in like]
        ends: list[float] = []
        asked_again = 0
        association = Association(receiver.port, receiver.ae_title, contexts)
        try:
            for number in range(share, instances, associations):
                request = templates[number % len(templates)].with_uid(number)
                while True:
                    association.send(request)
                    status = association.receive_status()
                    if status != OUT_OF_RESOURCES:
                        break
                    asked_again += 1
                    time.sleep(RETRY_SECONDS)
                if status:
                    raise PeerFailed(f"instance {number} was answered {status:04X}H")
                ends.append(time.perf_counter())
            association.release()
        finally:
            association.close()
        return ends, asked_again

    with ThreadPoolExecutor(associations) as threads:
        shares = list(threads.map(send_share, range(associations)))
    return sorted(end for ends, _ in shares for end in ends), sum(again for _, again in shares)
