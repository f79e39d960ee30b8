"""The command lines of `test_dcmtk_command_lines.py`, which end before anything is served, for the programs in whole."""

from collections.abc import Iterator

from differential_line import Line
from differential_lines_network import CONNECTION
from test_dcmtk_command_lines import FILES, TABLE

from support.differential_steps import NOTHING


def _lines() -> Iterator[Line]:
    given = {**{name: text.encode() for name, text in FILES.items()}, "folder": None}
    for tool, options in TABLE:
        is_inetd = tool == "storescp" and "-id" in options.split()
        scenario = CONNECTION if is_inetd else NOTHING  # a super server starts nothing without a connection
        yield Line(tool=tool, options=options, scenario=scenario, given=given, is_whole=True)


LINES: tuple[Line, ...] = tuple(_lines())
