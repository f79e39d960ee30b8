"""Text in the character sets of Specific Character Set (0008,0005), decoded as well as it can be (PS3.5 §6.1).

A catalog needs some text for every value, whatever the sender did, and has to know when it is a guess: so
`decode_text` never fails and tells whether it was sure. pydicom decodes too, but speaks of doubts through
warnings and settings of the whole process, and takes a quarter of a second to import while a sender waits.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_CODEC_OF_NUMBER: Final = {
    "6": "ascii",
    "13": "shift_jis",
    "58": "gb2312",
    "87": "iso2022_jp",
    "100": "iso8859_1",
    "101": "iso8859_2",
    "109": "iso8859_3",
    "110": "iso8859_4",
    "126": "iso8859_7",
    "127": "iso8859_6",
    "138": "iso8859_8",
    "144": "iso8859_5",
    "148": "iso8859_9",
    "149": "euc_kr",
    "159": "iso2022_jp_2",
    "166": "tis_620",
    "192": "utf_8",
    "203": "iso8859_15",
}
"""Codecs by number in the ISO registry, for the defined terms ISO_IR n and ISO 2022 IR n (PS3.3 §C.12.1.1.2).
Each decodes the set together with ASCII, which it is used with; shift_jis covers JIS X 0201."""

_CODEC_OF_NAME: Final = {
    "GB18030": "gb18030",
    "GBK": "gbk",
    "ISO2022GBK": "gbk",
    "ISO202258": "gb2312",
    "UTF8": "utf_8",
}

_CODEC_OF_ESCAPE: Final = {
    b"\x1b(B": "",
    b"\x1b(J": "shift_jis",
    b"\x1b)I": "shift_jis",
    b"\x1b-A": "iso8859_1",
    b"\x1b-B": "iso8859_2",
    b"\x1b-C": "iso8859_3",
    b"\x1b-D": "iso8859_4",
    b"\x1b-F": "iso8859_7",
    b"\x1b-G": "iso8859_6",
    b"\x1b-H": "iso8859_8",
    b"\x1b-L": "iso8859_5",
    b"\x1b-M": "iso8859_9",
    b"\x1b-T": "tis_620",
    b"\x1b-b": "iso8859_15",
    b"\x1b$)C": "euc_kr",
    b"\x1b$)A": "gb2312",
    b"\x1b$B": "iso2022_jp",
    b"\x1b$(D": "iso2022_jp_2",
}
"""Codecs by the escape sequence that designates a set (PS3.3 Tables C.12-3 and C.12-4). ESC ( B leaves what
is in G1 as it was, and so names no codec."""

_ESCAPE = re.compile(rb"(\x1b(?:\$[()]?|[()-])[@-~])")
_JIS_IN_G0: Final = frozenset(("iso2022_jp", "iso2022_jp_2"))
_STANDALONE: Final = frozenset(("utf_8", "gb18030", "gbk"))
"""Codecs of sets that allow no code extensions (PS3.3 §C.12.1.1.2): an escape in them means nothing."""

_PUNCTUATION = re.compile(r"[^A-Z0-9]")
_REGISTERED = re.compile(r"(?:ISO(?:2022)?)?IR(\d{1,3})")

_RESET = re.compile(rb"[\t\n\f\r\\]")
_RESET_IN_NAME = re.compile(rb"[\t\n\f\r\\^=]")
"""After these the sets are those of the beginning again (PS3.5 §6.1.2.5.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CharacterSets:
    """What Specific Character Set says, in terms of Python's codecs."""

    initial: str
    """Codec of text before any escape sequence."""

    others: tuple[str, ...]
    """Codecs of further values, reached by escape sequences."""

    known: bool
    """Whether all values are defined terms, or close enough to one."""


DEFAULT_REPERTOIRE: Final = CharacterSets(initial="ascii", others=(), known=True)
"""Of a data set without Specific Character Set (PS3.5 §6.1.2.1)."""


@lru_cache(maxsize=128)
def parse_character_sets(raw: bytes) -> CharacterSets:
    """Read the value of Specific Character Set; terms are recognized with any punctuation and case."""
    codecs = [_codec_of(term) for term in raw.decode("latin-1").split("\\")]
    return CharacterSets(
        initial=codecs[0] or "ascii",
        others=tuple(codec for codec in codecs[1:] if codec),
        known=None not in codecs,
    )


def decode_text(raw: bytes, character_sets: CharacterSets, *, is_name: bool = False) -> tuple[str, bool]:
    """Return `raw` as text, and whether the character sets really say so.

    Where they do not, the text is the best guess: another named set, UTF-8, or Latin-1, or replacement
    characters where the right set is known and bytes are wrong in it. `is_name` is for the VR PN, whose
    component delimiters reset the sets.
    """
    if b"\x1b" in raw and character_sets.initial not in _STANDALONE:
        return _decode_extended(raw, character_sets, _RESET_IN_NAME if is_name else _RESET)
    try:
        return raw.decode(character_sets.initial), character_sets.known
    except UnicodeDecodeError:
        return _guess(raw, character_sets), False


def _decode_extended(raw: bytes, character_sets: CharacterSets, reset: re.Pattern[bytes]) -> tuple[str, bool]:
    """Decode text with escape sequences: each one changes what stands in G0 or G1 (PS3.5 §6.1.2.5)."""
    texts: list[str] = []
    fitting = character_sets.known
    g0_escape = b""
    g1 = character_sets.initial
    for index, piece in enumerate(_ESCAPE.split(raw)):
        if index % 2:  # `split` puts what the expression captures between the texts.
            codec = _CODEC_OF_ESCAPE.get(piece)
            fitting = fitting and codec is not None
            g0_escape = piece if codec in _JIS_IN_G0 else b""
            g1 = codec if codec and not g0_escape else g1
            continue
        if g0_escape:
            parts = [(g0_escape + piece, _CODEC_OF_ESCAPE[g0_escape])]
        else:
            end = found.start() if (found := reset.search(piece)) else len(piece)
            parts = [(piece[:end], g1), (piece[end:], character_sets.initial)]
            g1 = character_sets.initial if found else g1
        for part, codec in parts:
            text, fits = _decode(part, codec)
            texts.append(text)
            fitting = fitting and fits
    return "".join(texts), fitting


def _decode(raw: bytes, codec: str) -> tuple[str, bool]:
    """Return `raw` as text, with replacement characters if need be, and whether none was needed."""
    try:
        return raw.decode(codec), True
    except UnicodeDecodeError:
        return raw.decode(codec, "replace"), False


def _guess(raw: bytes, character_sets: CharacterSets) -> str:
    """Return the most likely text of bytes that are none in the initial set."""
    if character_sets.initial != "ascii":
        return raw.decode(character_sets.initial, "replace")
    for codec in (*character_sets.others, "utf_8"):
        text, fits = _decode(raw, codec)
        if fits:
            return text
    return raw.decode("latin_1")


def _codec_of(term: str) -> str | None:
    """Return the codec of a defined term, None of one that is not known. No term is the default repertoire."""
    word = _PUNCTUATION.sub("", term.upper())
    number = _REGISTERED.fullmatch(word)
    if number is not None:
        return _CODEC_OF_NUMBER.get(number[1])
    return _CODEC_OF_NAME.get(word) if word else "ascii"
