"""What comes in: an instance as its sender names it, and as it was received; and the policy for a second version."""

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

from stowkeeper.archive.outcome import SenderAnswer
from stowkeeper.archive.packed_values import unpack_values
from stowkeeper.archive.receipt import Receipt


class DuplicatePolicy(StrEnum):
    """What happens to a second version of an instance, the same UID with other bytes."""

    KEEP = "keep"
    REPLACE = "replace"
    REFUSE = "refuse"


DuplicatesOf = Callable[[str, str], DuplicatePolicy]
"""Gives the policy for what comes from a calling AE title and an address; both are empty for an import."""


def keep_from_everyone(_calling_ae_title: str, _address: str) -> DuplicatePolicy:
    """Return `keep`, whoever it comes from."""
    return DuplicatePolicy.KEEP


class Arrival(NamedTuple):
    """How an instance comes: its identifiers as the sender names them, and the sender's.

    `study_instance_uid` is that of the study it has to belong to, '' where any will do. `preamble` are the 128 bytes that its
    file begins with, empty for zeros.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    received_by: str
    calling_ae_title: str = ""
    called_ae_title: str = ""
    writing_ae_title: str = ""
    peer_address: str = ""
    association_id: str = ""
    study_instance_uid: str = ""
    preamble: bytes = b""
    duplicates: DuplicatePolicy = DuplicatePolicy.KEEP


class Received(NamedTuple):
    """A whole, synced instance in the depot, on its way to the shelf and the catalog.

    `packed_values` are those that the catalog wants, by `pack_values`. `answer_known` is false where its receiver died. `answer`
    tells whether Success was given to the network; None where the sender is told in another way.
    """

    receipt: Receipt
    depot_path: str
    file_size: int
    packed_values: bytes
    little_endian: bool
    remarks: tuple[str, ...]
    answer_known: bool
    duplicates: DuplicatePolicy
    answer: SenderAnswer | None = None

    @property
    def values(self) -> dict[int, bytes]:
        """The raw values by tag, unpacked anew each time."""
        return unpack_values(self.packed_values)


Content = tuple[str, str, str]
"""What makes two instances identical: digest, SOP class and transfer syntax."""


def content_of(receipt: Receipt) -> Content:
    """Return what an instance is compared by."""
    return receipt.digest, receipt.sop_class_uid, receipt.transfer_syntax_uid
