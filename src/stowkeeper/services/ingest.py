"""One DICOM file that comes piece by piece, by HTTP: into intake like every other, without ever being whole in memory.

It is read as an import reads files (`importing.py`), and its receipt says so: received by `import`, with the address of whoever
sent it. Success is said of it only when it is durable; where it is in the catalog a moment later, that is waited for too, since
who sent it asks for it next. All of it is done on a thread that may wait.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from stowkeeper.archive.archive import Archive
from stowkeeper.archive.catalog_values import ReceiptOutcome
from stowkeeper.archive.inquiries import receipt_outcomes
from stowkeeper.archive.outcome import Outcome
from stowkeeper.dicom.attributes import WANTED, InstanceAttributes, extract
from stowkeeper.services.file_head import NoInstanceError
from stowkeeper.services.file_terms import FileTerms
from stowkeeper.services.importing import RECEIVED_BY
from stowkeeper.services.incoming_file import IncomingFile, Sender
from stowkeeper.services.ingest_limits import (
    INGEST_LISTING_SECONDS,
    INGEST_LOOK_SECONDS_MAX,
    INGEST_LOOK_SECONDS_MIN,
)
from stowkeeper.services.limits import IMPORT_BUFFER_BYTES

DEFAULT_TERMS = FileTerms()


class OutsideOfStudiesError(NoInstanceError):
    """An instance belongs to no study or series, and the one who takes it needs both."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingested:
    """What became of a file. `attributes` are those that stand in its first megabyte.

    `listed` is what the catalog made of a kept one; None where it was not listed in time: it is kept all the same.
    """

    outcome: Outcome
    attributes: InstanceAttributes
    listed: ReceiptOutcome | None = None


def ingest(
    archive: Archive,
    pieces: Iterable[bytes],
    *,
    address: str,
    needs_study: bool = False,
    terms: FileTerms = DEFAULT_TERMS,
) -> Ingested:
    """Take a file in, and wait until it is listed or refused. `address` is that of the sender.

    With `needs_study` an instance outside of studies and series is refused. Where `pieces` raises, nothing is kept. Raises
    NoInstanceError for what is not even offered to intake.
    """
    sender = Sender(received_by=RECEIVED_BY, address=address)
    file = IncomingFile(archive, terms, sender, wanted=WANTED)
    try:
        for piece in pieces:
            file.write(piece)
        described = file.identify()
        attributes, _ = extract(described.values, described.little_endian)
        # What stands behind the first megabyte is not known here: then the rows tell.
        if needs_study and file.length <= IMPORT_BUFFER_BYTES:
            _check_study(attributes)
        data_set = file.commit()
    except BaseException:
        file.abort()
        raise
    outcome = data_set.outcome.result()
    listed = None
    if outcome.receipt is not None:
        listed = _wait_until_listed(archive, outcome.receipt.receipt_id)
    return Ingested(outcome=outcome, attributes=attributes, listed=listed)


def _check_study(attributes: InstanceAttributes) -> None:
    if not (attributes.study_instance_uid and attributes.series_instance_uid):
        raise OutsideOfStudiesError("it has no Study Instance UID or no Series Instance UID")


def _wait_until_listed(archive: Archive, receipt_id: str) -> ReceiptOutcome | None:
    """Wait until a receipt is in the catalog; None when it is not there in time."""
    pause = INGEST_LOOK_SECONDS_MIN
    deadline = time.monotonic() + INGEST_LISTING_SECONDS
    while True:
        with archive.database.read() as connection:
            found = receipt_outcomes(connection, [receipt_id]).get(receipt_id)
        if found is not None or time.monotonic() >= deadline:
            return found
        time.sleep(pause)
        pause = min(2 * pause, INGEST_LOOK_SECONDS_MAX)
