"""Data sets to write anew: one for each thing that DCMTK's receivers do to what they receive."""

import struct
from collections.abc import Iterator, Sequence

from encoding_dictionary import CREATOR
from encoding_trees import (
    CODE,
    EXPLICIT,
    HEAD,
    IMAGE,
    IMPLICIT,
    LONG,
    NAME,
    NUMBER_VRS,
    PATIENT,
    PIXELS,
    SHORT,
    STUDY,
    TEXT_VRS,
    UNDEFINED,
    USUAL,
    El,
    Node,
    Raw,
    Sq,
    encode,
    header,
    item,
)


def samples() -> Iterator[tuple[str, tuple[Node, ...]]]:
    """Give the data sets that parse, with a name for each."""
    yield "usual", USUAL
    yield from _texts()
    yield from _uids()
    yield from _numbers()
    yield from _sequences()
    yield from _order()
    yield from _group_lengths()
    yield from _paddings()
    yield from _unknown()
    yield from _ambiguous()
    yield from _private()
    yield from _long_values()
    yield from _lenient()


def _texts() -> Iterator[tuple[str, tuple[Node, ...]]]:
    values = (
        b"",
        b" ",
        b"  ",
        b"A",
        b"AB",
        b"A ",
        b"A  ",
        b"AB  ",
        b"AB   ",
        b" A",
        b"A\0",
        b"A \0",
        b"A\0\0",
    )
    values += (b"A\0 ", b"A  \0", b"A\\B ", b"\0", b"\0\0", b" \0", b"A\t\n ", b"A" * 300 + b" " * 300)
    for vr in TEXT_VRS:
        yield (
            f"texts {vr!r}",
            (
                *HEAD,
                *(
                    El(0x00090010 + n if n < 1 else 0x00091000 + n, vr, value)
                    for n, value in enumerate(values)
                ),
            ),
        )


def _uids() -> Iterator[tuple[str, tuple[Node, ...]]]:
    uids = (
        b"1.2",
        b"1.2\0",
        b"1.2 ",
        b"1 .2",
        b" 1.2",
        b"1.2\0\0",
        b"1.2\0\0\0",
        b"1.2 \0",
        b"1.2\0 ",
        b"\t1\n.2\r\v\f",
    )
    uids += (
        b"",
        b" ",
        b"\0",
        b"\0\0",
        b"    ",
        b"1\0 2",
        b"1.2\\1.3 ",
        b"1.2\\ 1.3\0",
        b"1.2 \0\0 ",
        b"1.2\xa03",
    )
    yield "uids", (*HEAD, *(El(0x00091000 + n, b"UI", uid) for n, uid in enumerate(uids)))
    yield (
        "uids in an item",
        (
            *HEAD,
            Sq(0x00081140, [[El(0x00081150, b"UI", b"1.2.3 "), El(0x00081155, b"UI", b"1.2. 4\0")]]),
        ),
    )
    yield (
        "known texts with blanks",
        (
            *HEAD,
            El(0x00080060, b"CS", b"CT      "),
            El(0x00080070, b"LO", b"Maker   "),
            El(0x00081030, b"LO", b"     "),
            El(0x00100010, b"PN", b"Doe^Jane        "),
            El(0x00102000, b"LO", b"x\0"),
            El(0x00104000, b"LT", b"comment  "),
            El(0x0020000D, b"UI", b"1.2.3.4   "),
            El(0x00200010, b"SH", b"  "),
        ),
    )


def _numbers() -> Iterator[tuple[str, tuple[Node, ...]]]:
    yield "numbers", (*HEAD, *(El(0x00091000 + n, vr, (1, 2, 3, 4)) for n, vr in enumerate(NUMBER_VRS)))
    yield (
        "known numbers",
        (
            *HEAD,
            El(0x00080309, b"UL", (1, 2)),
            El(0x00189073, b"FD", (1.5,)),
            El(0x00189074, b"DT", b"20200101"),
            El(0x00209165, b"AT", (0x18, 0x1020)),
            El(0x00281201, b"OW", (1, 2, 3)),
            El(0x00660016, b"OF", (1, 2, 3)),
            El(0x00660022, b"OD", (1, 2)),
            El(0x00660040, b"OL", (1, 2)),
            El(0x7FE00001, b"OV", (1, 2)),
            El(0x7FE00003, b"UV", (1,)),
            El(0x7FE00008, b"OF", (1, 2)),
            El(0x7FE00009, b"OD", (1, 2)),
        ),
    )
    for vr in sorted(SHORT | LONG - {b"SQ"}):
        for length in (1, 3, 9):
            value = b"12345.789"[:length]
            yield f"odd {vr!r} {length}", (*HEAD, El(0x00091001, vr, value), El(0x00091003, b"LO", b"ok"))
    for tag, vr in (
        (0x00281201, b"OW"),
        (0x00280120, b"US"),
        (0x00283006, b"OW"),
        (0x60003000, b"OW"),
        (0x7FE00010, b"OW"),
    ):
        yield f"odd {tag:08X}", (*HEAD, El(tag, vr, b"123"))
    yield "odd pixels OB", (*HEAD, El(0x7FE00010, b"OB", b"123"))
    yield "empty values", (*HEAD, *(El(0x00091000 + n, vr, b"") for n, vr in enumerate(sorted(SHORT | LONG))))
    yield "pixels OB", (*HEAD, El(0x60003000, b"OB", b"1234"), El(0x7FE00010, b"OB", b"123456"))
    yield "pixels empty", (*HEAD, El(0x7FE00010, b"OW", b""))


def _sequences() -> Iterator[tuple[str, tuple[Node, ...]]]:
    for is_open in (False, True):
        for items_open in (False, True):
            how = f"{'open' if is_open else 'closed'}, items {'open' if items_open else 'closed'}"
            inner = Sq(0x00400260, [CODE, CODE], is_open, items_open)
            tree = Sq(0x00400275, [[PATIENT, inner], [], [inner, NAME]], is_open, items_open)
            yield (
                f"sequences {how}",
                (*HEAD, Sq(0x00081032, [CODE], is_open, items_open), tree, *IMAGE, PIXELS),
            )
            yield f"empty sequence {how}", (*HEAD, Sq(0x00081032, [], is_open, items_open), NAME)
            yield f"empty item {how}", (*HEAD, Sq(0x00081032, [[]], is_open, items_open), NAME)
    yield (
        "sequences mixed",
        (
            *HEAD,
            Sq(0x00081032, [CODE], is_open=True, items_open=False),
            Sq(0x00400275, [[Sq(0x00400260, [CODE], is_open=False, items_open=True)]], is_open=True),
        ),
    )
    yield (
        "delimiters with a length",
        (
            *HEAD,
            Sq(0x00081032, [CODE], is_open=True, items_open=True, delimiter_length=4),
        ),
    )
    nested: Sequence[Node] = CODE
    for _ in range(10):
        nested = [Sq(0x00400260, [nested], is_open=True, items_open=False)]
    yield "nested deeply", (*HEAD, *nested)


def _order() -> Iterator[tuple[str, tuple[Node, ...]]]:
    yield "out of order", (*USUAL[:2], PIXELS, NAME, *IMAGE, STUDY, PATIENT)
    yield "twice", (*HEAD, NAME, El(0x00100010, b"PN", b"Roe^Joe "), PATIENT, NAME)
    yield "twice apart", (*HEAD, NAME, PATIENT, STUDY, El(0x00100020, b"LO", b"4712"), *IMAGE)
    yield (
        "twice and out of order in an item",
        (
            *HEAD,
            Sq(0x00081032, [[*CODE[::-1], El(0x00080100, b"SH", b"X")], CODE], is_open=True, items_open=True),
        ),
    )
    yield "sequence twice", (*HEAD, Sq(0x00081032, [CODE]), NAME, Sq(0x00081032, [CODE, CODE]))
    yield "low groups", (El(0x00000002, b"UI", b"1.2\0"), El(0x00020010, b"UI", b"1.2\0"), *HEAD, NAME)
    yield (
        "high groups",
        (*HEAD, El(0xFFFC1001, b"LO", b"a"), El(0xFFFE0001, b"LO", b"b"), El(0xFFFF0011, b"LO", b"c")),
    )
    yield "delimiter-like elements", (*HEAD, El(0xFFFEE001, b"LO", b"ab"))


def _group_lengths() -> Iterator[tuple[str, tuple[Node, ...]]]:
    values: tuple[tuple[str, bytes, bytes | tuple[int, ...]], ...] = (
        ("wrong", b"UL", (4711,)),
        ("empty", b"UL", b""),
        ("double", b"UL", (1, 2)),
        ("short", b"UL", b"ab"),
        ("six", b"UL", b"abcdef"),
        ("of another VR", b"LO", b"abcd"),
        ("of long VR", b"OB", b"abcdef"),
    )
    for name, vr, value in values:
        yield (
            f"group length {name}",
            (
                El(0x00080000, vr, value),
                *HEAD,
                El(0x00100000, vr, value),
                NAME,
                PATIENT,
                STUDY,
                El(0x00280000, vr, value),
                *IMAGE,
            ),
        )
    yield "group length alone", (*HEAD, El(0x00100000, b"UL", (5,)), El(0x00120000, b"UL", (5,)))
    yield "group lengths, private", (*HEAD, El(0x00090000, b"UL", (1,)), El(0x00090010, b"LO", b"ab"))
    inner = (El(0x00080000, b"UL", (1,)), *CODE, El(0x00100000, b"UL", (2,)), NAME, STUDY)
    for is_open in (False, True):
        yield (
            f"group lengths in items, {is_open}",
            (
                El(0x00080000, b"UL", (1,)),
                *HEAD,
                Sq(0x00081032, [inner, inner], is_open, is_open),
                El(0x00100000, b"UL", (2,)),
                NAME,
            ),
        )
    yield "length to end", (El(0x00080000, b"UL", (1,)), El(0x00080001, b"UL", (100,)), *HEAD, NAME)


def _paddings() -> Iterator[tuple[str, tuple[Node, ...]]]:
    padding = El(0xFFFCFFFC, b"OB", bytes(10))
    yield "padding", (*USUAL, padding)
    yield "padding with group length", (*USUAL, El(0xFFFC0000, b"UL", (7,)), padding)
    yield (
        "padding in items",
        (*HEAD, Sq(0x00081032, [(*CODE, padding), (padding,)], is_open=True), NAME, padding),
    )
    yield "padding not last", (*HEAD, padding, NAME)
    yield "padding before a high group", (*USUAL, padding, El(0xFFFE0001, b"LO", b"b"))
    yield "file length 16", (*HEAD, El(0x00100010, b"PN", b"Doe^Jane^M"))


def _unknown() -> Iterator[tuple[str, tuple[Node, ...]]]:
    yield (
        "UN of known tags",
        (
            *HEAD,
            El(0x00080060, b"UN", b"CT  "),
            El(0x00100020, b"UN", b"4711  "),
            El(0x0020000D, b"UN", b"1.2. 3"),
            El(0x00280010, b"UN", b"\2\1"),
            El(0x00280106, b"UN", b"\2\1"),
            El(0x00283006, b"UN", b"\2\1\4\3"),
            El(0x54001010, b"UN", b"\2\1\4\3"),
            El(0x60003000, b"UN", b"\2\1\4\3"),
            El(0x7FE00010, b"UN", b"\2\1\4\3"),
        ),
    )
    yield "UN of unknown tags", (*HEAD, El(0x00090010, b"UN", b"NOBODY"), El(0x00091001, b"UN", b"abcd"))
    items = encode([Sq(0x00081032, [[El(0x00080104, b"LO", b"abc  "), NAME]])], IMPLICIT)[8:]
    yield "UN that holds items", (*HEAD, El(0x00081032, b"UN", items), NAME)
    tree = [
        *CODE,
        Sq(0x00400260, [CODE], is_open=True),
        El(0x00091001, b"LO", b"ab"),
        El(0x00280106, b"US", b"\2\1"),
    ]
    for items_open in (False, True):
        yield (
            f"UN of undefined length {items_open}",
            (
                *HEAD,
                Sq(0x00081032, [tree], is_open=True, items_open=items_open, vr=b"UN", content=IMPLICIT),
                Sq(0x00091001, [tree], is_open=True, items_open=items_open, vr=b"UN", content=IMPLICIT),
            ),
        )
    yield "VR of a later edition", (*HEAD, El(0x00091001, b"ZZ", b"abcd"), NAME)
    yield (
        "VR of a later edition, undefined length",
        (
            *HEAD,
            Sq(0x00091001, [CODE], is_open=True, vr=b"ZZ", content=IMPLICIT),
        ),
    )
    for vr in (b"??", b"zz", b"\0\0", b"Q1", b"ox", b"px", b"lt", b"xs", b"up", b"OX"):
        yield f"VR {vr!r}", (*HEAD, El(0x00091001, vr, b"abcd"), NAME)
    yield "pixels OX", (*HEAD, Raw(struct.pack("<HH2sxxI", 0x7FE0, 0x10, b"OX", 4) + b"abcd"))
    yield (
        "new VRs",
        (
            *HEAD,
            *(
                El(0x00091000 + n, vr, b"12345678")
                for n, vr in enumerate(b"OD OF OL OV SV UC UN UR UT UV".split())
            ),
        ),
    )


def _ambiguous() -> Iterator[tuple[str, tuple[Node, ...]]]:
    tags = (0x00189810, 0x00221452, 0x00280071, 0x00280104, 0x00280105, 0x00280106, 0x00280107, 0x00280108)
    tags += (0x00280109, 0x00280110, 0x00280111, 0x00280120, 0x00280121, 0x00281100, 0x00281101, 0x00281102)
    tags += (
        0x00281103,
        0x00281111,
        0x00281112,
        0x00281113,
        0x00283002,
        0x00409211,
        0x00409216,
        0x00603004,
        0x00603006,
    )
    for value in (None, b"\0\0", b"\1\0", b"\2\0", b"", b"\1", b"\1\0\0\0"):
        representation = () if value is None else (El(0x00280103, b"US", value),)
        elements = sorted(
            (*representation, *(El(tag, b"US", b"\2\1") for tag in tags)), key=lambda one: one.tag
        )
        yield f"US or SS, {value!r}", (*HEAD, *elements, Sq(0x00283010, [[El(0x00283002, b"US", bytes(6))]]))
    yield "US or SS, told later", (*HEAD, El(0x00280106, b"US", b"\2\1"), El(0x00280103, b"US", b"\1\0"))
    signed = El(0x00280103, b"US", b"\1\0")
    yield "US or SS, told outside", (*HEAD, signed, Sq(0x00283010, [[El(0x00283002, b"US", b"\2\1")]]))
    for bits in (None, 8, 16):
        told = () if bits is None else (El(0x54001004, b"US", (bits,)),)
        waves = (0x54000110, 0x54000112, 0x5400100A, 0x54001010)
        elements = sorted((*told, *(El(tag, b"OW", b"\2\1\4\3") for tag in waves)), key=lambda one: one.tag)
        yield f"waveform, {bits}", (*HEAD, Sq(0x54000100, [elements]))
        yield (
            f"waveform told first, {bits}",
            (*HEAD, Sq(0x54000100, [[*told, *(e for e in elements if e not in told)]])),
        )
    value = b"\2\1\4\3"
    others = (0x00143050, 0x00143070, 0x00281200, 0x00283006, 0x5000200C, 0x50003000, 0x50FE3000, 0x60003000)
    others += (0x60FE3000, 0x7F000010, 0x7F020010, 0x7F020020)
    yield "OB or OW", (*HEAD, *(El(tag, b"OW", value) for tag in others), PIXELS)
    yield (
        "repeating groups",
        (
            *HEAD,
            El(0x00203100, b"CS", b"A  "),
            El(0x00203101, b"CS", b"A   "),
            El(0x50020010, b"US", value),
            El(0x600E0010, b"US", value),
            El(0x600E0050, b"SS", value),
            El(0x60220010, b"US", value),
        ),
    )
    yield "offsets", (*HEAD, El(0x00041200, b"UL", (1,)), El(0x00041400, b"UL", (1,)))
    yield "not in the dictionary", (*HEAD, El(0x00080003, b"LO", b"ab  "), El(0x00280999, b"US", value))


def _private() -> Iterator[tuple[str, tuple[Node, ...]]]:
    creator = CREATOR.encode() + b" "
    block = (
        El(0x00290010, b"LO", creator),
        El(0x00290011, b"LO", b"NOBODY"),
        El(0x00291000, b"LO", b"ab    "),
        El(0x00291001, b"US", b"\2\1"),
        El(0x00291002, b"LO", b"ab    "),
        El(0x00291003, b"LO", b"ab    "),
        El(0x00291101, b"US", b"\2\1"),
        El(0x00291201, b"US", b"\2\1"),
    )
    yield "private", (*HEAD, *block, *IMAGE)
    yield (
        "private in an item",
        (*HEAD, Sq(0x00081140, [[*block]], is_open=True), El(0x00291001, b"US", b"\2\1")),
    )
    yield "private before its creator", (*HEAD, *block[2:], *block[:2])
    yield (
        "private UN",
        (*HEAD, *(El(e.tag, b"UN" if e.tag & 0xFFFF > 0xFF else e.vr, e.value) for e in block)),
    )
    yield "private creator UN", (*HEAD, *(El(e.tag, b"UN", e.value) for e in block))
    yield "private creator out of order", (*HEAD, PIXELS, *block, NAME)
    yield "private creator twice", (*HEAD, block[0], El(0x00290010, b"LO", b"NOBODY"), *block[2:4])
    sequence = Sq(0x00291004, [CODE])
    yield "private sequence", (*HEAD, block[0], sequence)
    yield (
        "private creators, unusual",
        (
            *HEAD,
            El(0x00090001, b"LO", b"ab  "),
            El(0x0009000F, b"LO", b"ab  "),
            El(0x00090010, b"LO", b"ab  "),
            El(0x000900FF, b"LO", b"ab  "),
            El(0x00090100, b"LO", b"ab  "),
            El(0x00090FFF, b"LO", b"ab  "),
        ),
    )
    for padded in (creator[:-1], creator + b" ", creator[:-1] + b"\0"):
        yield f"private creator {padded!r}", (*HEAD, El(0x00290010, b"LO", padded), *block[2:4])


def _long_values() -> Iterator[tuple[str, tuple[Node, ...]]]:
    yield "long OW", (*HEAD, El(0x7FE00010, b"OW", bytes(range(256)) * 2000))
    yield (
        "long UT",
        (*HEAD, El(0x00091001, b"UT", b"abc " * 40_000), El(0x00091002, b"UT", b"a" + b" " * 200_000)),
    )
    yield "long OB, odd", (*HEAD, El(0x00091001, b"OB", b"a" * 300_001), NAME)


def _lenient() -> Iterator[tuple[str, tuple[Node, ...]]]:
    yield "sequence longer than it says", (*HEAD, Sq(0x00081032, [CODE], length=20), NAME)
    yield (
        "delimiter in an item with a length",
        (
            *HEAD,
            Sq(0x00081032, [[*CODE, Raw(item(0, EXPLICIT, 0xFFFEE00D))]]),
            NAME,
        ),
    )


def malformed() -> Iterator[tuple[str, bytes]]:
    """Give data sets in explicit VR little endian that are not as they should be; DCMTK takes some of them."""
    start = encode([*HEAD], EXPLICIT)
    whole = encode([*USUAL], EXPLICIT)
    opened = encode([*HEAD, Sq(0x00081032, [CODE], is_open=True, items_open=True)], EXPLICIT)
    closed = encode([*HEAD, Sq(0x00081032, [CODE]), NAME], EXPLICIT)
    for count in range(2, 14, 2):
        yield f"trailing zeros {count}", whole + bytes(count)
        yield f"trailing letters {count}", whole + b"abcdefghijklmn"[:count]
    for name, data in ("opened", opened), ("closed", closed):
        for cut in range(len(start) + 2, len(data), 2):
            yield f"{name}, cut at {cut}", data[:cut]
    yield "item delimiter at the end", whole + item(0, EXPLICIT, 0xFFFEE00D)
    yield "item delimiter in the middle", start + item(0, EXPLICIT, 0xFFFEE00D) + encode([NAME], EXPLICIT)
    yield "item in the middle", start + item(0, EXPLICIT) + encode([NAME], EXPLICIT)
    yield "sequence delimiter in the middle", start + item(0, EXPLICIT, 0xFFFEE0DD) + encode([NAME], EXPLICIT)
    for vr in b"LO US OB OW UT OF SV UN ox lt".split():
        data = header(0x00091001, vr, UNDEFINED if vr in LONG else 0xFFFF, EXPLICIT)
        yield f"undefined length of {vr!r}", start + data + bytes(20)
    yield "VOI LUT sequence OW", start + encode([El(0x00283010, b"OW", b"abcd")], EXPLICIT)
    yield (
        "fragments in an uncompressed syntax",
        start + encode([Sq(0x7FE00010, [b"", b"abcd"], is_open=True, vr=b"OB")], EXPLICIT),
    )
    yield (
        "element in place of an item",
        start + header(0x00081032, b"SQ", 20, EXPLICIT) + encode([NAME, NAME], EXPLICIT),
    )
    yield (
        "element beyond its item",
        start + encode([Sq(0x00081032, [[El(0x00080100, b"SH", b"abcd", length=8)]]), NAME], EXPLICIT),
    )
    yield (
        "header beyond its item",
        start + encode([Sq(0x00081032, [[*CODE, Raw(b"\x08\x00\x05\x01")], CODE]), NAME], EXPLICIT),
    )
    yield (
        "item longer than its sequence",
        start
        + header(0x00081032, b"SQ", 8, EXPLICIT)
        + item(len(encode(CODE, EXPLICIT)), EXPLICIT)
        + encode([*CODE, NAME], EXPLICIT),
    )
    yield (
        "sequence longer than its item",
        start + encode([Sq(0x00081032, [[Sq(0x00400260, [CODE], length=100)], CODE, CODE]), NAME], EXPLICIT),
    )
    inner = encode([Sq(0x00400260, [CODE])], EXPLICIT)
    for short in (2, 12, len(inner) - 12):
        yield (
            f"item shorter than its sequence by {short}",
            start
            + header(0x00081032, b"SQ", 8 + len(inner), EXPLICIT)
            + item(len(inner) - short, EXPLICIT)
            + inner
            + encode([NAME], EXPLICIT),
        )
    yield "empty", b""
    yield "two bytes", b"ab"
    yield "four bytes", b"abcd"
    yield "VR na", start + encode([El(0x00091001, b"na", b"ab")], EXPLICIT)
    yield "VR pi", start + encode([El(0x00091001, b"pi", b"ab")], EXPLICIT)


def compressed() -> Iterator[tuple[str, tuple[Node, ...]]]:
    """Give data sets of a compressed transfer syntax."""
    fragments = Sq(0x7FE00010, [b"", b"\xff\xd8abcd", b"\xff\xd9"], is_open=True, vr=b"OB")
    icon = Sq(0x00880200, [[*IMAGE, PIXELS]])
    yield "fragments", (*HEAD, *IMAGE, fragments)
    yield "fragments OW", (*HEAD, *IMAGE, Sq(0x7FE00010, [b"", b"\xff\xd8"], is_open=True, vr=b"OW"))
    yield (
        "fragments, offset table",
        (*HEAD, *IMAGE, Sq(0x7FE00010, [bytes(4), b"\xff\xd8"], is_open=True, vr=b"OB")),
    )
    yield "fragments, odd", (*HEAD, *IMAGE, Sq(0x7FE00010, [b"", b"abc", b"a"], is_open=True, vr=b"OB"))
    yield "fragments, none", (*HEAD, *IMAGE, Sq(0x7FE00010, [], is_open=True, vr=b"OB"))
    yield (
        "fragments, delimiter with a length",
        (
            *HEAD,
            Sq(0x7FE00010, [b"ab"], is_open=True, vr=b"OB", delimiter_length=2),
        ),
    )
    yield "native icon", (*HEAD, icon, *IMAGE, fragments)
    yield "compressed icon", (*HEAD, Sq(0x00880200, [[*IMAGE, fragments]], is_open=True), *IMAGE, fragments)
    yield "group length of pixels", (*HEAD, *IMAGE, El(0x7FE00000, b"UL", (1,)), fragments)
    yield "no pixels", (*HEAD, NAME)
    yield "sequences", (*HEAD, Sq(0x00081032, [CODE], is_open=True, items_open=True), fragments)
    yield "native pixels", (*HEAD, *IMAGE, PIXELS)
    yield (
        "long fragment",
        (*HEAD, Sq(0x7FE00010, [b"", b"ab" * 300_000, b"c" * 300_001], is_open=True, vr=b"OB")),
    )
    yield (
        "fragments in UN",
        (
            *HEAD,
            Sq(0x00880200, [[fragments]], is_open=True, vr=b"UN", content=IMPLICIT),
        ),
    )
    yield (
        "fragment without length",
        (*HEAD, Raw(header(0x7FE00010, b"OB", UNDEFINED, EXPLICIT) + item(UNDEFINED, EXPLICIT))),
    )
    yield "padding behind fragments", (*HEAD, fragments, El(0xFFFCFFFC, b"OB", bytes(10)))
    yield (
        "fragments of a private element",
        (
            *HEAD,
            El(0x00290010, b"LO", CREATOR.encode() + b" "),
            Sq(0x00291005, [b"", b"abcd"], is_open=True, vr=b"OB"),
        ),
    )
