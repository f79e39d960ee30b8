"""Data sets made by chance, which always parse."""

from random import Random

from encoding_dictionary import CREATOR
from encoding_trees import HEAD, IMPLICIT, LONG, SHORT, El, Node, Sq

_TAGS = (
    0x00080000,
    0x00080005,
    0x00080060,
    0x00080090,
    0x00081030,
    0x00081150,
    0x00090010,
    0x00091001,
    0x00091002,
)
_TAGS += (
    0x00100000,
    0x00100010,
    0x00102000,
    0x0020000D,
    0x00280000,
    0x00280010,
    0x00280103,
    0x00280106,
    0x00283006,
)
_TAGS += (
    0x00290010,
    0x00291001,
    0x00291002,
    0x00291003,
    0x50003000,
    0x60003000,
    0x60020010,
    0xFFFCFFFC,
    0xFFFC0000,
)
_OVERLAY_DATA = 0x60003000
_SEQUENCE_TAGS = (0x00081032, 0x00081140, 0x00091003, 0x00400275, 0x00291004)
_PIECES = (b"", b"1", b"1.2", b"abcd", CREATOR.encode() + b" ", b" ", b"  ", b"\0", b"\0\0", b"x\ty", b"1\0")


def chance_data_set(random: Random, *, depth: int = 0, implicit: bool = False) -> list[Node]:
    """Make a data set by chance, mostly with tags in order and VRs as in the dictionary; it always parses."""
    nodes: list[Node] = [] if depth else list(HEAD)
    tags = sorted(random.choices(_TAGS, k=random.randrange(9)))
    if random.random() < 0.2:
        random.shuffle(tags)
    for tag in tags:
        vr = (
            random.choice(_vrs_of(tag))
            if random.random() < 0.8
            else random.choice(sorted(SHORT | LONG - {b"SQ"}))
        )
        value = b"".join(random.choices(_PIECES, k=random.randrange(4)))
        if random.random() < 0.7 or tag == _OVERLAY_DATA:  # DCMTK swaps odd ones in a way that nobody wants
            value += b" " * (len(value) % 2)
        nodes.append(El(tag, vr, value))
    while depth < 4 and random.random() < 0.4:
        is_unknown = random.random() < 0.2
        is_open = is_unknown or random.random() < 0.5
        content = IMPLICIT if is_unknown or implicit else None
        items = [
            chance_data_set(random, depth=depth + 1, implicit=content is not None)
            for _ in range(random.randrange(4))
        ]
        sequence = Sq(
            random.choice(_SEQUENCE_TAGS),
            items,
            is_open=is_open,
            items_open=random.random() < 0.5,
            vr=b"UN" if is_unknown else b"SQ",
            content=content,
        )
        nodes.insert(random.randrange(len(nodes) + 1) if random.random() < 0.2 else len(nodes), sequence)
    return nodes


def _vrs_of(tag: int) -> tuple[bytes, ...]:
    if not tag & 0xFFFF:
        return (b"UL",)
    known = {0x00080060: b"CS", 0x00080005: b"CS", 0x00080090: b"PN", 0x00081030: b"LO", 0x00081150: b"UI"}
    known |= {0x00100010: b"PN", 0x00102000: b"LO", 0x0020000D: b"UI", 0x00280010: b"US", 0x00280103: b"US"}
    known |= {0x00280106: b"SS", 0x00283006: b"OW", 0x00090010: b"LO", 0x00290010: b"LO", 0xFFFCFFFC: b"OB"}
    return (known[tag],) if tag in known else (b"LO", b"US", b"OB", b"OW", b"UN", b"UI")
