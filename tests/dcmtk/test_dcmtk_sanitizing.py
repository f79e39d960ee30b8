"""The characters that are let through into names and command lines."""

import string

from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.dcmtk.sanitizing import sanitized, sanitizing_warning

HARMLESS = set(string.ascii_letters + string.digits + " -.:@_")


@given(st.text())
def test_harmless_characters_stay_and_all_others_become_underscores(text):
    clean = sanitized(text)
    assert len(clean) == len(text)
    assert all(
        after == (before if before in HARMLESS else "_") for before, after in zip(text, clean, strict=True)
    )
    assert sanitized(clean) == clean


def test_nothing_that_a_shell_or_a_path_minds_is_let_through():
    assert not HARMLESS & set("/\\\"'`$&|;<>()[]{}*?!#~=%^,+\n\r\t\0")
    assert sanitized("a/b`c`$(d)\n\xe9\0é") == "a_b_c___d_____"


def test_a_change_is_told_with_control_characters_escaped():
    assert sanitizing_warning("the name", "ab", "ab") is None
    warning = sanitizing_warning("the name", "a\nb", "a_b")
    assert warning == "unusual characters in the name were replaced: 'a\\nb' became 'a_b'"
