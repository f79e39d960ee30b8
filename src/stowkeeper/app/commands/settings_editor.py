"""Editing a settings file in an editor: on a copy, until what is there can be used or the person gives up."""

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import click

from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.limits import EDITOR_ROUNDS_MAX
from stowkeeper.app.log_lines import printable
from stowkeeper.app.setting_problems import SettingsError

EDITORS = ("sensible-editor", "nano", "vi")
"""What is tried where neither VISUAL nor EDITOR names one."""


class Draft:
    """A copy of a settings file in a folder of its own, which nobody else can read. It goes when it was put in force."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.before = content
        self.path = Path(tempfile.mkdtemp(prefix="stowkeeper-config-"), path.name)
        with open(self.path, "xb", opener=_for_the_owner) as stream:
            stream.write(content)

    def edit_until_good(self, check: Callable[[bytes], object]) -> bytes | None:
        """Open the editor until `check` raises no SettingsError; return what is there then, None where nothing changed.

        Raises CommandError, which names the draft, where the person gives up or the editor fails.
        """
        for _ in range(EDITOR_ROUNDS_MAX):
            _run_editor(self.path)
            content = self.path.read_bytes()
            if content == self.before:
                return None
            try:
                check(content)
            except SettingsError as error:
                click.echo("\n".join(map(printable, str(error).split("\n"))), err=True)
                if not _wants_to_edit_again():
                    break
            else:
                return content
        raise CommandError(f"Nothing was written. Your draft is {self.path}.", ExitCode.SETTINGS)

    def remove(self) -> None:
        """Remove the draft, and what an editor left beside it."""
        for left in self.path.parent.iterdir():
            left.unlink()
        self.path.parent.rmdir()


def _for_the_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _wants_to_edit_again() -> bool:
    if not sys.stdin.isatty():  # nobody there to answer
        return False
    try:
        return click.confirm("Edit again?", default=True, err=True)
    except click.Abort:  # Ctrl-C, or the terminal is gone
        return False


def _run_editor(path: Path) -> None:
    named = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    tried = [shlex.split(named)] if named else [[name] for name in EDITORS]
    for words in tried:
        try:
            ended = subprocess.run([*words, str(path)], check=False)  # noqa: S603 - the person's own editor
        except FileNotFoundError:
            continue
        if ended.returncode:
            raise CommandError(
                f"The editor `{shlex.join(words)}` ended with {ended.returncode}: nothing was written. Your draft is {path}.",
                ExitCode.IO_ERROR,
            )
        return
    raise CommandError(
        f"There is no editor {' or '.join(words[0] for words in tried)}: name one in VISUAL or EDITOR. Nothing was written.",
        ExitCode.NO_INPUT,
    )
