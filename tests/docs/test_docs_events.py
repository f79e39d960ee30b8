"""The page on events names every event, every value, and every bound that a reader of it relies on."""

import re
import tomllib
from pathlib import Path

import pytest

from stowkeeper.app.settings_of_events import EventsSettings, EventTargetSettings
from stowkeeper.services.events.document import PLACES
from stowkeeper.services.events.feed import EventKind
from stowkeeper.services.events.limits import RETRY_SECONDS_FIRST, RETRY_SECONDS_MAX
from stowkeeper.services.events.webhook import signature


@pytest.fixture(scope="module")
def page() -> str:
    return Path(__file__).parents[2].joinpath("docs/events.md").read_text(encoding="utf-8")


def test_every_event_is_named(page: str) -> None:
    assert re.findall(r"^\| `([a-z.]+)` \|", page, re.MULTILINE) == [kind.value for kind in EventKind]


def test_every_value_is_named(page: str) -> None:
    section = page.partition("## A program")[2].partition("\n## ")[0]
    assert set(re.findall(r"`\{(\w+)\}`", section)) == {*PLACES, "archive"}


def test_the_bounds_are_as_said(page: str) -> None:
    assert f"after {RETRY_SECONDS_FIRST:g} s" in page
    assert f"pauses up to {RETRY_SECONDS_MAX / 60:g} min" in page
    assert EventTargetSettings.model_fields["give_up_hours"].default == 72
    assert EventTargetSettings.model_fields["seconds"].default == 30


def test_the_example_is_taken_as_settings(page: str) -> None:
    example = tomllib.loads(page.partition("```toml\n")[2].partition("```")[0])
    EventsSettings.model_validate(example["events"])
    assert len([EventTargetSettings.model_validate(target) for target in example["event_targets"]]) == 3


def test_the_code_on_signatures_checks_ours(page: str) -> None:
    names: dict[str, object] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    fields = {"webhook-id": "a:1", "webhook-timestamp": "1700000000"}
    fields["webhook-signature"] = signature(b"hush", "a:1", 1_700_000_000, b"{}")
    is_ours = names["is_ours"]
    assert callable(is_ours)
    assert is_ours(b"hush", fields, b"{}")
    assert not is_ours(b"hush", fields, b"{ }")
    assert not is_ours(b"hash", fields, b"{}")
