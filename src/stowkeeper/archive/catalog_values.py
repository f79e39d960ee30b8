"""The values that go into the catalog and come out of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import TypeVar

from stowkeeper.archive.receipt import Receipt
from stowkeeper.database.limits import VARIABLES_MAX
from stowkeeper.dicom.attributes import InstanceAttributes

Item = TypeVar("Item")


class VersionState(StrEnum):
    """The states of a version that its row knows (the states table in docs/architecture.md)."""

    KEPT = "kept"
    SUPERSEDED = "superseded"
    REMOVING = "removing"
    REMOVED = "removed"
    DAMAGED = "damaged"


class ReceiptOutcome(StrEnum):
    """What became of a finished receipt."""

    STORED = "stored"
    IDENTICAL = "identical"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogEntry:
    """A whole instance with its receipt, on its way into the catalog.

    `path` is relative to the archive, `file_size` in bytes with the head. `answer_known` tells that Success
    was given to the network by now. `verdicts` say what could not be read or is against the standard.
    """

    receipt: Receipt
    path: str
    file_size: int
    attributes: InstanceAttributes
    verdicts: tuple[str, ...]
    answer_known: bool

    @property
    def order(self) -> tuple[str, str]:
        """Its place among the versions of an instance by the clock: time received, then receipt id. Never the commit."""
        return self.receipt.received_at, self.receipt.receipt_id


@dataclass(frozen=True, slots=True, kw_only=True)
class InsertResult:
    """What the catalog did with an entry.

    `outcome` is None when nothing was written: the version that an identical receipt points to is not in the
    catalog, or not kept any more; the entry must be decided again. `new` is false when the receipt was in the
    catalog already; then `outcome` and `version_key` are those of the first time. `differing` are the keys of
    the kept versions of the instance that were received before and differ in digest, class or transfer
    syntax.
    """

    receipt_id: str
    outcome: ReceiptOutcome | None
    new: bool
    version_key: int | None = None
    is_current: bool = False
    differing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One file of the archive as the catalog knows it.

    The UIDs of study and series are None for instances outside of studies. `receipt_id`, `digest`,
    `data_set_length` and `received_at` are those of the receipt in the file.
    """

    version_key: int
    instance_key: int
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    study_instance_uid: str | None
    series_instance_uid: str | None
    path: str
    file_size: int
    state: VersionState
    conflict: bool
    is_current: bool
    is_held: bool
    receipt_id: str
    digest: str
    data_set_length: int
    received_at: str

    @property
    def order(self) -> tuple[str, str]:
        """Its place among the versions of an instance by the clock: time received, then receipt id (see `succession`)."""
        return self.received_at, self.receipt_id

    @property
    def content(self) -> tuple[str, str, str]:
        """What makes two versions identical: digest, SOP class and transfer syntax."""
        return self.digest, self.sop_class_uid, self.transfer_syntax_uid


def portions(items: Iterable[Item], size: int = VARIABLES_MAX) -> Iterator[Sequence[Item]]:
    """Cut items into lists that fit one statement."""
    iterator = iter(items)
    while portion := list(islice(iterator, size)):
        yield portion
