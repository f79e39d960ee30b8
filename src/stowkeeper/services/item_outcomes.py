"""Who is told what becomes of the items of jobs that send: what forwarding chose has rows of its own (decision 16)."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from sqlalchemy import Connection

from stowkeeper.database.engine import Transaction
from stowkeeper.jobs.job import Job, JobItem


class ItemOutcomes(Protocol):
    """Told by the kinds `store` and `stow`, in threads. Of a job that is not its own it says and writes nothing."""

    def wanted(self, connection: Connection, job: Job, positions: Sequence[int]) -> Mapping[int, int | None]:
        """Return by position the keys of the versions that are to be sent, and no other version of the instance.

        None: nothing is to be sent by this job any more. Of an item that is not in the answer the current version is sent,
        whichever that is.
        """
        ...

    def note(self, transaction: Transaction, job: Job, items: Sequence[JobItem]) -> None:
        """Write what became of items, in the transaction that writes the items themselves."""
        ...

    def noted(self, job: Job) -> None:
        """Take note that such a transaction ended well."""
        ...
