"""Headers that are known from data sets before: the detector says the same with them and without."""

from itertools import count
from random import Random

import pytest
from encoding_chance import chance_data_set
from encoding_trees import BIG_ENDIAN, EXPLICIT, USUAL, El, Sq, encode
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.dcmtk.encoding.detector import FormDetector
from stowkeeper.dcmtk.encoding.form import DCMRECV_FORM, STORESCP_FORM
from stowkeeper.dicom.header_layout import HeaderLayout
from support.examples import examples

WANTED = frozenset({0x00080016, 0x00080018, 0x00080005, 0x00100010, 0x0020000D})
CLASS, INSTANCE, NAME, PATIENT, STUDY = (node.tag for node in USUAL[:5])

_kinds = (f"1.2.4.{number}" for number in count())


def detect(data, syntax, form, cuts=(), **known):
    """Return the verdict, its reason, and the values that were kept where there is a verdict on all of it."""
    found = FormDetector(syntax, form, None, WANTED, **known)
    at = 0
    for cut in [*sorted(cuts), len(data)]:
        found.feed(memoryview(data)[at:cut])
        at = cut
    same = found.finish()
    return same, found.reason(), found.values if same else None


def assert_known_changes_nothing(data_sets, syntax, form, random):
    kind = next(_kinds)
    for data in data_sets:
        cuts = random.choice([(), (), [random.randrange(len(data) + 1)]])
        assert detect(data, syntax, form, cuts, sop_class_uid=kind) == detect(data, syntax, form, cuts)


@settings(max_examples=examples(120), deadline=None)
@given(
    st.integers(0, 1 << 30),
    st.sampled_from([EXPLICIT, BIG_ENDIAN]),
    st.sampled_from([STORESCP_FORM, DCMRECV_FORM]),
)
def test_bytes_that_changed_in_a_data_set_are_judged_as_if_nothing_were_known(seed, syntax, form):
    random = Random(seed)
    usual = encode([*USUAL[:-1], *chance_data_set(random)[2:]] if seed % 2 else USUAL, syntax)
    data_sets = [usual]
    for _ in range(8):
        changed = bytearray(usual)
        for _ in range(random.randrange(3)):
            changed[random.randrange(len(changed))] = random.choice(b"\0\1\2\5 1\tU\xff")
        data_sets.append(bytes(changed))
    assert_known_changes_nothing(data_sets, syntax, form, random)


def like_usual(**values):
    """Return the usual instance with some values changed."""
    named = {"instance": INSTANCE, "name": NAME, "patient": PATIENT, "study": STUDY}
    changed = {named[name]: value for name, value in values.items()}
    return encode(
        [El(node.tag, node.vr, changed.get(node.tag, node.value)) for node in USUAL if isinstance(node, El)],
        EXPLICIT,
    )


LIKE = {"instance": b"1.2.3.44", "name": b"Doe^Jane", "patient": b"4711", "study": b"1.2.3.55"}


@pytest.mark.parametrize(
    ("values", "same"),
    [
        ({"instance": b"1.2.3.66", "name": b"Foe^Jane", "patient": b"4712"}, True),
        ({"patient": b"4 7 "}, True),
        ({"patient": b"47  "}, False),
        ({"name": b"Doe^Ja  "}, False),
        ({"instance": b"1.2.3.4 "}, False),
        ({"instance": b"1.2.3.4\0"}, True),
        ({"instance": b"1.2.3.\0\0"}, False),
        ({"instance": b"1.2\\1.\0\0", "study": b"\\1.2.3.5"}, False),
        ({"instance": b"1.\0\0\\1.2"}, True),
        ({"study": b"1\t2.3.55"}, False),
    ],
)
def test_values_in_a_run_are_looked_at(values, same, monkeypatch):
    kind = next(_kinds)
    detect(like_usual(**LIKE), EXPLICIT, STORESCP_FORM, sop_class_uid=kind)
    matched = []
    match = HeaderLayout.match

    def note(self, *place):
        run = match(self, *place)
        matched.append(run)
        return run

    monkeypatch.setattr(HeaderLayout, "match", note)
    data = like_usual(**{**LIKE, **values})
    known = detect(data, EXPLICIT, STORESCP_FORM, sop_class_uid=kind)

    assert known == detect(data, EXPLICIT, STORESCP_FORM)
    assert known[0] is same
    assert matched[0] is not None
    if same:
        assert known[2][INSTANCE] == data[data.index(b"\x08\x00\x18\x00") + 8 :][:8]


FIVE = [El(0x00100010 + number, b"LO", b"ab") for number in range(5)]


def test_a_run_does_not_go_beyond_the_end_of_an_item():
    kind = next(_kinds)
    top = encode(FIVE, EXPLICIT)
    # The bytes of the five stand one behind the other, but the last three belong before the sequence.
    astray = encode([Sq(0x00200020, [FIVE[:2]]), *FIVE[2:]], EXPLICIT)
    assert top in astray
    assert detect(top, EXPLICIT, STORESCP_FORM, sop_class_uid=kind)[0] is True

    assert detect(astray, EXPLICIT, STORESCP_FORM, sop_class_uid=kind)[0] is False


def test_a_run_does_not_go_beyond_the_end_of_a_group_that_is_counted():
    kind = next(_kinds)
    further = [El(0x00180010 + number, b"LO", b"ab") for number in range(5)]
    counted = [El(0x00100000, b"UL", [len(encode(FIVE + further, EXPLICIT))]), *FIVE, *further]
    detect(encode(FIVE + further, EXPLICIT), EXPLICIT, STORESCP_FORM, sop_class_uid=kind)

    assert detect(encode(counted, EXPLICIT), EXPLICIT, STORESCP_FORM, sop_class_uid=kind)[0] is False


def test_behind_a_sequence_is_a_run_again(monkeypatch):
    kind = next(_kinds)
    data = encode([Sq(0x00080096, [FIVE[:1], FIVE[:2]]), *FIVE], EXPLICIT)
    detect(data, EXPLICIT, STORESCP_FORM, sop_class_uid=kind)
    matched = []
    match = HeaderLayout.match
    monkeypatch.setattr(HeaderLayout, "match", lambda *place: matched.append(match(*place)) or matched[-1])

    assert detect(data, EXPLICIT, STORESCP_FORM, sop_class_uid=kind)[0] is True
    assert [run.count for run in matched] == [5]


def test_an_odd_length_is_in_no_run():
    kind = next(_kinds)
    odd = encode(
        [*FIVE, El(0x00180010, b"LO", b"abc"), *(El(0x00180011 + n, b"LO", b"ab") for n in range(5))],
        EXPLICIT,
    )

    for _ in range(2):
        assert detect(odd, EXPLICIT, STORESCP_FORM, sop_class_uid=kind)[0] is False
