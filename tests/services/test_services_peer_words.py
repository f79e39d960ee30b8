"""What peers say in their own words: in quotes that they cannot end, and out of every log line."""

from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.app.log_lines import without_patient_data
from stowkeeper.services.peer_words import WITHHELD, quote, without_quotes

words = st.text(alphabet="DOE^ “”()")


@given(before=st.text("ab: "), said=words, behind=st.text("cd. "), cut=st.integers(1, 5))
def test_nothing_of_a_quote_is_left_however_it_is_cut(before: str, said: str, behind: str, cut: int) -> None:
    text = f"{before}{quote(said)}{behind}"
    assert without_quotes(text) == f"{before}{WITHHELD}{behind}"
    begun = text[: len(before) + 1 + cut]
    assert without_quotes(begun).startswith(f"{before}{WITHHELD}")
    assert not set(without_quotes(begun)) & set("DOE^")


def test_a_log_line_has_none_of_it() -> None:
    event: dict[str, object] = {"why": f"it answered C000H ({quote('DOE^JANE is locked')})", "count": 3}
    assert without_patient_data(event) == {"why": f"it answered C000H ({WITHHELD})", "count": 3}
