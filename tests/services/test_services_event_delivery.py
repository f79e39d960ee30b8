"""Deliveries: each study's events in their order, none left out, whatever fails or dies."""

import threading
from collections import defaultdict

import pytest
from sqlalchemy import update
from structlog.testing import capture_logs

from stowkeeper.database.engine import utc_now
from stowkeeper.database.schema import jobs
from stowkeeper.jobs import rows as job_rows
from stowkeeper.jobs.job import JobFilter
from stowkeeper.jobs.limits import JOB_THREADS_MAX
from stowkeeper.jobs.states import JobState
from stowkeeper.services.events import delivery_job
from stowkeeper.services.events.delivery_job import DELIVER, REPLAY, DeliveryJob, replay_request
from stowkeeper.services.events.desk import EventDesk
from stowkeeper.services.events.feed import EVERY_KIND, EventKind
from stowkeeper.services.events.targets import DeliveryError, EventTarget
from support.event_rig import event_rig
from support.floods import no_rests, rests_of_a_flood
from support.job_rig import engine_of, find, go, submit, until, until_state

RECEIVED_ALONE = frozenset({EventKind.INSTANCE_RECEIVED})


class Listener:
    """A target that remembers what it is told, and fails as it is asked to."""

    def __init__(self):
        self.told = []
        self.attempts = []
        self.fails_for = {}
        self.at_work = 0
        self.most_at_work = 0
        self.opened = self.closed = 0
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()

    def open_way(self):
        self.opened += 1
        return self

    def deliver(self, event, is_over):
        with self.lock:
            self.at_work += 1
            self.most_at_work = max(self.most_at_work, self.at_work)
        try:
            while not self.gate.wait(0.01):
                if is_over():
                    raise DeliveryError("stopped")
            with self.lock:
                self.attempts.append(event.sop_instance_uid)
                if (error := self.fails_for.get(event.sop_instance_uid)) is not None:
                    raise error
                self.told.append(event)
        finally:
            with self.lock:
                self.at_work -= 1

    def close(self):
        self.closed += 1

    def uids(self):
        with self.lock:
            return [event.sop_instance_uid for event in self.told]


@pytest.fixture
def rig(tmp_path):
    with event_rig(tmp_path, sets_clocks=False) as made:
        yield made


def told_of(numbers):
    return [f"1.2.3.{number}" for number in numbers]


class Delivering:
    """A desk and its jobs for one target."""

    def __init__(self, rig, folder, monkeypatch, **more):
        monkeypatch.setattr(delivery_job, "RETRY_SECONDS_FIRST", 0.01)
        monkeypatch.setattr(delivery_job, "RETRY_SECONDS_MAX", 0.05)
        self.rig = rig
        self.folder = folder
        self.rests = no_rests()
        self.listener = Listener()
        values = {"kinds": RECEIVED_ALONE, "open_way": self.listener.open_way, **more}
        self.targets = {"router": EventTarget(name="router", **values)}
        self.desk = EventDesk(rig.database, rig.watch, lambda: self.targets, lambda: None)
        self.desk.begin()

    def look(self):
        while self.desk.look():
            pass

    def run(self, until_this, what):
        """Run an engine, and look, until something is so."""

        async def running():
            kinds = [
                DeliveryJob(kind, self.rig.database, lambda: self.targets, self.rests)
                for kind in (DELIVER, REPLAY)
            ]
            async with engine_of(self.rig.database, self.folder, *kinds):

                def look():
                    self.look()
                    return until_this()

                await until(look, what)

        go(running())

    def jobs(self, kind=DELIVER):
        with self.rig.database.read() as connection:
            return job_rows.list_jobs(connection, JobFilter(kind=kind))


@pytest.fixture
def delivering(rig, tmp_path, monkeypatch):
    return Delivering(rig, tmp_path, monkeypatch)


@pytest.mark.slow
def test_what_happens_is_told_in_order_and_once(delivering):
    delivering.rig.keep(*range(1, 6))
    delivering.run(lambda: len(delivering.listener.told) == 5, "five events")
    delivering.rig.keep(6)
    delivering.run(lambda: len(delivering.listener.told) == 6, "the sixth")
    assert delivering.listener.uids() == told_of(range(1, 7))
    assert {event.kind for event in delivering.listener.told} == RECEIVED_ALONE


@pytest.mark.slow
def test_a_target_is_not_told_of_what_was_before_it(rig, tmp_path, monkeypatch):
    rig.keep(1)
    delivering = Delivering(rig, tmp_path, monkeypatch)
    rig.keep(2)
    delivering.run(lambda: delivering.listener.told, "an event")
    assert delivering.listener.uids() == told_of([2])


def test_there_is_no_job_where_nothing_is_to_be_told(delivering):
    delivering.targets["router"] = EventTarget(
        name="router", kinds=frozenset({EventKind.STUDY_QUIET}), open_way=delivering.listener.open_way
    )
    delivering.rig.keep(1)
    delivering.look()
    assert delivering.jobs() == []


def test_what_another_process_has_told_meanwhile_is_not_told_again(delivering, monkeypatch):
    delivering.rig.keep(1)
    due, is_late = delivering.desk._due, [True]

    def due_late():
        found = due()
        if is_late:
            is_late.clear()
            delivering.run(lambda: delivering.listener.told, "what the other process told")
            delivering.run(lambda: delivering.jobs()[0].is_finished, "its end")
        return found

    monkeypatch.setattr(delivering.desk, "_due", due_late)
    delivering.look()
    assert [job.state for job in delivering.jobs()] == [JobState.SUCCESS]
    assert delivering.listener.uids() == told_of([1])


def test_there_is_one_job_however_much_is_to_be_told(delivering):
    delivering.rig.keep(1)
    delivering.look()
    delivering.rig.keep(2)
    delivering.look()
    assert len(delivering.jobs()) == 1


@pytest.mark.slow
def test_what_was_told_leaves_no_more_than_one_job_behind(delivering):
    for number in range(1, 4):
        delivering.rig.keep(number)
        delivering.run(lambda wanted=number: len(delivering.listener.told) == wanted, "one more event")
        delivering.run(lambda: delivering.jobs()[0].is_finished, "its end")
    assert [job.state for job in delivering.jobs()] == [JobState.SUCCESS]


@pytest.mark.slow
def test_more_than_a_portion_is_told(delivering, monkeypatch):
    monkeypatch.setattr(delivery_job, "DELIVERY_EVENTS", 3)
    delivering.rig.keep(*range(10))
    delivering.run(lambda: len(delivering.listener.told) == 10, "ten events")
    assert delivering.listener.uids() == told_of(range(10))


@pytest.mark.slow
def test_studies_are_told_beside_each_other_and_each_in_order(delivering):
    for number in range(30):
        delivering.rig.keep(number, study=f"1.2.{number % 3}", series=f"1.2.{number % 3}.1")
    delivering.run(lambda: len(delivering.listener.told) == 30, "thirty events")
    by_study = defaultdict(list)
    for event in delivering.listener.told:
        by_study[event.study_instance_uid].append(event.seq)
    assert len(by_study) == 3
    assert all(seqs == sorted(seqs) for seqs in by_study.values())


@pytest.mark.slow
def test_no_more_are_told_at_once_than_the_target_wants(rig, tmp_path, monkeypatch):
    delivering = Delivering(rig, tmp_path, monkeypatch, at_once=2)
    listener = delivering.listener
    for number in range(8):
        rig.keep(number, study=f"1.2.{number}", series=f"1.2.{number}.1")
    listener.gate.clear()

    def both_wait():
        if listener.most_at_work == 2:
            listener.gate.set()
        return len(listener.told) == 8

    delivering.run(both_wait, "eight events")
    assert (listener.most_at_work, listener.opened, listener.closed) == (2, 2, 2)


@pytest.mark.slow
def test_what_fails_is_tried_again_until_it_is_told(delivering):
    listener = delivering.listener
    listener.fails_for = {"1.2.3.2": DeliveryError("it is away")}
    delivering.rig.keep(1, 2, 3)

    def comes_back():
        if listener.attempts.count("1.2.3.2") > 3:
            listener.fails_for = {}
        return len(listener.told) == 3

    delivering.run(comes_back, "three events")
    assert listener.uids() == told_of([1, 2, 3])


@pytest.mark.slow
def test_one_study_that_fails_holds_up_no_other(delivering):
    listener = delivering.listener
    listener.fails_for = {"1.2.3.1": DeliveryError("this one is too large")}
    delivering.rig.keep(1, study="1.2.66", series="1.2.66.1")
    delivering.rig.keep(*range(2, 8))
    delivering.rig.keep(8, study="1.2.66", series="1.2.66.1")
    delivering.run(lambda: len(listener.told) == 6, "the six of the other study")
    assert listener.uids() == told_of(range(2, 8))
    listener.fails_for = {}
    delivering.run(lambda: len(listener.told) == 8, "the two behind")
    assert listener.uids()[6:] == told_of([1, 8])


@pytest.mark.slow
def test_what_fails_is_not_tried_again_at_once_while_others_are_told(delivering, monkeypatch):
    monkeypatch.setattr(delivery_job, "RETRY_SECONDS_FIRST", 3600.0)
    monkeypatch.setattr(delivery_job, "RETRY_SECONDS_MAX", 3600.0)
    monkeypatch.setattr(delivery_job, "DELIVERY_EVENTS", 2)
    listener = delivering.listener
    listener.fails_for = {"1.2.3.1": DeliveryError("this one is too large")}
    delivering.rig.keep(1, study="1.2.66", series="1.2.66.1")
    delivering.rig.keep(*range(2, 12))
    delivering.run(lambda: [job.state for job in delivering.jobs()] == [JobState.RETRY], "a pause")
    assert listener.uids() == told_of(range(2, 12))
    assert listener.attempts.count("1.2.3.1") == 1


@pytest.mark.slow
def test_a_fault_holds_up_its_study_alone_and_is_passed_by_in_the_end(rig, tmp_path, monkeypatch):
    delivering = Delivering(rig, tmp_path, monkeypatch, give_up_hours=0.0)
    delivering.listener.fails_for = {"1.2.3.2": RuntimeError("ours")}
    rig.keep(1, 2, 3)
    with capture_logs() as lines:
        delivering.run(lambda: len(delivering.listener.told) == 2, "the two others")
    assert delivering.listener.uids() == told_of([1, 3])
    assert [line["why"] for line in lines if "why" in line and "passed by" in line["what"]] == [
        "a fault: RuntimeError"
    ]


@pytest.mark.slow
def test_what_a_target_is_not_told_of_any_more_holds_up_nothing(delivering):
    listener = delivering.listener
    listener.fails_for = {"1.2.3.1": DeliveryError("not now")}
    delivering.rig.keep(1)
    delivering.run(lambda: listener.attempts, "a try")
    others = frozenset({EventKind.INSTANCE_REMOVED})
    delivering.targets["router"] = EventTarget(name="router", kinds=others, open_way=listener.open_way)
    delivering.run(
        lambda: [job.state for job in delivering.jobs()].count(JobState.SUCCESS) == len(delivering.jobs()),
        "its end",
    )
    (job, *_) = delivering.jobs()
    assert job.checkpoint["failing"] == {}
    assert job.checkpoint["seq"] >= delivering.rig.events()[0].seq


@pytest.mark.slow
def test_who_has_too_many_behind_one_that_fails_waits_for_that(delivering, monkeypatch):
    monkeypatch.setattr(delivery_job, "BEYOND_MAX", 3)
    monkeypatch.setattr(delivery_job, "DELIVERY_EVENTS", 2)
    listener = delivering.listener
    listener.fails_for = {"1.2.3.1": DeliveryError("not now")}
    delivering.rig.keep(1, study="1.2.66", series="1.2.66.1")
    delivering.rig.keep(*range(2, 20))
    delivering.run(lambda: listener.attempts.count("1.2.3.1") > 2, "some tries")
    assert 3 <= len(listener.told) <= 5
    listener.fails_for = {}
    delivering.run(lambda: len(listener.told) == 19, "all of them")
    assert sorted(listener.uids()) == sorted(told_of(range(1, 20)))


@pytest.mark.slow
def test_a_target_that_is_away_is_not_asked_for_each_study(rig, tmp_path, monkeypatch):
    delivering = Delivering(rig, tmp_path, monkeypatch, at_once=1)
    monkeypatch.setattr(delivery_job, "RETRY_SECONDS_FIRST", 3600.0)
    monkeypatch.setattr(delivery_job, "RETRY_SECONDS_MAX", 3600.0)
    listener = delivering.listener
    for number in range(50):
        rig.keep(number, study=f"1.2.{number}", series=f"1.2.{number}.1")
    listener.fails_for = dict.fromkeys(told_of(range(50)), DeliveryError("it is away"))
    delivering.run(lambda: [job.state for job in delivering.jobs()] == [JobState.RETRY], "a pause")
    assert len(listener.attempts) == 2
    assert delivering.jobs()[0].error == "it is away"


@pytest.mark.slow
def test_a_target_may_say_when_it_wants_to_be_told_again(delivering):
    listener = delivering.listener
    listener.fails_for = {"1.2.3.1": DeliveryError("slow down", again_in_seconds=900.0)}
    delivering.rig.keep(1)
    delivering.run(lambda: [job.state for job in delivering.jobs()] == [JobState.RETRY], "a pause")
    (job,) = delivering.jobs()
    assert job.due_at > utc_now()
    assert len(listener.attempts) == 1


@pytest.mark.slow
def test_what_fails_for_too_long_is_passed_by_and_said(rig, tmp_path, monkeypatch):
    delivering = Delivering(rig, tmp_path, monkeypatch, give_up_hours=0.0)
    delivering.listener.fails_for = {"1.2.3.2": DeliveryError("never")}
    rig.keep(1, 2, 3)
    with capture_logs() as lines:
        delivering.run(lambda: len(delivering.listener.told) == 2, "the two others")
    assert delivering.listener.uids() == told_of([1, 3])
    (line,) = [line for line in lines if "passed by" in str(line.get("what"))]
    assert (line["target"], line["kind"], line["why"]) == ("router", "instance.received", "never")


@pytest.mark.slow
def test_what_was_told_before_a_death_is_told_again_at_most_and_nothing_is_left_out(delivering, monkeypatch):
    delivering.rig.keep(*range(10))
    listener = delivering.listener

    def die(*_arguments):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(delivery_job._Turn, "_write", die)
        delivering.run(lambda: len(listener.told) >= 10, "all told, nothing written down")
    with delivering.rig.database.write() as transaction:
        transaction.execute(job_due_now())
    delivering.run(lambda: [job.state for job in delivering.jobs()] == [JobState.SUCCESS], "its end")
    assert set(listener.uids()) == set(told_of(range(10)))
    assert listener.uids()[-10:] == told_of(range(10))


def job_due_now():
    return update(jobs).values(due_at="2020-01-01T00:00:00.000000Z")


@pytest.mark.slow
def test_who_tells_rests_while_many_instances_arrive(delivering, monkeypatch):
    """Whoever stops it does not wait for that."""
    listener = delivering.listener
    monkeypatch.setattr(delivery_job, "DELIVERY_EVENTS", 3)
    delivering.rig.keep(*range(7))
    with monkeypatch.context() as patched:
        delivering.rests = rests_of_a_flood(patched)
        delivering.run(lambda: delivering.jobs()[0].items_done == 3, "a portion")
    assert len(listener.told) == 3
    delivering.rests = no_rests()
    delivering.run(lambda: len(listener.told) == 7, "the rest of them")
    assert listener.uids() == told_of(range(7))


@pytest.mark.slow
def test_targets_that_hang_keep_no_other_from_the_threads(rig, tmp_path, monkeypatch):
    """More of them than the engine has threads hang, and one more is told."""
    delivering = Delivering(rig, tmp_path, monkeypatch)
    hanging = Listener()
    hanging.gate.clear()
    for number in range(JOB_THREADS_MAX + 1):
        name = f"hanging {number}"
        delivering.targets[name] = EventTarget(name=name, kinds=RECEIVED_ALONE, open_way=hanging.open_way)
    delivering.look()
    rig.keep(1)
    delivering.run(
        lambda: hanging.at_work == JOB_THREADS_MAX + 1 and delivering.listener.told, "the one that listens"
    )
    assert hanging.told == []


def test_a_target_that_left_the_settings_ends_its_job(delivering):
    delivering.rig.keep(1)
    delivering.look()
    (job,) = delivering.jobs()
    del delivering.targets["router"]
    delivering.run(lambda: find(delivering.rig.database, job).is_finished, "its end")
    assert find(delivering.rig.database, job).state is JobState.SUCCESS
    assert delivering.listener.told == []


@pytest.mark.slow
def test_events_are_told_once_more(delivering):
    delivering.rig.keep(*range(1, 6))
    delivering.run(lambda: len(delivering.listener.told) == 5, "five events")
    third = delivering.rig.events()[2]
    request = replay_request("router", after=third.seq - 1, until=third.seq + 1, created_by="tester")
    job = submit(
        delivering.rig.database,
        request.kind,
        **{name: getattr(request, name) for name in ("arguments", "lane", "checkpoint")},
    )

    async def replayed():
        kinds = [DeliveryJob(REPLAY, delivering.rig.database, lambda: delivering.targets, no_rests())]
        async with engine_of(delivering.rig.database, delivering.folder, *kinds):
            await until_state(delivering.rig.database, job, JobState.SUCCESS)

    go(replayed())
    assert delivering.listener.uids()[5:] == [third.sop_instance_uid, "1.2.3.4"]
    assert delivering.listener.told[5].seq == third.seq


@pytest.mark.slow
def test_a_replay_may_be_of_one_study(delivering):
    delivering.rig.keep(1)
    delivering.rig.keep(2, study="1.2.66", series="1.2.66.1")
    delivering.run(lambda: len(delivering.listener.told) == 2, "both")
    request = replay_request(
        "router", after=0, until=10_000, study_instance_uid="1.2.66", created_by="tester"
    )
    with delivering.rig.database.write() as transaction:
        job_rows.submit(transaction, request)
    delivering.run(lambda: len(delivering.listener.told) == 3, "one of them again")
    assert delivering.listener.uids()[2:] == told_of([2])


@pytest.mark.slow
def test_kinds_of_every_sort_can_be_told(rig, tmp_path, monkeypatch):
    delivering = Delivering(rig, tmp_path, monkeypatch, kinds=frozenset(EVERY_KIND))
    rig.keep(1)
    rig.keep(1)
    delivering.run(lambda: len(delivering.listener.told) == 3, "three events")
    assert sorted(str(event.kind) for event in delivering.listener.told) == [
        "instance.received",
        "instance.repeated",
        "study.started",
    ]
