"""The settings that rules of all kinds have: a name, and the conditions that an instance has to meet."""

import difflib
import re
from collections.abc import Mapping
from datetime import time
from typing import Annotated

from pydantic import BeforeValidator, Field

from stowkeeper.app import limits
from stowkeeper.app.setting_fields import About, Table
from stowkeeper.app.setting_values import Networks, SOPClassList, entries, shown
from stowkeeper.app.settings_of_peers import NETWORKS_TEXT
from stowkeeper.dicom.ae_title import ae_title_defect
from stowkeeper.dicom.attributes import UNDIVIDED
from stowkeeper.services.arrivals import KEYWORDS
from stowkeeper.services.conditions import WAYS_IN, Conditions

_MODALITY = re.compile(r"[A-Z0-9_]([A-Z0-9_ ]{0,14}[A-Z0-9_])?")
_TIME_OF_DAY = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")

_TITLES_TEXT = "a list of AE titles, in which `*` stands for any letters and `?` for one"
_WAYS_TEXT = ", ".join(f'`"{way}"`' for way in WAYS_IN)


def _parse_titles(value: object) -> tuple[str, ...]:
    return tuple(_title_pattern(entry) for entry in _some(value))


def _title_pattern(value: object) -> str:
    pattern = _text(value).strip(" ")
    # A star may stand for nothing, and for what is between a blank and the end.
    letters = pattern.replace("*", "").strip(" ")
    defect = ae_title_defect(letters) if letters or not pattern else None
    if defect is not None:
        raise ValueError(f"{shown(value)} fits no AE title: {defect} (PS3.5 §6.2)")
    return pattern


def _parse_modalities(value: object) -> tuple[str, ...]:
    found = []
    for entry in _some(value):
        modality = _text(entry)
        if not _MODALITY.fullmatch(modality):
            close = f'; did you mean "{modality.upper()}"?' if _MODALITY.fullmatch(modality.upper()) else ""
            raise ValueError(f"{shown(entry)} is no modality{close}")
        found.append(modality)
    return tuple(found)


def _parse_ways(value: object) -> tuple[str, ...]:
    found = _some(value)
    for entry in found:
        if entry not in WAYS_IN:
            raise ValueError(f"{shown(entry)} is no way in")
    return tuple(map(str, found))


def _parse_attributes(value: object) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        raise ValueError("it is no table of keywords")  # noqa: TRY004 - pydantic turns only ValueError into a problem
    found: dict[str, tuple[str, ...]] = {}
    for keyword, wanted in value.items():
        if keyword not in KEYWORDS:
            close = difflib.get_close_matches(str(keyword), KEYWORDS, n=1)
            hint = f'; did you mean "{close[0]}"?' if close else ""
            raise ValueError(f"{shown(keyword)} is the keyword of no attribute that the catalog keeps{hint}")
        some = wanted if isinstance(wanted, list | tuple) else [wanted]
        try:
            found[keyword] = tuple(_value_pattern(keyword, entry) for entry in _some(some))
            if not found[keyword]:
                raise ValueError("it lists no value")  # noqa: TRY301 - told as those of its values are
        except ValueError as error:
            raise ValueError(f"{keyword}: {error}") from None
    return found


def _value_pattern(keyword: str, value: object) -> str:
    # What stands there may be a patient's: it is repeated in no problem. Numbers are compared by their digits.
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("a value is neither text nor a whole number")  # noqa: TRY004 - likewise
    pattern = str(value).strip(" ")
    if not pattern:
        raise ValueError("a value is empty, which none fits; * fits every one")
    if len(pattern) > limits.CONDITION_LETTERS_MAX:
        raise ValueError(f"a value has more than {limits.CONDITION_LETTERS_MAX} letters")
    if "\\" in pattern and keyword not in UNDIVIDED:
        raise ValueError("a backslash parts values, of which one has to fit: write that one")
    return pattern


def _parse_between(value: object) -> tuple[time, time] | None:
    if value is None:
        return None
    found = tuple(_time_of_day(entry) for entry in entries(value))
    if len(found) != 2:
        raise ValueError(f"{shown(value)} has not two times")
    if found[0] == found[1]:
        raise ValueError(
            "both times are the same: leave received_between out where the time is of no account"
        )
    return found[0], found[1]


def _time_of_day(value: object) -> time:
    if isinstance(value, time):  # TOML knows them
        return value
    read = _TIME_OF_DAY.fullmatch(value.strip()) if isinstance(value, str) else None
    if read is None:
        raise ValueError(f"{shown(value)} is no time of day")
    return time(int(read[1]), int(read[2]), int(read[3] or 0))


def _some(value: object) -> tuple[object, ...]:
    found = entries(value)
    if len(found) > limits.CONDITION_VALUES_MAX:
        raise ValueError(f"it has {len(found)} entries, more than {limits.CONDITION_VALUES_MAX}")
    return found


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{shown(value)} is no text")  # noqa: TRY004 - likewise
    return value


class RuleSettings(Table):
    """A rule: its name, and what has to hold of an instance. What is not given asks for nothing."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=limits.PEER_NAME_LETTERS_MAX, pattern=r"^[!-~]([ -~]*[!-~])?$"),
        About(
            "Name of the rule in logs and lists; no two rules of the kind share one.",
            allowed=f"1 to {limits.PEER_NAME_LETTERS_MAX} printable ASCII characters",
        ),
    ]
    calling_ae_titles: Annotated[
        tuple[str, ...],
        BeforeValidator(_parse_titles),
        About("AE titles of senders. What came without one fits none.", allowed=_TITLES_TEXT, shape="list"),
    ] = ()
    called_ae_titles: Annotated[
        tuple[str, ...],
        BeforeValidator(_parse_titles),
        About("AE titles by which senders called this server.", allowed=_TITLES_TEXT, shape="list"),
    ] = ()
    addresses: Annotated[
        Networks, About("Addresses and networks of senders.", allowed=NETWORKS_TEXT, shape="list")
    ] = ()
    modalities: Annotated[
        tuple[str, ...],
        BeforeValidator(_parse_modalities),
        About("Modalities of the series.", allowed='a list such as `["CT", "MR"]`', shape="list"),
    ] = ()
    sop_classes: Annotated[
        SOPClassList,
        About("SOP classes.", allowed="a list of SOP class UIDs or keywords", shape="list"),
    ] = ()
    received_by: Annotated[
        tuple[str, ...],
        BeforeValidator(_parse_ways),
        About("Ways by which instances come.", allowed=f"a list of {_WAYS_TEXT}", shape="list"),
    ] = ()
    attributes: Annotated[
        Mapping[str, tuple[str, ...]],
        BeforeValidator(_parse_attributes),
        About(
            "Attributes by their keywords, with the values of which one has to fit. An instance that lacks one of the attributes"
            " does not fit. `docs/forwarding.md` lists the keywords.",
            allowed='a table such as `{StationName = ["CT1", "CT2*"], ImageType = ["ORIGINAL"]}`, with `*` for any letters'
            " and `?` for one",
            shape="list",
        ),
    ] = Field(default_factory=dict)
    received_between: Annotated[
        tuple[time, time] | None,
        BeforeValidator(_parse_between),
        About(
            "Times of day, on the clock of the machine, from the first on and before the second. The first may be the later"
            " one: then midnight lies between them.",
            allowed='two times such as `["22:00", "06:30"]`',
            shape="list",
        ),
    ] = None

    def why_nothing_fits(self) -> str:
        """Say why no instance can meet these conditions, as far as they alone tell; empty where one can."""
        if not self.received_by:
            return ""
        if (self.calling_ae_titles or self.called_ae_titles) and "C-STORE" not in self.received_by:
            return "it asks for AE titles, and what comes by STOW-RS or import has none"
        if self.addresses and set(self.received_by) == {"import"}:
            return "it asks for addresses, and what is imported has none"
        return ""

    def conditions(self) -> Conditions:
        """Return what has to hold of an instance."""
        return Conditions(
            calling_ae_titles=self.calling_ae_titles,
            called_ae_titles=self.called_ae_titles,
            addresses=self.addresses,
            modalities=self.modalities,
            sop_classes=self.sop_classes,
            received_by=self.received_by,
            attributes=self.attributes,
            received_between=self.received_between,
        )
