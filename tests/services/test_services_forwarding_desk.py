"""The desk of forwarding: what the rules choose waits, exactly once, and goes into jobs; without sending anything."""

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, update
from structlog.testing import capture_logs

from stowkeeper.archive import catalog
from stowkeeper.archive.versions import mark_damaged
from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.database.schema import consumers, study_watches
from stowkeeper.jobs import rows as jobs
from stowkeeper.services.conditions import Conditions
from stowkeeper.services.events.study_watch import StudyWatch
from stowkeeper.services.forwarding import desk, following, queueing
from stowkeeper.services.forwarding.outcomes import ForwardOutcomes
from stowkeeper.services.forwarding.rows import ForwardFilter, counts, open_forwards_of, sent_to
from stowkeeper.services.forwarding.rules import When
from support.catalog_rows import open_database
from support.floods import rests_of_a_flood
from support.forwarding_rig import ForwardingRig, a_peer, forwarding_rig, rule
from support.job_engine_thread import wait_until

PACS = a_peer("PACS")
ALL = rule("all", "PACS")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[ForwardingRig]:
    with forwarding_rig(tmp_path) as made:
        yield made


# What the rules choose.


def test_what_arrives_waits_for_its_destinations_and_goes_into_a_job_for_each(rig: ForwardingRig) -> None:
    rig.begin(
        rule("ct", "PACS", "READER", conditions=Conditions(modalities=("CT",))),
        rule("mr", "PACS", conditions=Conditions(modalities=("MR",))),
        peers=[PACS, a_peer("READER")],
    )
    rig.keep(1, 2)
    rig.look()
    assert sorted(rig.states()) == [
        (1, "PACS", "queued"),
        (1, "READER", "queued"),
        (2, "PACS", "queued"),
        (2, "READER", "queued"),
    ]
    assert {forward.rule for forward in rig.forwards()} == {"ct"}
    first, second = rig.jobs()
    assert [(job.kind, job.peer, job.lane, job.created_by) for job in (first, second)] == [
        ("store", "PACS", "peer:PACS", "forwarding"),
        ("store", "READER", "peer:READER", "forwarding"),
    ]
    assert rig.items(first) == rig.items(second) == ["1.2.3.1", "1.2.3.2"]
    assert rig.woken == 1
    assert rig.cursor() == rig.newest_change()


def test_what_was_there_before_the_rules_is_not_forwarded(rig: ForwardingRig) -> None:
    rig.keep(1)
    rig.begin(ALL, peers=[PACS])
    rig.keep(2)
    rig.look()
    assert rig.states() == [(2, "PACS", "queued")]


def test_what_came_while_there_were_no_rules_is_not_forwarded_later(rig: ForwardingRig) -> None:
    rig.begin(ALL, peers=[PACS])
    rig.rules = []
    rig.look()
    assert rig.cursor() is None
    rig.keep(1)
    rig.look()
    rig.rules = [ALL]
    rig.look()
    rig.keep(2)
    rig.look()
    assert rig.states() == [(2, "PACS", "queued")]


def test_what_came_while_no_server_ran_is_forwarded(rig: ForwardingRig) -> None:
    rig.begin(ALL, peers=[PACS])
    rig.keep(1)
    rig.desk = rig.new_desk()
    rig.desk.begin()
    rig.look()
    assert rig.states() == [(1, "PACS", "queued")]


def test_the_same_bytes_once_more_are_no_reason_to_forward_them(rig: ForwardingRig) -> None:
    rig.begin(ALL, peers=[PACS])
    rig.keep(1)
    rig.look()
    rig.keep(1)
    rig.keep(1, sent_by="OTHER")
    rig.rules = [rule("all", "PACS", "READER")]
    rig.look()
    assert rig.states() == [(1, "PACS", "queued")]
    assert rig.cursor() == rig.newest_change()


def test_nothing_goes_back_to_where_it_came_from(rig: ForwardingRig) -> None:
    rig.begin(
        rule("all", "HERE", "ELSEWHERE", "NAMED", "PACS"),
        peers=[
            a_peer("HERE", ae_title="SCANNER", host="192.0.2.17"),
            a_peer("ELSEWHERE", ae_title="SCANNER", host="192.0.2.99"),
            a_peer("NAMED", ae_title="SCANNER", host="scanner.example"),
            PACS,
        ],
    )
    rig.keep(1)
    rig.look()
    # By its name nobody can tell whether it is the sender; by its address one of them is another.
    assert rig.states() == [(1, "ELSEWHERE", "queued"), (1, "PACS", "queued")]


# Exactly once.


def test_the_rules_rest_while_many_instances_arrive_and_what_they_chose_goes_on(
    rig: ForwardingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(desk.time, "monotonic", lambda: now)
    rig.begin(ALL, peers=[PACS])
    rig.desk = rig.new_desk(gather_seconds=3600.0, rests=rests_of_a_flood(monkeypatch))
    rig.keep(1, 2)
    rig.look()
    rig.keep(3)
    now = 3599.0
    rig.look()
    assert rig.states() == [(1, "PACS", "waiting"), (2, "PACS", "waiting")]
    now = 3600.0
    rig.look()
    assert [number for number, *_ in rig.states()] == [1, 2, 3]


@pytest.mark.parametrize("where", ["_insert", "update"])
def test_the_rows_and_the_cursor_are_written_together_or_not_at_all(
    rig: ForwardingRig, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    rig.begin(ALL, peers=[PACS])
    before = rig.cursor()
    rig.keep(1, 2)
    does = getattr(following, where)

    def dies(*values: Any) -> None:
        does(*values)
        raise KeyboardInterrupt

    monkeypatch.setattr(following, where, dies)
    with pytest.raises(KeyboardInterrupt):
        rig.look()
    assert (rig.forwards(), rig.cursor()) == ([], before)
    monkeypatch.undo()
    rig.desk = rig.new_desk()  # of the next process
    rig.desk.begin()
    rig.look()
    assert rig.states() == [(1, "PACS", "queued"), (2, "PACS", "queued")]


def test_a_death_before_the_commit_of_a_job_leaves_its_rows_waiting(
    rig: ForwardingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.begin(ALL, peers=[PACS])
    rig.keep(1)
    submit = queueing.submit

    def dies(*values: Any) -> None:
        submit(*values)
        raise KeyboardInterrupt

    monkeypatch.setattr(queueing, "submit", dies)
    with pytest.raises(KeyboardInterrupt):
        rig.look()
    assert (rig.states(), rig.jobs()) == ([(1, "PACS", "waiting")], [])
    monkeypatch.undo()
    rig.look()
    assert (rig.states(), len(rig.jobs())) == ([(1, "PACS", "queued")], 1)


@pytest.mark.slow
def test_several_processes_of_an_archive_choose_nothing_twice(rig: ForwardingRig) -> None:
    rig.begin(ALL, peers=[PACS])
    with contextlib.closing(open_database(rig.folder, sync=False)) as other:
        desks = [rig.desk, rig.new_desk(database=other)]
        desks[1].begin()
        for number in range(6):
            rig.keep(number)
            for desk in desks[:: 1 if number % 2 else -1]:
                desk.look()
    assert [number for number, _, _ in rig.states()] == list(range(6))
    queued = [name for job in rig.jobs() for name in rig.items(job)]
    assert queued == ["1.2.3.0"]  # the others wait until that job is done
    assert rig.states(states=("queued",)) == [(0, "PACS", "queued")]


def test_a_process_that_read_the_changes_late_writes_nothing_of_them(rig: ForwardingRig) -> None:
    rig.begin(ALL, peers=[PACS])
    cursor = rig.cursor()
    assert cursor is not None
    rig.keep(1)
    rig.look()
    version_key = rig.forwards()[0].version_key
    late = following._Chosen(version_key=version_key, destination="LATE", rule="all", priority=0)
    assert not rig.desk._follower._write([late], cursor, rig.newest_change())
    assert rig.states() == [(1, "PACS", "queued")]


def test_a_cursor_that_a_process_without_rules_took_away_is_put_back_where_it_was(rig: ForwardingRig) -> None:
    rig.begin(ALL, peers=[PACS])
    rig.keep(1)
    with rig.database.write() as transaction:
        transaction.execute(delete(consumers).where(consumers.c.name == "forwarding"))
    rig.look()
    assert rig.states() == [(1, "PACS", "queued")]


def test_what_another_process_put_to_the_rules_is_not_put_to_changed_ones_when_the_cursor_goes(
    rig: ForwardingRig,
) -> None:
    rig.begin(ALL, peers=[PACS])
    rig.keep(1)
    rig.new_desk().look()
    rig.look()
    rig.rules = [rule("changed", "LATER")]
    with rig.database.write() as transaction:
        transaction.execute(delete(consumers).where(consumers.c.name == "forwarding"))
    rig.look()
    assert rig.states() == [(1, "PACS", "queued")]


def test_many_changes_are_put_to_the_rules_some_at_a_time(
    rig: ForwardingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "CHANGES_PER_LOOK", 2)
    rig.begin(ALL, peers=[PACS])
    rig.keep(1, 2, 3, 4, 5)
    assert rig.desk.look()
    assert [number for number, _, _ in rig.states()] == [1, 2]
    rig.look()
    assert [number for number, _, _ in rig.states()] == [1, 2, 3, 4, 5]
    assert rig.cursor() == rig.newest_change()


# With the whole study.


QUIET = rule("whole", "PACS", when=When.STUDY_QUIET)


def become_quiet(rig: ForwardingRig) -> None:
    watch = StudyWatch(rig.database, 60.0)
    watch.begin()
    while watch.look():
        pass
    with rig.database.write() as transaction:
        transaction.execute(update(study_watches).values(quiet_due_at="2020-01-01T00:00:00.000000Z"))
    while watch.look():
        pass


@pytest.mark.slow
def test_a_rule_for_quiet_studies_sends_what_the_study_has_then(rig: ForwardingRig) -> None:
    rig.begin(QUIET, peers=[PACS])
    StudyWatch(rig.database, 60.0).begin()
    rig.keep(1, 2)
    rig.keep(3, study="1.2.11", series="1.2.11.1", sent_by="PACS")
    rig.look()
    assert rig.states() == []
    become_quiet(rig)
    rig.look()
    assert rig.states() == [(1, "PACS", "queued"), (2, "PACS", "queued"), (3, "PACS", "queued")]
    rig.keep(4)
    become_quiet(rig)  # a second revision of the study
    rig.look()
    assert rig.states()[3:] == [(4, "PACS", "waiting")]


@pytest.mark.slow
def test_a_large_study_is_chosen_in_parts_of_which_a_death_loses_none(
    rig: ForwardingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "ROWS_PER_WRITE", 2)
    rig.begin(QUIET, rule("at once", "READER"), peers=[PACS, a_peer("READER")])
    StudyWatch(rig.database, 60.0).begin()
    rig.keep(1, 2, 3, 4, 5)
    rig.look()
    become_quiet(rig)
    insert, times = following._insert, []

    def dies_the_second_time(*values: Any) -> None:
        insert(*values)
        times.append(1)
        if len(times) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(following, "_insert", dies_the_second_time)
    with pytest.raises(KeyboardInterrupt):
        rig.look()
    assert len(rig.states(destination="PACS")) == 2
    monkeypatch.setattr(following, "_insert", insert)
    rig.look()
    assert [number for number, _, _ in rig.states(destination="PACS")] == [1, 2, 3, 4, 5]
    assert len(rig.states(destination="READER")) == 5


# Into jobs.


def test_one_job_at_a_time_has_so_many_and_the_rest_waits(
    rig: ForwardingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "FORWARDS_PER_JOB", 2)
    rig.begin(ALL, peers=[PACS])
    rig.keep(1, 2, 3)
    rig.look()
    assert [state for _, _, state in rig.states()] == ["queued", "queued", "waiting"]
    (job,) = rig.jobs()
    rig.act(jobs.pause, job)
    rig.look()
    assert len(rig.jobs()) == 1


def test_each_priority_has_a_job_of_its_own_the_largest_first(rig: ForwardingRig) -> None:
    urgent = Conditions(calling_ae_titles=("EMERGENCY",))
    rig.begin(ALL, rule("urgent", "PACS", conditions=urgent, priority=10), peers=[PACS])
    rig.keep(1)
    rig.keep(2, sent_by="EMERGENCY")
    rig.look()
    assert [(job.priority, rig.items(job)) for job in rig.jobs()] == [(10, ["1.2.3.2"]), (0, ["1.2.3.1"])]


def test_what_comes_bit_by_bit_is_gathered_and_a_full_job_waits_for_nothing(
    rig: ForwardingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queueing, "FORWARDS_PER_JOB", 2)
    rig.desk = rig.new_desk(gather_seconds=3600.0)
    rig.begin(ALL, peers=[PACS])
    rig.keep(1)
    rig.look()
    assert (rig.states(), rig.woken) == ([(1, "PACS", "waiting")], 0)
    rig.keep(2)
    rig.look()
    assert [state for _, _, state in rig.states()] == ["queued", "queued"]


def test_what_nobody_defines_waits_and_is_told_of_once(rig: ForwardingRig) -> None:
    rig.begin(rule("all", "NOWHERE", "VAGUE", "PACS"), peers=[PACS, a_peer("VAGUE", host=None, port=None)])
    rig.keep(1)
    with capture_logs() as logs:
        rig.look()
        rig.look()
    assert sorted(rig.states()) == [
        (1, "NOWHERE", "waiting"),
        (1, "PACS", "queued"),
        (1, "VAGUE", "waiting"),
    ]
    told = [entry for entry in logs if entry["log_level"] == "error"]
    assert len(told) == 2
    said = {entry["destination"]: entry["why"] for entry in told}
    assert said == {
        "NOWHERE": "there is neither a peer nor an origin server NOWHERE",
        "VAGUE": "nobody said where the peer VAGUE is called: it needs ae_title, host and port",
    }
    rig.book.save(a_peer("NOWHERE"), "tester")
    rig.look()
    assert (1, "NOWHERE", "queued") in rig.states()


# What happens while it waits.


def test_a_version_that_another_one_took_the_place_of_is_not_sent(rig: ForwardingRig) -> None:
    rig.begin(rule("all", "LATER"))
    rig.keep(1)
    rig.look()
    rig.keep(1, content=1)
    rig.look()
    assert rig.states() == [(1, "LATER", "waiting"), (1, "LATER", "waiting")]
    rig.book.save(a_peer("LATER"), "tester")
    rig.look()
    first, second = rig.forwards()
    assert (first.state, first.words) == ("dropped", "another version of the instance became current")
    assert second.state == "queued"
    assert rig.items(rig.jobs()[0]) == ["1.2.3.1"]


@pytest.mark.parametrize(
    ("mark", "state", "words"),
    [
        ("removing", "dropped", "it is being removed"),
        ("damaged", "failed", "its file was found damaged or missing, and it has not been sent again since"),
    ],
)
def test_what_is_removed_or_goes_bad_while_it_waits_is_not_sent(
    rig: ForwardingRig, mark: str, state: str, words: str
) -> None:
    rig.begin(rule("all", "LATER"))
    rig.keep(1, 2)
    rig.look()
    keys = [forward.version_key for forward in rig.forwards()]
    with rig.database.write() as transaction:
        if mark == "removing":
            catalog.mark_removing(transaction, keys[:1], reason="")
        else:
            mark_damaged(transaction, rig.archive.versions()[0]["path"], "")
    rig.book.save(a_peer("LATER"), "tester")
    rig.look()
    first, second = rig.forwards()
    assert (first.state, first.words, second.state) == (state, words, "queued")
    assert len(rig.jobs()) == 1


def test_where_nothing_that_waits_can_be_sent_there_is_no_job(rig: ForwardingRig) -> None:
    rig.begin(rule("all", "LATER"))
    rig.keep(1)
    rig.look()
    with rig.database.write() as transaction:
        catalog.mark_removing(transaction, [rig.forwards()[0].version_key], reason="")
    rig.book.save(a_peer("LATER"), "tester")
    rig.look()
    assert (rig.states(), rig.jobs()) == ([(1, "LATER", "dropped")], [])


# For people, and for who removes.


def test_what_waits_is_dropped_with_a_reason_and_what_a_job_has_is_not(rig: ForwardingRig) -> None:
    rig.begin(rule("all", "PACS", "OLD"), peers=[PACS])
    rig.keep(1, 2)
    rig.look()
    assert rig.drop(destination="PACS") == 0
    assert rig.drop(destination="OLD", sop_instance_uid="1.2.3.2") == 1
    dropped = rig.forwards(states=("dropped",))
    assert [(one.sop_instance_uid, one.words) for one in dropped] == [
        ("1.2.3.2", "dropped by tester: nobody wants it")
    ]
    assert rig.drop() == 1
    assert rig.drop() == 0


def test_the_open_ones_are_told_to_who_wants_to_remove(rig: ForwardingRig) -> None:
    rig.begin(rule("all", "LATER"))
    rig.keep(1, 2, 3)
    rig.look()
    keys = [forward.version_key for forward in rig.forwards()]
    rig.drop(sop_instance_uid="1.2.3.2")
    with rig.database.read() as connection:
        assert open_forwards_of(connection, keys) == {keys[0], keys[2]}
        assert open_forwards_of(connection, []) == set()
        assert sent_to(connection, keys) == {}
        assert counts(connection) == {("LATER", "waiting"): 2}


def test_lists_are_filtered_and_paged(rig: ForwardingRig) -> None:
    rig.begin(rule("all", "LATER"), rule("more", "MORE"))
    rig.keep(1, 2)
    rig.keep(3, study="1.2.11", series="1.2.11.1")
    rig.look()
    assert [number for number, _, _ in rig.states(destination="MORE")] == [1, 2, 3]
    assert [number for number, _, _ in rig.states(rule="all", study_instance_uid="1.2.11")] == [3]
    assert rig.states(states=("waiting",), sop_instance_uid="1.2.3.1", rule="more") == [
        (1, "MORE", "waiting")
    ]
    assert rig.states(states=("sent",)) == []
    whole = rig.forwards()
    assert [one.forward_key for one in rig.forwards(before_key=whole[2].forward_key)] == [1, 2]
    with pytest.raises(ValueError, match="1 to 1000"):
        ForwardFilter(limit=1001)


# Its loop.


@contextlib.contextmanager
def running(rig: ForwardingRig) -> Iterator[None]:
    """Run the desk on an event loop in a thread of its own, for the length of a block."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(rig.desk.run())

    def run() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            loop.run_until_complete(task)
        loop.run_until_complete(loop.shutdown_default_executor())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(30.0)
        assert not thread.is_alive()
        loop.close()


def test_it_looks_again_when_it_is_woken(rig: ForwardingRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "LOOK_SECONDS", 3600.0)
    rig.desk.wake()  # harmless before it runs
    rig.begin(ALL, peers=[PACS])
    rig.keep(1)
    with running(rig):
        wait_until(lambda: rig.states() == [(1, "PACS", "queued")], "the first look")
        rig.keep(2)
        assert len(rig.states()) == 1
        rig.desk.wake()
        wait_until(lambda: len(rig.states()) == 2, "the second look")
    rig.desk.wake()  # and after it


def test_a_job_that_has_nothing_more_to_send_wakes_it(rig: ForwardingRig) -> None:
    rig.begin(ALL, peers=[PACS])
    rig.keep(1, 2)
    rig.look()
    (job,) = rig.jobs()
    woken: list[int] = []
    outcomes = ForwardOutcomes(lambda: woken.append(1))
    outcomes.noted(replace(job, items_done=1))
    outcomes.noted(replace(job, items_done=2, arguments={}))
    assert woken == []
    outcomes.noted(replace(job, items_done=2))
    assert woken == [1]


def test_a_database_that_is_away_for_a_while_is_told_of_once(
    rig: ForwardingRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "LOOK_RETRY_SECONDS", 0.001)
    rig.begin(ALL, peers=[PACS])
    rig.keep(1)
    look, failures = rig.desk._follower.look, itertools.count(1)

    def away() -> bool:
        number = next(failures)
        if number == 4:
            raise ZeroDivisionError
        if number < 6:
            raise DatabaseUnavailable("the disk is full")
        return look()

    monkeypatch.setattr(rig.desk._follower, "look", away)
    with capture_logs() as logs, running(rig):
        wait_until(lambda: rig.states() == [(1, "PACS", "queued")], "the disk")
    errors = [entry["what"] for entry in logs if entry["log_level"] == "error"]
    assert errors == ["nothing can be forwarded for now", "nothing can be forwarded, it is tried again"]


async def _asleep(made: desk.ForwardingDesk) -> None:
    while True:
        if made._has_news._waiters:  # type: ignore[attr-defined]  # of asyncio's own
            return
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("turns", range(5))
def test_who_is_told_to_stop_just_when_it_is_woken_stops(rig: ForwardingRig, turns: int) -> None:
    """The cancellation comes at each moment of waking up in turn."""

    async def running() -> None:
        made = rig.new_desk()
        task = asyncio.create_task(made.run())
        await asyncio.wait_for(_asleep(made), 30)
        made._has_news.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        _, left = await asyncio.wait({task}, timeout=30)
        assert not left

    rig.begin(ALL, peers=[PACS])
    asyncio.run(running())
