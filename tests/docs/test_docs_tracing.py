"""The page on traces names every span, every attribute, and every bound that a reader of it relies on."""

import ast
import re
import tomllib
from collections.abc import Iterator

import pytest
from blake3 import blake3

from stowkeeper.app.settings_of_tracing import TracingSettings
from stowkeeper.services.tracing.limits import (
    FLUSH_SECONDS,
    QUEUE_SPANS_MAX,
    ROWS_BEHIND_MAX,
    SPANS_PER_LOOK,
    TRACE_SECONDS,
    TURN_RETRY_SECONDS,
)
from stowkeeper.services.tracing.span import trace_id_of
from support.generated_pages import DOCS

ROOM = DOCS.parent / "src" / "stowkeeper" / "services" / "tracing"


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "tracing.md").read_text(encoding="utf-8")


def keywords(function: str) -> Iterator[tuple[str, ast.expr]]:
    """Yield the keyword arguments of every call of a function in the room."""
    for path in ROOM.glob("*_spans.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function:
                yield from ((keyword.arg or "", keyword.value) for keyword in node.keywords)


def first_cells(page: str, heading: str) -> list[str]:
    table = page.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


def test_every_span_is_named(page: str) -> None:
    names = {
        node.value
        for argument, value in keywords("Span")
        if argument == "name"
        for node in ast.walk(value)
        if isinstance(node, ast.Constant)
    }
    assert len(names) == 10
    assert sorted(first_cells(page, "Span")) == sorted(names)


def test_every_attribute_is_named(page: str) -> None:
    names = {argument.replace("__", ".") for argument, _ in keywords("told")}
    assert len(names) > 30
    assert sorted(first_cells(page, "Attribute")) == sorted(names)


def test_the_example_is_taken_as_settings(page: str) -> None:
    example = tomllib.loads(page.partition("```toml\n")[2].partition("```")[0])
    settings = TracingSettings.model_validate(example["tracing"])
    assert settings.endpoint == "http://127.0.0.1:4318/v1/traces"


def test_the_trace_id_is_as_said(page: str) -> None:
    found = re.search(r"^\$ printf %s (\S+) \| b3sum \| cut -c1-(\d+)$", page, re.MULTILINE)
    assert found is not None
    name, digits = found[1], int(found[2])
    assert blake3(name.encode()).hexdigest()[:digits] == f"{trace_id_of(name):032x}"


def test_the_bounds_are_as_said(page: str) -> None:
    text = " ".join(page.split())
    assert TRACE_SECONDS == 1
    assert f"at most {SPANS_PER_LOOK} of each kind" in text
    assert f"{ROWS_BEHIND_MAX:,} rows may wait" in text
    assert f"{QUEUE_SPANS_MAX} wait for it" in text
    assert f"waits {FLUSH_SECONDS:g} seconds for it" in text
    assert f"up to {TURN_RETRY_SECONDS:g} seconds" in text
