"""What the detector has to look at in an element, by VR or tag, worked out once for a form and a transfer syntax."""

import enum
from functools import lru_cache

from stowkeeper.dcmtk.encoding.dictionary import Dictionary, shipped_dictionary
from stowkeeper.dcmtk.encoding.form import KEEP, USUAL_COMPRESSION_LEVEL, Form, GroupLengths
from stowkeeper.dcmtk.encoding.value_representations import (
    SEQUENCE,
    UNKNOWN,
    UNKNOWNS,
    VALUE_REPRESENTATIONS,
    Content,
    ValueRepresentation,
)
from stowkeeper.dicom.elements import (
    EXPLICIT_BIG_ENDIAN,
    EXPLICIT_LITTLE_ENDIAN,
    IMPLICIT_LITTLE_ENDIAN,
    LONG_VRS,
    SHORT_VRS,
    Encoding,
)
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES


class Rule(enum.IntEnum):
    """What to look at in an element."""

    VALUE = 1
    """Only that its length is even."""

    TEXT = 2
    """The end of its value too."""

    UID = 3
    """All of its value."""

    LONG_VALUE = 4
    """As VALUE, in explicit VR with a 32-bit length."""

    LONG_TEXT = 5
    SEQUENCE = 6
    UNKNOWN = 7
    """In implicit VR: a value, or a sequence when its length is undefined."""


class Rules:
    """What holds for all data sets of a transfer syntax that are to get a form."""

    __slots__ = (
        "_dictionary",
        "correct_input",
        "deflated",
        "encapsulated",
        "encoding",
        "explicit_lengths",
        "impossible",
        "keeps_group_lengths",
        "keeps_padding",
        "other_byte",
        "rule_of_tag",
        "rules_of_vrs",
        "unsigned_long",
    )

    def __init__(self, transfer_syntax_uid: str, form: Form, dictionary: Dictionary | None) -> None:
        syntax = TRANSFER_SYNTAXES.get(transfer_syntax_uid)
        self._dictionary = dictionary
        self.correct_input = form.correct_input
        self.deflated = syntax is not None and syntax.deflated
        self.encapsulated = syntax is not None and syntax.encapsulated
        self.impossible = (
            syntax is None
            or form.transfer_syntax not in (None, transfer_syntax_uid)
            or form.group_length is GroupLengths.CREATE
            or isinstance(form.padding, tuple)
            or (self.deflated and form.compression_level != USUAL_COMPRESSION_LEVEL)
        )
        """Whether no data set is taken for the same, as hardly one would be."""

        self.encoding: Encoding = EXPLICIT_LITTLE_ENDIAN
        if syntax is not None and syntax.implicit_vr:
            self.encoding = IMPLICIT_LITTLE_ENDIAN
        elif syntax is not None and not syntax.little_endian:
            self.encoding = EXPLICIT_BIG_ENDIAN
        self.explicit_lengths = form.explicit_lengths
        self.keeps_group_lengths = form.group_length is GroupLengths.RECALCULATE
        self.keeps_padding = form.padding is KEEP
        self.other_byte = self._code(b"OB")
        self.unsigned_long = self._code(b"UL")
        self.rules_of_vrs = {
            self._code(vr.name): int(self._rule_of_vr(vr))
            for vr in VALUE_REPRESENTATIONS
            if vr.name in SHORT_VRS | LONG_VRS
            and not (vr.is_new and not form.new_vr)
            and not (vr is UNKNOWN and form.convert_un)
        }
        """By the code of the VR as `encoding` has it; an element of another VR is written anew."""

        self.rule_of_tag = lru_cache(maxsize=16_384)(self._rule_of_tag)
        """By tag and private creator, which is empty when there is none."""

    def _code(self, name: bytes) -> int:
        """Return the code of a VR as `encoding` has it."""
        return int.from_bytes(name, "little" if self.encoding.little_endian else "big")

    def _rule_of_vr(self, vr: ValueRepresentation) -> Rule:
        if vr is SEQUENCE:
            return Rule.SEQUENCE
        if self.correct_input and vr.content is Content.UID:
            return Rule.UID
        if self.correct_input and vr.content is Content.TEXT:
            return Rule.LONG_TEXT if vr.is_long else Rule.TEXT
        return Rule.LONG_VALUE if vr.is_long else Rule.VALUE

    def _rule_of_tag(self, tag: int, creator: str) -> int:
        if self._dictionary is None:
            self._dictionary = shipped_dictionary()
        vr = self._dictionary.vr_of(tag, creator)
        if vr in UNKNOWNS:
            return int(Rule.UNKNOWN)
        rule = self._rule_of_vr(vr)
        return int({Rule.LONG_VALUE: Rule.VALUE, Rule.LONG_TEXT: Rule.TEXT}.get(rule, rule))


@lru_cache(maxsize=128)  # transfer syntax UIDs come from peers, hence the bound
def rules_of(transfer_syntax_uid: str, form: Form, dictionary: Dictionary | None) -> Rules:
    """Return the rules for a transfer syntax, a form and a dictionary; None is the shipped one."""
    return Rules(transfer_syntax_uid, form, dictionary)
