"""`[[retention_rules]]` in the settings, `stowkeeper retention`, and a server that keeps to the rules."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, text

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.retention_rules import retention_rules
from stowkeeper.app.setting_problems import SettingsError
from stowkeeper.app.settings import Settings, load_settings, warnings_of
from stowkeeper.archive import audit, catalog
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.schema import changes, jobs, versions
from stowkeeper.jobs import rows as job_rows
from stowkeeper.jobs.job import Job, JobRequest
from stowkeeper.services.archive_jobs import remove_request
from stowkeeper.services.retention.retention_job import RETENTION
from stowkeeper.services.retention.sparing import by_rule
from support.catalog_rows import open_database
from support.command_line import CommandLine, keep
from support.instances import make_instance
from support.job_engine_thread import wait_until
from support.server_process import looking_into, serve_process

RULE = '[[retention_rules]]\nname = "old CT"\nmodalities = ["CT"]\nafter_days = 30\n'


def settings_of(folder: Path, content: str) -> Settings:
    file = folder / "stowkeeper.toml"
    file.write_text(content, encoding="utf-8")
    return load_settings(str(file), {}, {})


def problems_of(folder: Path, content: str) -> str:
    with pytest.raises(SettingsError) as raised:
        settings_of(folder, content)
    return "\n".join(f"{problem.place}: {problem.text}" for problem in raised.value.problems)


# The settings.


def test_a_rule_is_read_from_the_settings(tmp_path: Path) -> None:
    (rule,) = retention_rules(settings_of(tmp_path, RULE + 'only_forwarded_to = ["pacs"]\nby = "instance"\n'))
    assert (rule.name, rule.after_days, str(rule.by)) == ("old CT", 30.0, "instance")
    assert (rule.conditions.modalities, rule.only_forwarded_to) == (("CT",), ("pacs",))
    assert rule.reason == "retention rule old CT"


def test_a_rule_of_the_same_name_that_reads_otherwise_has_another_mark(tmp_path: Path) -> None:
    def mark(content: str) -> str:
        (rule,) = retention_rules(settings_of(tmp_path, content))
        return rule.mark

    assert mark(RULE) == mark(f"# the same\n{RULE}") == mark(f'{RULE}by = "study"')
    others = [
        RULE.replace("30", "31"),
        RULE.replace('"CT"]', '"CT", "MR"]'),
        f'{RULE}by = "instance"',
        f'{RULE}addresses = ["10.0.0.0/8"]',
        f'{RULE}received_between = ["22:00", "06:00"]',
        f'{RULE}attributes = {{StationName = ["CT1"]}}',
    ]
    assert len({mark(content) for content in [RULE, *others]}) == len(others) + 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('[[retention_rules]]\nname = "a"\n', "after_days"),
        (RULE.replace("30", "0.5"), "a number from 1 to 36500"),
        (RULE.replace("30", "inf"), "after_days"),
        (RULE + 'by = "series"', '"study", "instance"'),
        (RULE + 'only_forwarded_to = [""]', '"" is no name'),
        (RULE + "disk_full = true", "disk_full"),
        (RULE + RULE, 'several rules have the name "old CT"'),
        (
            "".join(RULE.replace("old CT", f"rule {number}") for number in range(51)),
            "there are 51 rules, 50 are allowed",
        ),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_in_words(tmp_path: Path, content: str, words: str) -> None:
    assert words in problems_of(tmp_path, content).replace("`", "")


def test_a_rule_that_removes_everything_or_nothing_is_warned_of(tmp_path: Path) -> None:
    content = (
        f'{RULE}[[retention_rules]]\nname = "all"\nafter_days = 1000.5\n'
        '[[retention_rules]]\nname = "each"\nafter_days = 9\nby = "instance"\n'
        '[[retention_rules]]\nname = "sent"\nafter_days = 2\nonly_forwarded_to = ["pacs", "cloud"]\n'
        '[[forwarding_rules]]\nname = "on"\nto = ["pacs"]\n[[peers]]\nname = "pacs"\nae_title = "PACS"\n'
        'host = "10.1.2.3"\nport = 104\n'
    )
    assert [words for words in warnings_of(settings_of(tmp_path, content)) if "retention" in words] == [
        'the retention rule "all" removes every study that is older than 1000.5 days: it has no conditions',
        'the retention rule "each" removes every instance that is older than 9 days: it has no conditions',
        'the retention rule "sent" removes nothing new: it waits for "cloud" to have it, and no forwarding rule sends there',
    ]


# The command.


def make_old(archive: Path, *receipt_keys: int) -> None:
    keys = ", ".join(map(str, receipt_keys))
    with open_database(archive) as database, database.write() as transaction:
        old = f"UPDATE receipts SET received_at = '2020-01-01T00:00:00.000000Z' WHERE receipt_key IN ({keys})"
        transaction.execute(text(old))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of three studies; two of them are old, one of these is held."""
    archive = tmp_path_factory.mktemp("template") / "archive"
    numbers = {1: "1.2.10", 2: "1.2.20", 3: "1.2.30"}
    keep(archive, *(make_instance(n, study=uid, series=f"{uid}.1") for n, uid in numbers.items()))
    make_old(archive, 1, 2)
    with open_database(archive) as database, database.write() as transaction:
        catalog.hold(transaction, [2], "commitment 1.2 asked by CT1")
    (archive / "stowkeeper.toml").write_text(RULE, encoding="utf-8")
    return archive


@pytest.fixture
def stow(template: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Commands on a copy of that archive."""
    return CommandLine(Path(shutil.copytree(template, tmp_path / "archive")), capsys)


def everything(archive: Path) -> list[Any]:
    with open_database(archive) as database, database.read() as connection:
        return [connection.execute(table.select()).all() for table in (versions, changes, jobs)]


def test_test_shows_what_would_go_and_what_stays_and_changes_nothing(stow: CommandLine) -> None:
    before = everything(stow.archive)
    ended = stow("retention test")
    assert (ended.code, ended.err) == (ExitCode.OK, "")
    first, *others = ended.out.splitlines()
    assert first.startswith("old CT: removes 1 study, 1 instance, ")
    assert sorted(line.partition(": ")[2] for line in others) == ["held", "not old enough"]
    assert everything(stow.archive) == before


def test_test_lists_each_study_and_speaks_json(stow: CommandLine) -> None:
    *studies, rule = stow("retention test", "--list", "--json").lines
    assert {study["uid"]: study["spared"] for study in studies} == {
        "1.2.10": None,
        "1.2.20": "held",
        "1.2.30": "not old enough",
    }
    assert (rule["rule"], rule["by"], rule["after_days"]) == ("old CT", "study", 30.0)
    assert rule["removes"]["count"] == rule["removes"]["instances"] == 1
    assert {entry["why"]: entry["count"] for entry in rule["spares"]} == {"held": 1, "not old enough": 1}


def test_a_draft_is_tried_before_it_is_in_force(stow: CommandLine, tmp_path: Path) -> None:
    draft = tmp_path / "draft.toml"
    draft.write_text(RULE.replace("CT", "MR"), encoding="utf-8")
    ended = stow("retention test", "--config", draft)
    assert ended.out == "old MR: removes 0 studies, 0 instances, 0 B\n"


def test_without_rules_and_without_an_archive_it_says_so(stow: CommandLine, tmp_path: Path) -> None:
    (stow.archive / "stowkeeper.toml").unlink()
    ended = stow("retention test")
    assert (ended.code, ended.out) == (ExitCode.OK, "")
    assert "There are no [[retention_rules]]" in ended.err
    stow.archive = tmp_path / "nowhere"
    ended = stow("retention test")
    assert ended.code == ExitCode.NO_INPUT
    assert "there is no archive" in ended.err


def test_who_says_that_the_clock_is_right_stands_in_the_audit_trail(stow: CommandLine) -> None:
    assert stow("retention trust-clock", "--yes").code == ExitCode.OK
    with open_database(stow.archive) as database, database.read() as connection:
        (entry,) = audit.list_audit(connection)
    assert (entry.action, entry.subject) == ("clock trusted", "retention")


def test_a_clock_that_is_doubted_is_told_of_by_test_and_status(stow: CommandLine) -> None:
    words = "the clock cannot be believed"
    assert words not in stow("status").out
    doubt = {"clock": {"believed_at": "2026-03-01", "doubted_at": "2036-03-01", "trust": 0, "said_at": ""}}
    with open_database(stow.archive) as database, database.write() as transaction:
        job_rows.submit(transaction, JobRequest(kind=RETENTION, arguments={}, checkpoint=doubt))
    assert words in " ".join(stow("status").out.split())
    assert "A server doubts its clock and removes nothing" in stow("retention test").err


# A server.


def look_of(reader: ArchiveReader) -> dict[str, Any]:
    """Return the checkpoint of the job of the looks."""
    with reader.database.read() as connection:
        return next(
            iter(connection.execute(select(jobs.c.checkpoint).where(jobs.c.kind == RETENTION)).scalars()), {}
        )


def removed_by(reader: ArchiveReader, uid: str, decided_by: dict[str, Any]) -> tuple[str, str]:
    """Put in a removal as a look does; return its outcome and words."""
    request = remove_request([uid], reason="retention rule old CT", created_by="test", by_rule=decided_by)
    with reader.database.write() as transaction:
        job = job_rows.submit(transaction, request)

    def ended() -> Job | None:
        with reader.database.read() as connection:
            found = job_rows.find(connection, job.job_id)
        return found if found is not None and found.is_finished else None

    wait_until(ended, "the removal to end")
    with reader.database.read() as connection:
        (item,) = job_rows.items_of(connection, job.job_key)
    return item.outcome, item.words


@pytest.mark.slow
def test_a_server_tells_what_goes_and_asks_its_rules_before_anything_does(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    keep(archive, make_instance(1, study="1.2.10"), make_instance(2, study="1.2.20", series="1.2.20.1"))
    make_old(archive, 1, 2)
    (rule,) = retention_rules(settings_of(tmp_path, RULE))
    with serve_process(tmp_path, settings=RULE) as server, looking_into(archive) as reader:
        server.wait_for_log("a rule is going to remove what is old, in 24 hours at the earliest")
        wait_until(lambda: look_of(reader), "the look to end")
        assert removed_by(reader, "1.2.10", {**by_rule(rule, 3), "rule": "other"}) == (
            "spared",
            "the rule is not in force any more",
        )
        assert removed_by(reader, "1.2.10", by_rule(rule, 3)) == ("removed", "1 version removed")
        (tmp_path / "stowkeeper.toml").write_text(RULE.replace("30", "60"), encoding="utf-8")
        server.signal(signal.SIGHUP)
        server.wait_for_log("settings read anew")
        assert removed_by(reader, "1.2.20", by_rule(rule, 3)) == ("spared", "the rule reads otherwise by now")
    with open_database(archive) as database, database.read() as connection:
        states = connection.execute(select(versions.c.state).order_by(versions.c.version_key)).scalars().all()
    assert states == ["removed", "kept"]
