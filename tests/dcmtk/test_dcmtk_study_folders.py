"""Subdirectories: their names, when a study ends, how its files are renamed, and dates."""

from datetime import date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk.storescp_options import SortMode
from stowkeeper.dcmtk.study_folders import (
    EndedStudy,
    Renaming,
    StoredFile,
    StudyFolderError,
    StudySorter,
    patient_folder,
    renamings,
    series_date_folder,
)

NOW = datetime(2026, 3, 2, 8, 15, 4, 7_999)  # noqa: DTZ001 - names are made of local time as the machine shows it
LATER = NOW.replace(second=5)
STAMP, LATER_STAMP = "20260302_081504007", "20260302_081505007"


def place(sorter, study="1.2", name=b"DOE^JOHN", character_set="", *, now=NOW):
    return sorter.place(study, name, character_set, now=now)


def store(sorter, study, *, at=0.0, now=NOW, file="CT.1"):
    placement = place(sorter, study, now=now)
    return placement.folder, sorter.stored(placement, StoredFile(name=file, prefix="CT"), at=at)


# --- names


@pytest.mark.parametrize(
    ("mode", "prefix", "folder"),
    [
        (SortMode.TIMESTAMP, "p", f"p_{STAMP}"),
        (SortMode.TIMESTAMP, "", STAMP),
        (SortMode.TIMESTAMP, "p$ /q", f"p$ /q_{STAMP}"),
        (SortMode.STUDY_UID, "p", "p_1.2"),
        (SortMode.STUDY_UID, "", "1.2"),
        (SortMode.STUDY_UID, "p$/q", "p$/q_1.2"),
        (SortMode.PATIENT_NAME, "", f"DOE_JOHN_{STAMP}"),
    ],
)
def test_names_of_subdirectories(mode, prefix, folder):
    placement = place(StudySorter(mode, prefix))
    assert (placement.folder, placement.is_new_study, placement.warnings) == (folder, True, ())


@pytest.mark.parametrize(
    ("uid", "folder"),
    [
        ("1.2/3", "S_1.2_3"),
        (" 1 .2 ", "S_1.2"),
        ("1.9\\1.10", "S_1.9"),
        ("..", "S_.."),
        ("a$b;c\xe9", "S_a_b_c_"),
    ],
)
def test_odd_study_uids(uid, folder):
    placement = place(StudySorter(SortMode.STUDY_UID, "S"), uid)
    assert placement.folder == folder
    changed = "_" in folder.removeprefix("S_")
    assert placement.warnings == (
        (f"unusual characters in the Study Instance UID were replaced: {uid!r} became {folder[2:]!r}",)
        if changed
        else ()
    )


@pytest.mark.parametrize("mode", [SortMode.TIMESTAMP, SortMode.STUDY_UID, SortMode.PATIENT_NAME])
@pytest.mark.parametrize("uid", ["", "  ", "\\1.2"])
def test_an_object_without_study_uid_has_no_place(mode, uid):
    with pytest.raises(StudyFolderError, match="absent or empty"):
        place(StudySorter(mode, "S"), uid)


@pytest.mark.parametrize("uid", [".", "..", " .. "])
def test_a_name_that_means_another_directory_is_refused(uid):
    with pytest.raises(StudyFolderError, match="which is no name"):
        place(StudySorter(SortMode.STUDY_UID, ""), uid)


PATIENTS = {
    # as DCMTK 3.6.7 was seen to name them
    b"DOE^JOHN": "DOE_JOHN",
    b"ABC ": "ABC",
    b"  AB": "__AB",
    b"A\\B": "A",
    b"^^": "__",
    b"A=B=C ": "A_B_C",
    b"\xc4\xd6\xdc\xe4\xf6\xfc\xdf\xc5\xc6\xe5\xe6\xc7\xd0\xd8\xdd\xff\xd7\xf7\xde\xfe\xa0\xbf": "AeOeUeaeoeuessAAaaCDOYy______",
    b"A\0": "A_",
    b"\0 ": "_",
    b"A\x1b$BX ": "A__BX",
    b"a.b/../c": "a_b____c",
    b"~`!@": "____",
    b"DOE^JOHN^^^ ": "DOE_JOHN___",
    "ü".encode(): "A_",
}


@pytest.mark.parametrize(("name", "folder"), PATIENTS.items())
def test_names_of_patients(name, folder):
    assert patient_folder(name, "") == (folder, ())


@pytest.mark.parametrize("name", [b"", b"   ", b"\\X "])
def test_a_patient_without_name(name):
    folder, warnings = patient_folder(name, "")
    assert folder == "ANONYMOUS"
    assert warnings == ("Patient's Name (0010,0010) is absent or empty, ANONYMOUS is used in its place",)


@pytest.mark.parametrize(
    ("character_set", "warns"),
    [
        ("", False),
        ("ISO_IR 100", False),
        ("ISO_IR 100 ", False),
        ("ISO_IR 192", True),
        ("ISO_IR 100\\ISO 2022 IR 87", True),
    ],
)
def test_a_character_set_that_is_not_latin_1(character_set, warns):
    folder, warnings = patient_folder(b"\xfc", character_set)
    assert folder == "ue"
    assert len(warnings) == warns
    assert patient_folder(b"U", character_set) == ("U", ())


@pytest.mark.slow
@given(st.binary(), st.text())
def test_a_patient_directory_is_letters_digits_and_underscores(name, character_set):
    folder, warnings = patient_folder(name, character_set)
    assert folder
    assert set(folder) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_")
    assert all(name.decode("latin-1") not in warning for warning in warnings if len(name) > 4)


@given(st.text(), st.sampled_from(["", "S"]))
def test_no_study_leaves_the_output_directory(uid, prefix):
    try:
        folder = place(StudySorter(SortMode.STUDY_UID, prefix), uid).folder
    except StudyFolderError:
        return
    assert "/" not in folder
    assert "\0" not in folder
    assert folder not in {"", ".", ".."}


# --- the current study


def test_objects_of_one_study_share_a_directory_until_another_study_comes():
    sorter = StudySorter(SortMode.TIMESTAMP, "S")
    assert store(sorter, "1.1") == (f"S_{STAMP}", None)
    assert store(sorter, "1.1", now=LATER) == (f"S_{STAMP}", None)
    folder, ended = store(sorter, "1.2", now=LATER)
    assert (folder, ended) == (f"S_{LATER_STAMP}", EndedStudy(folder=f"S_{STAMP}", files=()))
    folder, ended = store(sorter, "1.1", now=LATER.replace(second=9))
    assert folder == "S_20260302_081509007", "the study was over, so it begins anew"
    assert ended == EndedStudy(folder=f"S_{LATER_STAMP}", files=())


def test_a_study_is_new_until_something_of_it_is_stored():
    sorter = StudySorter(SortMode.TIMESTAMP, "S")
    store(sorter, "1.1")
    refused = place(sorter, "1.2")
    assert refused.is_new_study
    assert not place(sorter, "1.1").is_new_study, "a refused object ends no study"
    assert place(sorter, "1.2", now=LATER).folder == f"S_{LATER_STAMP}"


def test_the_warning_of_a_study_comes_once():
    sorter = StudySorter(SortMode.STUDY_UID, "")
    first = place(sorter, "1/2")
    sorter.stored(first, StoredFile(name="a", prefix="CT"), at=0)
    second = place(sorter, "1/2")
    assert (first.folder, second.folder) == ("1_2", "1_2")
    assert (len(first.warnings), len(second.warnings)) == (1, 0)


def test_files_are_kept_in_the_order_of_arrival_where_they_are_wanted():
    sorter = StudySorter(SortMode.STUDY_UID, "", keeps_names=True)
    for name in ("b", "a", "b"):
        store(sorter, "1.1", file=name)
    _, ended = store(sorter, "1.2", file="c")
    assert ended == EndedStudy(
        folder="1.1", files=tuple(StoredFile(name=name, prefix="CT") for name in "bab")
    )
    _, ended = store(sorter, "1.3")
    assert ended == EndedStudy(folder="1.2", files=(StoredFile(name="c", prefix="CT"),))


def test_a_study_ends_by_time():
    sorter = StudySorter(SortMode.TIMESTAMP, "S", timeout=5)
    assert sorter.deadline() is None
    assert sorter.expired(1000.0) is None
    store(sorter, "1.1", at=100.0)
    store(sorter, "1.1", at=102.0)
    assert sorter.deadline() == 107.0
    assert sorter.expired(106.9) is None
    assert sorter.expired(107.0) == EndedStudy(folder=f"S_{STAMP}", files=())
    assert sorter.deadline() is None
    assert sorter.expired(200.0) is None
    folder, ended = store(sorter, "1.1", at=201.0, now=LATER)
    assert (folder, ended) == (f"S_{LATER_STAMP}", None), "the same study begins anew"


def test_without_timeout_the_last_study_never_ends():
    sorter = StudySorter(SortMode.TIMESTAMP, "S")
    store(sorter, "1.1", at=1.0)
    assert sorter.deadline() is None
    assert sorter.expired(1e12) is None


def test_a_timeout_of_nothing_ends_at_once():
    sorter = StudySorter(SortMode.TIMESTAMP, "S", timeout=0)
    store(sorter, "1.1", at=1.0)
    assert sorter.expired(1.0) is not None


@given(st.lists(st.sampled_from("abc"), max_size=20))
def test_every_change_of_study_ends_one(studies):
    sorter = StudySorter(SortMode.STUDY_UID, "", keeps_names=True)
    ended = [store(sorter, study, file=str(number))[1] for number, study in enumerate(studies)]
    runs = [after for before, after in zip(["", *studies], studies, strict=False) if before != after]
    assert [study.folder for study in ended if study is not None] == runs[:-1]
    names = [file.name for study in ended if study is not None for file in study.files]
    assert names == [str(number) for number in range(len(names))]


# --- renaming


def stored(*names):
    return [StoredFile(name=f"{prefix}.{number}", prefix=prefix) for prefix, number in names]


def test_one_count_goes_through_all_modalities():
    files = stored(("CT", 1), ("CTe", 2), ("SR_t", 3), ("UNKNOWN", 4), ("Rca", 5))
    assert list(renamings(files, ["CT.1", "x"])) == [
        Renaming(old="CT.1", new="CT000001"),
        Renaming(old="CTe.2", new="CT000002"),
        Renaming(old="SR_t.3", new="SR000003"),
        Renaming(old="UNKNOWN.4", new="UN000004"),
        Renaming(old="Rca.5", new="Rc000005"),
    ]


def test_a_file_stored_twice_is_renamed_once_and_uses_up_two_numbers():
    assert [found.new for found in renamings(stored(("CT", 1), ("CT", 1), ("MR", 2)), [])] == [
        "CT000001",
        "MR000003",
    ]


def test_files_renamed_before_are_never_replaced():
    present = ["CT000001", "MR000007", "CT.9", "000099", "CT00008", "CT0000080x"]
    assert [found.new for found in renamings(stored(("CT", 1), ("MR", 2)), present)] == [
        "CT000008",
        "MR000009",
    ]


@given(
    st.lists(st.tuples(st.sampled_from(["CT", "MRe", "SR_t"]), st.integers(0, 5))),
    st.lists(st.integers(0, 10**7)),
)
def test_renaming_loses_nothing(names, numbers):
    present = [f"CT{number:06d}" for number in numbers]
    found = list(renamings(stored(*names), present))
    assert {renaming.old for renaming in found} == {f"{prefix}.{number}" for prefix, number in names}
    new = [renaming.new for renaming in found]
    assert len(set(new)) == len(new)
    assert not set(new) & set(present)


# --- dates


@pytest.mark.parametrize(
    ("value", "folder"),
    [
        ("20240102", "data/2024/01/02"),
        ("20240102 ", "data/2024/01/02"),
        ("2024.01.02", "data/2024/01/02"),
        ("20240102\\20250101", "data/2024/01/02"),
        ("20240231", "data/2024/02/31"),
        ("00000101", "data/0000/01/01"),
        ("", None),
        ("\\20240102", None),
        (" 20240102", None),
        ("2024-01-02", None),
        ("2024.0102", None),
        ("202401.02", None),
        ("2024.1.2", None),
        ("20240132", None),
        ("20241301", None),
        ("20240100", None),
        ("20240001", None),
        ("99999999", None),
        ("20240102x", None),
        ("20240102\n", None),
        ("２０２４0102", None),
        ("../../..", None),
    ],
)
def test_series_dates(value, folder):
    assert series_date_folder(value, today=date(2026, 3, 2)) == (folder or "undef/20260302")
