"""The reference pages of settings and exit codes say what the code does."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from stowkeeper.app.exit_codes import MEANINGS, ExitCode
from stowkeeper.app.setting_fields import Setting
from stowkeeper.app.setting_sources import all_settings, peer_settings
from stowkeeper.app.settings import load_settings

DOCS = Path(__file__).resolve().parents[2] / "docs"


def load_generator() -> ModuleType:
    specification = importlib.util.spec_from_file_location(
        "docs_generate_settings", DOCS / "generate_settings.py"
    )
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


generate = load_generator()


@pytest.mark.parametrize("name", generate.PAGES)
def test_the_reference_pages_are_those_of_the_code(name: str) -> None:
    page = (DOCS / name).read_text(encoding="utf-8")
    assert "<!-- generated:" in page
    assert generate.renewed(page) == page, f"docs/{name} is out of date: run python docs/generate_settings.py"


def test_every_setting_is_on_the_page() -> None:
    page = generate.settings_block()
    for setting in (*all_settings().values(), *peer_settings().values()):
        assert f"| `{setting.name}` |" in page
        assert setting.description in page


@pytest.mark.parametrize("setting", all_settings().values(), ids=lambda setting: setting.key)
def test_every_setting_is_described(setting: Setting) -> None:
    assert re.fullmatch(r"[A-Z`].*[.]", setting.description)
    assert setting.allowed
    assert setting.variable == "STOWKEEPER_" + setting.key.upper().replace(".", "__")


def test_every_exit_code_has_a_meaning() -> None:
    assert list(MEANINGS) == list(ExitCode)


EXAMPLE = re.compile(r"```toml\n(.*?)```", re.DOTALL)


def test_the_examples_on_the_page_can_be_loaded(tmp_path: Path) -> None:
    examples = EXAMPLE.findall((DOCS / "settings.md").read_text(encoding="utf-8"))
    assert examples
    for example in examples:
        (tmp_path / "example.toml").write_text(example, encoding="utf-8")
        load_settings(str(tmp_path / "example.toml"), {}, {})
