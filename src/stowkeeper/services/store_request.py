"""One request of the Store transaction (PS3.18 §10.5): its instances into intake, and what became of each.

A part is one Part 10 file, or an instance is built of metadata and bulk data; then it goes the way of every instance. What is wrong
with one is its own failure, and harms no other. What does not come whole is given up; what came before is kept, and said to be.

In the ledger a request has the line that an association has, without AE titles, and each of its instances one of its own.

All of it is done on a thread that may wait for the disk.
"""

import itertools
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Final

import structlog

from stowkeeper.archive.archive import Archive
from stowkeeper.archive.ledger import AssociationRecord
from stowkeeper.archive.receipt import timestamp
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import is_acceptable_uid
from stowkeeper.services.building.bulk_parts import BulkParts
from stowkeeper.services.building.errors import BuildError
from stowkeeper.services.building.instances import build_instance, name_instance
from stowkeeper.services.file_head import NoInstanceError
from stowkeeper.services.file_terms import FileTerms
from stowkeeper.services.incoming_file import Identity, IncomingDataSet, IncomingFile, Sender
from stowkeeper.services.spooled_body import SpooledBody, SpoolError
from stowkeeper.services.store_part import StorePart
from stowkeeper.services.store_request_limits import (
    BUILDS_AT_ONCE,
    BYTES_AHEAD_MAX,
    CREDENTIAL_LETTERS_MAX,
    LINES_AT_ONCE_MAX,
    LINES_WAIT_SECONDS,
    NAMELESS_PARTS_MAX,
    PARTS_AHEAD_MAX,
    PARTS_MAX,
    REFUSALS_LOGGED_MAX,
    UNUSED_PARTS_TOLD_MAX,
)
from stowkeeper.services.turns import Turns
from stowkeeper.stow.media_types import DICOM, OCTET_STREAM, StoreBody, encoding_defect, parse_media_type
from stowkeeper.stow.metadata import InstanceMetadata, MetadataError
from stowkeeper.stow.multipart_reader import Event, MultipartError, MultipartReader, PartBegan, PartData
from stowkeeper.stow.reasons import FailureReason, WarningReason
from stowkeeper.stow.response import FailedInstance, OtherFailure, StoredInstance, StoreResult

log = structlog.get_logger("stowkeeper.storage")

RECEIVED_BY: Final = "STOW-RS"

_LOST: Final = "the connection was lost before it was whole"
_process = secrets.token_hex(4)
_counter = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """Bounds of a request: parts, and bytes of each, where 0 bounds nothing."""

    parts_max: int = PARTS_MAX
    part_bytes_max: int = 0


class StoreRequest:
    """Takes the instances of one request, on one thread at a time. `address` and `credential` are those of the client.

    `study_instance_uid` is the only study that they may belong to, '' for any; `retrieve_url` is where kept instances can be had by
    HTTP, '' for nowhere. Read the body by one of `read_files`, `read_one_file` and `read_metadata`, `settle`, then answer with
    `result`, and say by `close` whether that was sent. `builds` bounds, for all requests that have it, how many instances are built of
    metadata at a time.
    """

    def __init__(
        self,
        archive: Archive,
        terms: FileTerms,
        *,
        address: str,
        credential: str = "",
        study_instance_uid: str = "",
        retrieve_url: str = "",
        limits: StoreLimits = StoreLimits(),
        builds: Turns | None = None,
    ) -> None:
        self.request_id = f"{_process}-web-{next(_counter)}"
        self._archive = archive
        self._terms = terms
        self._limits = limits
        self._builds = builds or Turns(BUILDS_AT_ONCE)
        self._retrieve_url = retrieve_url.rstrip("/")
        self._address = address
        self._credential = credential
        self._sender = Sender(
            received_by=RECEIVED_BY,
            address=address,
            association_id=self.request_id,
            study_instance_uid=study_instance_uid,
        )
        self._opened_at = time.time_ns()
        self._parts: list[StorePart] = []
        self._waiting: deque[tuple[StorePart, IncomingDataSet]] = deque()
        self._waiting_bytes = 0
        self._open: StorePart | None = None
        self._others: list[OtherFailure] = []
        self._texts: dict[str, str] = {}
        self._is_full = False
        self._nameless = 0
        self._noun = "part"

    # Reading files.

    def read_files(self, pieces: Iterable[bytes], boundary: str) -> None:
        """Take a body of `multipart/related`, each part a file. Raises what `pieces` raises.

        A body that is not multipart to its end is a failure beside the parts that came before.
        """
        reader = MultipartReader(boundary)
        try:
            error = _read(reader, pieces, self._take, lambda: self._is_full)
        except BaseException:
            self._give_up_open(_LOST)
            raise
        if error:
            self._give_up_open("the body ended within it")
            self._others.append(OtherFailure(FailureReason.CANNOT_UNDERSTAND, error))

    def read_one_file(self, pieces: Iterable[bytes]) -> None:
        """Take a body that is one file. Raises what `pieces` raises."""
        try:
            for piece in pieces:
                if self._open is None:
                    self._begin({}, "")
                self._write(piece)
            self._end()
        except BaseException:
            self._give_up_open(_LOST)
            raise

    def _take(self, event: Event) -> None:
        if isinstance(event, PartBegan):
            self._begin(event.fields, event.defect)
        elif isinstance(event, PartData):
            self._write(event.data)
        else:
            self._end()

    def _begin(self, fields: Mapping[str, str], defect: str) -> None:
        if self._has_no_more_parts():
            return
        part = self._open = self._new_part()
        defect = defect or encoding_defect(fields)
        if defect:
            part.fail(Status.CANNOT_UNDERSTAND, defect)
        elif not _is_file_type(fields.get("content-type", "")):
            part.is_other_type = True
            part.fail(Status.CANNOT_UNDERSTAND, f"its Content-Type is not {DICOM}")
        else:
            part.way = IncomingFile(self._archive, self._terms, self._sender, answer=part.answer)

    def _write(self, data: bytes | memoryview) -> None:
        part = self._open
        if part is None:
            return
        bound = self._limits.part_bytes_max
        allowed = len(data) if not bound else max(0, bound - part.length)
        part.length += len(data)
        if not isinstance(part.way, IncomingFile):
            return
        try:
            part.way.write(data[:allowed])
        except NoInstanceError as error:
            part.fail(Status.CANNOT_UNDERSTAND, str(error))
            return
        if allowed < len(data):
            part.is_too_large = True
            part.fail(
                Status.PROCESSING_FAILURE, f"it is longer than the {bound} bytes that one part may have"
            )

    def _end(self) -> None:
        part, self._open = self._open, None
        if part is None:
            return
        part.came = time.perf_counter()
        if not isinstance(part.way, IncomingFile):
            return
        if not part.length:
            part.fail(Status.CANNOT_UNDERSTAND, "it is empty")
            return
        try:
            coming = part.way.commit()
        except NoInstanceError as error:
            part.fail(Status.CANNOT_UNDERSTAND, str(error))
            return
        part.identity = coming.identity
        self._await_later(part, coming)

    def _give_up_open(self, words: str) -> None:
        part, self._open = self._open, None
        if part is not None:
            part.fail(Status.CANNOT_UNDERSTAND, words)

    # Reading metadata and bulk data.

    def read_metadata(self, pieces: Iterable[bytes], body: StoreBody) -> None:
        """Take a body of metadata and bulk data, and build its instances. Raises what `pieces` raises."""
        self._noun = "instance"
        admission = self._archive.admission
        try:
            spooled = SpooledBody(
                self._archive.root,
                body,
                refusal=lambda: admission.refusal() or admission.association_refusal(),
                part_bytes_max=self._limits.part_bytes_max,
                parts_max=self._limits.parts_max,
            )
        except SpoolError as error:
            self._new_part().fail(Status.OUT_OF_RESOURCES, str(error))
            return
        try:
            defect = _read(MultipartReader(body.boundary), pieces, spooled.take, lambda: False)
            if defect:
                spooled.give_up_open("the body ended within it")
                self._others.append(OtherFailure(FailureReason.CANNOT_UNDERSTAND, defect))
            spooled.finish()
            self._others += [
                OtherFailure(FailureReason.CANNOT_UNDERSTAND, words) for words in spooled.defects
            ]
            self._build(spooled)
        except SpoolError as error:
            self._new_part().fail(Status.OUT_OF_RESOURCES, str(error))
        finally:
            spooled.close()

    def _build(self, spooled: SpooledBody) -> None:
        parts, instances = spooled.bulk_parts(), spooled.metadata()
        is_more = True
        while is_more:
            with self._builds:
                is_more = self._build_next(instances, parts)
        unused = parts.not_referred_to()
        self._others += [
            OtherFailure(FailureReason.CANNOT_UNDERSTAND, "bulk data that no instance refers to")
            for _ in unused[:UNUSED_PARTS_TOLD_MAX]
        ]

    def _build_next(self, instances: Iterator[InstanceMetadata], parts: BulkParts) -> bool:
        """Build and store the next instance; return whether there may be another."""
        try:
            metadata = next(instances, None)
        except MetadataError as error:
            self._new_part().fail(Status.CANNOT_UNDERSTAND, str(error))
            return False
        except OSError as error:
            self._new_part().fail(Status.PROCESSING_FAILURE, f"the body cannot be read: {error.strerror}")
            return False
        if metadata is None or self._has_no_more_parts():
            return False
        self._store_built(metadata, parts)
        return True

    def _store_built(self, metadata: InstanceMetadata, parts: BulkParts) -> None:
        """Build one instance and give it to intake."""
        part = self._new_part()
        named = name_instance(metadata.data_set)
        part.identity = Identity(
            sop_class_uid=named.sop_class_uid, sop_instance_uid=named.sop_instance_uid, transfer_syntax_uid=""
        )
        try:
            built = build_instance(metadata, parts)
        except BuildError as error:
            part.fail(error.reason, error.words)
            return
        identity = Identity(
            sop_class_uid=built.sop_class_uid,
            sop_instance_uid=built.sop_instance_uid,
            transfer_syntax_uid=built.transfer_syntax_uid,
        )
        way = part.way = IncomingDataSet(
            self._archive, self._terms, self._sender, identity, answer=part.answer
        )
        try:
            for piece in built.pieces:
                part.length += len(piece)
                way.write(memoryview(piece))
        except OSError as error:
            part.fail(Status.PROCESSING_FAILURE, f"its bulk data cannot be read: {error.strerror or error}")
            return
        except BaseException:
            part.fail(Status.PROCESSING_FAILURE, _LOST)
            raise
        part.came = time.perf_counter()
        way.commit()
        self._await_later(part, way)

    # What both have in common.

    def _has_no_more_parts(self) -> bool:
        """Tell, before a part, whether there are as many as there may be, and say so in the answer."""
        if self._parts and self._parts[-1].is_nameless:
            self._nameless += 1
        bound = self._limits.parts_max
        if 0 < bound <= len(self._parts):
            words = f"a request may have {bound} parts: send the others in another"
        elif self._nameless >= NAMELESS_PARTS_MAX:
            words = f"{self._nameless} parts are no instance: what comes behind them is not looked at"
        else:
            return False
        if not self._is_full:
            self._is_full = True
            self._others.append(OtherFailure(FailureReason.CANNOT_UNDERSTAND, words))
        return True

    def _new_part(self) -> StorePart:
        part = StorePart(number=len(self._parts) + 1)
        self._parts.append(part)
        return part

    def _await_later(self, part: StorePart, coming: IncomingDataSet) -> None:
        """Let the outcome of a part come while others are read, but not of too many."""
        self._waiting.append((part, coming))
        self._waiting_bytes += coming.held_bytes
        while len(self._waiting) > PARTS_AHEAD_MAX or self._waiting_bytes > BYTES_AHEAD_MAX:
            self._settle()

    def _settle(self) -> None:
        """Wait for the outcome of the part that was whole first."""
        part, coming = self._waiting.popleft()
        part.take(coming.outcome.result(), self._same)
        self._waiting_bytes -= coming.held_bytes

    def _same(self, text: str) -> str:
        return self._texts.setdefault(text, text)

    def settle(self) -> None:
        """Wait for every outcome."""
        while self._waiting:
            self._settle()

    # Answering.

    def result(self) -> StoreResult:
        """Return every outcome in the order of the parts, once all are there. Of ten thousand parts it takes a tenth of a second."""
        failed: list[FailedInstance] = []
        others: list[OtherFailure] = []
        for part in self._parts:
            identity = part.identity
            if part.is_kept:
                continue
            if identity.sop_instance_uid:
                failed.append(
                    FailedInstance(identity.sop_class_uid, identity.sop_instance_uid, part.status, part.words)
                )
            else:
                others.append(OtherFailure(part.status, f"{self._noun} {part.number}: {part.words}"))
        return StoreResult(
            stored=tuple(self._stored(part) for part in self._parts if part.is_kept),
            failed=tuple(failed),
            others=(*others, *self._others),
            retrieve_url=self._study_url(),
        )

    def _stored(self, part: StorePart) -> StoredInstance:
        identity, remarks = part.identity, part.remarks
        url = self._url(
            studies=part.study_instance_uid,
            series=part.series_instance_uid,
            instances=identity.sop_instance_uid,
        )
        return StoredInstance(
            identity.sop_class_uid,
            identity.sop_instance_uid,
            retrieve_url=url,
            warning=WarningReason.DOES_NOT_MATCH if remarks else None,
            words="; ".join(remarks),
        )

    def _study_url(self) -> str:
        """Return the URL of the study, where all that is kept is of one."""
        studies = {part.study_instance_uid for part in self._parts if part.is_kept}
        return self._url(studies=studies.pop()) if len(studies) == 1 else ""

    def _url(self, **uids: str) -> str:
        """Return where something can be had by HTTP; '' for nowhere, as for what is kept under a UID that is none."""
        if not self._retrieve_url or not all(
            is_acceptable_uid(uid) and uid.strip(".") for uid in uids.values()
        ):
            return ""
        return self._retrieve_url + "".join(f"/{level}/{uid}" for level, uid in uids.items())

    @property
    def all_are_too_large(self) -> bool:
        """Whether there are parts, and each is longer than a part may be."""
        return bool(self._parts) and all(part.is_too_large for part in self._parts)

    @property
    def all_are_of_other_types(self) -> bool:
        """Whether there are parts, and none says that it is a DICOM file."""
        return bool(self._parts) and all(part.is_other_type for part in self._parts)

    def close(self, *, is_answered: bool) -> None:
        """Write the ledger's lines. `is_answered` tells whether the result was handed to the network."""
        self.settle()
        ended = time.perf_counter()
        finisher = self._archive.finisher
        refused = 0
        for part in self._parts:
            if part.number % LINES_AT_ONCE_MAX == 0:
                finisher.wait_until_idle(LINES_WAIT_SECONDS)
            part.answer.given = is_answered and part.is_kept
            finisher.record(partial(part.record, self.request_id, ended, is_answered=is_answered))
            if not part.is_kept:
                refused += 1
                if refused <= REFUSALS_LOGGED_MAX:
                    part.log_refusal(self.request_id)
        if refused > REFUSALS_LOGGED_MAX:
            log.warning(
                "error",
                what="more instances of this request were refused: the ledger names them",
                count=refused - REFUSALS_LOGGED_MAX,
                association=self.request_id,
            )
        line = self._line(is_answered=is_answered)
        finisher.record(lambda: line)

    def _line(self, *, is_answered: bool) -> AssociationRecord:
        who = self._credential[:CREDENTIAL_LETTERS_MAX]
        return AssociationRecord(
            association_id=self.request_id,
            opened_at=timestamp(self._opened_at),
            closed_at=timestamp(time.time_ns()),
            receiver=self._archive.receiver,
            peer_address=self._address,
            messages=len(self._parts),
            bytes_received=sum(part.length for part in self._parts),
            ended="released" if is_answered else "lost",
            words=f"{RECEIVED_BY}, credential {who}" if who else RECEIVED_BY,
        )


def _read(
    reader: MultipartReader,
    pieces: Iterable[bytes],
    take: Callable[[Event], None],
    is_enough: Callable[[], bool],
) -> str:
    """Read a body to its end, or until it is enough; return why it is no multipart, '' where it is."""
    try:
        for piece in pieces:
            for event in reader.feed(piece):
                take(event)
                if is_enough():
                    return ""
        for event in reader.finish():
            take(event)
    except MultipartError as error:
        return str(error)
    return ""


@lru_cache(16)  # all parts of most requests say the same
def _is_file_type(content_type: str) -> bool:
    """Tell whether a part may be a file. Some senders and gateways leave the type out, or say `application/octet-stream`."""
    if not content_type:
        return True
    try:
        return parse_media_type(content_type).name in {DICOM, OCTET_STREAM}
    except ValueError:
        return False
