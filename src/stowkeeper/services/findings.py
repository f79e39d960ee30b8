"""What a job on the archive finds wrong: said in the log at once, and kept as items of the job with its checkpoint."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from sqlalchemy import delete

from stowkeeper.archive.agreement import Discrepancy, Fault
from stowkeeper.database.engine import Transaction
from stowkeeper.database.schema import job_items
from stowkeeper.jobs.job import JSON, JobItem
from stowkeeper.jobs.kind import JobRun
from stowkeeper.services.archive_job_limits import FINDINGS_MAX, WRITE_SECONDS

log = structlog.get_logger("stowkeeper.archive")


class Findings:
    """Collects what one run finds, and writes it with how far the run is. Used in the thread of the run alone.

    A checkpoint has `found`, the number by fault, of what was written up to it; what a broken-off run wrote beyond is
    written again over it.
    """

    def __init__(self, run: JobRun, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._run = run
        self._clock = clock
        self._written_at = clock()
        self._new: list[JobItem] = []
        self._has_cleared = False
        self.faults = Counter[str](run.job.checkpoint.get("found", {}))

    def note(self, found: Discrepancy) -> None:
        """Say and keep one thing that is wrong."""
        log.error(
            "error",
            what=f"a kept file is {found.fault}",
            path=found.path,
            sop_instance_uid=found.sop_instance_uid,
            reason=found.words,
            moved_to=found.moved_to,
            job=self._run.job.job_id,
        )
        moved = f"; moved to {found.moved_to}" if found.moved_to else ""
        item = JobItem(
            position=self.faults.total() % FINDINGS_MAX,
            name=found.sop_instance_uid or found.path,
            outcome=found.fault.value,
            words=f"{found.path}: {found.words}{moved}",
        )
        self._new.append(item)
        self.faults[found.fault.value] += 1

    def is_due(self) -> bool:
        """Tell whether it is time to write."""
        return self._clock() - self._written_at >= WRITE_SECONDS

    def write(self, checkpoint: JSON, *, done: int, total: int) -> None:
        """Write what was found, and the checkpoint. Raises LeaseLostError and DatabaseUnavailable."""
        with self._run.write() as transaction:
            self._clear(transaction)
            items = [_dated(item, transaction.at) for item in self._new]
            self._run.progress(
                transaction, done=done, total=max(total, done), checkpoint=checkpoint, items=items
            )
        self._new = []
        self._has_cleared = True
        self._written_at = self._clock()

    def _clear(self, transaction: Transaction) -> None:
        """Forget what a broken-off run found beyond the checkpoint from which this one went on."""
        if self._has_cleared or self._run.job.attempts == 1 or self.faults.total() >= FINDINGS_MAX:
            return
        first = self._new[0].position if self._new else self.faults.total()
        transaction.execute(
            delete(job_items).where(
                job_items.c.job_key == self._run.job.job_key, job_items.c.position >= first
            )
        )


def say_faults(faults: Mapping[str, int]) -> str:
    """Say how many of each there are, such as `1 damaged, 2 missing`."""
    return ", ".join(f"{faults[fault]} {fault}" for fault in Fault if faults.get(fault))


def say_result(*, files: int, size: int, whole: int, faults: Mapping[str, int]) -> str:
    """Say in words what reading an archive again found. `size` is in bytes."""
    read = f"{count_of(files, 'file')} read, {size} bytes"
    if not any(faults.values()):
        return f"{read}: all whole" if files else "nothing was to be read"
    return f"{read}: {whole} whole; {say_faults(faults)}"


def count_of(number: int, noun: str) -> str:
    """Write a number with its noun."""
    return f"1 {noun}" if number == 1 else f"{number} {noun}s"


def _dated(item: JobItem, at: str) -> JobItem:
    return JobItem(
        position=item.position,
        name=item.name,
        outcome=item.outcome,
        code=item.code,
        words=item.words,
        done_at=at,
    )


def text_argument(arguments: Mapping[str, Any], name: str) -> str | None:
    """Return an argument of a job that is a text, None where it is not given."""
    value = arguments.get(name)
    return value if isinstance(value, str) and value else None


def texts(values: Sequence[str]) -> list[str]:
    """Return texts without repetition, in their order."""
    return list(dict.fromkeys(values))
