"""The page on retention names what rules spare, and every bound that a reader of it relies on."""

import re
import tomllib
from pathlib import Path

import pytest

from stowkeeper.app.settings_of_retention import RetentionRuleSettings
from stowkeeper.services.archive_job_limits import RULED_VERSIONS_PER_SECOND
from stowkeeper.services.retention.judging import Spared
from stowkeeper.services.retention.limits import (
    ABSENCE_SECONDS,
    AFTER_DAYS_MIN,
    CLOCK_STEP_SECONDS,
    CLOCK_WORDS_SECONDS,
    LOOK_SECONDS,
    LOOK_VERSIONS_MAX,
    NOTICE_SECONDS,
)
from stowkeeper.services.retention.survey import TAKEN

DAY = 86_400


@pytest.fixture(scope="module")
def page() -> str:
    return Path(__file__).parents[2].joinpath("docs/retention.md").read_text(encoding="utf-8")


def test_every_reason_to_spare_is_named(page: str) -> None:
    named = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert sorted(named) == sorted({*(why.value for why in Spared), TAKEN} - {Spared.GONE.value})


def test_the_bounds_are_as_said(page: str) -> None:
    text = " ".join(page.split())
    assert f"One look has {LOOK_VERSIONS_MAX:,} versions removed at most" in text
    assert f"They go at {RULED_VERSIONS_PER_SECOND:g} a second" in text
    assert f"in {NOTICE_SECONDS / 3600:g} hours at the earliest" in text
    assert (LOOK_SECONDS, NOTICE_SECONDS, CLOCK_STEP_SECONDS, CLOCK_WORDS_SECONDS) == (3600, DAY, DAY, DAY)
    assert ABSENCE_SECONDS == 7 * DAY
    assert f"`after_days` is {AFTER_DAYS_MIN:g} at least" in text


def test_the_example_is_taken_as_settings(page: str) -> None:
    example = tomllib.loads(page.partition("```toml\n")[2].partition("```")[0])
    assert len([RetentionRuleSettings.model_validate(rule) for rule in example["retention_rules"]]) == 2
