"""The transfer syntaxes behind each +x option, against the lists of the manual pages."""

import pytest

from stowkeeper.dcmtk.preferences import Preference, accepted_transfer_syntaxes
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES

ROOT = "1.2.840.10008."
IMPLICIT, EXPLICIT, BIG = f"{ROOT}1.2", f"{ROOT}1.2.1", f"{ROOT}1.2.2"
SINGLE = {
    "+xs": "1.2.4.70",
    "+xy": "1.2.4.50",
    "+xx": "1.2.4.51",
    "+xv": "1.2.4.90",
    "+xw": "1.2.4.91",
    "+xt": "1.2.4.80",
    "+xu": "1.2.4.81",
    "+xm": "1.2.4.100",
    "+xh": "1.2.4.101",
    "+xn": "1.2.4.102",
    "+xl": "1.2.4.103",
    "+x2": "1.2.4.104",
    "+x3": "1.2.4.105",
    "+xo": "1.2.4.106",
    "+x4": "1.2.4.107",
    "+x5": "1.2.4.108",
    "+xr": "1.2.5",
    "+xd": "1.2.1.99",
}
ACCEPT_ALL = """
    1.2.4.91 1.2.4.90 1.2.4.51 1.2.4.50 1.2.4.70 1.2.4.81 1.2.4.80 1.2.5 1.2.4.100 1.2.4.100.1 1.2.4.101
    1.2.4.101.1 1.2.4.102 1.2.4.102.1 1.2.4.103 1.2.4.103.1 1.2.4.104 1.2.4.104.1 1.2.4.105 1.2.4.105.1
    1.2.4.106 1.2.4.106.1 1.2.4.107 1.2.4.108 1.2.4.201 1.2.4.202 1.2.4.203 1.2.1.99 1.2.1.98
"""


def test_every_option_is_there():
    assert set(Preference) == {*SINGLE, "+x=", "+xe", "+xb", "+xi", "+xa"}


@pytest.mark.parametrize(("option", "syntax"), SINGLE.items())
@pytest.mark.parametrize("byte_order", ["little", "big"])
def test_one_syntax_before_the_uncompressed_ones(option, syntax, byte_order):
    found = accepted_transfer_syntaxes(Preference(option), byte_order=byte_order)
    assert found == (ROOT + syntax, EXPLICIT, BIG, IMPLICIT)


@pytest.mark.parametrize(
    ("option", "byte_order", "syntaxes"),
    [
        ("+x=", "little", (EXPLICIT, BIG, IMPLICIT)),
        ("+x=", "big", (BIG, EXPLICIT, IMPLICIT)),
        ("+xe", "little", (EXPLICIT, BIG, IMPLICIT)),
        ("+xe", "big", (EXPLICIT, BIG, IMPLICIT)),
        ("+xb", "little", (BIG, EXPLICIT, IMPLICIT)),
        ("+xb", "big", (BIG, EXPLICIT, IMPLICIT)),
        ("+xi", "little", (IMPLICIT,)),
        ("+xi", "big", (IMPLICIT,)),
    ],
)
def test_uncompressed_syntaxes(option, byte_order, syntaxes):
    assert accepted_transfer_syntaxes(Preference(option), byte_order=byte_order) == syntaxes


@pytest.mark.parametrize(("byte_order", "explicit"), [("little", (EXPLICIT, BIG)), ("big", (BIG, EXPLICIT))])
def test_accept_all(byte_order, explicit):
    found = accepted_transfer_syntaxes(Preference.ACCEPT_ALL, byte_order=byte_order)
    assert found == (*(ROOT + syntax for syntax in ACCEPT_ALL.split()), *explicit, IMPLICIT)
    assert len(set(found)) == len(found) == 32
    assert set(found) <= set(TRANSFER_SYNTAXES)
