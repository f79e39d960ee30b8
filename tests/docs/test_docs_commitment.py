"""The page on storage commitment names tests that are there, for every promise."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "commitment.md"
_ROW = re.compile(r"^\| (\d+) \|(.*)\|(.*)\|$", re.MULTILINE)
_NAME = re.compile(r"`([^`]*)`")


def test_every_promise_names_tests_that_are_there() -> None:
    rows = _ROW.findall(PAGE.read_text(encoding="utf-8"))
    assert [int(number) for number, *_ in rows] == list(range(1, 20))
    for number, _, named in rows:
        path = ""
        names = _NAME.findall(named)
        assert names, number
        for name in names:
            file, _, function = name.partition("::")
            path = file or path
            text = (ROOT / path).read_text(encoding="utf-8")
            assert not function or f"def {function}(" in text, f"{number}: {name}"
