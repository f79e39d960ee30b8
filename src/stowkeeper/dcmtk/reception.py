"""One data set on its way from the network into a file.

While it comes it is looked at: what it identifies, and whether it has the form that is asked for already. Most have, and
then its bytes are the file; the others are written anew from them when all are there. The meta information in front names
what the data set says of itself, which usually stands in its first bytes; where it did not, the file is written anew too.
"""

import io
import os
import shutil
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from stowkeeper.dcmtk.encoding.detector import FormDetector
from stowkeeper.dcmtk.encoding.dictionary import Dictionary
from stowkeeper.dcmtk.encoding.form import Form
from stowkeeper.dcmtk.encoding.identity import (
    SOP_CLASS_UID,
    SOP_INSTANCE_UID,
    Identity,
    clean_uid,
    find_identity,
)
from stowkeeper.dcmtk.encoding.meta import encode_meta
from stowkeeper.dcmtk.encoding.writer import write_data_set
from stowkeeper.dcmtk.incoming_file import IncomingFile, IncomingFiles
from stowkeeper.dcmtk.limits import WAITING_BYTES_MAX
from stowkeeper.dicom.header import HeaderScanner

SPECIFIC_CHARACTER_SET: Final = 0x00080005
SERIES_DATE: Final = 0x00080021
PATIENT_NAME: Final = 0x00100010
STUDY_INSTANCE_UID: Final = 0x0020000D

_WANTED: Final = frozenset(
    (SOP_CLASS_UID, SOP_INSTANCE_UID, SPECIFIC_CHARACTER_SET, SERIES_DATE, PATIENT_NAME, STUDY_INSTANCE_UID)
)

Release = Callable[[], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """How data sets are kept: the same for all of a run.

    Without a `form` their bytes stay as they come. `keeps_source_ae_title` is for the meta information.
    """

    directory: str
    form: Form | None
    with_meta: bool
    keeps_source_ae_title: bool
    dictionary: Dictionary | None
    synchronizes: bool
    files: IncomingFiles = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "files", IncomingFiles(self.directory, synchronizes=self.synchronizes))


class Reception:
    """One data set. First `write` for each piece, then `finish`, `complete` and `place`; `discard` at any time.

    `identity` is what the command says, `claimed` later on; it counts where bytes are preserved.
    """

    __slots__ = (
        "_detector",
        "_file",
        "_head",
        "_keeping",
        "_pieces",
        "_releases",
        "_source_ae_title",
        "_transfer_syntax_uid",
        "_values",
        "_waiting",
        "claimed",
    )

    def __init__(
        self, keeping: Keeping, identity: Identity, transfer_syntax_uid: str, source_ae_title: str
    ) -> None:
        self._keeping = keeping
        self.claimed = identity
        self._transfer_syntax_uid = transfer_syntax_uid
        self._source_ae_title = source_ae_title if keeping.keeps_source_ae_title else None
        self._file: IncomingFile | None = None
        self._head = b""
        self._pieces: list[memoryview] = []
        self._releases: list[Release] = []
        self._waiting = 0
        self._values: dict[int, bytes] = {}
        self._detector: FormDetector | None = None
        if keeping.form is not None:
            self._detector = FormDetector(
                transfer_syntax_uid,
                keeping.form,
                keeping.dictionary,
                _WANTED,
                sop_class_uid=identity.sop_class_uid or "",
            )

    def write(self, piece: memoryview, release: Release | None) -> None:
        """Take the next bytes. `release` is called when they are not needed any more. Raises OSError."""
        if self._detector is not None:
            self._detector.feed(piece)
        self._pieces.append(piece)
        if release is not None:
            self._releases.append(release)
        self._waiting += len(piece)
        if self._waiting >= WAITING_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Write what waits. Raises OSError."""
        if not self._pieces:
            return
        if self._file is None:
            self._file = self._keeping.files.take()
            self._head = self._encode_head(self._identity_so_far())
            self._file.write([self._head, *self._pieces])
        else:
            self._file.write(self._pieces)
        self._let_go()

    def finish(self) -> None:
        """Know that the data set is complete; `value` can be asked then. Raises OSError."""
        detector = self._detector
        if detector is None:
            return
        if detector.finish():
            self._values = detector.values
            return
        scanner = HeaderScanner(self._transfer_syntax_uid, _WANTED)
        with closing(self._opened()) as source:
            while piece := source.read(WAITING_BYTES_MAX):
                scanner.feed(piece)
        self._values = scanner.finish().values

    def value(self, tag: int) -> bytes:
        """Return the bytes of an element at the top level, empty when it is not there; not for preserved bytes."""
        return self._values.get(tag, b"")

    def identity(self) -> Identity:
        """Return what the data set says it is. Raises EncodingError and OSError."""
        form = self._keeping.form
        if form is None:
            return self.claimed
        found = self._identity_in(self._values, form)
        if found.sop_class_uid is not None and found.sop_instance_uid is not None:
            return found
        with closing(self._opened()) as source:
            keeping = self._keeping
            return find_identity(
                source, self._transfer_syntax_uid, form, keeping.dictionary, keeping.directory
            )

    def complete(self, identity: Identity) -> None:
        """Make the file whole, in the form that is asked for, and name the data set `identity` in its head.

        Raises EncodingError when the data set cannot be read to its end or not be written so, and OSError.
        """
        head = self._encode_head(identity)
        if self._detector is not None and not self._detector.finish():
            self._replace(head, self._write_in_form)
        elif self._file is not None and head != self._head:
            self._replace(head, shutil.copyfileobj)
        elif self._file is None:
            self._file = self._keeping.files.take()
            self._file.write([head, *self._pieces])
        else:
            self._file.write(self._pieces)
        self._let_go()

    def place(self, path: str, *, replaces: bool = True) -> None:
        """Give the completed file its name. Raises OSError; then there is nothing new on the disk.

        Unless it `replaces`, raises FileExistsError when the name is taken; it can then be given another one.
        """
        if self._file is not None:
            self._file.finish(path, replaces=replaces)
            self._file = None

    def discard(self) -> None:
        """Remove what was written so far, and let go of what was not."""
        file, self._file = self._file, None
        if file is not None:
            file.discard()
        if self._pieces:
            self._let_go()

    def _let_go(self) -> None:
        self._pieces = []
        self._waiting = 0
        releases, self._releases = self._releases, []
        for release in releases:
            release()

    def _write_in_form(self, source: BinaryIO, target: BinaryIO) -> None:
        form = self._keeping.form
        if form is not None:
            keeping = self._keeping
            write_data_set(
                source, self._transfer_syntax_uid, form, target, keeping.dictionary, keeping.directory
            )

    def _replace(self, head: bytes, write: Callable[[BinaryIO, BinaryIO], None]) -> None:
        """Write a second file from the data set, and let it take the place of the first."""
        file = self._keeping.files.take()
        try:
            with closing(self._opened()) as source, file.open_at(0) as target:
                target.write(head)
                write(source, target)
        except BaseException:
            file.discard()
            raise
        if self._file is not None:
            self._file.discard()
        self._file = file

    def _opened(self) -> BinaryIO:
        """Open the data set for reading, from memory if it is all there."""
        if self._file is None:
            return io.BytesIO(b"".join(self._pieces))
        self.flush()
        return self._file.open_at(len(self._head))

    # What the data set is

    def _identity_so_far(self) -> Identity:
        form = self._keeping.form
        if self._detector is None or form is None:
            return self.claimed
        return self._identity_in(self._detector.values, form)

    def _identity_in(self, values: dict[int, bytes], form: Form) -> Identity:
        sop_class, sop_instance = values.get(SOP_CLASS_UID), values.get(SOP_INSTANCE_UID)
        return Identity(
            sop_class_uid=None
            if sop_class is None
            else clean_uid(sop_class, correct_input=form.correct_input),
            sop_instance_uid=None
            if sop_instance is None
            else clean_uid(sop_instance, correct_input=form.correct_input),
        )

    def _encode_head(self, identity: Identity) -> bytes:
        if not self._keeping.with_meta:
            return b""
        form = self._keeping.form
        written = None if form is None else form.transfer_syntax
        return encode_meta(
            sop_class_uid=identity.sop_class_uid,
            sop_instance_uid=identity.sop_instance_uid,
            transfer_syntax_uid=written or self._transfer_syntax_uid,
            source_application_entity_title=self._source_ae_title,
        )


def is_taken(directory: str, name: str) -> bool:
    """Tell whether there is a file, or anything else, of a name."""
    return os.path.lexists(os.path.join(directory, name))
