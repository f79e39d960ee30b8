"""The commands on the pages are commands that there are, with options that they have."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from stowkeeper.app.commands import LazyGroup
from support.generated_pages import DOCS

ROOT = DOCS.parent
PAGES = (
    "README.md",
    *(
        f"docs/{name}.md"
        for name in ("commitment", "conformance", "dicomweb", "http", "logs", "operations", "service", "tls")
    ),
)
_LINE = re.compile(r"^ {4,}(?:\$ )?stowkeeper ([^\n]*)$", re.MULTILINE)
_SPAN = re.compile(r"`stowkeeper ([^`\n]*)`")


def parse(words: list[str]) -> None:
    """Read a command line as `stowkeeper` would, down to its command, and run nothing. Raises click's errors."""
    command: click.Command = LazyGroup(name="stowkeeper", params=[click.Option(["--debug"], is_flag=True)])
    parent: click.Context | None = None
    while True:
        context = command.make_context(command.name, list(words), parent=parent)
        if not isinstance(command, click.Group):
            return
        words = [*context._protected_args, *context.args]
        name, found, words = command.resolve_command(context, words)
        assert found is not None, name
        command, parent = found, context


def examples(page: str) -> Iterator[tuple[str, bool]]:
    """Yield the command lines of a page, and whether each is whole: one that is named in a sentence may lack arguments."""
    for line in _LINE.findall(page):
        yield line, True
    for span in _SPAN.findall(page):
        yield span, False


@pytest.mark.parametrize("name", PAGES)
def test_examples_can_be_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for known in ("FOLDER", "images", "scans", "scan.dcm", "scans/CT_small.dcm"):
        path = tmp_path / known
        path.parent.mkdir(exist_ok=True)
        if path.suffix:
            path.touch()
        else:
            path.mkdir(exist_ok=True)
    found = 0
    for line, is_whole in examples((ROOT / name).read_text(encoding="utf-8")):
        if "…" in line or line.startswith("ready "):
            continue  # not all of it is said, or it is what the server says
        found += 1
        try:
            parse(shlex.split(line))
        except click.MissingParameter:
            assert not is_whole, line
        except click.UsageError as error:
            pytest.fail(f"{name}: stowkeeper {line}: {error.format_message()}")
        except click.exceptions.NoArgsIsHelpError:
            assert not is_whole, line
    assert found


@pytest.mark.parametrize(
    "line",
    [
        "peers add ct1 --ae-title CT1 --host 10.1.2.3 --port 104",
        "commit PACS@10.1.2.3:104 --studies 1.2",
        "comit",
        "commitments shew 1.2",
        "token add viewer --role looker",
    ],
)
def test_a_wrong_one_is_seen(line: str) -> None:
    with pytest.raises(click.UsageError):
        parse(shlex.split(line))
