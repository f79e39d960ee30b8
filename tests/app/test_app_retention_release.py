"""`stowkeeper retention release`: what a rebuild listed, handed back to the retention rules by a person with a reason."""

import shutil
from pathlib import Path

import pytest

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.archive import audit
from support.catalog_rows import open_database
from support.command_line import CommandLine, keep
from support.instances import make_instance

RULE = '[[retention_rules]]\nname = "all"\nafter_days = 30\n'


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of two studies, to be rebuilt."""
    archive = tmp_path_factory.mktemp("template") / "archive"
    keep(archive, make_instance(1, study="1.2.10"), make_instance(2, study="1.2.20", series="1.2.20.1"))
    (archive / "stowkeeper.toml").write_text(RULE, encoding="utf-8")
    return archive


@pytest.fixture
def stow(template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Commands on a copy of that archive, whose catalog was lost and made anew."""
    archive = Path(shutil.copytree(template, tmp_path / "archive"))
    for file in archive.glob("catalog.sqlite*"):
        if file.suffix != ".lock":
            file.unlink()
    stow = CommandLine(archive, capsys)
    assert stow("rebuild").code == ExitCode.OK
    return stow


def spared(stow: CommandLine) -> dict[str, str]:
    *studies, _ = stow("retention test", "--list", "--json").lines
    return {study["uid"]: study["spared"] for study in studies}


def deeds(stow: CommandLine) -> list[tuple[str, str, str]]:
    with open_database(stow.archive) as database, database.read() as connection:
        return [(entry.action, entry.subject, entry.detail) for entry in audit.list_audit(connection)]


@pytest.mark.slow
def test_a_study_is_judged_by_the_rules_again(stow: CommandLine) -> None:
    why = "listed from its file by a rebuild"
    assert spared(stow) == {"1.2.10": why, "1.2.20": why}
    ended = stow("retention release", "--reason", "committed anew", "--yes", "1.2.10")
    assert (ended.code, ended.out) == (ExitCode.OK, "1 version released\n")
    assert ended.err.startswith("1 study, 1 version, ")
    assert "nobody knows any more whether they were committed or were to be forwarded" in ended.err
    assert spared(stow) == {"1.2.10": "not old enough", "1.2.20": why}
    assert deeds(stow) == [
        ("released to retention rules", "1.2.10", "listed by a rebuild, 1 version: committed anew")
    ]


@pytest.mark.slow
def test_without_a_yes_or_with_a_dry_run_nothing_is_released(stow: CommandLine) -> None:
    before = spared(stow)
    assert stow("retention release", "--reason", "old", "--all").code != ExitCode.OK  # nobody answers
    ended = stow("retention release", "--reason", "old", "--all", "--dry-run", "--json")
    assert ended.code == ExitCode.OK
    (line,) = ended.lines
    assert (line["studies"], line["versions"], line["released"], line["dry_run"]) == (2, 2, 0, True)
    assert (spared(stow), deeds(stow)) == (before, [])


@pytest.mark.slow
def test_all_of_before_a_day_is_released(stow: CommandLine) -> None:
    ended = stow("retention release", "--reason", "old", "--all", "--before", "2000-01-01", "--yes")
    assert (ended.code, ended.out, ended.err) == (ExitCode.OK, "", "There is nothing to release.\n")
    ended = stow("retention release", "--reason", "old", "--all", "--before", "2999-01-01", "--yes")
    assert ended.out == "2 versions released\n"
    assert set(spared(stow).values()) == {"not old enough"}


def test_what_is_not_there_is_named(stow: CommandLine) -> None:
    ended = stow("retention release", "--reason", "old", "--yes", "--json", "1.2.99", "1.2.20.1")
    assert ended.code == ExitCode.FINDINGS
    assert (ended.lines[0]["not_found"], ended.lines[0]["released"]) == (["1.2.99"], 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--all", "--yes"],
        ["--reason", " ", "--all", "--yes"],
        ["--reason", "x", "--yes"],
        ["--reason", "x", "--yes", "--all", "1.2.10"],
        ["--reason", "x", "--yes", "--all", "--before", "soon"],
    ],
)
def test_it_wants_a_reason_and_one_choice(stow: CommandLine, arguments: list[str]) -> None:
    assert stow("retention release", *arguments).code == ExitCode.USAGE
    assert deeds(stow) == []
