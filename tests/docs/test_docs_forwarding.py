"""The page on forwarding names every condition, and its examples are what the program takes and prints."""

import re
import tomllib
from pathlib import Path

import pytest

from stowkeeper.app.commands.rules import test as rules_test
from stowkeeper.app.settings import load_settings
from stowkeeper.app.settings_of_conditions import RuleSettings
from stowkeeper.app.settings_of_forwarding import ForwardingRuleSettings
from stowkeeper.services.arrivals import KEYWORDS


@pytest.fixture(scope="module")
def page() -> str:
    return Path(__file__).parents[2].joinpath("docs/forwarding.md").read_text(encoding="utf-8")


def section(page: str, title: str) -> str:
    return page.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_every_condition_is_named(page: str) -> None:
    named = re.findall(r"^\| `([a-z_]+)` \|", section(page, "What a rule chooses"), re.MULTILINE)
    assert named == [name for name in RuleSettings.model_fields if name != "name"]


def test_every_attribute_is_named_once(page: str) -> None:
    rows = re.findall(r"^\| of the \w+ \| (.*) \|$", page, re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(KEYWORDS)


def test_the_example_is_taken_as_settings(page: str, tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text(page.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    settings = load_settings(str(file), {}, {})
    assert len(settings.forwarding_rules) == len(tomllib.loads(file.read_text())["forwarding_rules"])
    assert isinstance(settings.forwarding_rules[0], ForwardingRuleSettings)


def test_every_option_of_the_trial_is_named(page: str) -> None:
    named = set(re.findall(r"--[a-z]+", section(page, "Trying rules")))
    options = {option for parameter in rules_test.params for option in parameter.opts}
    assert {*named, "--config"} == options
