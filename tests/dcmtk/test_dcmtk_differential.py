"""The table of command lines, put to DCMTK's storescp and dcmrecv and to ours: both have to do the same.

`make test` takes a sample, chosen by a seed; `make test-peers` takes the whole table. What is compared are the fields of
`Observation`. A line names the differences that are meant (`differential_differences.py`); all others are faults.

DIFFERENTIAL=all stands for the whole table, DIFFERENTIAL_SEED=n for another sample, DIFFERENTIAL_LINES=pattern for the
lines whose title, group first, has a match.
"""

import os
import random
import re
from collections.abc import Iterator

import pytest
from differential_differences import DIFFERENCES
from differential_line import COMMON_ENVIRONMENT, Line, common_files
from differential_table import GROUPS, TABLE
from test_dcmtk_command_lines import TABLE as COMMAND_LINES

from stowkeeper.dcmtk.dcmrecv_options import dcmrecv_table
from stowkeeper.dcmtk.grammar import NotWith, OnlyWith, Option, OptionTable
from stowkeeper.dcmtk.storescp_table import storescp_table
from support.differential_comparison import mismatches
from support.differential_observation import Observation
from support.differential_run import observe_both
from support.peers import DCMTK_COMPARED
from support.private_network import need_private_network

SAMPLE_SEED = 3
SAMPLE = {
    "names": 5,
    "network": 4,
    "odd": 5,
    "events": 5,
    "conversions": 2,
    "conflicts": 2,
    "command lines": 4,
}
"""How many lines of each group are in the sample: it takes less than half a minute in all."""
LINES_IN_A_RUN = 8
SEED = int(os.environ.get("DIFFERENTIAL_SEED", SAMPLE_SEED))
PATTERN = os.environ.get("DIFFERENTIAL_LINES")
IS_WHOLE = os.environ.get("DIFFERENTIAL") == "all" or PATTERN is not None
TABLES = {"storescp": storescp_table(), "dcmrecv": dcmrecv_table()}


def chosen() -> Iterator[tuple[str, tuple[Line, ...]]]:
    """Give the lines to try in runs of some, each with a name that tells how they were chosen."""
    choose = random.Random(SEED)
    for group, lines in GROUPS.items():
        taken = lines if IS_WHOLE else choose.sample(lines, SAMPLE[group])
        if PATTERN is not None:
            taken = [line for line in lines if re.search(PATTERN, f"{group}: {line.title}")]
        for start in range(0, len(taken), LINES_IN_A_RUN):
            how = f"{start}" if IS_WHOLE else f"seed {SEED}, {start}"
            yield f"{group} {how}", tuple(taken[start : start + LINES_IN_A_RUN])


def what_is_wrong(line: Line, theirs: Observation, ours: Observation) -> list[str]:
    """Return what differs in another way than the line says; a difference has to show."""
    found = []
    for difference in line.differences:
        before = mismatches(theirs, ours)
        theirs, ours = difference.settle(theirs, ours)
        if mismatches(theirs, ours) == before:
            found.append(f"the difference {difference.name} does not show")
    return found + mismatches(theirs, ours)


RUNS = list(chosen())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.peer(DCMTK_COMPARED)
@pytest.mark.parametrize("lines", [lines for _, lines in RUNS], ids=[name for name, _ in RUNS])
def test_ours_does_what_dcmtk_does(lines, tmp_path):
    need_private_network()
    print(f"lines chosen by seed {SEED}" if not IS_WHOLE else "every line")
    report = []
    seen = observe_both(lines, tmp_path / "runs", common=common_files(), environment=COMMON_ENVIRONMENT)
    for line, (theirs, ours) in zip(lines, seen, strict=True):
        if wrong := what_is_wrong(line, theirs, ours):
            report.append("\n  ".join([line.title, *wrong]))
    assert not report, "\n".join([f"{len(report)} of {len(lines)} lines:", *report])


# What the table has


def test_the_table_is_large_enough():
    own = [line for group, lines in GROUPS.items() if group != "command lines" for line in lines]
    assert len(own) >= 250
    assert len({(line.tool, line.options, line.scenario.name) for line in own}) >= 250


def options_of(line: Line) -> set[str]:
    """Return the long names of the options of a line; tokens are looked at one by one, values too."""
    table = TABLES[line.tool]
    return {option.long for word in line.arguments(0) if (option := table.find(word)) is not None}


NOT_IN_3_6_7 = {
    "--explain",
    "--no-sni",
    "--expect-sni",
    "--profile-8996",
    "--profile-8996-mod",
    "--profile-basic",
}
"""Tried where the differences of `test_dcmtk_command_lines.py` and the options of ours are."""
ONLY_WITH_TLS = {"--profile-aes"}
"""3.6.7 names another option in its place; with keys these are tried where TLS is."""


@pytest.mark.parametrize("tool", TABLES)
def test_every_option_is_tried(tool):
    tried = set().union(*(options_of(line) for line in TABLE if line.tool == tool))
    options = {option.long for option in TABLES[tool].options()}
    assert options - tried <= NOT_IN_3_6_7 | ONLY_WITH_TLS
    assert not tried & (NOT_IN_3_6_7 | ONLY_WITH_TLS)


@pytest.mark.parametrize("tool", TABLES)
def test_every_option_that_needs_no_keys_is_tried_while_something_is_sent(tool):
    sent = [line for line in TABLE if line.tool == tool and line.scenario.steps]
    tried = set().union(*(options_of(line) for line in sent))
    missing = {
        option.long
        for section in TABLES[tool].sections
        if "TLS" not in section.title.upper() and "security" not in section.title
        for group in section.groups
        for option in group.options
        if not option.is_exclusive
    } - tried
    assert missing <= NOT_IN_3_6_7


def conflicts(table: OptionTable) -> Iterator[tuple[Option, str]]:
    """Give each option with each one that must not stand beside it."""
    for option in table.options():
        for rule in option.rules:
            if isinstance(rule, NotWith):
                yield from ((option, other) for other in rule.others)


def needs(table: OptionTable) -> Iterator[tuple[Option, OnlyWith]]:
    """Give each option that needs others."""
    for option in table.options():
        yield from ((option, rule) for rule in option.rules if isinstance(rule, OnlyWith))


@pytest.mark.parametrize("tool", TABLES)
def test_every_conflict_is_tried(tool):
    lines = [options_of(line) for line in TABLE if line.tool == tool]
    missing = [
        f"{option.long} beside {other}"
        for option, other in conflicts(TABLES[tool])
        if option.long not in NOT_IN_3_6_7 and not any({option.long, other} <= found for found in lines)
    ]
    assert not missing


@pytest.mark.parametrize("tool", TABLES)
def test_every_dependence_is_tried(tool):
    lines = [options_of(line) for line in TABLE if line.tool == tool]
    missing = [
        option.long
        for option, rule in needs(TABLES[tool])
        if option.long not in NOT_IN_3_6_7 | ONLY_WITH_TLS
        and not any(option.long in found and not set(rule.others) & found for found in lines)
    ]
    assert not missing


def test_the_command_lines_of_the_parser_are_all_there():
    assert len(GROUPS["command lines"]) == len(COMMAND_LINES)


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda difference: difference.name)
def test_every_difference_has_a_reason_and_a_line(difference):
    assert len(difference.reason) > 20
    assert any(difference in line.differences for line in TABLE)


def test_names_of_differences_are_different():
    assert len({difference.name for difference in DIFFERENCES}) == len(DIFFERENCES)
