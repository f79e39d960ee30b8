"""Removals that a retention rule asks for, by real servers: killed at every step, and beside all that uses the archive.

A first run without a fault tells the steps. Then one server after another kills itself at one of them, and a new one, which
keeps to the same rule, starts on what is left. What the rule has to spare stands beside what goes.
"""

import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from sqlalchemy import insert, select, text, update

from stowkeeper.app.retention_rules import retention_rules
from stowkeeper.app.settings import load_settings
from stowkeeper.archive import catalog, inquiries
from stowkeeper.archive.removal import Removal
from stowkeeper.archive.verification import Verification
from stowkeeper.database.engine import utc_now
from stowkeeper.database.schema import (
    changes,
    commitment_instances,
    forwards,
    holds,
    job_items,
    jobs,
    versions,
)
from stowkeeper.jobs import rows as job_rows
from stowkeeper.jobs.job import JobRequest
from stowkeeper.jobs.times import later
from stowkeeper.services.archive_jobs import REMOVE
from stowkeeper.services.retention.clock_watch import ClockState
from stowkeeper.services.retention.retention_job import RETENTION, Checkpoint, Notice
from stowkeeper.services.retention.rules import RetentionRule
from support.archive_rig import ArchiveView, check_settled
from support.catalog_rows import CT_IMAGE_STORAGE, open_database
from support.command_line import keep
from support.commitment_server import dead_port
from support.crash_checks import depot_folders, looking, until
from support.faulty_server import ChildServer, Nursery, Order, Step, telling_steps
from support.instances import Instance, make_instance
from support.raw_commitment import action_data, ask, push_model_context
from support.raw_peer import RawPeer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "fork"), reason="the nursery forks")]

RULE = '[[retention_rules]]\nname = "old"\nafter_days = 30\n'
REASON = "retention rule old"
GOING = {"1.2.3.1", "1.2.3.2"}
STAYING = {"1.2.3.3", "1.2.3.4", "1.2.3.5"}
NEW = make_instance(6, study="1.2.50", series="1.2.50.1")
STUDIES = 60
KINDS = 6
AGAIN, MORE, COMMITTED, BY_HAND, FORWARDED, NOTHING = range(KINDS)
"""What happens to a study while the rule removes, by its number: see `Meanwhile`."""
FORWARDING = '[[forwarding_rules]]\nname = "all"\nto = ["pacs"]\n'
DAY = 86_400.0
OCCURRENCES_MAX = 8
"""Of each step: all commits of a look and of its removal."""
REACHED_SHARE_MIN = 0.8


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as made:
        yield made


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of an old study of two, one that is held, one that is to be forwarded, and a young one.

    The rule gave its notice more than a day ago; its next look is due in an hour.
    """
    folder = tmp_path_factory.mktemp("template")
    archive, config = folder / "archive", folder / "stowkeeper.toml"
    config.write_text(RULE, encoding="utf-8")
    (rule,) = retention_rules(load_settings(str(config), {}, {}))
    studies = {1: "1.2.10", 2: "1.2.10", 3: "1.2.20", 4: "1.2.30", 5: "1.2.40"}
    keep(archive, *(make_instance(n, study=uid, series=f"{uid}.1") for n, uid in studies.items()))
    make_old(archive, rule, before=5, to_be_forwarded=[4], state="failed", held=[3])
    return folder


def make_old(
    archive: Path,
    rule: RetentionRule,
    *,
    before: int,
    to_be_forwarded: Sequence[int],
    state: str,
    held: Sequence[int] = (),
) -> None:
    """Make what came before a receipt old, and put in the look, which is due in an hour; its notice was given over a day ago."""
    now = utc_now()
    with open_database(archive) as database, database.write() as transaction:
        old = "UPDATE receipts SET received_at = '2020-01-01T00:00:00.000000Z' WHERE receipt_key < :before"
        transaction.execute(text(old), {"before": before})
        catalog.hold(transaction, held, "commitment 1.2 asked by CT1")
        row = {"destination": "pacs", "rule": "all", "priority": 0, "state": state, "words": ""}
        chosen = [
            {**row, "version_key": key, "created_at": now, "changed_at": now} for key in to_be_forwarded
        ]
        transaction.execute(insert(forwards), chosen)
        notice = Notice(mark=rule.mark, told=before, told_at=later(now, -1.1 * DAY))
        checkpoint = Checkpoint(clock=ClockState(believed_at=now), notices={"old": notice})
        looks = JobRequest(
            kind=RETENTION, arguments={}, lane="retention look", checkpoint=checkpoint.to_json()
        )
        job = job_rows.submit(transaction, looks)
        transaction.execute(
            update(jobs).where(jobs.c.job_key == job.job_key).values(due_at=later(now, 3600.0))
        )


def serve(nursery: Nursery, place: Path, log: str, *, shared: bool = False, **more: object) -> ChildServer:
    order = Order(
        archive=str(place / "archive"),
        log=str(place / log),
        arguments=("--config", str(place / "stowkeeper.toml")),
        settings={"STOWKEEPER_SHARED": "true"} if shared else {},
        look_seconds=0.1,
        **more,  # type: ignore[arg-type]  # what an order has
    )
    return nursery.start(order)


def errors_in(server: ChildServer) -> list[str]:
    """Return the lines of its log that are errors."""
    return [line for line in server.log_text().splitlines() if line.partition("Z ")[2].startswith("error ")]


def let_look(view: ArchiveView) -> None:
    """Have the look that waits begin now."""
    waits = (jobs.c.kind == RETENTION) & (jobs.c.state == "pending")
    with view.database.write() as transaction:
        transaction.execute(update(jobs).where(waits).values(due_at=transaction.at))


def is_done(view: ArchiveView) -> bool:
    """Tell whether what goes is gone, and no removal is under way any more."""
    query = select(jobs.c.state).where(jobs.c.kind == REMOVE)
    with view.database.read() as connection:
        states = set(connection.execute(query).scalars())
        gone = connection.execute(select(versions).where(versions.c.state == "removed")).all()
    return len(gone) == len(GOING) and states == {"success"}


def check_half_done(view: ArchiveView) -> None:
    """Check what anybody may see just after the death: all of the study is marked, or nothing of it."""
    shelf = set(view.shelf())
    states = {row["sop_instance_uid"]: row for row in view.versions()}
    assert {states[uid]["state"] for uid in STAYING} == {"kept"}
    going = [states[uid]["state"] for uid in GOING if uid in states]
    assert len(set(going)) <= 1
    for row in states.values():
        if row["state"] == "kept":
            assert row["path"] in shelf, f"{row['sop_instance_uid']} is listed, and has no file"
    assert shelf <= {row["path"] for row in states.values()}, "files without a row"


def check_done(view: ArchiveView, staying: set[str]) -> None:
    """Check that what goes is gone, once, with its lines in the ledger, and all else is there and whole."""
    assert {row["sop_instance_uid"] for row in view.versions()} == staying
    found = list(Verification(view.files, view.root, view.database).run())
    assert found == []
    check_settled(view)
    assert not any("/1.2.10/" in path for path in view.shelf())  # a kill may leave an empty folder
    query = select(changes.c.kind, changes.c.version_key).where(changes.c.kind.in_(["removing", "removed"]))
    of_removals = select(job_items.c.outcome, jobs.c.created_by).join(jobs).where(jobs.c.kind == REMOVE)
    with view.database.read() as connection:
        lines = Counter(map(tuple, connection.execute(query)))
        outcomes = [tuple(row) for row in connection.execute(of_removals)]
    assert lines == Counter((kind, key) for kind in ("removing", "removed") for key in (1, 2))
    (line,) = inquiries.removals(view.database)
    assert (line["reason"], line["study_instance_uid"], line["removed"]) == (REASON, "1.2.10", 2)
    assert Counter(outcomes)["removed", REASON] == 1
    assert set(outcomes) <= {("removed", REASON), ("spared", REASON)}


def run_once(nursery: Nursery, place: Path, step: Step | None, *, watch: str = "") -> bool:
    """Serve until the step of the removal kills the server, start another, and check; tell whether the step came."""
    server = serve(nursery, place, "first.log", kill_at=step, watch=watch)
    with looking(place / "archive") as view:
        let_look(view)
        until(lambda: server.ended() or is_done(view))
        if not server.ended():
            server.signal(signal.SIGTERM)
        code = server.wait()
        assert code in (0, -signal.SIGKILL), server.log_text()
        check_half_done(view)
        again = serve(nursery, place, "second.log")
        with RawPeer(again.port) as peer:
            peer.associate()
            assert peer.store("1.2.3.6", NEW.data).status == 0
            peer.release()
        let_look(view)
        until(lambda: is_done(view) and len(depot_folders(place / "archive")) == 1)
        again.signal(signal.SIGTERM)
        assert again.wait() == 0, again.log_text()
        assert errors_in(again) == []
        check_done(view, {*STAYING, "1.2.3.6"})
    return code != 0


def test_killed_at_any_step_of_a_removal_by_a_rule_it_is_done_once(
    nursery: Nursery, template: Path, memory_path: Path
) -> None:
    shutil.copytree(template, memory_path / "watched")
    assert not run_once(nursery, memory_path / "watched", None, watch=str(memory_path / "steps"))
    steps = telling_steps(memory_path / "steps", OCCURRENCES_MAX)
    assert {(step.operation, step.place) for step in steps} >= {
        ("commit", "catalog"),
        ("unlink", "objects/1.2.10/1.2.10.1/1.2.3.1.dcm"),
        ("synchronize_directory", "objects/1.2.10/1.2.10.1"),
        ("remove_directory", "objects/1.2.10/1.2.10.1"),
        ("remove_directory", "objects/1.2.10"),
        ("synchronize_directory", "objects"),
    }
    # Nobody is told anything after a step: what there is then is there before the next one too.
    chosen = [step for step in steps if step.before and step.place.startswith(("objects", "catalog"))]
    reached = 0
    for number, step in enumerate(chosen):
        place = memory_path / str(number)
        shutil.copytree(template, place)
        try:
            reached += run_once(nursery, place, step)
        except BaseException as error:
            error.add_note(f"killed {step}")
            raise
        shutil.rmtree(place)
    assert reached >= REACHED_SHARE_MIN * len(chosen)


# Beside everything else that happens to an archive.


def make_full(folder: Path, dead_port: int) -> None:
    """Make an archive of `STUDIES` old studies of two instances each; each kind of them meets something else."""
    archive, config = folder / "archive", folder / "stowkeeper.toml"
    peers = (
        f'[[peers]]\nname = "scanner"\nae_title = "SCANNER"\nhost = "127.0.0.1"\nport = {dead_port}\n'
        f'[[peers]]\nname = "pacs"\nae_title = "PACS"\nhost = "127.0.0.1"\nport = {dead_port}\n'
    )
    config.write_text(RULE + FORWARDING + peers, encoding="utf-8")
    (rule,) = retention_rules(load_settings(str(config), {}, {}))
    keep(archive, *(instance for number in range(STUDIES) for instance in pair(number)))
    to_be_forwarded = [
        key for number in range(STUDIES) if number % KINDS == FORWARDED for key in keys(number)
    ]
    make_old(archive, rule, before=2 * STUDIES + 1, to_be_forwarded=to_be_forwarded, state="waiting")


def pair(number: int) -> tuple[Instance, Instance]:
    """Return the two instances of an old study."""
    return of_study(number, 10 * number + 1), of_study(number, 10 * number + 2)


def keys(number: int) -> tuple[int, int]:
    """Return the keys of their versions."""
    return 2 * number + 1, 2 * number + 2


def of_study(number: int, instance: int) -> Instance:
    """Return an instance of an old study."""
    return make_instance(instance, study=study_of(number), series=f"{study_of(number)}.1")


def study_of(number: int) -> str:
    return f"1.2.{1000 + number}"


@dataclass(slots=True)
class Meanwhile:
    """What peers and a person do while the rule removes: each thing to the studies of its kind, in order."""

    archive: Path
    ports: list[int]
    acknowledged: list[Instance] = field(default_factory=list)
    faults: list[BaseException] = field(default_factory=list)

    def run(self) -> None:
        """Do all of it at once, and wait for the end."""
        deeds = (self.send_again, self.send_more, self.ask_for_commitment, self.remove)
        threads = [threading.Thread(target=self._guarded, args=(deed, n)) for n, deed in enumerate(deeds)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert self.faults == []

    def _guarded(self, deed: Callable[[int], None], number: int) -> None:
        try:
            deed(self.ports[number % len(self.ports)])
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            self.faults.append(error)

    def send_again(self, port: int) -> None:
        self._store(port, {number: pair(number)[0] for number in range(AGAIN, STUDIES, KINDS)})

    def send_more(self, port: int) -> None:
        more = {number: of_study(number, 10 * number + 3) for number in range(MORE, STUDIES, KINDS)}
        self._store(port, more)

    def _store(self, port: int, instances: Mapping[int, Instance]) -> None:
        with RawPeer(port) as peer:
            peer.associate(calling=b"SCANNER")
            for number, instance in instances.items():
                self._come_up(number)
                assert peer.store(instance.sop_instance_uid, instance.data).status == 0
                self.acknowledged.append(instance)
            peer.release()

    def ask_for_commitment(self, port: int) -> None:
        with RawPeer(port) as peer:
            peer.associate(push_model_context(), calling=b"SCANNER")
            for number in range(COMMITTED, STUDIES, KINDS):
                self._come_up(number)
                named = [(CT_IMAGE_STORAGE, instance.sop_instance_uid) for instance in pair(number)]
                assert ask(peer, action_data(f"1.2.840.{number}", named)).status == 0

    def _come_up(self, number: int) -> None:
        """Wait until the removal is near a study: all but those to be forwarded are its items, in their order."""
        items = number // KINDS * (KINDS - 1)
        query = select(jobs.c.items_done).where(jobs.c.kind == REMOVE)

        def is_near() -> bool:
            with view.database.read() as connection:
                return sum(connection.execute(query).scalars()) >= items - 2

        with looking(self.archive) as view:
            until(is_near)

    def remove(self, _port: int) -> None:
        with looking(self.archive) as view:
            for number in range(BY_HAND, STUDIES, KINDS):
                self._come_up(number)
                removal = Removal(view.files, view.root, view.database)
                removal.carry_out(removal.plan(study_of(number)), "a person")


def test_what_is_sent_committed_or_removed_meanwhile_is_neither_lost_nor_told_of_twice(
    nursery: Nursery, memory_path: Path
) -> None:
    with dead_port() as port:
        make_full(memory_path, port)
        servers = [serve(nursery, memory_path, f"{number}.log", shared=True) for number in range(2)]
        with looking(memory_path / "archive") as view:
            meanwhile = Meanwhile(memory_path / "archive", [server.port for server in servers])
            let_look(view)
            until(lambda: jobs_of(view, REMOVE) != [])
            meanwhile.run()
            until(lambda: is_checked(view))
            until(lambda: set(jobs_of(view, REMOVE)) == {"success"})
            for server in servers:
                server.signal(signal.SIGTERM)
            for server in servers:
                assert server.wait() == 0, server.log_text()
                assert errors_in(server) == []
            check_meanwhile(view, meanwhile)


def jobs_of(view: ArchiveView, kind: str) -> list[str]:
    with view.database.read() as connection:
        return list(connection.execute(select(jobs.c.state).where(jobs.c.kind == kind)).scalars())


def is_checked(view: ArchiveView) -> bool:
    """Tell whether each instance that was asked for has its answer."""
    with view.database.read() as connection:
        outcomes = connection.execute(select(commitment_instances.c.outcome)).scalars().all()
    return (
        len(outcomes) == 2 * len(range(COMMITTED, STUDIES, KINDS))
        and None not in outcomes
        and "" not in outcomes
    )


def check_meanwhile(view: ArchiveView, meanwhile: Meanwhile) -> None:
    """Check that what anybody relies on is there, each study whole or gone, and each removal told of once."""
    listed = {(row["sop_instance_uid"], row["state"]) for row in view.versions()}
    for instance in meanwhile.acknowledged:
        assert (instance.sop_instance_uid, "kept") in listed, f"{instance.sop_instance_uid} is lost"
    with view.database.read() as connection:
        states = dict(map(tuple, connection.execute(select(versions.c.version_key, versions.c.state))))
        promised = connection.execute(select(holds.c.version_key)).scalars().all()
        committed = connection.execute(
            select(commitment_instances.c.outcome, commitment_instances.c.version_key)
        ).all()
        query = select(changes.c.kind, changes.c.version_key).where(
            changes.c.kind.in_(["removing", "removed"])
        )
        lines = Counter(map(tuple, connection.execute(query)))
    assert {states[key] for key in promised} <= {"kept"}
    assert {key for outcome, key in committed if outcome == "committed"} <= set(promised)
    for number in range(STUDIES):
        found = {states[key] for key in keys(number)}
        if number % KINDS == FORWARDED:
            assert found == {"kept"}
        elif number % KINDS in {NOTHING, BY_HAND}:
            assert found == {"removed"}
        else:
            assert len(found) == 1, f"half of study {study_of(number)} went"
    gone = [key for key, state in states.items() if state == "removed"]
    assert lines == Counter((kind, key) for kind in ("removing", "removed") for key in gone)
    assert set(states.values()) <= {"kept", "removed"}
    assert {line["reason"] for line in inquiries.removals(view.database)} <= {REASON, "a person"}
    assert sum(line["removed"] for line in inquiries.removals(view.database)) == len(gone)
    assert list(Verification(view.files, view.root, view.database).run()) == []
    check_settled(view)
