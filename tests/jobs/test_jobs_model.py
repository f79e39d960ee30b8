"""The rows against a model: whatever people, two engines, deaths and clocks do to jobs, in any order.

The model is dictionaries and the rules in words of their own; the database is the real one, and so is everything that writes
to it. What engines do in threads and tasks is left out here and tested elsewhere.
"""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import select

from stowkeeper.database.schema import job_lanes, jobs
from stowkeeper.jobs import rows
from stowkeeper.jobs.endings import Ended, Outcome, Raised, Stopped, record
from stowkeeper.jobs.job import Job, JobRequest
from stowkeeper.jobs.kind import Failed, Finished, NextStep, TryAgain
from stowkeeper.jobs.leases import rows_by_owner, take_over
from stowkeeper.jobs.looking import Viewpoint, look
from stowkeeper.jobs.states import JobStateError
from stowkeeper.jobs.taking import conclude_cancelled, take
from stowkeeper.jobs.times import later
from stowkeeper.jobs.upkeep import Upkeep
from support.examples import examples
from support.job_rig import MIDNIGHT, Clocks, database_with, find

KINDS = ("plain", "concluding")
LANES = ("", "disk", "peer:A", "peer:B")
PLACES_IN_LANE = {"": 99, "disk": 2, "peer:A": 1, "peer:B": 1}
DISK_PLACES = 2
BACK_OFF = (30, 60, 120, 240, 480, 600, 3600)
RETRY_AHEAD = 3600 * 1.1 + 60
SLEEP = 86_400

MOVES = {
    ("pause", "pending"): "paused",
    ("pause", "retry"): "paused",
    ("pause", "running"): "running",
    ("resume", "paused"): "pending",
    ("resume", "running"): "running",
    ("cancel", "pending"): "pending",
    ("cancel", "retry"): "pending",
    ("cancel", "paused"): "pending",
    ("cancel", "running"): "running",
    ("resubmit", "retry"): "pending",
    ("resubmit", "failure"): "pending",
    ("resubmit", "cancelled"): "pending",
}
OVER = ("success", "failure", "cancelled")


@dataclass(slots=True)
class Modelled:
    """What the model knows of one job. Times are seconds since the first midnight by the wall clock."""

    kind: str
    lane: str
    priority: int
    due: float
    state: str = "pending"
    wish: str = ""
    step: str = ""
    failures: int = 0
    faults: int = 0
    owner: str = ""
    attempts: int = 0
    is_over: bool = False
    as_taken: Job | None = None


@dataclass(slots=True)
class Lane:
    failures: int
    until: float


@dataclass(slots=True)
class Model:
    time: float = 0.0
    jobs: dict[int, Modelled] = field(default_factory=dict)
    lanes: dict[str, Lane] = field(default_factory=dict)


def back_off(times: int) -> float:
    return BACK_OFF[min(times, len(BACK_OFF)) - 1]


def at(seconds: float) -> str:
    return later(MIDNIGHT, seconds)


outcomes = st.sampled_from(
    [
        Finished(),
        Failed("no"),
        NextStep("report", "peer:A"),
        NextStep("rest", "", None, 5000.0),
        TryAgain("no"),
        TryAgain("soon", 5.0),
        TryAgain("no answer", lane_is_blocked=True),
        TryAgain("no answer", lane_is_blocked=True),
        Raised("KeyError"),
        Raised("disk full", passes=True),
        Stopped(),
    ]
)


class JobsAndModel(RuleBasedStateMachine):
    """Rules are what can happen, one after the other; after each the rows are what the model says."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="jobs-model-"))
        self.clocks = Clocks()
        self.database = database_with(self.folder, self.clocks)
        self.model = Model()
        self.earlier: list[Job] = []
        self.upkeep = Upkeep(
            self.database,
            kinds=KINDS,
            retention_days=30,
            clock=self.clocks.now,
            monotonic=self.clocks.steady,
        )

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            shutil.rmtree(self.folder)

    # What people do

    @rule(
        kind=st.sampled_from([*KINDS, "plain", "unknown"]),
        lane=st.sampled_from(LANES),
        priority=st.integers(-1, 1),
        delay=st.sampled_from([0.0, 0.0, 50.0]),
    )
    def submit(self, kind: str, lane: str, priority: int, delay: float) -> None:
        request = JobRequest(
            kind=kind, arguments={}, lane=lane, priority=priority, due_at=at(self.model.time + delay)
        )
        with self.database.write() as transaction:
            job = rows.submit(transaction, request)
        self.model.jobs[job.job_key] = Modelled(kind, lane, priority, self.model.time + delay)

    @precondition(lambda self: self.model.jobs)
    @rule(data=st.data(), action=st.sampled_from(["pause", "resume", "cancel", "resubmit"]))
    def ask(self, data: st.DataObject, action: str) -> None:
        key = data.draw(st.sampled_from(sorted(self.model.jobs)))
        known = self.model.jobs[key]
        after = MOVES.get((action, known.state))
        if action == "pause" and known.wish == "cancel":
            after = None
        if action == "resume" and known.state == "running" and known.wish != "pause":
            after = None
        job_id = self.row(key).job_id
        if after is None:
            with pytest.raises(JobStateError), self.database.write() as transaction:
                getattr(rows, action)(transaction, job_id, "tester")
            return
        with self.database.write() as transaction:
            getattr(rows, action)(transaction, job_id, "tester")
        if action == "cancel" and known.wish == "cancel":
            return  # asking twice changes nothing
        if action == "cancel":
            known.wish = "cancel"
            known.due = known.due if known.state == "running" else self.model.time
        elif known.state == "running":
            known.wish = "cancel" if action == "cancel" else {"pause": "pause", "resume": ""}[action]
        elif action == "resubmit":
            known.due, known.failures, known.faults, known.is_over = self.model.time, 0, 0, False
            self.model.lanes.pop(known.lane, None)
        known.state = after

    # What engines do

    @rule(owner=st.sampled_from(["one", "two"]), places=st.integers(1, 5))
    def turn(self, owner: str, places: int) -> None:
        view = Viewpoint(
            now=at(self.model.time),
            kinds=KINDS,
            plain_kinds=("plain",),
            places=places,
            failing_places=2,
            disk_lanes=DISK_PLACES,
        )
        cancelled = self.expect_cancelled()
        with self.database.read() as connection:
            sight = look(connection, view)
        assert sight.has_cancelled is bool(cancelled)
        expected = self.expect_taken(places)
        if not cancelled:
            assert sight.has_due is bool(expected)
        with self.database.write() as transaction:
            assert {job.job_key for job in conclude_cancelled(transaction, ("plain",))} == cancelled
            for key in cancelled:
                known = self.model.jobs[key]
                known.state, known.wish, known.is_over = "cancelled", "", True
            taken = take(transaction, view, owner)
        assert [each.job.job_key for each in taken] == self.expect_taken(places)
        for each in taken:
            known = self.model.jobs[each.job.job_key]
            known.state, known.owner, known.as_taken = "running", owner, each.job
            known.attempts += 1
            self.earlier.append(each.job)

    def expect_cancelled(self) -> set[int]:
        return {
            key
            for key, known in self.model.jobs.items()
            if known.wish == "cancel" and known.state in ("pending", "retry") and known.kind == "plain"
        }

    def expect_taken(self, places: int) -> list[int]:
        chosen: list[int] = []
        candidates: list[tuple[int, bool, int]] = []
        for lane in LANES:
            block = self.model.lanes.get(lane)
            running = sum(
                known.state == "running" and known.lane == lane for known in self.model.jobs.values()
            )
            free = PLACES_IN_LANE[lane] - (running if lane else 0)
            if free <= 0 or (block is not None and block.until > self.model.time):
                continue
            fails = block is not None
            due = [
                (-known.priority, known.due if fails or lane == "disk" else 0.0, key)
                for key, known in self.model.jobs.items()
                if known.lane == lane
                and known.state in ("pending", "retry")
                and known.due <= self.model.time
                and known.kind in KINDS
                and key not in self.expect_cancelled()
            ]
            candidates += [(priority, fails, key) for priority, _, key in sorted(due)[:free]]
        concluding = self.cancelled_in_blocked_lanes()
        if concluding:
            candidates.append((-self.model.jobs[min(concluding)].priority, True, min(concluding)))
        failing = 0
        for _, fails, key in sorted(candidates):
            if len(chosen) < places and not (fails and failing >= 2):
                chosen.append(key)
                failing += fails
        return chosen

    def cancelled_in_blocked_lanes(self) -> list[int]:
        """Return what was cancelled and waits in lanes that are blocked and where nothing runs: one is taken at a time."""
        now = self.model.time
        blocked = {lane for lane, block in self.model.lanes.items() if block.until > now}
        busy = {known.lane for known in self.model.jobs.values() if known.state == "running"}
        return [
            key
            for key, known in self.model.jobs.items()
            if known.wish == "cancel"
            and known.state in ("pending", "retry")
            and known.kind == "concluding"
            and known.due <= now
            and known.lane in blocked - busy
        ]

    @precondition(lambda self: self.running())
    @rule(data=st.data(), outcome=outcomes)
    def end(self, data: st.DataObject, outcome: Outcome) -> None:
        self.end_one(data.draw(st.sampled_from(self.running())), outcome)

    @rule(outcome=outcomes, seconds=st.sampled_from([0.0, 700.0, 4000.0]))
    def let_time_pass_and_work(self, outcome: Outcome, seconds: float) -> None:
        """What happens most: jobs become due, are taken, and end alike."""
        self.let_time_pass(seconds)
        self.turn("one", 3)
        for key in self.running():
            self.end_one(key, outcome)

    @rule(times=st.integers(1, 3))
    def call_a_peer_that_does_not_answer(self, times: int) -> None:
        self.submit("plain", "peer:A", 1, 0.0)
        for _ in range(times):
            self.let_time_pass_and_work(TryAgain("no answer", lane_is_blocked=True), 4000.0)

    def end_one(self, key: int, outcome: Outcome) -> None:
        known = self.model.jobs[key]
        assert known.as_taken is not None
        ended = Ended(job=known.as_taken, outcome=outcome, seconds=1.0, concludes=known.kind == "concluding")
        with self.database.write() as transaction:
            assert record(transaction, ended) is not None
        self.expect_end(known, outcome)

    def expect_end(self, known: Modelled, outcome: Outcome) -> None:
        now = self.model.time
        assert known.as_taken is not None
        was_concluding = known.as_taken.wish == "cancel"
        lane = known.lane
        match outcome:
            case Finished():
                known.state = "cancelled" if was_concluding else "success"
                known.failures = known.faults = 0
                self.model.lanes.pop(lane, None)
            case Failed():
                known.state, known.faults = "failure", 0
            case NextStep():
                known.state, known.step, known.lane = "pending", outcome.step, outcome.lane
                known.due = now + outcome.due_in_seconds
                known.failures = known.faults = 0
                self.model.lanes.pop(lane, None)
            case TryAgain():
                known.state = "retry"
                known.failures, known.faults = known.failures + 1, 0
                known.due = now + (outcome.in_seconds or back_off(known.failures))
                if outcome.lane_is_blocked and lane:
                    before = self.model.lanes.get(lane)
                    failures = 1 + (before.failures if before else 0)
                    self.model.lanes[lane] = Lane(failures, now + back_off(failures))
                    known.due = now + back_off(failures)
                elif not outcome.lane_is_blocked:
                    self.model.lanes.pop(lane, None)
            case Raised():
                known.state, known.failures = "retry", known.failures + 1
                known.faults = 0 if outcome.passes else known.faults + 1
                known.due = now + back_off(known.failures if outcome.passes else known.faults)
                if known.faults == 8:
                    known.state, known.due = "failure", -1.0
            case _:
                known.state, known.faults = "pending", 0
        self.expect_wish(known, was_concluding=was_concluding)

    def expect_wish(self, known: Modelled, *, was_concluding: bool) -> None:
        if known.state not in OVER:
            if known.wish == "pause":
                known.state, known.wish = "paused", ""
            elif known.wish == "cancel" and known.kind == "plain":
                known.state = "cancelled"
            elif known.wish == "cancel" and not was_concluding:
                known.state, known.due = "pending", self.model.time
        if known.state in OVER:
            known.wish, known.is_over = "", True
        known.owner, known.as_taken = "", None

    @precondition(lambda self: self.running())
    @rule(owner=st.sampled_from(["one", "two"]))
    def die(self, owner: str) -> None:
        """One process is gone; the other takes its jobs over."""
        with self.database.read() as connection:
            running = look(connection, self.nothing()).running
        seen = {name: found for name, found in rows_by_owner(running).items() if name == owner}
        with self.database.write() as transaction:
            take_over(transaction, seen, lambda kind: kind == "concluding", lambda: 0.0)
        for known in self.model.jobs.values():
            if known.owner != owner:
                continue
            known.faults += 1
            known.state = "pending"
            if known.faults >= 20:
                known.state = "failure"
            elif known.faults > 5:
                known.state, known.due = "retry", self.model.time + back_off(known.faults - 5)
            # Who takes over does not know whether the wish was there when it began.
            self.expect_wish(known, was_concluding=known.wish == "cancel")

    @precondition(lambda self: self.earlier)
    @rule(data=st.data(), outcome=outcomes)
    def come_back_late(self, data: st.DataObject, outcome: Outcome) -> None:
        """Who lost its lease writes its end all the same, or tries to."""
        job = data.draw(st.sampled_from(self.earlier))
        known = self.model.jobs[job.job_key]
        if known.state == "running" and known.attempts == job.attempts:
            return
        with self.database.write() as transaction:
            assert record(transaction, Ended(job=job, outcome=outcome, seconds=1.0, concludes=False)) is None

    # What clocks do

    @rule(seconds=st.sampled_from([1.0, 31.0, 61.0, 700.0, 4000.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.clocks.pass_(seconds)
        self.model.time += seconds

    @rule(seconds=st.sampled_from([-100_000.0, -5000.0, -60.0, 60.0, 5000.0, 100_000.0]))
    def set_the_clock(self, seconds: float) -> None:
        self.clocks.set_by(seconds)
        self.model.time += seconds

    @rule()
    def look_after(self) -> None:
        self.upkeep.round()
        now = self.model.time
        for known in self.model.jobs.values():
            if known.state == "retry" and known.due > now + RETRY_AHEAD:
                known.due = now
            if known.state in ("pending", "retry") and known.due > now + SLEEP:
                known.due = now
        for lane in list(self.model.lanes):
            block = self.model.lanes[lane]
            if block.until > now + RETRY_AHEAD:
                block.until = now
            if block.until < now - 86_400:
                del self.model.lanes[lane]
        # The rest of it, kinds that nobody knows, takes an hour of seeing them, and has tests of its own.
        for key, known in self.model.jobs.items():
            if known.kind == "unknown" and (state := self.row(key).state) != known.state:
                assert state in ("failure", "cancelled")
                known.state, known.wish, known.is_over = state.value, "", True

    # What always holds

    def running(self) -> list[int]:
        return sorted(key for key, known in self.model.jobs.items() if known.state == "running")

    def row(self, key: int) -> Job:
        with self.database.read() as connection:
            job_id: Any = connection.execute(select(jobs.c.job_id).where(jobs.c.job_key == key)).scalar()
        return find(self.database, job_id)

    def nothing(self) -> Viewpoint:
        return Viewpoint(
            now="", kinds=KINDS, plain_kinds=(), places=0, failing_places=0, disk_lanes=DISK_PLACES
        )

    @invariant()
    def rows_are_what_the_model_says(self) -> None:
        if not hasattr(self, "model"):
            return
        with self.database.read() as connection:
            found = {row.job_key: row for row in connection.execute(select(jobs))}
            lanes = {
                row.lane: (row.failures, row.blocked_until) for row in connection.execute(select(job_lanes))
            }
        assert found.keys() == self.model.jobs.keys()
        for key, known in self.model.jobs.items():
            row = found[key]
            assert (row.state, row.wish, row.lane, row.step) == (
                known.state,
                known.wish,
                known.lane,
                known.step,
            )
            assert (row.failures, row.faults, row.attempts) == (known.failures, known.faults, known.attempts)
            assert (row.owner, row.finished_at is not None) == (known.owner, known.is_over)
            if known.state in ("pending", "retry", "paused"):
                assert row.due_at == at(known.due)
        assert lanes == {lane: (block.failures, at(block.until)) for lane, block in self.model.lanes.items()}

    @invariant()
    def no_lane_holds_more_than_it_holds(self) -> None:
        if not hasattr(self, "model"):
            return
        for lane, places in PLACES_IN_LANE.items():
            running = [
                known for known in self.model.jobs.values() if known.state == "running" and known.lane == lane
            ]
            assert len(running) <= places


TestJobsAndModel = pytest.mark.slow(JobsAndModel.TestCase)
TestJobsAndModel.settings = settings(
    max_examples=examples(50),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
