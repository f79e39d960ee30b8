"""What became of an instance, and how each wire says so: DIMSE status and HTTP code stand in one table."""

from enum import Enum
from typing import NamedTuple

from stowkeeper.archive.receipt import Receipt
from stowkeeper.dicom.status import Status


class Refusal(Enum):
    """Why an instance was not kept. The value is (DIMSE status, HTTP code)."""

    OUT_OF_RESOURCES = (Status.OUT_OF_RESOURCES, 503)
    DOES_NOT_MATCH = (Status.DATA_SET_DOES_NOT_MATCH_SOP_CLASS, 409)
    CANNOT_UNDERSTAND = (Status.CANNOT_UNDERSTAND, 409)
    INVALID_SOP_INSTANCE = (Status.INVALID_SOP_INSTANCE, 409)
    SOP_CLASS_NOT_SUPPORTED = (Status.SOP_CLASS_NOT_SUPPORTED, 409)
    DUPLICATE = (Status.DUPLICATE_SOP_INSTANCE, 409)
    TRANSFER_SYNTAX_NOT_SUPPORTED = (Status.TRANSFER_SYNTAX_NOT_SUPPORTED, 409)
    STUDY_DIFFERS = (Status.STUDY_DIFFERS, 409)
    NOT_AUTHORIZED = (Status.NOT_AUTHORIZED, 403)
    PROCESSING_FAILURE = (Status.PROCESSING_FAILURE, 500)

    @property
    def status(self) -> int:
        """The DIMSE status (PS3.4 §B.2.3, PS3.7 Annex C)."""
        return self.value[0]

    @property
    def http_code(self) -> int:
        """The HTTP code when no instance of a request was stored (PS3.18 §10.5)."""
        return self.value[1]


class Outcome(NamedTuple):
    """What became of one instance: kept, with its receipt, or refused, with the reason in words.

    `comment` is for the peer and the ledger and holds no patient data. `offending` lists the data
    elements the reason is about. `data_set_length` and `digest` are of all bytes that came, of a refused instance
    too; `disk_seconds` is the time in writing and syncing, 0 where nothing was written. `remarks` say what is odd about
    the data set of a kept one, and the UIDs where it belongs to; '' where it has none.
    """

    refusal: Refusal | None
    comment: str = ""
    offending: tuple[int, ...] = ()
    receipt: Receipt | None = None
    data_set_length: int = 0
    digest: str = ""
    disk_seconds: float = 0.0
    remarks: tuple[str, ...] = ()
    study_instance_uid: str = ""
    series_instance_uid: str = ""

    @property
    def status(self) -> int:
        """The DIMSE status of the answer."""
        return Status.SUCCESS if self.refusal is None else self.refusal.status


class SenderAnswer:
    """Whether the sender was given its Success, shared by who gives it and who lists the instance a moment later."""

    __slots__ = ("given", "was_listed_first")

    def __init__(self) -> None:
        self.given = False
        self.was_listed_first = False

    def is_given_when_listed(self) -> bool:
        """Tell whether Success was given by now, when the instance is listed; remember that it was not."""
        self.was_listed_first = not self.given
        return not self.was_listed_first


class Refused(Exception):  # noqa: N818 - it is an answer, not a fault of the program
    """Raised inside the archive where an instance cannot be kept; becomes an Outcome."""

    def __init__(self, refusal: Refusal, comment: str, offending: tuple[int, ...] = ()) -> None:
        super().__init__(comment)
        self.refusal = refusal
        self.comment = comment
        self.offending = offending
