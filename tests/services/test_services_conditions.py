"""Conditions hold where all of what they ask for is there, and say in words without patient data why they do not."""

import time as clock
from collections.abc import Iterator
from datetime import UTC, datetime, time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.services.conditions import Conditions, fits_pattern, is_between
from support.examples import examples
from support.instances import CT_IMAGE_STORAGE
from support.rule_arrivals import make_arrival as arrival

CT, MR = CT_IMAGE_STORAGE, "1.2.840.10008.5.1.4.1.1.4"


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The clock of the machine is five and a half hours ahead of UTC."""
    monkeypatch.setenv("TZ", "XXX-5:30")
    clock.tzset()
    yield
    monkeypatch.undo()
    clock.tzset()


# Each condition.


@pytest.mark.parametrize(
    ("asked", "fitting", "other", "words"),
    [
        ({"calling_ae_titles": ("CT1", "SCAN*")}, {}, {"calling_ae_title": "scanner"}, "its calling AE title is scanner"),
        ({"calling_ae_titles": ("*",)}, {}, {"calling_ae_title": ""}, "it has no calling AE title"),
        ({"called_ae_titles": ("STOW?EEPER",)}, {}, {"called_ae_title": "STOW"}, "its called AE title is STOW"),
        ({"addresses": (ip_network("10.0.0.0/8"),)}, {}, {"peer_address": "192.0.2.1"}, "it came from 192.0.2.1"),
        ({"addresses": (ip_network("10.1.2.3"),)}, {"peer_address": "::ffff:10.1.2.3"}, {"peer_address": ""}, "it came from no address"),
        ({"addresses": (ip_network("fe80::/10"),)}, {"peer_address": "fe80::1%eth0"}, {"peer_address": "::ffff:1.2.3.4"}, "it came from 1.2.3.4"),
        ({"modalities": ("MR", "CT")}, {}, {"modality": "US"}, "its modality is US"),
        ({"modalities": ("CT",)}, {}, {"modality": ""}, "it has no modality"),
        ({"sop_classes": (CT,)}, {}, {"sop_class_uid": MR}, f"its SOP class is MR Image Storage ({MR})"),
        ({"sop_classes": (CT,)}, {}, {"sop_class_uid": "1.2.3.4"}, "its SOP class is 1.2.3.4"),
        ({"received_by": ("import", "C-STORE")}, {}, {"received_by": "STOW-RS"}, "it came by STOW-RS"),
        ({"attributes": {"StationName": ("A*",)}}, {"attributes": {"StationName": "A1"}}, {"attributes": {"StationName": "B1"}}, "its StationName is another"),
        ({"attributes": {"PatientID": ("*",)}}, {"attributes": {"PatientID": "P1"}}, {}, "it has no PatientID"),
    ],
)  # fmt: skip
def test_each_condition_holds_or_says_why_not(
    asked: dict[str, Any], fitting: dict[str, Any], other: dict[str, Any], words: str
) -> None:
    conditions = Conditions(**asked)
    assert conditions.match(arrival(**fitting))
    assert conditions.unmet(arrival(**fitting)) == ""
    assert not conditions.match(arrival(**other))
    assert conditions.unmet(arrival(**other)) == words


def test_no_conditions_hold_of_everything() -> None:
    assert Conditions().match(arrival(modality="", calling_ae_title="", peer_address=""))


def test_all_that_is_given_has_to_hold() -> None:
    both = Conditions(modalities=("CT",), attributes={"StationName": ("A",), "PatientSex": ("F",)})
    there = {"StationName": "A", "PatientSex": "F"}
    assert both.match(arrival(attributes=there))
    assert both.unmet(arrival(attributes={**there, "PatientSex": "M"})) == "its PatientSex is another"
    assert both.unmet(arrival(attributes={"StationName": "A"})) == "it has no PatientSex"
    assert both.unmet(arrival(attributes=there, modality="MR")) == "its modality is MR"


def test_of_several_values_one_has_to_fit() -> None:
    original = Conditions(attributes={"ImageType": ("ORIGINAL",)})
    assert original.match(arrival(attributes={"ImageType": "ORIGINAL\\PRIMARY"}))
    assert original.match(arrival(attributes={"ImageType": "X\\ORIGINAL \\Y"}))
    assert not original.match(arrival(attributes={"ImageType": "DERIVED\\PRIMARY"}))
    # A pattern is about one value, never about two.
    assert not Conditions(attributes={"ImageType": ("O*Y",)}).match(
        arrival(attributes={"ImageType": "ORIGINAL\\PRIMARY"})
    )


def test_a_backslash_in_a_text_parts_nothing() -> None:
    comment = arrival(attributes={"PatientComments": "see C:\\scans"})
    assert Conditions(attributes={"PatientComments": ("see*scans",)}).match(comment)
    assert not Conditions(attributes={"PatientComments": ("scans",)}).match(comment)


def test_no_words_have_a_value_of_an_attribute() -> None:
    asked = Conditions(attributes={"PatientName": ("Wanted^One",)})
    for value in ("Other^Two", "Other^Two\\Third"):
        assert "^" not in asked.unmet(arrival(attributes={"PatientName": value}))


@pytest.mark.usefixtures("zone")
def test_times_of_day_are_those_of_the_machine() -> None:
    night = Conditions(received_between=(time(22), time(6, 30)))
    assert night.match(arrival(received_at="2026-01-02T18:00:00.000000Z"))  # 23:30 here
    assert night.match(arrival(received_at="2026-01-02T00:59:59.999999Z"))  # just before 6:30
    assert not night.match(arrival(received_at="2026-01-02T01:00:00.000000Z"))
    late = arrival(received_at="2026-01-02T12:00:05.000000Z")
    assert night.unmet(late) == "it was received at 17:30:05"


# Wildcards.

letters = st.text(alphabet="AB*?.[]\\ \n", max_size=8)


def fits_by_trying(pattern: str, text: str) -> bool:
    """Say whether a text fits a pattern, by trying all ways."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(fits_by_trying(pattern[1:], text[start:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in {"?", text[0]} and fits_by_trying(pattern[1:], text[1:])


@pytest.mark.slow
@given(pattern=letters, text=letters)
@settings(max_examples=examples(400), deadline=None)
def test_wildcards_fit_what_trying_all_ways_finds(pattern: str, text: str) -> None:
    assert fits_pattern(pattern, text) is fits_by_trying(pattern, text)
    wanted = Conditions(attributes={"PatientComments": (pattern,)})
    found = arrival(attributes={"PatientComments": text} if text else {})
    assert wanted.match(found) is (text != "" and fits_by_trying(pattern, text))


@given(text=letters.filter(bool), holes=st.lists(st.integers(0, 7), max_size=3))
@settings(max_examples=examples(100), deadline=None)
def test_a_text_with_holes_fits_itself(text: str, holes: list[int]) -> None:
    pattern = "".join("?" if place in holes else letter for place, letter in enumerate(text))
    assert fits_pattern(pattern, text)
    assert fits_pattern(f"*{pattern[1:]}", text)
    assert fits_pattern(f"{pattern}*", text)
    if "*" not in pattern:
        assert not fits_pattern(pattern, text + "A")


def test_many_stars_take_no_time_on_a_long_text() -> None:
    pattern, text = "*A" * 30 + "B", "A" * 10_000
    before = clock.process_time()
    assert not fits_pattern(pattern, text)
    assert fits_pattern(pattern, text + "B")
    assert clock.process_time() - before < 20  # all ways of sharing it out would take for ever


# Times of day.

times = st.times()


@pytest.mark.slow
@given(moment=times, first=times, end=times)
@settings(max_examples=examples(300), deadline=None)
def test_a_time_is_before_or_past_midnight(moment: time, first: time, end: time) -> None:
    def since_midnight(one: time) -> int:
        seconds = (one.hour * 60 + one.minute) * 60 + one.second
        return seconds * 10**6 + one.microsecond

    day = 86_400 * 10**6
    begin = since_midnight(first)
    length = (since_midnight(end) - begin) % day or day
    assert is_between(moment, first, end) is ((since_midnight(moment) - begin) % day < length)


@given(moment=times, first=times, end=times)
@settings(max_examples=examples(100), deadline=None)
def test_a_time_is_in_a_span_or_in_the_rest_of_the_day(moment: time, first: time, end: time) -> None:
    if first != end:
        assert is_between(moment, first, end) is not is_between(moment, end, first)


@given(seconds=st.floats(1.5e9, 2e9), first=times, end=times)
@settings(max_examples=examples(50), deadline=None)
def test_the_condition_follows_the_clock(seconds: float, first: time, end: time) -> None:
    at = datetime.fromtimestamp(seconds, UTC)
    found = Conditions(received_between=(first, end)).match(
        arrival(received_at=at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    )
    assert found is is_between(at.astimezone().time(), first, end)


# Networks.


@pytest.mark.slow
@given(address=st.ip_addresses(v=4), number=st.integers(0, 2**32 - 1), prefix=st.integers(0, 32))
@settings(max_examples=examples(150), deadline=None)
def test_an_ipv4_address_is_in_a_network_by_its_first_bits(
    address: IPv4Address, number: int, prefix: int
) -> None:
    network = IPv4Network((number, prefix), strict=False)
    shift = 32 - prefix
    inside = int(address) >> shift == number >> shift
    asked = Conditions(addresses=(network,))
    assert asked.match(arrival(peer_address=str(address))) is inside
    assert asked.match(arrival(peer_address=f"::ffff:{address}")) is inside


@pytest.mark.slow
@given(address=st.ip_addresses(v=6), number=st.integers(0, 2**128 - 1), prefix=st.integers(0, 128))
@settings(max_examples=examples(150), deadline=None)
def test_an_ipv6_address_is_in_a_network_by_its_first_bits(
    address: IPv6Address, number: int, prefix: int
) -> None:
    network = IPv6Network((number, prefix), strict=False)
    shift = 128 - prefix
    inside = int(address) >> shift == number >> shift and address.ipv4_mapped is None
    asked = Conditions(addresses=(ip_network("192.0.2.0/24"), network))
    if address.ipv4_mapped is None:
        assert asked.match(arrival(peer_address=str(address))) is inside
        assert asked.match(arrival(peer_address=f"{address}%eth0")) is inside


@pytest.mark.slow
@given(text=st.text(max_size=20))
@settings(max_examples=examples(100), deadline=None)
def test_what_is_no_address_is_in_no_network(text: str) -> None:
    everywhere = Conditions(addresses=(ip_network("0.0.0.0/0"), ip_network("::/0")))
    try:
        ip_network(text.partition("%")[0])
    except ValueError:
        assert not everywhere.match(arrival(peer_address=text))


@given(value=st.integers(1, 10**6))
@settings(max_examples=examples(30), deadline=None)
def test_conditions_that_ask_for_what_is_there_hold(value: int) -> None:
    found = arrival(attributes={"SeriesNumber": str(value)}, calling_ae_title=f"CT{value}")
    asked = Conditions(
        calling_ae_titles=(f"CT{value}",),
        addresses=(ip_network("10.1.2.3"),),
        modalities=("CT",),
        sop_classes=(CT,),
        received_by=("C-STORE",),
        attributes={"SeriesNumber": (str(value),)},
        received_between=(time(0), time(0)),
    )
    assert asked.match(found)
    assert asked.unmet(found) == ""
