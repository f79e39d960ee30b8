"""What becomes of forwards while their job sends: told by the job, written in the transaction that writes its items."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, select, text, update

from stowkeeper.database.engine import Transaction, compile_statement
from stowkeeper.database.schema import FORWARDS_IN_JOB, forwards
from stowkeeper.jobs.job import Job, JobItem
from stowkeeper.services.forwarding.rows import ForwardState, cut_words
from stowkeeper.services.store_items import FAILED, LEFT_OUT, OPEN, STORED, warning_in

IS_FORWARDING: Final = "is_forwarding"
"""The argument of a job that says that its items are forwards."""

_STATE_OF: Final[Mapping[str, ForwardState]] = {
    OPEN: ForwardState.QUEUED,
    STORED: ForwardState.SENT,
    FAILED: ForwardState.FAILED,
    LEFT_OUT: ForwardState.DROPPED,
}

_IN_JOB: Final = text(FORWARDS_IN_JOB)

_SET: Final = compile_statement(
    update(forwards)
    .where(forwards.c.job_key == bindparam("key"), forwards.c.position == bindparam("place"), _IN_JOB)
    .values(state=bindparam("after"), words=bindparam("why"), changed_at=bindparam("now")),
    ("after", "why", "now", "key", "place"),
)


class ForwardOutcomes:
    """Moves the rows of forwards with the items of their jobs (`ItemOutcomes`).

    `all_decided` is called, from any thread, when a transaction ended after which a job may have nothing more to send.
    """

    def __init__(self, all_decided: Callable[[], None] = lambda: None) -> None:
        self._all_decided = all_decided

    def wanted(self, connection: Connection, job: Job, positions: Sequence[int]) -> Mapping[int, int | None]:
        """Return the versions that the rules chose: another one may have come from the very destination.

        None stands for what was dropped, or tried again, while the job had failed.
        """
        if not is_forwarding(job) or not positions:
            return {}
        query = select(forwards.c.position, forwards.c.version_key).where(
            forwards.c.job_key == job.job_key,
            forwards.c.position.between(min(positions), max(positions)),
            _IN_JOB,
        )
        found = {row.position: row.version_key for row in connection.execute(query)}
        return {position: found.get(position) for position in positions}

    def note(self, transaction: Transaction, job: Job, items: Sequence[JobItem]) -> None:
        """Write what became of items. One that a job had and that waits again, or was dropped, is not its own any more."""
        if is_forwarding(job):
            set_outcomes(transaction, job.job_key, items)

    def noted(self, job: Job) -> None:
        """Have the next job put in when this one has nothing more to send."""
        if is_forwarding(job) and job.items_done >= job.items_total:
            self._all_decided()


def is_forwarding(job: Job) -> bool:
    """Tell whether the items of a job are forwards."""
    return bool(job.arguments.get(IS_FORWARDING))


def set_outcomes(transaction: Transaction, job_key: int, items: Sequence[JobItem]) -> None:
    """Write the states of forwards by the items of the job that has them."""
    transaction.executemany(
        _SET,
        [
            (_STATE_OF[item.outcome].value, _words_of(item), transaction.at, job_key, item.position)
            for item in items
        ],
    )


def _words_of(item: JobItem) -> str:
    return cut_words(warning_in(item.words) if item.outcome == STORED else item.words)
