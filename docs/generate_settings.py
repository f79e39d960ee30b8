# noqa: INP001 - a script beside the pages that it serves, in no package
"""Rewrite the blocks of settings.md and exit-codes.md that are made from the code.

Run `python docs/generate_settings.py` after a change of settings or exit codes, with the package installed or
`PYTHONPATH=src`. What stands between `<!-- generated:NAME -->` and `<!-- /generated -->` belongs to this script. A
test compares every block with the code.
"""

import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from stowkeeper.app.exit_codes import MEANINGS
from stowkeeper.app.setting_fields import Setting, toml_text
from stowkeeper.app.setting_sources import all_settings, peer_settings
from stowkeeper.app.settings_tables import (
    AccessSettings,
    DicomSettings,
    LogSettings,
    NegotiationSettings,
    Peer,
    StorageSettings,
    Table,
)

FOLDER = Path(__file__).resolve().parent
PAGES = ("settings.md", "exit-codes.md")

_BLOCK = re.compile(r"(<!-- generated:([a-z-]+) -->\n).*?(<!-- /generated -->)", re.DOTALL)
_TABLES: Mapping[str, type[Table]] = {
    "dicom": DicomSettings,
    "negotiation": NegotiationSettings,
    "access": AccessSettings,
    "storage": StorageSettings,
    "log": LogSettings,
}


def settings_block() -> str:
    """Return the tables of all settings."""
    settings = all_settings().values()
    sections = [
        "## Above all tables\n\n" + _settings_table(setting for setting in settings if not setting.table),
    ]
    for name, model in _TABLES.items():
        sections.append(
            f"## `[{name}]`\n\n{inspect.getdoc(model)}\n\n"
            + _settings_table(setting for setting in settings if setting.table == name)
        )
    sections.append(f"## `[[peers]]`\n\n{inspect.getdoc(Peer)}\n\n" + _peers_table(peer_settings().values()))
    return "\n\n".join(sections)


def exit_codes_block() -> str:
    """Return the table of exit codes."""
    rows = ((f"`{code.value}`", code.name, meaning) for code, meaning in MEANINGS.items())
    return _table(("Code", "Name", "Meaning"), rows)


BLOCKS: Mapping[str, Callable[[], str]] = {"settings": settings_block, "exit-codes": exit_codes_block}
"""Every block by its name."""


def renewed(page: str) -> str:
    """Return a page with all its blocks made anew."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{BLOCKS[found[2]]()}\n\n{found[3]}", page)


def main() -> None:
    """Write the blocks of all pages anew."""
    for name in PAGES:
        page = FOLDER / name
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")


def _settings_table(settings: Iterable[Setting]) -> str:
    rows = (
        (
            f"`{setting.name}`",
            f"`{toml_text(setting.plain(setting.default))}`",
            setting.allowed,
            "reload" if setting.reloadable else "restart",
            setting.description + (f" Flag: `{setting.flag}`." if setting.flag else ""),
        )
        for setting in settings
    )
    return _table(("Key", "Default", "Allowed", "Takes effect at", "Meaning"), rows)


def _peers_table(settings: Iterable[Setting]) -> str:
    rows = ((f"`{setting.name}`", setting.allowed, setting.description) for setting in settings)
    return _table(("Key", "Allowed", "Meaning"), rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(_lines_of(head, rows))


def _lines_of(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join(' --- ' for _ in head)}|"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


if __name__ == "__main__":
    main()
