"""Data sets as the real storescp and dcmrecv write them, compared with ours byte for byte.

DCMTK gets the dictionary that the product ships, so that the same VRs are known to both.
"""

import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

import encoding_samples as samples
import pytest
from encoding_chance import chance_data_set
from encoding_dictionary import dictionary_of_tests, dictionary_text
from encoding_trees import (
    BIG_ENDIAN,
    CLASS,
    DEFLATED,
    EXPLICIT,
    HEAD,
    IMPLICIT,
    INSTANCE,
    JPEG,
    NAME,
    SECONDARY_CAPTURE,
    UNCOMPRESSED,
    USUAL,
    El,
    Node,
    Sq,
    encode,
)

from stowkeeper.dcmtk.encoding.errors import EncodingError
from stowkeeper.dcmtk.encoding.form import DCMRECV_FORM, STORESCP_FORM, Form, GroupLengths
from stowkeeper.dcmtk.encoding.identity import Identity, find_identity
from stowkeeper.dcmtk.encoding.meta import NO_SOP_CLASS_UID, encode_meta
from stowkeeper.dcmtk.encoding.writer import write_data_set
from support.bundled_files import bundled_files, file_meta
from support.peers import DCMTK_COMPARED
from support.raw_sender import Delivered, Outgoing, exchange

pytestmark = [pytest.mark.slow, pytest.mark.peer(DCMTK_COMPARED)]

CHANCE_DATA_SETS = 60
CALLING_AE_TITLE = "RAWPEER"

# What storescp is told, and the form that stands for it here.
OPTIONS: dict[str, Form] = {
    "": STORESCP_FORM,
    "+te": replace(STORESCP_FORM, transfer_syntax=EXPLICIT),
    "+tb": replace(STORESCP_FORM, transfer_syntax=BIG_ENDIAN),
    "+ti": replace(STORESCP_FORM, transfer_syntax=IMPLICIT),
    "+td": replace(STORESCP_FORM, transfer_syntax=DEFLATED),
    "+td +cl 1": replace(STORESCP_FORM, transfer_syntax=DEFLATED, compression_level=1),
    "+td +cl 0 -F": replace(STORESCP_FORM, transfer_syntax=DEFLATED, compression_level=0, with_meta=False),
    "-u": replace(STORESCP_FORM, new_vr=False),
    "-u +tb": replace(STORESCP_FORM, new_vr=False, transfer_syntax=BIG_ENDIAN),
    "+g": replace(STORESCP_FORM, group_length=GroupLengths.CREATE),
    "-g": replace(STORESCP_FORM, group_length=GroupLengths.REMOVE),
    "-e": replace(STORESCP_FORM, explicit_lengths=False),
    "-e +g": replace(STORESCP_FORM, explicit_lengths=False, group_length=GroupLengths.CREATE),
    "+p 128 16": replace(STORESCP_FORM, padding=(128, 16)),
    "+p 34 6 +g": replace(STORESCP_FORM, padding=(34, 6), group_length=GroupLengths.CREATE),
    "+p 0 4 +te": replace(STORESCP_FORM, padding=(0, 4), transfer_syntax=EXPLICIT),
    "+p 64 0": replace(STORESCP_FORM, padding=(64, 0)),
    "+p 3 4": replace(STORESCP_FORM, padding=(3, 4)),
    "+p 512 128 -e +ti": replace(
        STORESCP_FORM, padding=(512, 128), explicit_lengths=False, transfer_syntax=IMPLICIT
    ),
    "+uc": replace(STORESCP_FORM, convert_un=True),
    "+uc +tb -g": replace(
        STORESCP_FORM, convert_un=True, transfer_syntax=BIG_ENDIAN, group_length=GroupLengths.REMOVE
    ),
    "-F": replace(STORESCP_FORM, with_meta=False),
}

REFUSED_HERE = {
    "opened, cut at": "what was cut off inside a sequence is missing; DCMTK closes the sequence",
    "closed, cut at": "likewise",
    "trailing letters": "the last element was cut; DCMTK leaves it out, or writes it empty",
    "fragment without length": "likewise",
    "item delimiter in the middle": "DCMTK leaves out all that was received behind it",
    "empty": "there are no elements; DCMTK answers some of these with an error, but leaves a file",
    "two bytes": "likewise",
    "four bytes": "likewise",
}
"""Data sets that DCMTK accepts although it has not got all of them, by the beginning of their names."""


@cache
def named_instances() -> tuple[tuple[str, Outgoing], ...]:
    """Return everything to send, each with a name for the report."""
    found: list[tuple[str, Outgoing]] = []
    for name, syntax, data_set in _data_sets():
        if len(data_set) % 2 == 0:  # an odd length is no data set to DCMTK's network code
            instance = Outgoing(
                sop_class_uid=SECONDARY_CAPTURE,
                sop_instance_uid=f"1.2.3.{len(found)}",
                transfer_syntax_uid=syntax,
                data_set=data_set,
            )
            found.append((f"{name} in {syntax}", instance))
    return tuple(found)


def _data_sets() -> Iterator[tuple[str, str, bytes]]:
    trees = list(samples.samples())
    trees += [(f"chance {seed}", chance_data_set(Random(seed))) for seed in range(CHANCE_DATA_SETS)]
    for name, tree in trees:
        for syntax in UNCOMPRESSED:
            yield name, syntax, encode(tree, syntax)
    for name, tree in samples.compressed():
        yield name, JPEG, encode(tree, JPEG)
    for name, data_set in samples.malformed():
        yield name, EXPLICIT, data_set
    for file in bundled_files():
        yield file.name, file.transfer_syntax_uid, file.data_set


def deliver(program: str, options: Sequence[str], folder: Path) -> list[Delivered]:
    """Send all instances to a receiver that has our dictionary."""
    path = folder / "test.dic"
    path.write_text(dictionary_text(), encoding="latin-1")
    instances = [instance for _, instance in named_instances()]
    return exchange(program, ["-dhl", *options], instances, folder / "run", {"DCMDICTPATH": str(path)})


def written_here(instance: Outgoing, form: Form, in_front: int) -> bytes | EncodingError:
    """Write a data set behind so many bytes of file meta information."""
    target = io.BytesIO(bytes(in_front))
    target.seek(in_front)
    try:
        write_data_set(
            io.BytesIO(instance.data_set), instance.transfer_syntax_uid, form, target, dictionary_of_tests()
        )
    except EncodingError as error:
        return error
    return target.getvalue()[in_front:]


def inflated(data: bytes) -> bytes:
    """Inflate a bare deflate stream."""
    return zlib.decompress(data, wbits=-15)


def differences(form: Form, delivered: Sequence[Delivered]) -> Iterator[str]:
    """Name what differs, except for what is refused here with a reason."""
    for (name, instance), received in zip(named_instances(), delivered, strict=True):
        content = received.file
        in_front = file_meta(content)[1] if content is not None and form.with_meta else 0
        theirs = None if content is None else content[in_front:]
        ours = written_here(instance, form, in_front)
        if isinstance(ours, EncodingError):
            if theirs is not None and not name.startswith(tuple(REFUSED_HERE)):
                yield f"{name}: DCMTK writes {len(theirs)} bytes, we do not: {ours}"
        elif theirs is None:
            yield f"{name}: DCMTK writes nothing, we write {len(ours)} bytes"
        elif (form.transfer_syntax or instance.transfer_syntax_uid) == DEFLATED:
            if inflated(ours) != inflated(theirs):
                yield f"{name}: other bytes when inflated"
        elif ours != theirs:
            at = next((n for n, pair in enumerate(zip(ours, theirs, strict=False)) if len(set(pair)) > 1), -1)
            yield f"{name}: byte {at} of {len(theirs)}: {ours[at : at + 20]!r}, DCMTK {theirs[at : at + 20]!r}"


@pytest.mark.parametrize("words", OPTIONS)
def test_storescp(tmp_path, words):
    found = list(differences(OPTIONS[words], deliver("storescp", words.split(), tmp_path)))
    assert not found


def test_dcmrecv(tmp_path):
    found = list(differences(DCMRECV_FORM, deliver("dcmrecv", [], tmp_path)))
    assert not found


def test_what_is_refused_here_is_stored_by_dcmtk(tmp_path):
    # Else the list of differences would be too long.
    delivered = deliver("storescp", ["+te"], tmp_path)
    names = [
        name for (name, _), one in zip(named_instances(), delivered, strict=True) if one.file is not None
    ]
    for start in REFUSED_HERE:
        # Fragments cannot be written uncompressed: there DCMTK stores nothing either.
        assert start.startswith("fragment") or any(name.startswith(start) for name in names), start


# File meta information

IDENTITIES: dict[str, tuple[Node, ...]] = {
    "usual": USUAL,
    "no class": (INSTANCE, NAME),
    "no instance": (CLASS, NAME),
    "empty": (El(0x00080016, b"UI"), El(0x00080018, b"UI")),
    "white space": (El(0x00080016, b"UI", b" 1.2. 3 "), El(0x00080018, b"UI", b"1.2.3.4 ")),
    "several NULs": (El(0x00080016, b"UI", b"1.2.3\0\0\0"), El(0x00080018, b"UI", b"1\0.4")),
    "several values": (El(0x00080016, b"UI", b"1.2.3\\1.4\0"), INSTANCE),
    "other VRs": (El(0x00080016, b"LO", b"1.2.3 "), El(0x00080018, b"UN", b"1.2.3.4\0")),
    "in an item": (Sq(0x00081115, [[NAME], [*HEAD]]), NAME),
    "in an earlier item too": (
        Sq(0x00041220, [[El(0x00080016, b"UI", b"1.2\0")]]),
        *HEAD,
    ),
}


@pytest.mark.parametrize("program", ["storescp", "dcmrecv"])
@pytest.mark.parametrize("preserving", [False, True])
def test_file_meta(tmp_path, program, preserving):
    instances = [
        Outgoing(
            sop_class_uid=SECONDARY_CAPTURE,
            sop_instance_uid=f"1.2.3.{number}",
            transfer_syntax_uid=EXPLICIT,
            data_set=encode(tree, EXPLICIT),
        )
        for number, tree in enumerate(IDENTITIES.values())
    ]
    form = STORESCP_FORM if program == "storescp" else DCMRECV_FORM
    delivered = exchange(program, ["-dhl", *(["+B"] if preserving else [])], instances, tmp_path / "run")
    for name, instance, received in zip(IDENTITIES, instances, delivered, strict=True):
        assert received.file is not None, name
        found = (
            Identity(sop_class_uid=instance.sop_class_uid, sop_instance_uid=instance.sop_instance_uid)
            if preserving
            else find_identity(io.BytesIO(instance.data_set), EXPLICIT, form)
        )
        ours = encode_meta(
            sop_class_uid=found.sop_class_uid,
            sop_instance_uid=found.sop_instance_uid,
            transfer_syntax_uid=EXPLICIT,
            source_application_entity_title=CALLING_AE_TITLE if program == "storescp" or preserving else None,
        )
        assert ours[:132] == received.file[:132]
        mine, theirs = file_meta(ours)[0], file_meta(received.file)[0]
        assert list(mine) == list(theirs), name
        for tag in (0x00020000, 0x00020012, 0x00020013):  # whose they are, and how long that makes it
            del mine[tag], theirs[tag]
        if found.sop_class_uid is None:
            assert mine.pop(0x00020002).rstrip(b"\0") == NO_SOP_CLASS_UID.encode()
            assert theirs.pop(0x00020002)
        if found.sop_instance_uid is None:
            assert mine.pop(0x00020003).startswith(b"2.25.")
            assert theirs.pop(0x00020003)
        assert mine == theirs, name
