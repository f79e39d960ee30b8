"""The page on faults names tests that there are, and the bounds of the soak as they are."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "bench"))

import soak  # noqa: E402 - only now it is found


@pytest.fixture(scope="module")
def page() -> str:
    return (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")


def test_every_fault_has_tests_and_all_of_them_are_there(page: str) -> None:
    rows = [line for line in page.splitlines() if line.startswith("| ")][2:]
    assert len(rows) > 10
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.rpartition(" | ")[2])
        assert named, row
        for file, test in named:
            assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test} is not there"


def test_the_bounds_of_the_soak_are_as_said(page: str) -> None:
    words = " ".join(page.split())
    assert soak.SECONDS == 7200
    assert f"grown by more than {soak.MEMORY_GROWTH_MAX / 1e6:g} MB from a third of the last life" in words
    assert soak.WARMED_UP == 1 / 3
    assert f"by {soak.MEMORY_SLOPE_MAX / 1e6:g} MB an hour where that is twenty minutes or more" in words
    assert soak.SLOPE_SECONDS_MIN == 20 * 60
    assert f"descriptors by {soak.DESCRIPTORS_GROWTH_MAX}, threads by {soak.THREADS_GROWTH_MAX}" in words
