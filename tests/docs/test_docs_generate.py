"""The generated parts of the documents are what the code makes of them, and the script mends those that are not."""

import re
from pathlib import Path

import pytest

from support.generated_pages import DOCS, generate

PAGES = ("conformance.md", "dcmtk.md", "exit-codes.md", "forwarding.md", "settings.md", "tls.md")


def test_these_pages_have_generated_parts() -> None:
    assert [page.name for page in generate.generated_pages()] == list(PAGES)


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_are_those_of_the_code(name: str) -> None:
    page = (DOCS / name).read_text(encoding="utf-8")
    assert generate.rewrite(page) == page, f"docs/{name} is out of date: run {generate.COMMAND}"


def test_every_part_that_can_be_made_is_on_one_page() -> None:
    texts = [page.read_text(encoding="utf-8") for page in generate.generated_pages()]
    found = [name for text in texts for name in re.findall(r"<!-- generated:([a-z-]+) -->", text)]
    assert sorted(found) == sorted(generate.PARTS)


def test_a_page_is_rewritten_between_its_markers_only() -> None:
    stale = "before\n<!-- generated:identification -->\nold\n<!-- /generated -->\nafter <!-- /generated -->\n"
    fresh = generate.rewrite(stale)
    assert fresh.startswith("before\n<!-- generated:identification -->\n\n| Item | Value |\n| --- | --- |\n")
    assert fresh.endswith("|\n\n<!-- /generated -->\nafter <!-- /generated -->\n")
    assert "old" not in fresh
    assert generate.rewrite(fresh) == fresh


def test_a_page_without_markers_stays_as_it_is() -> None:
    assert generate.rewrite("no table here\n") == "no table here\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<!-- generated:nothing -->\n<!-- /generated -->", "there is no part 'nothing'"),
        ("<!-- generated:identification -->\n", "'identification' has no <!-- /generated -->"),
        (
            "<!-- generated:identification -->\n<!-- generated:sop-classes -->\n<!-- /generated -->",
            "'identification' has no",
        ),
    ],
)
def test_markers_that_do_not_fit_are_named(text: str, words: str) -> None:
    with pytest.raises(generate.MarkerError, match=re.escape(words)):
        generate.rewrite(text)


def test_the_script_finds_and_mends_what_is_out_of_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    stale, plain = tmp_path / "stale.md", tmp_path / "plain.md"
    stale.write_text("<!-- generated:identification -->\n<!-- /generated -->\n", encoding="utf-8")
    plain.write_text("no table\n", encoding="utf-8")
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().out == f"stale.md is out of date: run {generate.COMMAND}\n"
    assert generate.main([]) == 0
    assert capsys.readouterr().out == "stale.md rewritten\n"
    assert "STOWKEEPER" in stale.read_text(encoding="utf-8")
    assert generate.main(["--check"]) == 0
    assert plain.read_text(encoding="utf-8") == "no table\n"
