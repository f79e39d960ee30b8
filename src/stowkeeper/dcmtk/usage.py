"""What the programs print about themselves: help, version, errors in the command line, and the page of the documents.

The first line of every such text has the shape of DCMTK's, `$dcmtk: TOOL vX.Y.Z DATE $`, with the release whose command
line and behaviour this is, since scripts look there for what they can expect. Which program it is stands in the next.
"""

import locale
import platform
import ssl
import textwrap
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from stowkeeper import __version__
from stowkeeper.dcmtk.evaluation import alternatives
from stowkeeper.dcmtk.grammar import (
    CommandLine,
    CommandLineError,
    Group,
    NotWith,
    OnlyWith,
    Option,
    OptionTable,
    Value,
    parse,
)
from stowkeeper.dcmtk.oflog.config import SHIPPED_LOG_CONFIGURATION
from stowkeeper.dcmtk.shipped_profiles import SHIPPED_PROFILE_FILE

COMPATIBLE_VERSION: Final = "3.6.8"
COMPATIBLE_DATE: Final = "2023-12-19"
"""The release of DCMTK whose command line this is, and its day."""

_LINE_WIDTH = 79
_TEXT_WIDTH_MIN = 30

Options = TypeVar("Options")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitWith:
    """The program ends here, with this code, having printed these texts to standard output and standard error."""

    code: int
    stdout: str = ""
    stderr: str = ""


def prepare(
    table: OptionTable,
    arguments: Sequence[str],
    evaluate: Callable[[CommandLine], Options],
    list_ciphers: Callable[[], Iterable[str]],
) -> Options | ExitWith:
    """Return the options of a command line, or how the program ends without them.

    `evaluate` makes options of a parsed command line. Without any argument the help text is shown, as DCMTK does.
    Errors that `evaluate` raises, other than CommandLineError, come through.
    """
    try:
        command_line = parse(table, arguments)
        if not command_line.occurrences and not command_line.parameters:
            return ExitWith(code=0, stdout=help_text(table))
        if command_line.exclusive is not None:
            return ExitWith(code=0, stdout=_answer(table, command_line.exclusive, list_ciphers))
        return evaluate(command_line)
    except CommandLineError as error:
        return ExitWith(code=1, stderr=error_text(table, str(error)) if error.is_shown else "")


def _answer(table: OptionTable, option: Option, list_ciphers: Callable[[], Iterable[str]]) -> str:
    if option.long == "--help":
        return help_text(table)
    if option.long == "--version":
        return version_text(table)
    return ciphers_text(table, list_ciphers())


# Texts


def heading(table: OptionTable) -> str:
    """Return the lines that every text begins with: what this is compatible with, and what it is."""
    return (
        f"$dcmtk: {table.tool} v{COMPATIBLE_VERSION} {COMPATIBLE_DATE} $\n\n"
        f"{table.tool}: {table.title} (Stowkeeper {__version__})\n"
    )


def error_text(table: OptionTable, message: str) -> str:
    """Return what is printed about a command line that cannot be used."""
    return f"{heading(table)}error: {message}\n"


def version_text(table: OptionTable) -> str:
    """Return what `--version` prints: scripts look for the first line, and for the libraries at its end."""
    return (
        f"{heading(table)}\n"
        f"Stowkeeper {__version__}, in place of DCMTK {COMPATIBLE_VERSION}'s {table.tool}\n"
        f"Host type: {platform.system()} {platform.machine()}\n"
        f"Character encoding: {locale.getencoding()}\n"
        f"Python: {platform.python_version()}\n\n"
        "External libraries used:\n"
        f"- ZLIB, Version {zlib.ZLIB_RUNTIME_VERSION}\n"
        f"- {ssl.OPENSSL_VERSION}\n"
        "- LIBWRAP: its access tables, read by Stowkeeper\n"
        f"\n{_files_text()}"
    )


def _files_text() -> str:
    """Say where the files are that come with the programs."""
    return (
        "files that come with it:\n"
        f"    {SHIPPED_PROFILE_FILE}\n"
        "        negotiation profiles Default and AllDICOM, for --config-file\n"
        f"    {SHIPPED_LOG_CONFIGURATION}\n"
        "        a sample for --log-config\n"
    )


def ciphers_text(table: OptionTable, names: Iterable[str]) -> str:
    """Return what `+cc` prints: a line for each cipher suite, by its IANA name."""
    lines = "".join(f"  {name}\n" for name in names)
    return f"{heading(table)}\nSupported TLS ciphersuites are:\n{lines}"


def help_text(table: OptionTable) -> str:
    """Return what `--help` prints: every option, in lines of at most 79 characters where names allow it."""
    port = "port" if table.is_port_required else "[port]"
    columns = _Columns(table)
    lines = [
        f"usage: {table.tool} [options] {port}",
        "",
        "parameters:",
        *columns.lines("port", "", (table.port_meaning,)),
        "",
    ]
    for section in table.sections:
        lines.append(f"{section.title}:")
        for group in section.groups:
            if group.title:
                lines.append(f"  {group.title}:")
            for option in group.options:
                lines += columns.lines(option.short, option.long, _described(option))
    return heading(table) + "\n".join([*lines, "", _environment_text(table), _files_text()])


_ENVIRONMENT: Final = (
    ("DCMDICTPATH", "data dictionary files, with colons between them"),
    ("TCP_BUFFER_LENGTH", "bytes of the buffers of connections"),
    ("STOWKEEPER_LISTEN", "listen on this address alone"),
    ("STOWKEEPER_SYNC", "1: an answer waits until the file is on the disk"),
)
_ENVIRONMENT_OF_STORESCP: Final = (
    ("STOWKEEPER_KEEP_REFUSED", "1: keep objects that are not what the command says"),
)


def _environment_text(table: OptionTable) -> str:
    variables = _ENVIRONMENT + (_ENVIRONMENT_OF_STORESCP if table.tool == "storescp" else ())
    return "environment:\n" + "".join(f"    {name:25}{meaning}\n" for name, meaning in variables)


class _Columns:
    """Lays options out: short name, long name, text."""

    def __init__(self, table: OptionTable) -> None:
        self._short = max(len(option.short) for option in table.options())
        self._long = max(len(option.long) for option in table.options())

    def lines(self, short: str, long: str, paragraphs: Iterable[str]) -> Iterator[str]:
        begin = f"    {short:{self._short}}  {long:{self._long}}  "
        width = max(_LINE_WIDTH - len(begin), _TEXT_WIDTH_MIN)
        for paragraph in paragraphs:
            for line in textwrap.wrap(paragraph, width, break_on_hyphens=False):
                yield begin + line
                begin = " " * len(begin)


def _described(option: Option) -> Iterator[str]:
    """Yield what is said of an option: its values, its meaning, and whether it counts without being given."""
    if option.values:
        yield ", ".join(f"{value.label}: {_value_text(value)}" for value in option.values)
    yield f"{option.meaning} (default)" if option.is_default else option.meaning
    for rule in option.rules:
        word = "not" if isinstance(rule, NotWith) else "only"
        yield f"({word} with {' '.join(rule.others)})"


def _value_text(value: Value) -> str:
    limits = _limits(value)
    notes = [", ".join(value.words)] if value.words else []
    notes += [limits] if limits else []
    notes += [f"default {value.default}"] if value.default else []
    return f"{value.kind} ({'; '.join(notes)})" if notes else value.kind


def _limits(value: Value) -> str:
    if value.integers is None:
        return ""
    if value.integers.maximum is None:
        return f"at least {value.integers.minimum}"
    return f"{value.integers.minimum}..{value.integers.maximum}"


# The page of the documents


def options_page(table: OptionTable, state_of: Callable[[Option], str] | None = None) -> str:
    """Return every option of a table as Markdown: a heading for each section, a table for each group.

    With `state_of`, the last column says what it returns for each option.
    """
    parts = []
    for section in table.sections:
        parts.append(f"### {_capitalized(section.title)}\n")
        for group in section.groups:
            if group.title:
                parts.append(f"**{_capitalized(group.title)}**{_group_note(table, group)}\n")
            parts.append(_markdown_table(table, group, state_of))
    return "\n".join(parts)


def _capitalized(title: str) -> str:
    return title[0].upper() + title[1:]


def _group_note(table: OptionTable, group: Group) -> str:
    return " (the rightmost counts)" if _is_one_block(table, group) else ""


def _is_one_block(table: OptionTable, group: Group) -> bool:
    names = {option.long for option in group.options}
    return len(names) > 1 and any(names == set(block) for block in table.blocks())


def _markdown_table(table: OptionTable, group: Group, state_of: Callable[[Option], str] | None) -> str:
    heading: tuple[str, ...] = ("Option", "Values", "Meaning", "Rules")
    rows: list[tuple[str, ...]] = [
        (
            ", ".join(f"`{name}`" for name in (option.short, option.long) if name),
            "<br>".join(f"{value.label}: {_value_text(value)}" for value in option.values),
            option.meaning,
            "<br>".join(_rules(table, group, option)),
        )
        for option in group.options
    ]
    if state_of is not None:
        heading += ("State",)
        states = map(state_of, group.options)
        rows = [(*row, state) for row, state in zip(rows, states, strict=True)]
    lines = [heading, ("---",) * len(heading), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _rules(table: OptionTable, group: Group, option: Option) -> Iterator[str]:
    if option.is_default:
        yield "default"
    if not _is_one_block(table, group):
        block = next((block for block in table.blocks() if option.long in block), ())
        if len(block) > 1:
            yield f"of {_names(table, block, 'and')} the rightmost counts"
    if option.repeats:
        yield "every occurrence counts"
    if option.is_exclusive:
        yield "goes with everything and is answered at once"
    forbidden = [other for rule in option.rules if isinstance(rule, NotWith) for other in rule.others]
    if forbidden:
        yield f"not with {_names(table, forbidden)}"
    for rule in option.rules:
        if isinstance(rule, OnlyWith):
            yield f"only with {_names(table, rule.others)}"


def _names(table: OptionTable, longs: Sequence[str], last_joined_by: str = "or") -> str:
    """Join the names of options, the short ones where there are any."""
    options = [table.find(long) for long in longs]
    names = [f"`{option.short or option.long}`" for option in options if option is not None]
    return alternatives(names, last_joined_by)
