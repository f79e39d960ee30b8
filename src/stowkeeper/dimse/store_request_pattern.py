"""What the C-STORE requests of an association have in common: all but message id and SOP instance, mostly.

So of a request that has the bytes of an earlier one everywhere else, those two values are read and nothing more.
"""

from typing import Final, Self

from stowkeeper.dicom.uid import strip_uid
from stowkeeper.dimse.command_set import AFFECTED_SOP_INSTANCE_UID, MESSAGE_ID, element_places
from stowkeeper.dimse.message_types import CStoreRequest

_MESSAGE_ID_LENGTH: Final = 2


class StoreRequestPattern:
    """One encoded C-STORE-RQ, and what it says."""

    __slots__ = ("_behind", "_between", "_front", "_id_end", "_length", "_request", "_uid", "_uid_end")

    def __init__(self, encoded: bytes, request: CStoreRequest, message_id: slice, uid: slice) -> None:
        self._request: Final = request
        self._length: Final = len(encoded)
        self._front: Final = encoded[: message_id.start]
        self._id_end: Final = message_id.stop
        self._between: Final = encoded[message_id.stop : uid.start]
        self._uid: Final = uid
        self._uid_end: Final = uid.stop
        self._behind: Final = encoded[uid.stop :]

    @classmethod
    def of(cls, encoded: bytes, request: CStoreRequest) -> Self | None:
        """Return the pattern of an encoded request; None when its elements do not stand as the standard asks."""
        places = element_places(encoded)
        elements = [element for element, _ in places]
        if elements != sorted(set(elements)):
            return None
        values = dict(places)
        message_id, uid = values.get(MESSAGE_ID), values.get(AFFECTED_SOP_INSTANCE_UID)
        if message_id is None or uid is None or message_id.stop - message_id.start != _MESSAGE_ID_LENGTH:
            return None
        return cls(encoded, request, message_id, uid)

    def read(self, encoded: bytes) -> CStoreRequest | None:
        """Return a request that differs from this one in those two values alone; None when this one is another."""
        id_end = self._id_end
        uid = self._uid
        if (
            len(encoded) != self._length
            or not encoded.startswith(self._front)
            or encoded[id_end : uid.start] != self._between
            or encoded[self._uid_end :] != self._behind
        ):
            return None
        like = self._request
        return CStoreRequest(
            message_id=int.from_bytes(encoded[id_end - _MESSAGE_ID_LENGTH : id_end], "little"),
            has_data_set=like.has_data_set,
            affected_sop_class_uid=like.affected_sop_class_uid,
            affected_sop_instance_uid=strip_uid(encoded[uid]),
            priority=like.priority,
            move_originator_ae_title=like.move_originator_ae_title,
            move_originator_message_id=like.move_originator_message_id,
        )
