"""Tables and bars from the turns of a benchmark run: medians, and medians of the ratios within a round."""

import json
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import bars
from bars import BARS, DROP_IN_BARS, SYNCED, UNSYNCED, Bar
from contenders import CONTENDERS, DROP_IN, DROP_IN_SHIPPED, SHIPPED_STORESCP
from dropin import SPEED, STATES, WARM, Start
from make_sets import SETS
from memory import MemoryResult
from shipped import ShippedTurn
from sustained import SustainedResult
from throughput import Turn

TITLES = {
    each.name: each.title
    for each in (*CONTENDERS.values(), *DROP_IN.values(), SHIPPED_STORESCP, DROP_IN_SHIPPED)
}


@dataclass(slots=True, kw_only=True)
class Results:
    """Everything one run measured."""

    facts: dict[str, str]
    command: str
    turns: list[Turn] = field(default_factory=list)
    shipped: list[ShippedTurn] = field(default_factory=list)
    memory: list[MemoryResult] = field(default_factory=list)
    sustained: list[SustainedResult] = field(default_factory=list)
    drop_in: list[Turn] = field(default_factory=list)
    drop_in_shipped: list[ShippedTurn] = field(default_factory=list)
    starts: list[Start] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values, with the verdict on every bar that could be measured."""
        return {
            "command": self.command,
            "machine": self.facts,
            "bars": [asdict(verdict) for verdict in verdicts(self)],
            **{
                part: [asdict(each) for each in getattr(self, part)]
                for part in (
                    *("turns", "shipped", "memory", "sustained"),
                    *("drop_in", "drop_in_shipped", "starts"),
                )
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A bar beside what was measured."""

    name: str
    bound: str
    measured: str
    met: bool
    note: str = ""


# Numbers


def rates(turns: Sequence[Turn], set_name: str, associations: int, contender: str) -> dict[int, float]:
    """Return instances a second by round, of the turns that count."""
    return {
        turn.round_number: turn.instances_a_second
        for turn in turns
        if (turn.set_name, turn.associations, turn.contender) == (set_name, associations, contender)
        and turn.problem is None
    }


def ratios(above: dict[int, float], below: dict[int, float]) -> list[float]:
    """Return the ratio within each round that both have."""
    return [above[number] / below[number] for number in sorted(above.keys() & below.keys())]


def spread(values: Sequence[float]) -> str:
    """Return a median with its lowest and highest value, or a dash."""
    if not values:
        return "–"
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def verdicts(results: Results) -> list[Verdict]:
    """Hold what was measured against the bars; those with nothing measured are left out."""
    return [
        *(verdict for bar in BARS if (verdict := _ratio_verdict(bar, results.turns)) is not None),
        *_shipped_verdicts(results.shipped, SYNCED),
        *_memory_verdicts(results.memory),
        *_sustained_verdicts(results.sustained),
        *(verdict for bar in DROP_IN_BARS if (verdict := _ratio_verdict(bar, results.drop_in)) is not None),
        *_shipped_verdicts(results.drop_in_shipped, DROP_IN_SHIPPED.name),
        *_start_verdicts(results.starts),
    ]


def _ratio_verdict(bar: Bar, turns: Sequence[Turn]) -> Verdict | None:
    found = ratios(
        rates(turns, bar.set_name, bar.associations, bar.subject),
        rates(turns, bar.set_name, bar.against_associations, bar.against),
    )
    if not found:
        return None
    count = "" if bar.associations == 1 else f" over {bar.associations} associations"
    against = "itself over one" if bar.subject == bar.against else TITLES[bar.against]
    return Verdict(
        name=f"{bar.set_name}{count}: {TITLES[bar.subject]} / {against}",
        bound=f"≥ {bar.at_least}" + (f", aim {bar.aim}" if bar.aim else ""),
        measured=spread(found),
        met=statistics.median(found) >= bar.at_least,
        note=f"{len(found)} rounds",
    )


def _shipped_verdicts(turns: Sequence[ShippedTurn], subject: str) -> Iterator[Verdict]:
    for set_name in SETS:
        by_contender = {
            name: {
                turn.round_number: turn.instances_a_second
                for turn in turns
                if (turn.set_name, turn.contender) == (set_name, name) and turn.problem is None
            }
            for name in (subject, SHIPPED_STORESCP.name)
        }
        found = ratios(by_contender[subject], by_contender[SHIPPED_STORESCP.name])
        if found:
            yield Verdict(
                name=f"{set_name}: storescu as shipped into {TITLES[subject]} / into storescp as shipped",
                bound=f"≥ {bars.SHIPPED_RATIO_MIN:g}",
                measured=spread(found),
                met=statistics.median(found) >= bars.SHIPPED_RATIO_MIN,
                note=f"{len(found)} rounds",
            )


def _memory_verdicts(memory: Sequence[MemoryResult]) -> Iterator[Verdict]:
    for each in memory:
        if each.contender != SYNCED or each.problem is not None:
            continue
        if each.an_association is None:
            yield Verdict(
                name=f"highest resident memory, {each.scenario}",
                bound=f"< {bars.PEAK_MEGABYTES_MAX:g} MB",
                measured=f"{each.peak:.1f} MB",
                met=each.peak < bars.PEAK_MEGABYTES_MAX,
            )
        else:
            yield Verdict(
                name=f"resident memory of each of {each.scenario}",
                bound=f"< {bars.IDLE_MEGABYTES_MAX:g} MB",
                measured=f"{each.an_association:.3f} MB",
                met=each.an_association < bars.IDLE_MEGABYTES_MAX,
            )


def _sustained_verdicts(sustained: Sequence[SustainedResult]) -> Iterator[Verdict]:
    for each in sustained:
        if each.problem is not None or each.instances < bars.READY_AGAIN_INSTANCES:
            continue
        share = each.last_part_a_second / each.first_part_a_second
        yield Verdict(
            name=f"{each.instances} instances: speed of the last tenth / of the first",
            bound=f"≥ {bars.LAST_PART_OF_FIRST_MIN:g}",
            measured=f"{share:.2f}",
            met=share >= bars.LAST_PART_OF_FIRST_MIN,
        )
        yield Verdict(
            name=f"ready again on {each.instances} instances",
            bound=f"< {bars.READY_AGAIN_SECONDS_MAX:g} s",
            measured=f"{each.ready_again_seconds:.2f} s",
            met=each.ready_again_seconds < bars.READY_AGAIN_SECONDS_MAX,
        )


def _start_verdicts(starts: Sequence[Start]) -> Iterator[Verdict]:
    found = _start_seconds(starts, DROP_IN_SHIPPED.name, WARM)
    if found:
        yield Verdict(
            name=f"{TITLES[DROP_IN_SHIPPED.name]}: seconds from exec to listening, {WARM}",
            bound=f"< {bars.LISTENING_SECONDS_MAX:g} s",
            measured=spread(found),
            met=statistics.median(found) < bars.LISTENING_SECONDS_MAX,
            note=f"{len(found)} starts",
        )


def _start_seconds(starts: Sequence[Start], contender: str, state: str) -> list[float]:
    return [
        start.seconds
        for start in starts
        if (start.contender, start.state) == (contender, state) and start.problem is None
    ]


# Tables


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, its first column to the left and the others to the right."""
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows)) + "\n"


def markdown(results: Results) -> str:
    """Return the whole report as a Markdown page."""
    parts = [
        "# Benchmark run\n",
        f"`{results.command}`\n",
        table(("machine", ""), list(results.facts.items())),
        *_throughput_tables(results.turns, (SYNCED, UNSYNCED)),
        _shipped_table(results.shipped),
        _memory_table(results.memory),
        _sustained_table(results.sustained),
        *_drop_in_tables(results.drop_in),
        _shipped_table(results.drop_in_shipped),
        _start_table(results.starts),
        _bars_table(verdicts(results)),
    ]
    return "\n".join(part for part in parts if part)


def _throughput_tables(turns: Sequence[Turn], subjects: Sequence[str], heading: str = "") -> Iterator[str]:
    for set_name, associations in dict.fromkeys((turn.set_name, turn.associations) for turn in turns):
        of_pair = [turn for turn in turns if (turn.set_name, turn.associations) == (set_name, associations)]
        rounds = max(turn.round_number for turn in of_pair)
        many = "one association" if associations == 1 else f"{associations} associations"
        yield f"## {heading}{SETS[set_name].title}: {many}, {rounds} rounds\n"
        yield table(
            (
                *("receiver", "instances/s", "MB/s", "p50 ms", "p99 ms", "server CPU ms", "peak MB"),
                *(f"{TITLES[subject]} ÷ it" for subject in subjects),
            ),
            [
                _throughput_row(of_pair, name, subjects)
                for name in dict.fromkeys(turn.contender for turn in of_pair)
            ],
        )


def _throughput_row(turns: Sequence[Turn], contender: str, subjects: Sequence[str]) -> list[str]:
    counted = [turn for turn in turns if turn.contender == contender and turn.problem is None]
    if not counted:
        problem = next(turn.problem for turn in turns if turn.contender == contender)
        return [TITLES[contender], _one_line(problem), *([""] * (5 + len(subjects)))]

    def middle(value: Callable[[Turn], float]) -> float:
        return statistics.median(value(turn) for turn in counted)

    set_name, associations = counted[0].set_name, counted[0].associations
    own = rates(turns, set_name, associations, contender)
    failed = sum(turn.problem is not None for turn in turns if turn.contender == contender)
    return [
        TITLES[contender] + (f" (failed turns: {failed})" if failed else ""),
        f"{middle(lambda turn: turn.instances_a_second):.{0 if set_name != 'big' else 2}f}",
        f"{middle(lambda turn: turn.megabytes_a_second):.0f}",
        f"{middle(lambda turn: turn.p50_ms):.2f}",
        f"{middle(lambda turn: turn.p99_ms):.2f}",
        f"{middle(lambda turn: turn.server_cpu_ms_an_instance):.2f}",
        f"{middle(lambda turn: turn.server_peak_megabytes):.0f}",
        *(
            "" if subject == contender else spread(ratios(rates(turns, set_name, associations, subject), own))
            for subject in subjects
        ),
    ]


def _drop_in_tables(turns: Sequence[Turn]) -> Iterator[str]:
    for pair in SPEED:
        names = [contender.name for contender in pair]
        of_pair = [turn for turn in turns if turn.contender in names]
        yield from _throughput_tables(of_pair, names[:1], heading=f"{pair[0].title}, ")


def _shipped_table(turns: Sequence[ShippedTurn]) -> str:
    rows = []
    for set_name, contender in dict.fromkeys((turn.set_name, turn.contender) for turn in turns):
        of_pair = [turn for turn in turns if (turn.set_name, turn.contender) == (set_name, contender)]
        counted = [turn.instances_a_second for turn in of_pair if turn.problem is None]
        seen = f"{statistics.median(counted):.1f}" if counted else _one_line(of_pair[0].problem)
        rows.append([f"{set_name} into {TITLES[contender]}", str(of_pair[0].instances), seen])
    if not rows:
        return ""
    return "## storescu as shipped\n\n" + table(("sent", "instances", "instances/s"), rows)


def _memory_table(memory: Sequence[MemoryResult]) -> str:
    rows = [
        [
            f"{TITLES[each.contender]}: {each.scenario}",
            *(
                (
                    f"{each.resident_before:.1f}",
                    f"{each.peak:.1f}",
                    _optional(each.an_association),
                    f"{each.seconds:.1f}",
                )
                if each.problem is None
                else (_one_line(each.problem), "", "", "")
            ),
        ]
        for each in memory
    ]
    if not rows:
        return ""
    header = ("scenario", "MB before", "MB at most", "MB an association", "seconds")
    return "## Memory\n\n" + table(header, rows)


def _sustained_table(sustained: Sequence[SustainedResult]) -> str:
    rows = []
    for each in sustained:
        what = f"{each.instances} × {each.set_name}, {each.associations} associations"
        if each.problem is not None:
            rows.append([what, _one_line(each.problem), *([""] * 6)])
            continue
        rows.append(
            [
                what,
                f"{each.answered_a_second:.0f}",
                f"{each.finished_a_second:.0f}",
                f"{each.lag_seconds:.2f}",
                str(each.asked_again),
                f"{each.first_part_a_second:.0f}",
                f"{each.last_part_a_second:.0f}",
                f"{each.ready_again_seconds:.2f}",
            ]
        )
    if not rows:
        return ""
    header = (
        *("run", "answered/s", "finished/s", "seconds behind", "asked again"),
        *("first tenth/s", "last tenth/s", "ready again in s"),
    )
    return "## Sustained, to the catalog\n\n" + table(header, rows)


def _start_table(starts: Sequence[Start]) -> str:
    rows = []
    for state, contender in dict.fromkeys((start.state, start.contender) for start in starts):
        of_pair = [start for start in starts if (start.state, start.contender) == (state, contender)]
        found = _start_seconds(starts, contender, state)
        problem = next((start.problem for start in of_pair if start.problem is not None), None)
        seen = spread(found) if found else _one_line(problem)
        rows.append([f"{TITLES[contender]}, {state}", str(len(found)), seen])
    if not rows:
        return ""
    states = "; ".join(f"{state}: {meaning}" for state, meaning in STATES.items())
    return f"## From exec to listening\n\n{states}.\n\n" + table(("program", "starts", "seconds"), rows)


def _bars_table(found: Sequence[Verdict]) -> str:
    if not found:
        return ""
    rows = [
        [each.name, each.bound, each.measured, "yes" if each.met else "**no**", each.note] for each in found
    ]
    return "## Bars\n\n" + table(("bar", "bound", "measured", "met", ""), rows)


def _optional(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _one_line(problem: str | None) -> str:
    lines = (problem or "").splitlines() or [""]
    return f"failed: {lines[0]} {lines[-1] if len(lines) > 1 else ''}".strip().replace("|", "\\|")


def write(results: Results, folder: Path, name: str) -> Path:
    """Write the report as NAME.md and NAME.json; return the page."""

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results.as_json(), indent=1, default=str)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    page = folder / f"{name}.md"
    page.write_text(markdown(results), encoding="utf-8")
    return page
