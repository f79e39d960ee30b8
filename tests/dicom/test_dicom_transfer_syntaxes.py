from dataclasses import FrozenInstanceError

import pytest
from pydicom import uid as peer
from pydicom._uid_dict import UID_dictionary

from stowkeeper.dicom import transfer_syntaxes
from stowkeeper.dicom.transfer_syntaxes import (
    GE_PRIVATE_BIG_ENDIAN_PIXEL_DATA,
    SHIPPED_TRANSFER_SYNTAXES,
    TRANSFER_SYNTAXES,
)
from stowkeeper.dicom.uid import uid_defect

REGISTERED = {uid: entry for uid, entry in UID_dictionary.items() if entry[1] == "Transfer Syntax"}

PAPYRUS = "1.2.840.10008.1.20"

# What the established C++ receiver takes with its accept-all option, by the last components.
ACCEPT_ALL = """
    1.2 1.2.1 1.2.1.98 1.2.1.99 1.2.2 1.2.4.50 1.2.4.51 1.2.4.70 1.2.4.80 1.2.4.81 1.2.4.90 1.2.4.91 1.2.4.100
    1.2.4.100.1 1.2.4.101 1.2.4.101.1 1.2.4.102 1.2.4.102.1 1.2.4.103 1.2.4.103.1 1.2.4.104 1.2.4.104.1 1.2.4.105
    1.2.4.105.1 1.2.4.106 1.2.4.106.1 1.2.4.107 1.2.4.108 1.2.4.201 1.2.4.202 1.2.4.203 1.2.5
"""
NEWER = "1.2.4.110 1.2.4.111 1.2.4.112 1.2.8.1"
# What it leaves out although the standard has it: JPEG Lossless of any selection value, and JPEG 2000 Part 2.
LEFT_OUT_THERE = "1.2.4.57 1.2.4.92 1.2.4.93"


def full(components: str) -> set[str]:
    return {f"1.2.840.10008.{component}" for component in components.split()}


def test_every_registered_syntax_is_known_by_its_name() -> None:
    for uid, (name, _, _, retired, keyword) in REGISTERED.items():
        known = TRANSFER_SYNTAXES[uid]
        assert (known.name, known.keyword, known.retired) == (name, keyword, bool(retired))


def test_the_encoding_of_every_registered_syntax() -> None:
    for uid in REGISTERED.keys() - {PAPYRUS}:
        known, theirs = TRANSFER_SYNTAXES[uid], peer.UID(uid)
        assert known.implicit_vr == theirs.is_implicit_VR, uid
        assert known.little_endian == theirs.is_little_endian, uid
        # The other dictionary knows one deflated syntax, and takes what it does not list for encapsulated.
        assert known.deflated == (theirs.is_deflated or theirs.keyword.endswith("ReferencedDeflate")), uid
        elsewhere = any(word in theirs.keyword for word in ("JPIP", "SMPTE", "MIME", "XMLEncoding"))
        assert known.encapsulated == (theirs.is_encapsulated and not elsewhere), uid


def test_a_retired_syntax_that_says_its_encoding_in_its_name_alone() -> None:
    known = TRANSFER_SYNTAXES[PAPYRUS]
    assert known.implicit_vr
    assert known.little_endian
    assert not known.encapsulated


def test_syntaxes_that_are_younger_than_the_other_dictionary() -> None:
    assert full(NEWER) <= set(TRANSFER_SYNTAXES)
    for uid in full(NEWER):
        known = TRANSFER_SYNTAXES[uid]
        assert known.encapsulated
        assert {known.implicit_vr, known.deflated, known.retired} == {False}


def test_the_private_syntax_parses_as_the_default_one() -> None:
    known = TRANSFER_SYNTAXES[GE_PRIVATE_BIG_ENDIAN_PIXEL_DATA]
    assert known.implicit_vr
    assert known.little_endian
    assert not known.encapsulated


def test_nothing_else_is_listed() -> None:
    assert set(TRANSFER_SYNTAXES) == set(REGISTERED) | full(NEWER) | {GE_PRIVATE_BIG_ENDIAN_PIXEL_DATA}


def test_what_holds_of_each() -> None:
    for uid, known in TRANSFER_SYNTAXES.items():
        assert uid == known.uid
        assert uid_defect(uid) is None
        assert not (known.deflated and known.encapsulated), uid
        assert known.little_endian or not known.implicit_vr, uid
        if "Lossy" in known.name or "MPEG" in known.keyword or "HEVC" in known.keyword:
            assert known.lossless is False, uid
        elif "Lossless" in known.name:
            assert known.lossless is True, uid


def test_names_and_keywords_are_unique() -> None:
    for field in ("name", "keyword"):
        values = [getattr(known, field) for known in TRANSFER_SYNTAXES.values()]
        assert len(set(values)) == len(values)


def test_shipped_is_the_accept_all_list_and_the_newer_ones_and_what_that_list_leaves_out() -> None:
    assert len(set(SHIPPED_TRANSFER_SYNTAXES)) == len(SHIPPED_TRANSFER_SYNTAXES)
    assert set(SHIPPED_TRANSFER_SYNTAXES) == full(ACCEPT_ALL) | full(NEWER) | full(LEFT_OUT_THERE)


def test_every_syntax_in_force_that_holds_its_pixels_is_shipped() -> None:
    in_force = {uid for uid, known in TRANSFER_SYNTAXES.items() if not known.retired}
    elsewhere = {
        uid for uid in in_force if any(word in TRANSFER_SYNTAXES[uid].name for word in ("JPIP", "SMPTE"))
    }
    retired_but_met = {transfer_syntaxes.EXPLICIT_VR_BIG_ENDIAN}
    assert set(SHIPPED_TRANSFER_SYNTAXES) == (
        in_force - elsewhere - {GE_PRIVATE_BIG_ENDIAN_PIXEL_DATA} | retired_but_met
    )


def test_the_shipped_order_prefers_what_loses_nothing() -> None:
    rank = {True: 0, None: 1, False: 2}
    ranks = [rank[TRANSFER_SYNTAXES[uid].lossless] for uid in SHIPPED_TRANSFER_SYNTAXES]
    assert ranks == sorted(ranks)
    assert SHIPPED_TRANSFER_SYNTAXES[0] == transfer_syntaxes.EXPLICIT_VR_LITTLE_ENDIAN


def test_no_shipped_syntax_leaves_the_pixels_elsewhere() -> None:
    for uid in SHIPPED_TRANSFER_SYNTAXES:
        assert not any(word in TRANSFER_SYNTAXES[uid].name for word in ("JPIP", "SMPTE", "MIME"))


def test_every_uid_constant_is_in_the_registry() -> None:
    constants = {
        name: value
        for name, value in vars(transfer_syntaxes).items()
        if name.isupper() and isinstance(value, str) and value.startswith("1.2.840")
        if not name.startswith("_")
    }
    assert len(constants) > len(SHIPPED_TRANSFER_SYNTAXES)
    for name, uid in constants.items():
        assert uid in TRANSFER_SYNTAXES, name


def test_the_registry_cannot_be_changed() -> None:
    known = next(iter(TRANSFER_SYNTAXES.values()))
    with pytest.raises(TypeError):
        TRANSFER_SYNTAXES["1.2"] = known  # type: ignore[index]  # that it fails is the point
    with pytest.raises(FrozenInstanceError):
        known.retired = True  # type: ignore[misc]  # that it fails is the point
