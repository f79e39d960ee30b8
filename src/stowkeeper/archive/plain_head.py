"""The head of a kept file as it goes out: without our receipt, which stays here."""

from typing import Final

from stowkeeper.dicom.part10 import (
    GROUP_LENGTH,
    PREFIX,
    PRIVATE_INFORMATION,
    PRIVATE_INFORMATION_CREATOR_UID,
    MoreNeeded,
    Part10Error,
    encode_file_meta,
    read_file_meta,
)
from stowkeeper.dicom.uid import RECEIPT_CREATOR_UID

_OURS: Final = frozenset({GROUP_LENGTH, PRIVATE_INFORMATION_CREATOR_UID, PRIVATE_INFORMATION})


class HeadDamagedError(Exception):
    """The head of a kept file cannot be read, or holds no receipt; the text says which."""


def plain_head(head: bytes) -> tuple[bytes, int]:
    """Return the head without receipt, and where the data set begins; `head` are the first bytes of a kept file.

    Raises HeadDamagedError.
    """
    try:
        meta = read_file_meta(head)
    except (MoreNeeded, Part10Error) as error:
        raise HeadDamagedError("its head cannot be read") from error
    if meta.private_information_creator_uid != RECEIPT_CREATOR_UID:
        raise HeadDamagedError("it holds no receipt")
    elements = [element for element in meta.elements if element[0] not in _OURS]
    return PREFIX + encode_file_meta(elements), meta.length
