"""Conditions: what rules ask of an instance that arrived. No I/O.

The rules of forwarding and of retention share them. What a condition was about is told in words, the value of an attribute
never: it may be patient data, and so may be what the rule asks for.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time
from functools import partial
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from stowkeeper.dicom.attributes import UNDIVIDED
from stowkeeper.net.addresses import plain_address
from stowkeeper.services.peer_definition import parsed_address

Network = IPv4Network | IPv6Network

WAYS_IN: Final = ("C-STORE", "STOW-RS", "import")
"""How an instance can have come, as receipts say it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A version of an instance, and how it came: what rules look at.

    Text that there is none of is empty: the AE titles of what was not sent by C-STORE, the UIDs of an instance outside of
    studies. `received_at` is UTC in ISO 8601. `attributes` are those that the rules ask for and the instance has, by keyword,
    as the catalog has them. `file_size` is in bytes.
    """

    version_key: int
    receipt_key: int
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    modality: str
    calling_ae_title: str
    called_ae_title: str
    peer_address: str
    received_by: str
    received_at: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    file_size: int = 0


@dataclass(frozen=True, slots=True)
class _Test:
    """One condition: whether it holds, and the words for where it does not."""

    holds: Callable[[Arrival], bool]
    words: Callable[[Arrival], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What all has to hold of an instance. A condition that is empty asks for nothing.

    `calling_ae_titles`, `called_ae_titles` and the values of `attributes` are patterns: `*` stands for any letters or none, `?`
    for one. Upper and lower case differ. One of those listed has to fit; of an attribute with several values one of these.
    `attributes` are by their keyword. What an instance does not have fits no pattern, not even `*`. `sop_classes` are UIDs.
    `received_between` are two times of day on the clock of the machine, the first included; where it is the later one,
    midnight lies between them, and where they are equal, a whole day.
    """

    calling_ae_titles: tuple[str, ...] = ()
    called_ae_titles: tuple[str, ...] = ()
    addresses: tuple[Network, ...] = ()
    modalities: tuple[str, ...] = ()
    sop_classes: tuple[str, ...] = ()
    received_by: tuple[str, ...] = ()
    attributes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    received_between: tuple[time, time] | None = None
    _tests: tuple[_Test, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Make ready what is asked of each instance."""
        object.__setattr__(self, "_tests", tuple(self._made_tests()))

    def match(self, arrival: Arrival) -> bool:
        """Tell whether all conditions hold."""
        # A loop, since `all` takes twice as long, and each arrival comes here for each rule.
        for test in self._tests:  # noqa: SIM110 - see above
            if not test.holds(arrival):
                return False
        return True

    def unmet(self, arrival: Arrival) -> str:
        """Say which condition does not hold, the first one, without patient data; empty where all do."""
        return next((test.words(arrival) for test in self._tests if not test.holds(arrival)), "")

    def _made_tests(self) -> Iterator[_Test]:
        # From the cheap to the dear.
        if self.received_by:
            yield _Test(
                lambda arrival: arrival.received_by in self.received_by,
                lambda arrival: f"it came by {arrival.received_by or 'a way that is not known'}",
            )
        if self.modalities:
            yield _Test(
                lambda arrival: arrival.modality in self.modalities,
                lambda arrival: (
                    f"its modality is {arrival.modality}" if arrival.modality else "it has no modality"
                ),
            )
        if self.sop_classes:
            yield _Test(
                lambda arrival: arrival.sop_class_uid in self.sop_classes,
                lambda arrival: f"its SOP class is {_sop_class_name(arrival.sop_class_uid)}",
            )
        if self.calling_ae_titles:
            fits_calling = _patterns(self.calling_ae_titles)
            yield _Test(
                lambda arrival: fits_calling(arrival.calling_ae_title),
                lambda arrival: _words_on_title("calling", arrival.calling_ae_title),
            )
        if self.called_ae_titles:
            fits_called = _patterns(self.called_ae_titles)
            yield _Test(
                lambda arrival: fits_called(arrival.called_ae_title),
                lambda arrival: _words_on_title("called", arrival.called_ae_title),
            )
        for keyword, wanted in self.attributes.items():
            yield _Test(partial(_has, keyword, _patterns(wanted)), partial(_words_on_attribute, keyword))
        if self.addresses:
            yield _Test(
                lambda arrival: _is_in(arrival.peer_address, self.addresses),
                lambda arrival: (
                    f"it came from {plain_address(arrival.peer_address)}"
                    if arrival.peer_address
                    else "it came from no address"
                ),
            )
        if self.received_between is not None:
            first, end = self.received_between
            yield _Test(
                lambda arrival: is_between(_time_of_day(arrival.received_at), first, end),
                lambda arrival: f"it was received at {_time_of_day(arrival.received_at):%H:%M:%S}",
            )


def is_between(moment: time, first: time, end: time) -> bool:
    """Tell whether a time of day lies between two, the first included; with midnight between them where that is the later."""
    if first < end:
        return first <= moment < end
    return moment >= first or moment < end


def fits_pattern(pattern: str, text: str) -> bool:
    """Tell whether a text fits a pattern in which `*` stands for any letters or none, and `?` for one."""
    return _compiled(pattern).fullmatch(text) is not None


def _compiled(pattern: str) -> re.Pattern[str]:
    """Return the expression that is a pattern. However many stars it has, no text makes it try all ways of sharing it out."""
    head, *parts = (
        "".join("." if letter == "?" else re.escape(letter) for letter in part) for part in pattern.split("*")
    )
    if not parts:
        return re.compile(head, re.DOTALL)
    *middle, tail = parts
    # What a part between two stars takes first is right for good, so it is never given back.
    return re.compile(head + "".join(f"(?>.*?{part})" for part in middle if part) + f".*{tail}", re.DOTALL)


def _patterns(patterns: tuple[str, ...]) -> Callable[[str], bool]:
    """Return what tells whether a text is there and fits one of some patterns."""
    plain = frozenset(pattern for pattern in patterns if not {"*", "?"} & set(pattern))
    others = [_compiled(pattern).fullmatch for pattern in patterns if pattern not in plain]
    return lambda text: text != "" and (text in plain or any(fullmatch(text) for fullmatch in others))


def _is_in(address: str, networks: tuple[Network, ...]) -> bool:
    parsed = parsed_address(address)
    return parsed is not None and any(parsed in network for network in networks)


def _has(keyword: str, fits: Callable[[str], bool], arrival: Arrival) -> bool:
    value = arrival.attributes.get(keyword, "")
    if "\\" not in value or keyword in UNDIVIDED:
        return fits(value)
    return any(fits(one.strip(" ")) for one in value.split("\\"))


def _words_on_attribute(keyword: str, arrival: Arrival) -> str:
    if arrival.attributes.get(keyword):
        return f"its {keyword} is another"
    return f"it has no {keyword}"


def _words_on_title(which: str, title: str) -> str:
    return f"its {which} AE title is {title}" if title else f"it has no {which} AE title"


def _sop_class_name(uid: str) -> str:
    from stowkeeper.dicom.sop_classes import SOP_CLASSES  # noqa: PLC0415 - the settings need no such large table

    known = SOP_CLASSES.get(uid)
    return f"{known.name} ({uid})" if known is not None else uid


def _time_of_day(at: str) -> time:
    """Return when something was, on the clock of the machine."""
    return datetime.fromisoformat(at).astimezone().time()
