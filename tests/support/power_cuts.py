"""Drive a program over the model file system and cut the power wherever it hurts."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Generic, TypeVar

from support.model_filesystem import ModelFileSystem, Operation, UnsyncedChange

Chooser = Callable[[UnsyncedChange], bool]
Promise = TypeVar("Promise")

CHANGING = frozenset(
    {
        "create",
        "drop_cache",
        "link",
        "make_directory",
        "preallocate",
        "remove_directory",
        "synchronize",
        "synchronize_directory",
        "unlink",
        "write",
    }
)
"""Operations before which a power cut leaves something that it did not leave before the one ahead of it."""


def surviving_states(model: ModelFileSystem, limit: int, source: random.Random) -> Iterator[ModelFileSystem]:
    """Yield up to `limit` states a power cut may leave, those first that find most.

    All of them where they are that few. Else: nothing unsynced survived; all did; all but one file or folder, and it
    alone; all but one change, and it alone; then any subset.
    """
    changes = model.unsynced()
    if 2 ** min(len(changes), 60) <= limit:
        for flags in product((False, True), repeat=len(changes)):
            chosen = {change.number for change, flag in zip(changes, flags, strict=True) if flag}
            yield model.crash(_only("number", chosen))
        return
    choosers = _telling_choosers(changes, source)
    for _ in range(limit):
        yield model.crash(next(choosers, None) or _by_chance(source))


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment(Generic[Promise]):
    """The machine just before an operation (None: after the last), and the promises given until then."""

    before: Operation | None
    model: ModelFileSystem
    promises: tuple[Promise, ...]


def record(model: ModelFileSystem, run: Callable[[Callable[[Promise], None]], None]) -> list[Moment[Promise]]:
    """Run a program once on a model and return every moment at which a power cut makes a difference.

    `run` is given a function by which it tells a promise (an answer given, say); it may use threads.
    """
    promises: list[Promise] = []
    moments: list[Moment[Promise]] = []

    def before(operation: Operation) -> None:
        if operation.name in CHANGING:
            kept = tuple(promises)  # first: a promise given while the copy is made may need what it lacks
            moments.append(Moment(before=operation, model=model.copy(), promises=kept))

    model.before_each = before
    try:
        run(promises.append)
    finally:
        model.before_each = None
    moments.append(Moment(before=None, model=model.copy(), promises=tuple(promises)))
    return moments


def check_power_cuts(
    model: ModelFileSystem,
    run: Callable[[Callable[[Promise], None]], None],
    check: Callable[[ModelFileSystem, tuple[Promise, ...]], None],
    *,
    states: int = 32,
    seed: int = 0,
) -> int:
    """Cut the power at every step of a run, in up to `states` ways each; return how many states were checked.

    `check` is given what the medium holds and the promises given before the cut, and raises when one is broken. The
    error then tells the step and what was lost.
    """
    source = random.Random(seed)
    checked = 0
    for moment in record(model, run):
        for state in surviving_states(moment.model, states, source):
            checked += 1
            try:
                check(state, moment.promises)
            except BaseException as error:
                error.add_note(f"power cut before {moment.before or 'anything more'}; lost:")
                for change in state.lost:
                    error.add_note(f"  {change}")
                raise
    return checked


def _telling_choosers(changes: list[UnsyncedChange], source: random.Random) -> Iterator[Chooser]:
    """Yield the ways to lose or to keep one thing alone, in groups of growing detail."""
    yield lambda _: False
    yield lambda _: True
    for kind in ("inode", "number"):
        values = sorted({getattr(change, kind) for change in changes})
        source.shuffle(values)
        for value in values:
            yield _all_but(kind, value)
            yield _only(kind, {value})


def _only(kind: str, values: set[int]) -> Chooser:
    """Let the changes of these numbers or inodes survive alone."""
    return lambda change: getattr(change, kind) in values


def _all_but(kind: str, value: int) -> Chooser:
    """Let every change survive but that number's or that inode's."""
    return lambda change: getattr(change, kind) != value


def _by_chance(source: random.Random) -> Chooser:
    """Throw a coin for each change, which may be a loaded one."""
    chance = source.choice((0.1, 0.5, 0.9))
    return lambda _: source.random() < chance
