"""The page on logs names the events that the code logs, and no others."""

import ast
import re
from collections.abc import Iterator

import pytest

from support.generated_pages import DOCS

PACKAGE = DOCS.parent / "src" / "stowkeeper"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
# What a method of the log is called where its level is chosen before.
CHOSEN = {"level", "say"}
# The drop-in commands write the lines of DCMTK, which their own page tells.
OTHERS = {"dcmtk"}


def logged(source: str) -> Iterator[str]:
    """Yield the event of every line that a module logs."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        called, event = node.func, node.args[0]
        is_method = (
            isinstance(called, ast.Attribute)
            and called.attr in LEVELS
            and isinstance(called.value, ast.Name)
            and called.value.id == "log"
        )
        # Others of these names say something to a person, in one sentence and without values.
        is_chosen = isinstance(called, ast.Name) and called.id in CHOSEN and bool(node.keywords)
        if is_method or is_chosen:
            assert isinstance(event, ast.Constant), ast.unparse(node)
            assert isinstance(event.value, str)
            yield event.value


@pytest.mark.slow
def test_the_table_has_every_event_and_no_other() -> None:
    modules = [
        module for module in PACKAGE.rglob("*.py") if module.relative_to(PACKAGE).parts[0] not in OTHERS
    ]
    events = {event for module in modules for event in logged(module.read_text(encoding="utf-8"))}
    page = (DOCS / "logs.md").read_text(encoding="utf-8")
    named = re.findall(r"^\| `([a-z]+)` \|", page, re.MULTILINE)
    # Libraries and warnings come by the standard library's logging, which is given this event in `app/logs.py`.
    assert sorted(named) == sorted({*events, "message"})


def test_a_line_is_found_whatever_its_level() -> None:
    source = 'log.info("start", what="ready")\nsay = log.warning\nsay("job", what="x")\nother.info("no")\n'
    assert list(logged(source)) == ["start", "job"]
