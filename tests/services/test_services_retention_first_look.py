"""A first look of the retention rules, at a catalog or by a clock of which nobody knows what was before, removes nothing."""

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, select, update

from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.rebuilding import Rebuilding
from stowkeeper.database.engine import utc_now
from stowkeeper.database.schema import changes
from stowkeeper.durable.filesystem import NoSyncFileSystem
from stowkeeper.jobs.times import later
from stowkeeper.services.retention.clock_watch import trust_clock
from stowkeeper.services.retention.rules import Unit
from stowkeeper.services.retention.survey import survey
from stowkeeper.services.retention.walking import due
from support.quiet_log import quiet_log
from support.retention_rig import DAY, RetentionRig, retention_rig, rule


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[RetentionRig]:
    with quiet_log(), retention_rig(tmp_path, rule()) as made:
        yield made


def rebuilt(rig: RetentionRig, tmp_path: Path) -> ArchiveReader:
    """Return a copy of the archive whose catalog was lost and made anew from the files."""
    ArchiveReader(rig.archive.root).close()  # which gives the archive an identity
    copy = Path(shutil.copytree(rig.archive.root, tmp_path / "lost"))
    for file in copy.glob("catalog.sqlite*"):
        if file.suffix != ".lock":
            file.unlink()
    with Rebuilding(str(copy), files=NoSyncFileSystem()) as rebuilding:
        rebuilding.look()
        assert list(rebuilding.run()) == []
    return ArchiveReader(str(copy), to_read=True)


@pytest.mark.slow
def test_what_a_rebuild_listed_may_have_been_committed_and_stays(rig: RetentionRig, tmp_path: Path) -> None:
    rig.keep(1, 2)
    rig.hold(2)  # which no file tells
    with closing(rebuilt(rig, tmp_path)) as reader:
        database = reader.database
        for by, uids in ((Unit.STUDY, ["1.2.10"]), (Unit.INSTANCE, ["1.2.3.1", "1.2.3.2"])):
            found = survey(database, [rule(by=by)], later(utc_now(), 1000 * DAY))
            why = "listed from its file by a rebuild"
            assert [(finding.holding.uid, finding.spared) for finding in found] == [
                (uid, why) for uid in uids
            ]
            assert list(due(database, rule(by=by), 1_000_000)) == []


def test_nor_does_it_where_something_arrived_since_and_nothing_looked_before(rig: RetentionRig) -> None:
    rig.keep(1, days_ago=2)
    set_times_of_changes(rig, after=0)
    with rig.database.read() as connection:
        newest = connection.execute(select(func.max(changes.c.seq))).scalar_one()
    rig.clocks.wall = later(rig.clocks.wall, 365 * DAY)
    rig.keep(2, study="1.2.20", series="1.2.20.1", days_ago=0)
    set_times_of_changes(rig, after=newest)
    (line,) = rig.look()
    assert line["what"] == "nothing is removed by retention rules, since the clock cannot be believed"
    assert (rig.look_daily(2)[0]["log_level"], rig.removals()) == ("error", [])


def set_times_of_changes(rig: RetentionRig, *, after: int) -> None:
    """Let changes have happened now by the clock."""
    with rig.database.write() as transaction:
        transaction.execute(update(changes).where(changes.c.seq > after).values(at=rig.clocks.wall))


# A time that was believed, and lies far ahead of the clock.


def trusted_by_mistake(rig: RetentionRig) -> None:
    """Let a person trust a clock that is ten years ahead, and put it back."""
    rig.keep(1, days_ago=1)
    rig.look()
    rig.clocks.set_by(3650 * DAY)
    rig.look()
    trust(rig)
    rig.look()
    rig.clocks.set_by(-3650 * DAY)


def trust(rig: RetentionRig) -> None:
    with rig.database.write() as transaction:
        trust_clock(transaction, "anna")


def test_a_clock_behind_what_was_believed_is_warned_of_once_a_day(rig: RetentionRig) -> None:
    trusted_by_mistake(rig)
    behind = "the clock is behind a time that retention rules believed"
    assert [line["what"].partition(";")[0] for line in rig.look()] == [behind]
    assert rig.look() == []
    assert [line["what"].partition(";")[0] for line in rig.look_daily()] == [behind]


@pytest.mark.slow
def test_the_word_of_a_person_puts_the_mark_back_and_a_jump_is_noticed_again(rig: RetentionRig) -> None:
    trusted_by_mistake(rig)
    rig.look()
    trust(rig)
    assert rig.look() == []
    assert rig.look_daily(2) == []
    rig.clocks.set_by(365 * DAY)
    (line,) = rig.look()
    assert line["what"] == "nothing is removed by retention rules, since the clock cannot be believed"


def test_a_clock_that_is_behind_for_an_hour_is_believed_when_it_is_right_again(rig: RetentionRig) -> None:
    rig.keep(1, days_ago=1)
    trust(rig)
    rig.look()
    rig.clocks.set_by(-3650 * DAY)
    assert [line["log_level"] for line in rig.look()] == ["warning"]
    rig.clocks.set_by(3650 * DAY)
    assert rig.look() == []


def test_a_clock_that_goes_from_one_fault_to_the_other_is_told_of_at_once(rig: RetentionRig) -> None:
    rig.keep(1, days_ago=1)
    rig.look()
    levels = []
    for days in (-100, 4000, -4000):  # behind, doubted, behind again
        rig.clocks.set_by(days * DAY)
        levels.append([line["log_level"] for line in rig.look()])
    assert levels == [["warning"], ["error"], ["warning"]]
