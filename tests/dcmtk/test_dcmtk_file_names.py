"""File names of both programs: each scheme, what happens when a name is taken, and that none leaves its directory."""

import re
from datetime import datetime, timedelta
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk import dcmrecv_options, limits, storescp_options
from stowkeeper.dcmtk.file_names import DcmrecvNames, NoFreeNameError, StorescpNames

CT, CTE, SRT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.88.1"
MR = "1.2.840.10008.5.1.4.1.1.4"
NOW = datetime(2026, 3, 2, 8, 15, 4, 123_987)  # noqa: DTZ001 - names are made of local time as the machine shows it
Storescp = storescp_options.FileNames
Dcmrecv = dcmrecv_options.FileNames


def nothing_taken(_name):
    return False


def storescp(scheme, extension=""):
    uids = count(1)
    return StorescpNames(scheme, extension, new_uid=lambda: f"2.25.{next(uids)}")


def dcmrecv(scheme, extension="", bits=(0,)):
    uids, randoms = count(1), iter(bits)
    return DcmrecvNames(
        scheme,
        extension,
        started_at=0x6AF0_1234,
        new_uid=lambda: f"2.25.{next(uids)}",
        random_bits=lambda: next(randoms),
    )


def name_of(names, sop_class=CT, uid="1.2.3", *, now=NOW, taken=nothing_taken, folder=""):
    if isinstance(names, StorescpNames):
        return names.name(sop_class, uid, folder=folder, now=now, taken=taken).text
    return names.name(sop_class, uid, now=now, taken=taken).text


# --- storescp


@pytest.mark.parametrize(
    ("sop_class", "uid", "name"),
    [
        (CT, "1.2.3", "CT.1.2.3"),
        (CTE, "1.2.3", "CTe.1.2.3"),
        (SRT, "1.2.3", "SR_t.1.2.3"),
        ("1.2.3.4", "1.2.3", "UNKNOWN.1.2.3"),
        (CT, "1.2/../3", "CT.1.2_.._3"),
        (CT, "..", "CT..."),
        (CT, " 1.2 3 ", "CT.1.23"),
        (CT, "a-b:c@d_e$f`g", "CT.a-b:c@d_e_f_g"),
        (CT, "1.\xe9\0\x7f\\", "CT.1.____"),
    ],
)
def test_storescp_by_instance_uid(sop_class, uid, name):
    assert name_of(storescp(Storescp.INSTANCE_UID), sop_class, uid) == name
    assert name_of(storescp(Storescp.INSTANCE_UID, ".d$c/m"), sop_class, uid) == name + ".d$c/m"


def test_a_changed_uid_is_told():
    names = storescp(Storescp.INSTANCE_UID, "$")
    changed = names.name(CT, "1/2", folder="", now=NOW, taken=nothing_taken)
    assert changed.warning == "unusual characters in the SOP Instance UID were replaced: '1/2' became '1_2'"
    assert names.name(CT, "1.2", folder="", now=NOW, taken=nothing_taken).warning is None


def test_the_prefix_comes_along_for_renaming():
    for scheme in Storescp:
        found = storescp(scheme).name(SRT, "1", folder="", now=NOW, taken=nothing_taken)
        assert found.prefix == "SR_t"


def test_storescp_by_new_uid():
    names = storescp(Storescp.NEW_UID, ".dcm")
    assert [name_of(names), name_of(names, MR)] == ["CT.X.2.25.1.dcm", "MR.X.2.25.2.dcm"]


def test_storescp_by_time():
    assert name_of(storescp(Storescp.TIME, ".dcm")) == "20260302081504123.CT.dcm"
    assert name_of(storescp(Storescp.TIME), now=NOW.replace(microsecond=4_999)) == "20260302081504004.CT"


def test_serial_numbers_within_a_millisecond():
    names = storescp(Storescp.TIME)
    same = [name_of(names) for _ in range(3)]
    assert same == ["20260302081504123.CT", "20260302081504123_0000.CT", "20260302081504123_0001.CT"]
    assert name_of(names, MR) == "20260302081504123.MR"
    assert name_of(names) == "20260302081504123_0002.CT", "another modality between them changes nothing"
    assert name_of(names, folder="other") == "20260302081504123.CT"
    assert name_of(names) == "20260302081504123_0003.CT"
    later = NOW + timedelta(milliseconds=1)
    assert name_of(names, now=later) == "20260302081504124.CT"


def test_a_time_name_that_is_on_the_disk_is_not_used_again():
    there = {"20260302081504123.CT", "20260302081504123_0001.CT"}
    names = storescp(Storescp.TIME)
    assert [name_of(names, taken=there.__contains__) for _ in range(2)] == [
        "20260302081504123_0000.CT",
        "20260302081504123_0002.CT",
    ]


def test_serial_numbers_end():
    asked = []

    def all_taken(name):
        asked.append(name)
        return True

    with pytest.raises(NoFreeNameError, match="millisecond 20260302081504123"):
        name_of(storescp(Storescp.TIME), taken=all_taken)
    assert len(asked) == limits.FILE_NAME_TRIES_MAX + 1
    assert asked[-1] == "20260302081504123_9999.CT"


# --- dcmrecv


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("1.2.3", "CT.1.2.3.d_c_m"),
        (" 1.2 3 ", "CT.1.2 3.d_c_m"),
        ("../x", "CT..._x.d_c_m"),
        ("a\tb", "CT.a_b.d_c_m"),
    ],
)
def test_dcmrecv_by_instance_uid(uid, name):
    assert name_of(dcmrecv(Dcmrecv.INSTANCE_UID, ".d$c/m"), uid=uid) == name


def test_dcmrecv_by_new_uid():
    assert name_of(dcmrecv(Dcmrecv.NEW_UID, ".dcm")) == "CT.X.2.25.1.dcm"
    assert name_of(dcmrecv(Dcmrecv.NEW_UID), "1.2") == "UNKNOWN.X.2.25.1"


def test_dcmrecv_by_random_digits():
    names = dcmrecv(Dcmrecv.SHORT_UNIQUE, ".x", bits=(0xAB, 0xFFFF_FFFF, 0x1_0000_0001))
    assert name_of(names) == "CT_6af01234000000ab.x"
    assert name_of(names, "1.2") == "XX_6af01234ffffffff.x"
    assert name_of(names) == "CT_6af0123400000001.x"


def test_random_digits_that_are_taken_are_skipped():
    names = dcmrecv(Dcmrecv.SHORT_UNIQUE, bits=(1, 1, 2))
    assert name_of(names, taken={"CT_6af0123400000001"}.__contains__) == "CT_6af0123400000002"


def test_random_digits_end():
    names = dcmrecv(Dcmrecv.SHORT_UNIQUE, bits=range(limits.FILE_NAME_TRIES_MAX))
    with pytest.raises(NoFreeNameError):
        name_of(names, taken=lambda _name: True)


def test_dcmrecv_by_time():
    assert name_of(dcmrecv(Dcmrecv.TIME, ".dcm")) == "20260302081504.123987.CT.dcm"
    assert name_of(dcmrecv(Dcmrecv.TIME), now=NOW.replace(microsecond=7)) == "20260302081504.000007.CT"


def test_a_microsecond_is_used_once():
    names = dcmrecv(Dcmrecv.TIME)
    assert [name_of(names), name_of(names), name_of(names, MR)] == [
        "20260302081504.123987.CT",
        "20260302081504.123988.CT",
        "20260302081504.123989.MR",
    ]
    assert name_of(names, now=NOW + timedelta(microseconds=1)) == "20260302081504.123990.CT"
    assert name_of(names, taken={"20260302081504.123991.CT"}.__contains__) == "20260302081504.123992.CT"


def test_a_clock_that_was_set_back_is_believed():
    names = dcmrecv(Dcmrecv.TIME)
    name_of(names)
    assert name_of(names, now=NOW - timedelta(seconds=1)) == "20260302081503.123987.CT"
    assert name_of(names, now=NOW - timedelta(seconds=1.9)) == "20260302081503.123988.CT", "it only lags"


def test_microseconds_end():
    with pytest.raises(NoFreeNameError):
        name_of(dcmrecv(Dcmrecv.TIME), taken=lambda _name: True)


# --- anything


@given(st.text(max_size=70), st.sampled_from([CT, MR, "1.2", ""]))
def test_no_name_leaves_its_directory(uid, sop_class):
    for names in (
        *(storescp(scheme, ".dcm") for scheme in Storescp),
        *(dcmrecv(scheme, ".dcm") for scheme in Dcmrecv),
    ):
        name = name_of(names, sop_class, uid)
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 \-.:@_]*\.dcm", name)
