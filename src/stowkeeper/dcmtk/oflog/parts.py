"""Makes layouts and filters of what a configuration file says of them.

Where it names a layout that is not known, or a pattern layout without a pattern, the simple one is taken; filters that
are not known are left out. Threshold and filters count all the same: DCMTK forgets them when the layout is wrong.
"""

from collections.abc import Callable, Mapping
from typing import Final

from stowkeeper.dcmtk.oflog.filters import Filter, FilterChain, deny_all, level_match, level_range, text_match
from stowkeeper.dcmtk.oflog.layouts import Layout, PatternLayout, SimpleLayout, TTCCLayout
from stowkeeper.dcmtk.oflog.patterns import parse_pattern
from stowkeeper.dcmtk.oflog.settings import Settings

KIND_PREFIX: Final = "log4cplus::"
FILTER_PREFIX: Final = "log4cplus::spi::"


def build_layout(settings: Settings) -> Layout:
    """Return the layout of an appender, by its settings."""
    if not settings.has("layout"):
        return SimpleLayout()
    kind = settings.text("layout")
    make = _LAYOUTS.get(kind)
    if make is None:
        settings.complain_of_part("layout", f"there is no layout '{kind}', so the simple one is taken")
        return SimpleLayout()
    return make(settings.below("layout."))


def build_filters(settings: Settings) -> FilterChain:
    """Return the filters of an appender, by the settings below `filters.`: 1, 2 and so on to the first that is missing."""
    filters = []
    number = 1
    while settings.has(key := str(number)):
        kind = settings.text(key)
        make = _FILTERS.get(kind)
        if make is None:
            settings.complain_of_part(key, f"there is no filter '{kind}', left out")
        else:
            filters.append(make(settings.below(f"{key}.")))
        number += 1
    return FilterChain(filters)


# Layouts


def _simple_layout(_settings: Settings) -> Layout:
    return SimpleLayout()


def _ttcc_layout(settings: Settings) -> Layout:
    return TTCCLayout(date_format=settings.text("DateFormat"), utc=settings.boolean("Use_gmtime"))


def _pattern_layout(settings: Settings) -> Layout:
    settings.text("NDCMaxDepth")  # of contexts, which there are none of
    each_line = settings.boolean("FormatEachLine", default=True)
    old = settings.has("Pattern")
    if old:
        settings.complain("Pattern", "is the old name of ConversionPattern")
    if not settings.has("ConversionPattern") and not old:
        settings.complain("ConversionPattern", "is missing, so the simple layout is taken")
        return SimpleLayout()
    key = "ConversionPattern" if settings.has("ConversionPattern") else "Pattern"
    fields, defects = parse_pattern(settings.text(key))
    for defect in defects:
        settings.complain(key, defect)
    if not fields:
        settings.complain(key, "is empty, so messages are written as they are, without line ends")
        fields, _ = parse_pattern("%m")
    return PatternLayout(fields, formats_each_line=each_line)


_LAYOUTS: Final[Mapping[str, Callable[[Settings], Layout]]] = {
    f"{KIND_PREFIX}SimpleLayout": _simple_layout,
    f"{KIND_PREFIX}TTCCLayout": _ttcc_layout,
    f"{KIND_PREFIX}PatternLayout": _pattern_layout,
}


# Filters


def _deny_all(_settings: Settings) -> Filter:
    return deny_all()


def _level_match(settings: Settings) -> Filter:
    return level_match(settings.level("LogLevelToMatch"), accepts=settings.boolean("AcceptOnMatch"))


def _level_range(settings: Settings) -> Filter:
    lowest, highest = settings.level("LogLevelMin"), settings.level("LogLevelMax")
    return level_range(lowest, highest, accepts=settings.boolean("AcceptOnMatch"))


def _text_match(settings: Settings) -> Filter:
    return text_match(settings.text("StringToMatch"), accepts=settings.boolean("AcceptOnMatch"))


_FILTERS: Final[Mapping[str, Callable[[Settings], Filter]]] = {
    f"{FILTER_PREFIX}DenyAllFilter": _deny_all,
    f"{FILTER_PREFIX}LogLevelMatchFilter": _level_match,
    f"{FILTER_PREFIX}LogLevelRangeFilter": _level_range,
    f"{FILTER_PREFIX}StringMatchFilter": _text_match,
}
