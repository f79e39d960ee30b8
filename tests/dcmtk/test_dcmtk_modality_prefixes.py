"""Prefixes of file names: samples of each kind, and what holds for the whole table."""

from collections import Counter

import pytest

from stowkeeper.dcmtk.modality_prefixes import (
    PREFIXES,
    UNKNOWN_CLASS_IN_LOG,
    UNKNOWN_CLASS_SHORT_PREFIX,
    modality_prefix,
)
from stowkeeper.dicom.sop_classes import SOP_CLASSES, Origin, SOPClassKind

ROOT = "1.2.840.10008.5.1."
SAMPLES = {
    "1.27": "SP",
    "4.1.1.1": "CR",
    "4.1.1.2": "CT",
    "4.1.1.2.1": "CTe",
    "4.1.1.4": "MR",
    "4.1.1.6.1": "US",
    "4.1.1.6.3": "PA",
    "4.1.1.9.1": "WV_d",
    "4.1.1.66": "RAW",
    "4.1.1.77.1.5.6": "OW3",
    "4.1.1.88.1": "SR_t",
    "4.1.1.88.11": "SRt",
    "4.1.1.88.70": "SRi",
    "4.1.1.88.75": "SRi",
    "4.1.1.88.76": "SRde",
    "4.1.1.104.1": "PDF",
    "4.1.1.200.1": "PPcd",
    "4.1.1.200.3": "PAp",
    "4.1.1.481.13": "Rca",
    "4.1.1.501.4": "AI2",
    "4.1.1.601.5": "UW",
    "4.34.7": "RTd",
    "4.45.1": "ITg",
}


@pytest.mark.parametrize(("suffix", "prefix"), SAMPLES.items())
def test_samples(suffix, prefix):
    assert modality_prefix(ROOT + suffix) == prefix


@pytest.mark.parametrize("uid", ["", "1.2.3", f"{ROOT}4.1.1.2 ", f"{ROOT}4.1.1", "1.2.840.10008.1.1"])
def test_an_unknown_class(uid):
    assert modality_prefix(uid) == "UNKNOWN"
    assert modality_prefix(uid, UNKNOWN_CLASS_SHORT_PREFIX) == "XX"
    assert modality_prefix(uid, UNKNOWN_CLASS_IN_LOG) == "OT"


def test_a_prefix_is_two_to_four_letters_and_shared_by_two_classes_only():
    assert {len(prefix) for prefix in PREFIXES.values()} == {2, 3, 4}
    assert all(prefix.replace("_", "").isalnum() and prefix.isascii() for prefix in PREFIXES.values())
    assert [prefix for prefix, count in Counter(PREFIXES.values()).items() if count > 1] == ["SRi"]


def test_every_storage_class_that_has_a_published_definition_has_a_prefix():
    without = {
        "1.2.840.10008.5.1.4.1.1.12.77",  # withdrawn by the standard before anybody gave it a prefix
        "1.2.840.10008.5.1.4.1.1.40",
    }
    stored = {
        uid
        for uid, known in SOP_CLASSES.items()
        if known.kind is not SOPClassKind.OTHER and known.origin is not Origin.PRIVATE
    }
    assert set(PREFIXES) == stored - without
