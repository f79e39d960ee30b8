"""The table of command lines that go through DCMTK's receivers and ours, in groups."""

import differential_lines_conflicts
import differential_lines_conversions
import differential_lines_events
import differential_lines_names
import differential_lines_network
import differential_lines_odd
import differential_lines_reused
from differential_line import Line

GROUPS: dict[str, tuple[Line, ...]] = {
    "names": differential_lines_names.LINES,
    "network": differential_lines_network.LINES,
    "odd": differential_lines_odd.LINES,
    "events": differential_lines_events.LINES,
    "conversions": differential_lines_conversions.LINES,
    "conflicts": differential_lines_conflicts.LINES,
    "command lines": differential_lines_reused.LINES,
}
TABLE: tuple[Line, ...] = tuple(line for group in GROUPS.values() for line in group)
