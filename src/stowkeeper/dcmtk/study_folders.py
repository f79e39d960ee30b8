"""Subdirectories for received objects, and when a study is complete.

`storescp` sorts by the study that came last: an object of another Study Instance UID than the one before it begins a new
subdirectory, across associations, and completes the study before. `dcmrecv` sorts by Series Date. Time is an argument
everywhere: of day for names, monotonic for timeouts.

Names never leave the output directory. What a peer sends into them is reduced to harmless characters, and a name that
would still mean another place is refused.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final

from stowkeeper.dcmtk.limits import PATIENT_FOLDER_LETTERS_MAX
from stowkeeper.dcmtk.sanitizing import sanitized, sanitizing_warning, shortened
from stowkeeper.dcmtk.storescp_options import SortMode

_MICROSECONDS_IN_MILLISECOND: Final = 1000
_LATIN_1: Final = "ISO_IR 100"
ANONYMOUS: Final = "ANONYMOUS"
"""What names the directory of a patient without name."""

RENAMED_PREFIX_LENGTH: Final = 2
_RENAMED = re.compile(r"..([0-9]{6,})", re.DOTALL)


class StudyFolderError(Exception):
    """An object has no place in any subdirectory; the text says why, without patient data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file of the current study: its name within the subdirectory, and the prefix of its SOP class."""

    name: str
    prefix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedStudy:
    """A study that is complete: its subdirectory, and its files in the order of arrival."""

    folder: str
    files: tuple[StoredFile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where an object goes: a subdirectory below the output directory, to be made if it is not there."""

    study_instance_uid: str
    folder: str
    is_new_study: bool
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Renaming:
    """One file of an ended study and its new name, both within the subdirectory."""

    old: str
    new: str


class StudySorter:
    """Knows the current study of `storescp`, that of the object stored last, and says when it ends.

    `place` asks where an object would go and changes nothing; `stored` tells that it got there, which may complete the
    study before it. So an object that is refused changes neither the current study nor the name of its directory.

    `timeout` is in seconds (-tos), None for none. `keeps_names` is for renaming (-rns): without it no list of files grows.
    """

    def __init__(
        self, mode: SortMode, prefix: str, *, timeout: float | None = None, keeps_names: bool = False
    ) -> None:
        self._mode = mode
        self._prefix = prefix
        self._timeout = timeout
        self._keeps_names = keeps_names
        self._current: Placement | None = None
        self._files: list[StoredFile] = []
        self._last_stored_at = 0.0

    def place(
        self, study_instance_uid: str, patient_name: bytes, character_set: str, *, now: datetime
    ) -> Placement:
        """Return where an object goes.

        The values are those of the data set, empty for what is absent: Study Instance UID, Patient's Name as it stands
        there, Specific Character Set. `now` is local time. Raises StudyFolderError when there is no UID, or the name of
        the directory would be none.
        """
        uid = study_instance_uid.partition("\\")[0].replace(" ", "")
        if not uid:
            raise StudyFolderError(
                "Study Instance UID (0020,000D) is absent or empty, so it cannot be sorted by"
            )
        if self._current is not None and self._current.study_instance_uid == uid:
            return Placement(study_instance_uid=uid, folder=self._current.folder, is_new_study=False)
        folder, warnings = self._folder(uid, patient_name, character_set, now)
        if folder in {"", ".", ".."}:
            raise StudyFolderError(
                f"the subdirectory of the study would be named {folder!r}, which is no name"
            )
        return Placement(study_instance_uid=uid, folder=folder, is_new_study=True, warnings=warnings)

    def stored(self, placement: Placement, file: StoredFile, *, at: float) -> EndedStudy | None:
        """Take note that an object was stored where `place` said, and return the study that this completes, if any.

        `at` is monotonic time in seconds.
        """
        ended = None
        current = self._current
        if current is None or current.study_instance_uid != placement.study_instance_uid:
            ended = self._end()
            self._current = placement
        self._last_stored_at = at
        if self._keeps_names:
            self._files.append(file)
        return ended

    def deadline(self) -> float | None:
        """Return when the current study is complete if nothing comes until then, in monotonic seconds."""
        if self._timeout is None or self._current is None:
            return None
        return self._last_stored_at + self._timeout

    def expired(self, now: float) -> EndedStudy | None:
        """Return the current study if its time is over; the next object begins a new one, also of the same UID.

        Not to be asked while an object is being received.
        """
        deadline = self.deadline()
        return None if deadline is None or now < deadline else self._end()

    def _end(self) -> EndedStudy | None:
        current, self._current = self._current, None
        files, self._files = self._files, []
        return None if current is None else EndedStudy(folder=current.folder, files=tuple(files))

    def _folder(
        self, uid: str, patient_name: bytes, character_set: str, now: datetime
    ) -> tuple[str, tuple[str, ...]]:
        if self._mode is SortMode.STUDY_UID:
            clean = sanitized(uid)
            warning = sanitizing_warning("the Study Instance UID", uid, clean)
            return _joined(self._prefix, clean), () if warning is None else (warning,)
        stamp = f"{now:%Y%m%d_%H%M%S}{now.microsecond // _MICROSECONDS_IN_MILLISECOND:03d}"
        if self._mode is SortMode.PATIENT_NAME:
            name, warnings = patient_folder(patient_name, character_set)
            return f"{name}_{stamp}", warnings
        return _joined(self._prefix, stamp), ()


def _joined(prefix: str, rest: str) -> str:
    return f"{prefix}_{rest}" if prefix else rest


# --- patient names


def _read_letters() -> dict[int, str]:
    """Return what becomes of each byte of a name."""
    letters = dict.fromkeys(range(256), "_")
    letters.update((byte, chr(byte)) for byte in range(128) if chr(byte).isalnum())
    upper = "A A A A Ae A A C E E E E I I I I D N O O O O Oe _ O U U U Ue Y _ ss"
    lower = "a a a a ae a a c e e e e i i i i d n o o o o oe _ o u u u ue y _ y"
    letters.update(enumerate(upper.split() + lower.split(), start=0xC0))
    return letters


_LETTERS: Final = _read_letters()


def patient_folder(patient_name: bytes, character_set: str) -> tuple[str, tuple[str, ...]]:
    """Return the first part of a directory name for a patient, and warnings for the log.

    The bytes count as Latin-1, whatever the character set: letters and digits of ASCII stay, those with accents lose
    them, umlauts become two letters, all else becomes `_`. Of several values the first one counts.
    """
    name = patient_name.partition(b"\\")[0].rstrip(b" ")
    if not name:
        return ANONYMOUS, (
            f"Patient's Name (0010,0010) is absent or empty, {ANONYMOUS} is used in its place",
        )
    folder = "".join(_LETTERS[byte] for byte in name)[:PATIENT_FOLDER_LETTERS_MAX]
    declared = character_set.strip(" ")
    if not declared or declared == _LATIN_1 or name.isascii():
        return folder, ()
    warning = f"Patient's Name is not in Latin-1 (Specific Character Set is {shortened(declared)!r})"
    return folder, (f"{warning}, the name of its directory may be unreadable",)


# --- the end of a study


def renamings(files: Sequence[StoredFile], present: Iterable[str]) -> Iterator[Renaming]:
    """Yield how the files of an ended study are renamed (-rns): two letters of the prefix and a number of six digits.

    One count goes through all kinds of objects, in the order of arrival. A file that was stored twice is renamed once, at
    its first place; the other place uses up a number. `present` are the names in the directory: counting begins behind
    the highest number there, so that files renamed before, or by another process, are never replaced.
    """
    numbers = (int(found.group(1)) for found in map(_RENAMED.fullmatch, present) if found)
    first = max(numbers, default=0) + 1
    seen = set()
    for number, file in enumerate(files, start=first):
        if file.name not in seen:
            seen.add(file.name)
            yield Renaming(old=file.name, new=f"{file.prefix[:RENAMED_PREFIX_LENGTH]}{number:06d}")


def next_number(name: str) -> str:
    """Return the new name of a renamed file with the next number."""
    prefix, number = name[:RENAMED_PREFIX_LENGTH], name[RENAMED_PREFIX_LENGTH:]
    return f"{prefix}{int(number) + 1:06d}"


# --- by date


_DATE = re.compile(r"([0-9]{4})(\.?)([0-9]{2})\2([0-9]{2})", re.ASCII)
_MONTHS: Final = range(1, 13)
_DAYS: Final = range(1, 32)


def series_date_folder(series_date: str, *, today: date) -> str:
    """Return the subdirectory of `dcmrecv` for a Series Date: `data/YYYY/MM/DD`.

    Dates with dots, as before 1993, are read too. Without a date of twelve months and 31 days it is `undef/YYYYMMDD` of
    today.
    """
    found = _DATE.fullmatch(series_date.partition("\\")[0].rstrip(" "))
    if found is not None:
        year, _, month, day = found.groups()
        if int(month) in _MONTHS and int(day) in _DAYS:
            return f"data/{year}/{month}/{day}"
    return f"undef/{today:%Y%m%d}"
