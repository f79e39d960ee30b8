"""The profile file that comes with the product: as the generator makes it, loadable, and wanting no loss first."""

from stowkeeper.dcmtk.negotiation import DEFAULT_STORAGE_CLASSES
from stowkeeper.dcmtk.preferences import Preference, accepted_transfer_syntaxes
from stowkeeper.dcmtk.profile_file import read_profile_file
from stowkeeper.dcmtk.shipped_profiles import SHIPPED_PROFILE_FILE, compressed_syntaxes, shipped_profile_text
from stowkeeper.dcmtk.storage_class_table import STORAGE_CLASSES
from stowkeeper.dicom.sop_classes import SOP_CLASSES, Origin, SOPClassKind
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.dicom.uid import VERIFICATION

ALL = {row.split()[0] for row in STORAGE_CLASSES.splitlines()}
UNCOMPRESSED = accepted_transfer_syntaxes(Preference.UNCOMPRESSED)


def profile(name):
    return read_profile_file(SHIPPED_PROFILE_FILE).acceptor_profile(name)


def test_the_file_is_as_the_generator_makes_it():
    text = SHIPPED_PROFILE_FILE.read_text(encoding="ascii")
    assert text == shipped_profile_text(), "run python -m stowkeeper.dcmtk.shipped_profiles"


def test_it_loads_without_a_warning():
    loaded = read_profile_file(SHIPPED_PROFILE_FILE)
    assert set(loaded.profiles) == {"DEFAULT", "ALLDICOM"}
    assert loaded.warnings == ()


def test_default_has_every_storage_class_and_verification():
    accepted = profile("Default").transfer_syntaxes_by_abstract_syntax()
    assert set(accepted) == ALL | {VERIFICATION}
    assert set(accepted) > DEFAULT_STORAGE_CLASSES
    assert accepted[VERIFICATION] == UNCOMPRESSED


def test_all_dicom_has_those_that_are_in_force():
    accepted = set(profile("AllDICOM").transfer_syntaxes_by_abstract_syntax())
    in_force = {
        uid
        for uid, known in SOP_CLASSES.items()
        if known.origin is Origin.STANDARD and known.kind is not SOPClassKind.OTHER
    }
    assert accepted == in_force | {VERIFICATION}


def test_images_may_be_compressed_and_what_has_no_pixels_deflated():
    accepted = profile("Default").transfer_syntaxes_by_abstract_syntax()
    image = accepted["1.2.840.10008.5.1.4.1.1.2"]
    report = accepted["1.2.840.10008.5.1.4.1.1.88.11"]
    assert report == ("1.2.840.10008.1.2.1.99", *UNCOMPRESSED)
    assert image[-3:] == UNCOMPRESSED
    assert set(image) == {uid for uid, known in TRANSFER_SYNTAXES.items() if known.encapsulated} | set(report)
    assert set(image) >= set(accepted_transfer_syntaxes(Preference.ACCEPT_ALL))
    assert accepted["1.2.840.10008.5.1.4.1.1.66.4"] == image  # segmentations have pixels
    assert {accepted[uid] for uid in ALL} == {image, report}


def test_what_loses_nothing_is_asked_for_first():
    ranks = [{True: 0, None: 1, False: 2}[TRANSFER_SYNTAXES[uid].lossless] for uid in compressed_syntaxes()]
    assert ranks == sorted(ranks)
    assert compressed_syntaxes()[:2] == ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.70")
