"""Find the SOP Class UID and SOP Instance UID of a data set where DCMTK finds them.

DCMTK searches for them element by element, in sequences too. So an instance without them on its top level may take
them from an item. Nearly all have them there, and the header scanner has seen them: this is for the others.
"""

from dataclasses import dataclass
from typing import BinaryIO, Final

from stowkeeper.dcmtk.encoding.dictionary import Dictionary
from stowkeeper.dcmtk.encoding.form import Form
from stowkeeper.dcmtk.encoding.layout import known_syntax
from stowkeeper.dcmtk.encoding.reader import read_structure
from stowkeeper.dcmtk.encoding.source import Source, opened
from stowkeeper.dcmtk.encoding.structure import Kind, Structure
from stowkeeper.dcmtk.encoding.value_representations import Content
from stowkeeper.dcmtk.encoding.values import WHITE_SPACE

SOP_CLASS_UID: Final = 0x00080016
SOP_INSTANCE_UID: Final = 0x00080018
_UID_BYTES_MAX: Final = 65_534
"""What an explicit VR can hold, and so file meta information."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a data set says it is; None where it says nothing, an empty text where the value is empty."""

    sop_class_uid: str | None
    sop_instance_uid: str | None


def clean_uid(value: bytes, *, correct_input: bool) -> str:
    """Return a UID without padding; without any white space where input is corrected."""
    if correct_input:
        value = value.translate(None, WHITE_SPACE)
    return value.partition(b"\0")[0].decode("latin-1")


def find_identity(
    source: BinaryIO,
    transfer_syntax_uid: str,
    form: Form,
    dictionary: Dictionary | None = None,
    folder: str | None = None,
) -> Identity:
    """Search the data set that stands in `source`, from its position on; raise EncodingError as `write_data_set` does."""
    syntax = known_syntax(transfer_syntax_uid)
    with opened(source, syntax, folder) as plain:
        received = Source(plain)
        structure = read_structure(received, syntax, form, dictionary)
        found = {tag: _value(received, structure, tag, form) for tag in (SOP_CLASS_UID, SOP_INSTANCE_UID)}
    return Identity(sop_class_uid=found[SOP_CLASS_UID], sop_instance_uid=found[SOP_INSTANCE_UID])


def _value(source: Source, structure: Structure, tag: int, form: Form) -> str | None:
    node = _first(structure, 0, tag)
    if (
        node is None
        or structure.vr(node).content is not Content.UID
        or structure.length[node] > _UID_BYTES_MAX
    ):
        return None
    value = source.read(structure.start[node], structure.length[node])
    return clean_uid(value, correct_input=form.correct_input)


def _first(structure: Structure, level: int, tag: int) -> int | None:
    """Return the first element with a tag in a data set or item, as they are written."""
    for node in structure.inside(level):
        if structure.tag[node] == tag:
            return node
        if structure.kind[node] == Kind.SEQUENCE:
            for item in structure.inside(node):
                found = _first(structure, item, tag)
                if found is not None:
                    return found
    return None
