"""Headers that are known from data sets before: a scan says the same with them and without, and is spared most steps."""

from itertools import count

import pytest
from data_set_bytes import EBE, ELE, ILE, ITEM_END, LAYOUTS, SYNTAX_OF, scan
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.dicom import header
from stowkeeper.dicom.elements import EXPLICIT_LITTLE_ENDIAN
from stowkeeper.dicom.header_layout import HeaderLayout, Look
from stowkeeper.dicom.limits import (
    CAPTURED_VALUE_MAX,
    LAYOUT_ELEMENTS_MAX,
    LAYOUT_MISFITS_MAX,
    LAYOUT_RUN_ELEMENTS_MIN,
    LAYOUT_RUNS_ELEMENTS_MAX,
    LAYOUTS_MAX,
)
from support.examples import examples

_kinds = (f"1.2.3.{number}" for number in count())

TAGS = [
    0x00080005,
    0x00080016,
    0x00080018,
    0x00080060,
    0x00090010,
    0x00091001,
    0x00100010,
    0x00100020,
    0x0020000D,
    0x0020000E,
    0x00200013,
    0x00280010,
    0x00280011,
    0x7FE00010,
]
SHORT = [b"UI", b"CS", b"LO", b"US"]


@st.composite
def like_data_sets(draw):
    """Draw some data sets of one kind: most of their elements are alike, some are longer, missing, twice or misplaced."""
    layout = draw(st.sampled_from([ELE, EBE, ILE]))
    usual = [
        (tag, draw(st.sampled_from(SHORT)), draw(st.sampled_from([0, 2, 5, 6, 64, 66])))
        for tag in draw(st.lists(st.sampled_from(TAGS), min_size=4, max_size=14, unique=True).map(sorted))
    ]
    data_sets = []
    for _ in range(draw(st.integers(2, 5))):
        elements = []
        for tag, vr, length in usual:
            odd = draw(st.sampled_from(["", "", "", "", "", "", "", "longer", "gone", "twice", "cut", "in"]))
            size = length + 2 if odd == "longer" else length
            element = layout.element(tag, vr, bytes([draw(st.integers(32, 90))]) * size)
            if odd == "cut":
                element = element[: draw(st.integers(0, len(element)))]
            if odd == "in":
                element = layout.sequence(tag, element, b"", undefined=draw(st.booleans()))
            elements += {"gone": [], "twice": [element, element]}.get(odd, [element])
        if draw(st.integers(0, 9)) == 0:
            elements.reverse()
        data_sets.append(b"".join(elements))
    return SYNTAX_OF[layout], data_sets


@pytest.mark.slow
@settings(max_examples=examples(120), deadline=None)
@given(like_data_sets(), st.data())
def test_what_is_known_of_others_changes_no_scan(drawn, data):
    syntax, data_sets = drawn
    kind = next(_kinds)
    for data_set in data_sets:
        cuts = data.draw(st.lists(st.integers(0, len(data_set)), max_size=2))
        assert scan(data_set, syntax, cuts=cuts, sop_class_uid=kind) == scan(data_set, syntax, cuts=cuts)


@LAYOUTS
def test_a_data_set_like_the_one_before_is_scanned_in_few_steps(layout, monkeypatch):
    matched = []
    match = HeaderLayout.match

    def note(self, *place):
        run = match(self, *place)
        matched.append(run.count if run is not None else 0)
        return run

    monkeypatch.setattr(HeaderLayout, "match", note)
    kind = next(_kinds)
    for number in (b"1 ", b"22", b"1234", b"56"):
        matched.clear()
        data_set = b"".join(
            layout.element(tag, b"LO", number if tag == 0x00200013 else b"alike!") for tag in TAGS
        )
        found = scan(data_set, SYNTAX_OF[layout], sop_class_uid=kind)

        assert found == scan(data_set, SYNTAX_OF[layout])
        assert found.values[0x00200013] == number
    assert matched == [10, 4]  # up to the length that changed once, and from there on


def test_what_stands_in_items_is_not_taken_for_what_stands_at_the_top():
    kind = next(_kinds)
    inner = b"".join(ELE.element(tag, b"LO", b"inner!") for tag in TAGS)
    outer = b"".join(ELE.element(tag, b"LO", b"outer!") for tag in TAGS)
    scan(outer, sop_class_uid=kind)

    found = scan(ELE.sequence(0x00080001, inner) + outer, sop_class_uid=kind)

    assert found == scan(ELE.sequence(0x00080001, inner) + outer)
    assert set(found.values.values()) == {b"outer!"}


def test_of_a_value_that_stands_twice_the_first_counts_where_the_second_is_in_a_run():
    kind = next(_kinds)
    usual = b"".join(ELE.element(tag, b"LO", b"second") for tag in TAGS)
    scan(usual, sop_class_uid=kind)

    found = scan(ELE.element(0x00100020, b"LO", b"first!!!") + usual, sop_class_uid=kind)

    assert found == scan(ELE.element(0x00100020, b"LO", b"first!!!") + usual)
    assert found.values[0x00100020] == b"first!!!"


def test_a_long_value_is_still_left_out_with_a_remark():
    kind = next(_kinds)
    data = elements(TAGS[:7]) + ELE.element(0x00100020, b"LO", b"x" * (CAPTURED_VALUE_MAX + 2))
    data += elements(TAGS[8:])
    scan(data, sop_class_uid=kind)

    found = scan(data, sop_class_uid=kind)

    assert found == scan(data)
    assert 0x00100020 not in found.values


@LAYOUTS
def test_a_delimiter_out_of_place_is_in_no_run(layout):
    kind = next(_kinds)
    data = b"".join(layout.element(tag, b"LO", b"ab") for tag in TAGS[:6]) + layout.mark(ITEM_END)
    for _ in range(2):
        found = scan(data, SYNTAX_OF[layout], sop_class_uid=kind)

        assert found == scan(data, SYNTAX_OF[layout])
        assert found.problem is not None


def test_behind_a_sequence_is_a_run_again(monkeypatch):
    kind = next(_kinds)
    data = ELE.sequence(0x00080001, elements([0x00080002]), b"", undefined=False) + elements(TAGS)
    open_one = ELE.sequence(0x00080001, elements([0x00080002]), b"") + elements(TAGS)
    scan(data, sop_class_uid=kind)
    matched = []
    match = HeaderLayout.match
    monkeypatch.setattr(HeaderLayout, "match", lambda *place: matched.append(match(*place)) or matched[-1])
    for each in (data, open_one):
        scan(each, sop_class_uid=kind)

    assert [run.count for run in matched] == [len(TAGS)] * 2


def learned(data, looks=lambda _raw, _vr, _length: Look.NOTHING):
    layout = HeaderLayout(EXPLICIT_LITTLE_ENDIAN, looks)
    layout.begin(data, len(data))
    return layout


def at(data, position=0):
    return EXPLICIT_LITTLE_ENDIAN.unpack_header(data, position)


def elements(tags, value=b"ab"):
    return b"".join(ELE.element(tag, b"LO", value) for tag in tags)


def test_a_run_takes_out_what_is_looked_at_and_nothing_else():
    looks = {0x0008: Look.WHOLE, 0x0010: Look.UID, 0x0018: Look.END}
    data = b"".join(
        ELE.element(group << 16 | number, b"LO", b"%04d%02d" % (group, number))
        for group in (0x0008, 0x0010, 0x0018, 0x0020)
        for number in (1, 2)
    )
    layout = learned(data, lambda raw, _vr, _length: looks.get(raw & 0xFFFF, Look.NOTHING))
    run = layout.match(at(data), data, 0, len(data))

    assert (run.size, run.count) == (len(data), 8)
    assert (run.first_tag, run.last_tag) == (0x00080001, 0x00200002)
    assert run.tags == (0x00080001, 0x00080002)
    assert run.values(data, 0) == (b"000801", b"000802")
    assert run.uid_tags == (0x00100001, 0x00100002)
    assert run.uids(data, 0) == (b"001601", b"001602")
    assert run.ends(data, 0) == (b"01", b"02")


def test_a_run_ends_before_elements_in_no_order_delimiters_and_long_values():
    for break_ in (
        ELE.element(0x00080001, b"LO"),
        ELE.element(0x00100001, b"OB", b"ab"),
        ELE.mark(ITEM_END),
    ):
        data = elements(range(0x00080002, 0x00080007)) + break_ + elements(range(0x00200002, 0x00200007))
        layout = learned(data)

        assert layout.match(at(data), data, 0, len(data)).count == 5


def test_a_run_that_is_not_all_there_is_none():
    data = elements(range(0x00080002, 0x00080007))
    layout = learned(data)

    assert layout.match(at(data), data, 0, len(data) - 1) is None
    assert layout.match(at(data), data, 0, len(data)) is not None


def test_few_elements_are_no_run():
    data = elements(range(0x00080002, 0x00080002 + LAYOUT_RUN_ELEMENTS_MIN - 1))
    layout = learned(data)

    assert layout.match(at(data), data, 0, len(data)) is None


@pytest.mark.parametrize("place", [1, 4, 9])
def test_an_element_that_changed_is_in_no_run_any_more(place):
    tags = range(0x00080001, 0x00080015)
    layout = learned(elements(tags))
    changed = elements(tags[:place]) + ELE.element(tags[place], b"LO", b"abcd") + elements(tags[place + 1 :])

    assert layout.match(at(changed), changed, 0, len(changed)) is None
    before = layout.match(at(changed), changed, 0, len(changed))
    assert before is None if place < LAYOUT_RUN_ELEMENTS_MIN else before.count == place
    behind = 10 * (place + 1) + 2
    assert layout.match(at(changed, behind), changed, behind, len(changed)).count == len(tags) - place - 1


def test_another_kind_of_data_set_is_learned_when_it_keeps_coming():
    first, second = elements(range(0x00080001, 0x00080011)), elements(range(0x00180001, 0x00180011))
    layout = learned(first)
    layout.match(at(first), first, 0, len(first))
    for _ in range(LAYOUT_MISFITS_MAX + 1):
        layout.begin(second, len(second))
        assert at(second) not in layout.starts
    layout.begin(second, len(second))

    assert layout.match(at(second), second, 0, len(second)).count == 16
    assert at(first) not in layout.starts


def test_a_longer_first_piece_is_learned_from_where_the_first_one_was_cut():
    data = elements(range(0x00080001, 0x00080011))
    layout = HeaderLayout(EXPLICIT_LITTLE_ENDIAN, lambda _raw, _vr, _length: Look.NOTHING)
    layout.begin(data, 45)
    assert layout.match(at(data), data, 0, len(data)).count == 4
    layout.begin(data, len(data))

    assert layout.match(at(data), data, 0, len(data)).count == 16


@pytest.mark.slow
def test_what_is_remembered_has_a_bound():
    data = elements(range(0x00080001, 0x00080001 + LAYOUT_ELEMENTS_MAX + 50))
    layout = learned(data)

    assert len(layout.starts) == LAYOUT_ELEMENTS_MAX
    for place in range(LAYOUT_ELEMENTS_MAX):
        layout.match(at(data, 10 * place), data, 10 * place, len(data))
        assert sum(run.count for run in layout._runs.values() if run is not None) <= LAYOUT_RUNS_ELEMENTS_MAX


def test_no_more_kinds_than_a_bound_are_remembered():
    data = elements(TAGS)
    for _ in range(LAYOUTS_MAX + 5):
        scan(data, sop_class_uid=next(_kinds))

    assert header._layout.cache_info().currsize == LAYOUTS_MAX
