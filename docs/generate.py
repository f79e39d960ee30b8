# noqa: INP001 - a script beside the pages that it serves, in no package
"""Rewrite the marked tables of the documents from the tables of the code.

Run `python docs/generate.py` after a change of those tables, with the package installed or `PYTHONPATH=src`.
What stands between `<!-- table:NAME -->` and `<!-- /table -->` belongs to this script; everything else on a
page is written by hand. `--check` writes nothing and exits 1 when a page is out of date.
"""

import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from stowkeeper.dicom.sop_classes import SOP_CLASSES, Origin, SOPClass, SOPClassKind
from stowkeeper.dicom.transfer_syntaxes import SHIPPED_TRANSFER_SYNTAXES, TRANSFER_SYNTAXES, TransferSyntax
from stowkeeper.dicom.uid import (
    DICOM_APPLICATION_CONTEXT,
    IMPLEMENTATION_CLASS_UID,
    IMPLEMENTATION_VERSION_NAME,
)

FOLDER = Path(__file__).resolve().parent
COMMAND = "PYTHONPATH=src python docs/generate.py"

_OPENING = re.compile(r"<!-- table:([a-z-]+) -->")
_CLOSING = "<!-- /table -->"


class MarkerError(ValueError):
    """A page has a marker without its partner, or names a table that does not exist."""


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _identification() -> str:
    return _table(
        ("Item", "Value"),
        [
            ("Application Context Name", f"`{DICOM_APPLICATION_CONTEXT}`"),
            ("Implementation Class UID", f"`{IMPLEMENTATION_CLASS_UID}`"),
            ("Implementation Version Name", f"`{IMPLEMENTATION_VERSION_NAME}`"),
        ],
    )


def _place(known: SOPClass) -> str:
    if known.kind is SOPClassKind.NON_PATIENT_STORAGE:
        return "class"
    return "study if it names one" if known.origin is Origin.PRIVATE else "study"


def _storage_classes() -> str:
    stored = (known for known in SOP_CLASSES.values() if known.kind is not SOPClassKind.OTHER)
    rows = [(known.name, f"`{known.uid}`", known.origin.value, "Y", "Y", _place(known)) for known in stored]
    return _table(("SOP Class", "UID", "Origin", "SCU", "SCP", "Kept under"), rows)


def _other_classes() -> str:
    others = (known for known in SOP_CLASSES.values() if known.kind is SOPClassKind.OTHER)
    return _table(
        ("SOP Class", "UID", "Origin"),
        [
            (known.name, f"`{known.uid}`", known.origin.value)
            for known in others
            if known.keyword != "Verification"
        ],
    )


def _encoding(known: TransferSyntax) -> str:
    order = "little endian" if known.little_endian else "big endian"
    words = [f"{'implicit' if known.implicit_vr else 'explicit'} VR, {order}"]
    if known.deflated:
        words.append("deflated")
    if known.encapsulated:
        words.append("pixel data encapsulated")
    return ", ".join(words)


_LOSS = {True: "lossless", False: "lossy", None: "open"}


def _syntax_rows(chosen: Iterable[TransferSyntax]) -> Iterator[tuple[str, ...]]:
    for known in chosen:
        name = f"{known.name} (retired)" if known.retired else known.name
        yield name, f"`{known.uid}`", _encoding(known), _LOSS[known.lossless]


_SYNTAX_HEADING = ("Transfer Syntax", "UID", "Encoding of the data set", "Pixel data")


def _shipped_syntaxes() -> str:
    return _table(_SYNTAX_HEADING, _syntax_rows(TRANSFER_SYNTAXES[uid] for uid in SHIPPED_TRANSFER_SYNTAXES))


def _other_syntaxes() -> str:
    others = (known for uid, known in TRANSFER_SYNTAXES.items() if uid not in SHIPPED_TRANSFER_SYNTAXES)
    return _table(_SYNTAX_HEADING, _syntax_rows(others))


TABLES: dict[str, Callable[[], str]] = {
    "identification": _identification,
    "sop-classes": _storage_classes,
    "other-sop-classes": _other_classes,
    "transfer-syntaxes": _shipped_syntaxes,
    "other-transfer-syntaxes": _other_syntaxes,
}
"""What makes each table, by the name in its marker."""


def rewrite(page: str) -> str:
    """Return a page with every marked table as the code has it now.

    Raises MarkerError for a table without an end or of an unknown name.
    """
    parts, position = [], 0
    while marker := _OPENING.search(page, position):
        if marker[1] not in TABLES:
            msg = f"there is no table {marker[1]!r}: use one of {', '.join(sorted(TABLES))}"
            raise MarkerError(msg)
        end = page.find(_CLOSING, marker.end())
        following = _OPENING.search(page, marker.end())
        if end < 0 or (following is not None and following.start() < end):
            msg = f"the table {marker[1]!r} has no {_CLOSING} after it"
            raise MarkerError(msg)
        parts += [page[position : marker.end()], "\n\n", TABLES[marker[1]](), "\n"]
        position = end
    return "".join([*parts, page[position:]])


def pages_with_tables() -> list[Path]:
    """Return the pages below the folder of documents that hold a marked table."""
    return sorted(page for page in FOLDER.rglob("*.md") if _OPENING.search(page.read_text(encoding="utf-8")))


def main(arguments: Sequence[str]) -> int:
    """Rewrite every page, or with `--check` name those that would change; return the exit code."""
    stale = 0
    for page in pages_with_tables():
        before = page.read_text(encoding="utf-8")
        after = rewrite(before)
        if before == after:
            continue
        stale += 1
        if "--check" in arguments:
            print(f"{page.name} is out of date: run {COMMAND}")
        else:
            page.write_text(after, encoding="utf-8")
            print(f"{page.name} rewritten")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
