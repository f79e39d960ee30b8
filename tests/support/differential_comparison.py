"""The comparison of two observations, aspect by aspect."""

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import fields
from itertools import zip_longest
from typing import Any

from support.differential_observation import Observation, StoredFile

SHOWN_MAX = 6
"""How many mismatches of one aspect a report shows."""


def mismatches(expected: Observation, got: Observation) -> list[str]:
    """Say in what ways an observation is not the expected one; nothing when they are the same."""
    found: list[str] = []
    for aspect in fields(Observation):
        one, other = getattr(expected, aspect.name), getattr(got, aspect.name)
        if one != other:
            found += _shortened([f"{aspect.name}: {line}" for line in _ASPECTS[aspect.name](one, other)])
    return found


def _shortened(lines: list[str]) -> list[str]:
    more = len(lines) - SHOWN_MAX
    return lines if more <= 0 else [*lines[:SHOWN_MAX], f"… and {more} more"]


def _whole(expected: Any, got: Any) -> Iterator[str]:
    yield f"expected {expected!r}, got {got!r}"


def _in_order(expected: Sequence[Any], got: Sequence[Any]) -> Iterator[str]:
    for number, (one, other) in enumerate(zip_longest(expected, got, fillvalue="nothing")):
        if one != other:
            yield f"{number}: {_two(one, other)}"


def _two(one: Any, other: Any) -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        keys = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        return "; ".join(f"{key}: {_two(one.get(key), other.get(key))}" for key in keys)
    return f"expected {one!r}, got {other!r}"


def _lines(expected: Sequence[str], got: Sequence[str]) -> Iterator[str]:
    """Compare lines of text: first which there are, and only when these are the same their order."""
    missing, more = _beyond(expected, got), _beyond(got, expected)
    yield from (f"missing {line!r}" for line in missing)
    yield from (f"too much {line!r}" for line in more)
    if not missing and not more:
        yield from _in_order(expected, got)


def _beyond(some: Iterable[Hashable], others: Iterable[Hashable]) -> list[Any]:
    left = Counter(some)
    left.subtract(Counter(others))
    return list(left.elements())


def _files(expected: Sequence[StoredFile], got: Sequence[StoredFile]) -> Iterator[str]:
    names, others = [each.name for each in expected], [each.name for each in got]
    missing, more = _beyond(names, others), _beyond(others, names)
    yield from (f"missing {name!r}" for name in missing)
    yield from (f"too much {name!r}" for name in more)
    if missing or more:
        names = [name for name in names if name not in missing]
    for name in dict.fromkeys(names):
        ours = [each for each in got if each.name == name]
        theirs = [each for each in expected if each.name == name]
        for one, other in zip(theirs, ours, strict=False):
            if one != other:
                yield f"{name}: {_content(one, other)}"


def _content(expected: StoredFile, got: StoredFile) -> str:
    if expected.mode != got.mode:
        return f"permissions {_two(expected.mode, got.mode)}"
    if expected.meta != got.meta:
        return f"meta {_two(dict(expected.meta), dict(got.meta))}"
    one, other = expected.data_set, got.data_set
    at = next(
        (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    near = slice(max(0, at - 12), at + 20)
    return f"byte {at} of {len(one)}: expected {one[near]!r}, got {other[near]!r} of {len(other)}"


_ASPECTS = {
    "exit": _whole,
    "answers": _in_order,
    "folders": _lines,
    "files": _files,
    "log": _lines,
    "output": _lines,
    "events": _lines,
    "heading": _whole,
}
