"""What the programs print about themselves, and how a command line ends that is not run."""

import re
from collections.abc import Iterator

import pytest

from stowkeeper import __version__
from stowkeeper.dcmtk.dcmrecv_options import dcmrecv_table
from stowkeeper.dcmtk.grammar import CommandLine, CommandLineError, OptionTable
from stowkeeper.dcmtk.oflog.config import SHIPPED_LOG_CONFIGURATION
from stowkeeper.dcmtk.shipped_profiles import SHIPPED_PROFILE_FILE
from stowkeeper.dcmtk.storescp_table import storescp_table
from stowkeeper.dcmtk.usage import ExitWith, help_text, options_page, prepare, version_text

TABLES = (storescp_table(), dcmrecv_table())
IDENTIFICATION = r"\$dcmtk: (storescp|dcmrecv) v\d+\.\d+\.\d+ \d{4}-\d{2}-\d{2} \$"

pytestmark = pytest.mark.parametrize("table", TABLES, ids=lambda table: table.tool)


def ciphers() -> Iterator[str]:
    yield from ("TLS_A", "TLS_B")


def run(table: OptionTable, *arguments: str) -> CommandLine | ExitWith:
    return prepare(table, arguments, lambda line: line, ciphers)


def ended(table: OptionTable, *arguments: str) -> ExitWith:
    result = run(table, *arguments)
    assert isinstance(result, ExitWith)
    return result


def check_heading(table: OptionTable, text: str) -> None:
    identification, empty, title = text.splitlines()[:3]
    assert re.fullmatch(IDENTIFICATION, identification)
    assert identification.split()[1] == table.tool
    assert empty == ""
    assert title.startswith(f"{table.tool}: ")
    assert f"Stowkeeper {__version__}" in title


def test_a_right_command_line_goes_on(table: OptionTable) -> None:
    result = run(table, "-v", "104")
    assert isinstance(result, CommandLine)
    assert result.parameters == ("104",)


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help", "--version", "a", "b"], ["+cc", "-h"]])
def test_help(table: OptionTable, arguments: list[str]) -> None:
    assert ended(table, *arguments) == ExitWith(code=0, stdout=help_text(table))


def test_an_empty_command_file_asks_for_help(table: OptionTable) -> None:
    assert ended(table, "@/dev/null") == ExitWith(code=0, stdout=help_text(table))


SHIPPED = {str(SHIPPED_PROFILE_FILE), str(SHIPPED_LOG_CONFIGURATION)}


def test_the_help_text(table: OptionTable) -> None:
    text = help_text(table)
    check_heading(table, text)
    port = "port" if table.tool == "dcmrecv" else "[port]"
    assert f"usage: {table.tool} [options] {port}\n" in text
    for option in table.options():
        assert re.search(rf"^ +{re.escape(option.short)} +{re.escape(option.long)}  ", text, re.MULTILINE)
    described = " ".join(text.split())
    for option in table.options():
        assert option.meaning in described
    lines = [line for line in text.splitlines() if line.strip() not in SHIPPED]  # paths have their own length
    assert max(map(len, lines)) <= 79
    assert len(text.splitlines()) - len(lines) == len(SHIPPED)
    assert "[n]umber of bytes: integer (4096..131072; default 16384)" in described
    assert "[l]evel: string constant (fatal, error, warn, info, debug, trace; default warn)" in described


def test_the_version(table: OptionTable) -> None:
    result = ended(table, "--version", "a", "b")
    assert result == ExitWith(code=0, stdout=version_text(table))
    check_heading(table, result.stdout)
    assert result.stdout.startswith(f"$dcmtk: {table.tool} v3.6.8 2023-12-19 $\n")
    libraries = result.stdout[result.stdout.index("External libraries used:") :]
    assert re.search(r"^- ZLIB, Version \d", libraries, re.MULTILINE)
    assert re.search(r"^- OpenSSL \d|^- LibreSSL", libraries, re.MULTILINE)
    assert re.search(r"^- LIBWRAP", libraries, re.MULTILINE)


def test_the_cipher_suites(table: OptionTable) -> None:
    result = ended(table, "+cc")
    check_heading(table, result.stdout)
    assert result.stdout.endswith("  TLS_A\n  TLS_B\n")
    assert (result.code, result.stderr) == (0, "")


@pytest.mark.parametrize("arguments", [["--bogus"], ["-q", "--bogus"], ["--help", "--bogus"]])
def test_errors_go_to_standard_error(table: OptionTable, arguments: list[str]) -> None:
    result = ended(table, *arguments)
    assert (result.code, result.stdout) == (1, "")
    check_heading(table, result.stderr)
    assert result.stderr.endswith("\nerror: Unknown option --bogus\n")
    assert result.stderr.count("\n") == 4


@pytest.mark.parametrize("is_shown", [True, False])
def test_a_silent_error_leaves_nothing_but_the_exit_code(table: OptionTable, is_shown: bool) -> None:
    def refuse(_line: CommandLine) -> CommandLine:
        raise CommandLineError("no", is_shown=is_shown)

    result = prepare(table, ["104"], refuse, ciphers)
    assert isinstance(result, ExitWith)
    assert (result.code, result.stdout) == (1, "")
    assert result.stderr.endswith("error: no\n") is is_shown
    assert bool(result.stderr) is is_shown


def test_the_page_lists_every_option_with_its_rules(table: OptionTable) -> None:
    page = options_page(table)
    for option in table.options():
        names = ", ".join(f"`{name}`" for name in (option.short, option.long) if name)
        (row,) = [line for line in page.splitlines() if line.startswith(f"| {names} |")]
        assert option.meaning in row
        for rule in option.rules:
            for other in rule.others:
                found = table.find(other)
                assert found is not None
                assert f"`{found.short or found.long}`" in row
        assert ("default<br>" in row or row.endswith("default |")) is option.is_default
        assert ("every occurrence counts" in row) is option.repeats
    assert "of `-q`, `-v` and `-d` the rightmost counts" in page
    assert "**Transport** (the rightmost counts)" in page
    for section in table.sections:
        assert f"### {section.title[0].upper()}{section.title[1:]}\n" in page
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert all(line.count("|") == 5 for line in rows)


def test_the_page_of_options_with_a_state_for_each(table: OptionTable) -> None:
    rows = [
        line
        for line in options_page(table, lambda option: f"state of {option.long}").splitlines()
        if line.startswith("|")
    ]
    for option in table.options():
        (row,) = [row for row in rows if row.endswith(f" | state of {option.long} |")]
        assert f"`{option.long}` |" in row
    assert all(row.count("|") == 6 for row in rows)
