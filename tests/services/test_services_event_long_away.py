"""An endpoint that answers 500 for a whole day, by clocks that are set by hand: none is lost, and it is not hammered."""

import contextlib
import http.server
import json
import threading
import time
from collections import defaultdict
from datetime import datetime
from types import SimpleNamespace

import pytest

from stowkeeper.jobs.job import JobFilter
from stowkeeper.jobs.rows import list_jobs
from stowkeeper.jobs.states import JobState
from stowkeeper.jobs.times import later
from stowkeeper.services.events import delivery_job
from stowkeeper.services.events.delivery_job import DELIVER, DeliveryJob
from stowkeeper.services.events.desk import EventDesk
from stowkeeper.services.events.feed import EventKind
from stowkeeper.services.events.limits import RETRY_SECONDS_MAX
from stowkeeper.services.events.targets import EventTarget
from stowkeeper.services.events.webhook import WebhookWay
from support.event_rig import ARCHIVE_ID, event_rig
from support.floods import no_rests
from support.job_rig import MIDNIGHT, engine_of, go, until

A_DAY_SECONDS = 86_400.0
STUDIES = 3
INSTANCES_A_STUDY = 4

pytestmark = pytest.mark.slow


class Endpoint:
    """A real HTTP server that answers 500 until it is mended."""

    def __init__(self):
        self.asked = 0
        self.told = []
        self.is_mended = False
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                endpoint.asked += 1
                if endpoint.is_mended:
                    endpoint.told.append(event)
                self.send_response(204 if endpoint.is_mended else 500)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def rig(tmp_path, monkeypatch):
    """The archive and its clocks, which all that delivers goes by."""
    with event_rig(tmp_path) as made:
        clocks = made.clocks
        steady = SimpleNamespace(monotonic=clocks.steady, thread_time=time.thread_time)
        monkeypatch.setattr(delivery_job, "time", steady)
        monkeypatch.setattr(delivery_job, "utc_now", clocks.now)
        wall = SimpleNamespace(
            now=lambda _zone: datetime.fromisoformat(clocks.wall), fromisoformat=datetime.fromisoformat
        )
        monkeypatch.setattr(delivery_job, "datetime", wall)
        yield made


class Away:
    """A desk and a delivery to an endpoint, by the clocks of the rig."""

    def __init__(self, rig, folder, endpoint):
        self.rig = rig
        self.folder = folder
        self.endpoint = endpoint
        self.targets = {
            "viewer": EventTarget(
                name="viewer",
                kinds=frozenset({EventKind.INSTANCE_RECEIVED}),
                open_way=lambda: WebhookWay(
                    endpoint.url, key=None, archive_id=ARCHIVE_ID, seconds=20, tls=None
                ),
                at_once=2,
                give_up_hours=72,
            )
        }
        self.desk = EventDesk(rig.database, rig.watch, lambda: self.targets, lambda: None)
        self.desk.begin()

    def run(self, at_rest, is_over):
        """Deliver until it is over; `at_rest` is called whenever the next attempt waits for its time."""

        def look():
            while self.desk.look():
                pass
            with self.rig.database.read() as connection:
                jobs = list_jobs(connection, JobFilter(kind=DELIVER))
            if [job.state for job in jobs] == [JobState.RETRY]:
                at_rest()
            return is_over()

        async def running():
            clocks = self.rig.clocks
            job = DeliveryJob(DELIVER, self.rig.database, lambda: self.targets, no_rests())
            engine = engine_of(self.rig.database, self.folder, job, clock=clocks.now, monotonic=clocks.steady)
            async with engine:
                await until(look, "everything is told", 60.0)

        go(running())


@pytest.fixture
def endpoint():
    with contextlib.closing(Endpoint()) as made:
        yield made


def test_an_endpoint_that_answers_500_for_a_day_is_told_everything_in_order_afterwards(
    rig, tmp_path, endpoint
):
    away = Away(rig, tmp_path, endpoint)
    for study in range(STUDIES):
        numbers = range(study * INSTANCES_A_STUDY, (study + 1) * INSTANCES_A_STUDY)
        rig.keep(*numbers, study=f"1.2.{study}")
    over_at = later(MIDNIGHT, A_DAY_SECONDS)

    def pass_time():
        endpoint.is_mended = rig.clocks.now() >= over_at
        rig.clocks.pass_(RETRY_SECONDS_MAX)

    away.run(pass_time, lambda: len(endpoint.told) == STUDIES * INSTANCES_A_STUDY)
    in_order = defaultdict(list)
    for event in endpoint.told:
        in_order[event["study_instance_uid"]].append(event["seq"])
    assert len(in_order) == STUDIES
    assert all(seqs == sorted(set(seqs)) for seqs in in_order.values()), "each once, in order"
    failed = endpoint.asked - len(endpoint.told)
    rounds = A_DAY_SECONDS / RETRY_SECONDS_MAX
    assert rounds / 2 < failed < 4 * STUDIES * rounds, "it is asked all day, and no more than it has to be"


def test_a_clock_that_jumps_makes_nobody_give_up_what_was_hardly_tried(rig, tmp_path, endpoint):
    """Thirty years at once, as at the first answer of a time server: an event that failed before looks as old as that."""
    away = Away(rig, tmp_path, endpoint)
    rig.keep(1, 2)
    asked = []

    def jump_and_mend():
        if not asked:
            rig.clocks.set_by(30 * 365 * A_DAY_SECONDS)
        rig.clocks.pass_(RETRY_SECONDS_MAX)
        asked.append(endpoint.asked)
        endpoint.is_mended = endpoint.asked >= 3

    away.run(jump_and_mend, lambda: len(endpoint.told) == 2)
    assert [event["sop_instance_uid"] for event in endpoint.told] == ["1.2.3.1", "1.2.3.2"]
