"""What a named difference does: it takes the difference, and nothing else, out of what DCMTK's program and ours did.

Each `Settle` gets both observations and returns both without the difference. Where something is not as the difference says,
it leaves everything as it was, so that all of it shows.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

from differential_line import Pair

from support.differential_observation import Observation

Settle = Callable[[Observation, Observation], Pair]


def told(answer: Any) -> str:
    """Return the short form of an answer: a status, or what else came."""
    if isinstance(answer, dict):
        return str(answer.get("status", "accepted"))
    return " ".join(map(str, answer)) if isinstance(answer, list) else str(answer)


def each_of(*settles: Settle) -> Settle:
    """Settle several things."""
    return lambda theirs, ours: reduce(lambda pair, settle: settle(*pair), settles, (theirs, ours))


# Entries


def only_dcmtk_has(**aspects: str) -> Settle:
    """Settle that DCMTK has entries of an aspect that match a pattern and ours has none of them."""
    return lambda theirs, ours: (_without(theirs, aspects), ours)


def only_ours_has(**aspects: str) -> Settle:
    """Settle that ours has entries of an aspect that match a pattern and DCMTK has none of them."""
    return lambda theirs, ours: (theirs, _without(ours, aspects))


def _without(seen: Observation, aspects: dict[str, str]) -> Observation:
    kept = {
        aspect: tuple(
            entry
            for entry in getattr(seen, aspect)
            if not re.fullmatch(pattern, getattr(entry, "name", entry))
        )
        for aspect, pattern in aspects.items()
    }
    return replace(seen, **kept)


def without_first(lines: Sequence[str], patterns: Sequence[str], count: int) -> tuple[str, ...] | None:
    """Leave out the first lines that match, `count` for each pattern; None when there are not so many."""
    left = list(lines)
    for pattern in patterns:
        for _ in range(count):
            found = next((line for line in left if re.fullmatch(pattern, line)), None)
            if found is None:
                return None
            left.remove(found)
    return tuple(left)


# Answers


def other_answers(*allowed: tuple[str, str]) -> Settle:
    """Settle that DCMTK's answer and ours are one of some pairs, which are patterns of their short forms."""

    def settle(theirs: Observation, ours: Observation) -> Pair:
        pairs = zip(theirs.answers, ours.answers, strict=False)
        taken = tuple(one if _is_allowed(told(one), told(other)) else other for one, other in pairs)
        return theirs, replace(ours, answers=taken + ours.answers[len(taken) :])

    def _is_allowed(one: str, other: str) -> bool:
        return any(re.fullmatch(a, one) and re.fullmatch(b, other) for a, b in allowed)

    return settle


_ENDS = {("not connected", "released"), ("released", "not connected")}
"""What becomes of a release behind an object for which one of the programs ended the association."""
_NOT_ENDS = {("not connected", "not connected"), ("released", "released")}
"""What cannot become of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnsweredOtherwise:
    """Settle that some objects are answered otherwise, and what follows from each: lines, a file, how the release goes.

    `dcmtk` and `ours` are the answers, as patterns of their short forms. `storescp`'s logs have one line for each object
    and pattern of `dcmtk_says` and `ours_says`; those of `dcmrecv` have no such lines. `ours_keeps` is a
    pattern of the names of files that ours has, one for each object, whether DCMTK has them or not.
    """

    dcmtk: str
    ours: str
    dcmtk_says: tuple[str, ...] = ()
    ours_says: tuple[str, ...] = ()
    ours_keeps: str | None = None

    def __call__(self, theirs: Observation, ours: Observation) -> Pair:
        """Settle it, if everything is as it should be for each of the objects."""
        found = self._answers(theirs.answers, ours.answers)
        if found is None:
            return theirs, ours
        taken, count = found
        says = any(line.startswith("E: ") for line in (*theirs.log, *ours.log))
        one = without_first(theirs.log, self.dcmtk_says if says else (), count)
        other = without_first(ours.log, self._said(ours.log) if says else (), count)
        if one is None or other is None:
            return theirs, ours
        files = [each for each in ours.files if re.fullmatch(self.ours_keeps or r"(?!)", each.name)]
        if self.ours_keeps is not None and len(files) != count:
            return theirs, ours
        kept = tuple(each for each in ours.files if each not in files or each in theirs.files)
        return replace(theirs, log=one), replace(ours, answers=taken, log=other, files=kept)

    def _said(self, log: Sequence[str]) -> tuple[str, ...]:
        """Return what ours says in a log; only one with -v has lines that are no errors."""
        is_verbose = any(line.startswith("I: ") for line in log)
        return tuple(words for words in self.ours_says if is_verbose or not words.startswith("I: "))

    def _answers(self, theirs: Sequence[Any], ours: Sequence[Any]) -> tuple[tuple[Any, ...], int] | None:
        """Return our answers with DCMTK's in place of those that are settled, and how many objects it is about."""
        taken = list(ours)
        count = 0
        was_one = False
        for at, (one, other) in enumerate(zip(theirs, ours, strict=False)):
            pair = told(one), told(other)
            is_one = bool(re.fullmatch(self.dcmtk, pair[0]) and re.fullmatch(self.ours, pair[1]))
            if was_one and pair in _NOT_ENDS:
                return None
            if is_one or (was_one and pair in _ENDS):
                taken[at] = one
            count += is_one
            was_one = is_one
        return tuple(taken), count
