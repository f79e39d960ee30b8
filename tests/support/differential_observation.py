"""What a receiver under comparison did, with everything that differs from run to run replaced by its shape."""

import os
import re
import stat
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.bundled_files import file_meta
from support.dcmtk_command_lines import printed
from support.differential_tokens import log_tokens, output_tokens

EVENTS, LOG_FILE = "events", "receiver.log"
DEFLATED = "1.2.840.10008.1.2.1.99"
_OUTPUT = ("stdout", "stderr", EVENTS, LOG_FILE)
_META_OF_IMPLEMENTATION = (0x00020012, 0x00020013)
_META_UIDS = (0x00020002, 0x00020003)
_META_LENGTH = 0x00020000
_META_TRANSFER_SYNTAX = 0x00020010
_MADE_HERE = (b"1.2.276.0.7230010.3.", b"2.25.")
"""What UIDs begin with that DCMTK's programs and ours make."""

_TIME = re.compile(r"(?<!\d)(?:\d{8}_\d{9}|\d{17}(?:_\d{4})?|\d{14}\.\d{6})(?!\d)")
_SHAPES = (
    (re.compile(r"\.X\.\d+(?:\.\d+)+"), ".X.<uid>"),
    (re.compile(r"(?<=_)[0-9a-f]{16}(?![0-9a-f])"), "<hex>"),
    (re.compile(r"undef/\d{8}"), "undef/<today>"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file: its name with shapes, its permissions, its meta elements, and its data set, inflated if it was deflated."""

    name: str
    mode: str
    meta: tuple[tuple[str, str], ...]
    data_set: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What one receiver did: each field is an aspect that is compared."""

    exit: tuple[int | None, ...]
    answers: tuple[Any, ...]
    folders: tuple[str, ...]
    files: tuple[StoredFile, ...]
    log: tuple[str, ...]
    output: tuple[str, ...]
    events: tuple[str, ...]
    heading: str = ""
    """What a program printed in whole that did not serve: see `printed_at_once`."""


def observe(
    outcome: Mapping[str, Any], folder: Path, *, given: Iterable[str] = (), events_in_order: bool = True
) -> Observation:
    """Look at what a run left in its folder; `given` are the names of files that were there before and do not count."""
    texts = {name: _text(folder / name) for name in _OUTPUT}
    found = sorted(_below(folder, {*_OUTPUT, *given}))
    shapes = _Shapes(folder, [*(name for name, _ in found), *texts.values()])
    events = [shapes.of(line) for line in texts[EVENTS].splitlines()]
    serves = bool(outcome["answers"]) or any(code is None or code < 0 for code in outcome["exit"])
    return Observation(
        exit=tuple(outcome["exit"]),
        answers=tuple(outcome["answers"]),
        folders=tuple(sorted(f"{shapes.of(name)} {_mode(path)}" for name, path in found if path.is_dir())),
        files=tuple(
            sorted(
                (_stored(shapes.of(name), path) for name, path in found if not path.is_dir()),
                key=lambda each: (each.name, each.data_set, each.meta),
            )
        ),
        log=log_tokens(shapes.of(texts["stderr"] + texts[LOG_FILE])),
        output=output_tokens(shapes.of(texts["stdout"])),
        events=tuple(events if events_in_order else sorted(events)),
        heading="" if serves else printed_at_once(outcome["exit"], texts["stdout"], texts["stderr"]),
    )


def printed_at_once(codes: Sequence[int | None], out: str, err: str) -> str:
    """Say what a program printed that ended by itself: on which stream, and the error, if it is about the command line.

    Errors that come later are worded as one likes.
    """
    streams = "+".join(name for name, text in (("stdout", out), ("stderr", err)) if text) or "nothing"
    if re.search(r"^error: ", err, re.MULTILINE):
        return f"{streams}: {printed(codes[0] or 0, out, err).says}"
    return f"{streams}: help" if "\nusage: " in out else streams


def _text(path: Path) -> str:
    return path.read_text(encoding="latin-1") if path.exists() else ""


def _below(folder: Path, left_out: Iterable[str]) -> Iterable[tuple[str, Path]]:
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if name not in left_out:
            yield name, path


def _mode(path: Path) -> str:
    return f"{stat.S_IMODE(path.lstat().st_mode):03o}"


class _Shapes:
    """Replaces what is generated: times by their rank, so that an order is still one, and all else by a word."""

    def __init__(self, folder: Path, texts: Sequence[str]) -> None:
        self._folder = os.fspath(folder)
        times = sorted({time for text in texts for time in _TIME.findall(text)})
        self._ranks = {time: f"<time-{rank}>" for rank, time in enumerate(times, 1)}

    def of(self, text: str) -> str:
        text = _TIME.sub(lambda found: self._ranks[found[0]], text.replace(self._folder, "<folder>"))
        for pattern, shape in _SHAPES:
            text = pattern.sub(shape, text)
        return text


def _stored(name: str, path: Path) -> StoredFile:
    if path.is_symlink() or not path.is_file():
        return StoredFile(name=name, mode=f"special {_mode(path)}", meta=(), data_set=b"")
    content = path.read_bytes()
    meta, start = file_meta(content)
    data_set = content[start:]
    syntax = meta.get(_META_TRANSFER_SYNTAX, b"").rstrip(b"\0 ").decode("latin-1")
    if syntax == DEFLATED or not meta:
        data_set = _inflated(data_set)
    return StoredFile(name=name, mode=_mode(path), meta=_comparable(meta, content), data_set=data_set)


def _inflated(data: bytes) -> bytes:
    """Inflate what is a deflate stream, and leave alone what is not."""
    stream = zlib.decompressobj(wbits=-15)
    try:
        inflated = stream.decompress(data)
    except zlib.error:
        return data
    return inflated if stream.eof and len(stream.unused_data) < 2 else data


def _comparable(meta: Mapping[int, bytes], content: bytes) -> tuple[tuple[str, str], ...]:
    if not meta:
        return ()
    found = [("preamble", content[:132].hex())]
    for tag, value in meta.items():
        text = value.decode("latin-1").rstrip("\0 ") if tag != 0x00020001 else value.hex()
        if tag == _META_LENGTH:  # it says how long the names of the implementation are
            text = "right" if int.from_bytes(value, "little") == _length_behind(meta, content) else "wrong"
        elif tag in _META_OF_IMPLEMENTATION:
            text = "<implementation>" if text else ""
        elif tag in _META_UIDS and value.startswith(_MADE_HERE):
            text = "<uid>"
        found.append((f"{tag:08X}", text))
    return tuple(found)


def _length_behind(meta: Mapping[int, bytes], content: bytes) -> int:
    """Return how many bytes of file meta information follow its first element."""
    return file_meta(content)[1] - 132 - 8 - len(meta[_META_LENGTH])
