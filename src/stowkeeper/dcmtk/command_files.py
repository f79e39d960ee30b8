"""Command files: `@name` on a command line stands for the tokens in the file of that name.

Blanks, tabs and line ends separate tokens. A single or double quote, also inside a token, takes everything up to the
next of its kind, and that one always ends the token; without it the rest of the file belongs to the token. There are
no escapes, no comments, and no command files inside command files.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from stowkeeper.dcmtk.limits import COMMAND_FILE_BYTES_MAX

_PREFIX: Final = "@"
_SEPARATORS: Final = frozenset(" \t\r\n")
_QUOTES: Final = frozenset("'\"")


class CommandFileError(ValueError):
    """A command file that cannot be used; the text names it and says why."""


def expand(arguments: Iterable[str], read: Callable[[str], str]) -> tuple[str, ...]:
    """Put the tokens of each command file in the place of its name; `read` returns the text of one.

    A lone `@` is an ordinary token. Raises CommandFileError for a file that cannot be used.
    """
    tokens: list[str] = []
    for argument in arguments:
        if argument.startswith(_PREFIX) and argument != _PREFIX:
            tokens += tokens_of(_read(argument.removeprefix(_PREFIX), read))
        else:
            tokens.append(argument)
    return tuple(tokens)


def _read(name: str, read: Callable[[str], str]) -> str:
    try:
        text = read(name)
    except CommandFileError:
        raise
    except OSError as error:
        raise CommandFileError(f"Cannot open command file '{name}': {error.strerror}") from error
    except ValueError as error:
        raise CommandFileError(f"Cannot open command file '{name}': no file has such a name") from error
    if "\0" in text:
        raise CommandFileError(f"Cannot open command file '{name}': it has a NUL, so it is no text")
    return text


def tokens_of(text: str) -> Iterator[str]:
    """Take the text of a command file apart into its tokens; every text is one."""
    at = 0
    while at < len(text):
        if text[at] in _SEPARATORS:
            at += 1
            continue
        token, at = _token_at(text, at)
        yield token


def _token_at(text: str, at: int) -> tuple[str, int]:
    """Return the token that begins at a place, and the place behind it."""
    start = at
    while at < len(text) and text[at] not in _SEPARATORS:
        if text[at] in _QUOTES:
            closing = text.find(text[at], at + 1)
            end = len(text) if closing < 0 else closing
            return text[start:at] + text[at + 1 : end], end + 1
        at += 1
    return text[start:at], at


def read_command_file(name: str) -> str:
    """Return the text of a command file. Raises OSError when it cannot be read, CommandFileError when it is too long.

    Bytes that are no UTF-8 come through as they do in the arguments of a process, so that file names of any bytes work.
    """
    with open(os.fsencode(name), "rb") as file:
        content = file.read(COMMAND_FILE_BYTES_MAX + 1)
    if len(content) > COMMAND_FILE_BYTES_MAX:
        raise CommandFileError(
            f"Cannot open command file '{name}': it is longer than {COMMAND_FILE_BYTES_MAX} bytes"
        )
    return os.fsdecode(content)
