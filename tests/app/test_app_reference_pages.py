"""The reference pages of settings and exit codes say what the code does."""

import re
from pathlib import Path

import pytest

from stowkeeper.app.exit_codes import MEANINGS, ExitCode
from stowkeeper.app.setting_fields import Setting
from stowkeeper.app.setting_sources import all_settings, entry_settings
from stowkeeper.app.settings import load_settings
from support.generated_pages import DOCS, generate


def test_every_setting_is_on_the_page() -> None:
    page = generate.PARTS["settings"]()
    entries = [setting for keys in entry_settings().values() for setting in keys.values()]
    for setting in (*all_settings().values(), *entries):
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
