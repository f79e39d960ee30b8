"""However many forwards wait, failed or were sent: a look at them walks through no table, and is done in milliseconds."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Table, event

from stowkeeper.database.engine import Database
from stowkeeper.database.schema import instances, receipts, versions
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.job import JobItem
from stowkeeper.services.forwarding import rows
from stowkeeper.services.forwarding.outcomes import ForwardOutcomes, set_outcomes
from stowkeeper.services.forwarding.rows import ForwardFilter, ForwardState
from stowkeeper.services.forwarding.settling import settle
from support.forwarding_rig import ForwardingRig, a_peer, forwarding_rig, rule

MANY = 20_000
AT = "2026-01-02T03:04:05.000006Z"
LARGE = ("forwards", "versions", "instances", "receipts", "changes", "jobs", "job_items")
STEPS = 1000
LOOK_STEPS_MAX = 10
"""Thousands of the database's own steps that a look may take where nothing is to be done; a walk over what waits takes hundreds."""


def _copies(table: Table, **changed: str) -> str:
    """Return a statement that copies the first row of a table so many times, some columns changed."""
    names = [column.name for column in table.columns]
    values = [changed.get(name, f't."{name}"') for name in names]
    listed = ", ".join(f'"{name}"' for name in names)
    return (
        f"WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < {MANY})"
        f" INSERT INTO {table.name} ({listed}) SELECT {', '.join(values)} FROM n, {table.name} t"
        f" WHERE t.{names[0]} = 1"
    )


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForwardingRig]:
    """Give an archive with 20,000 instances: all wait for AWAY, some failed for PACS, the others were sent there."""
    with forwarding_rig(tmp_path_factory.mktemp("many")) as made:
        made.begin(rule("all", "AWAY", "PACS"), peers=[a_peer("PACS")])
        made.keep(1)
        with made.database.write() as transaction:
            for statement in (
                _copies(
                    instances,
                    instance_key="i",
                    current_version_key="i",
                    sop_instance_uid="'1.2.3.' || i",
                    uid_hash="i",
                ),
                _copies(versions, version_key="i", instance_key="i", path="t.path || i"),
                _copies(receipts, receipt_key="i", version_key="i", receipt_id="printf('%032x', i)"),
            ):
                transaction.connection.exec_driver_sql(statement)
            for destination, state in (
                ("AWAY", "'waiting'"),
                ("PACS", "iif(version_key < 100, 'failed', 'sent')"),
            ):
                transaction.connection.exec_driver_sql(
                    "INSERT INTO forwards (version_key, destination, rule, priority, state, words, created_at, changed_at)"
                    f" SELECT version_key, '{destination}', 'all', 0, {state}, '', '{AT}', '{AT}' FROM versions"
                )
        made.look()
        yield made


def read(rig: ForwardingRig, question: Callable[..., Any], *arguments: object) -> Any:
    with rig.database.read() as connection:
        return question(connection, *arguments)


def queue(rig: ForwardingRig) -> None:
    rig.book.save(a_peer("AWAY"), "tester")
    rig.look()


def tell(rig: ForwardingRig) -> None:
    job = next(job for job in rig.jobs() if job.peer == "AWAY")
    with rig.database.read() as connection:
        assert ForwardOutcomes().wanted(connection, job, [0, 1, 2]) == {0: 1, 1: 2, 2: 3}
    with rig.database.write() as transaction:
        set_outcomes(transaction, job.job_key, [JobItem(position=0, name="1.2.3.1", outcome="stored")])


def end(rig: ForwardingRig) -> None:
    job = next(job for job in rig.jobs() if job.peer == "AWAY")
    with rig.database.write() as transaction:
        jobs.cancel(transaction, job.job_id, "tester")
        transaction.connection.exec_driver_sql(
            f"UPDATE jobs SET state = 'cancelled', finished_at = due_at WHERE job_key = {job.job_key}"
        )
    settle(rig.database)


# In this order: each leaves behind what the next one needs.
HOT: dict[str, Callable[[ForwardingRig], object]] = {
    "a look": lambda rig: rig.look(),
    "the open ones of versions": lambda rig: read(rig, rows.open_forwards_of, [1, 2, 3]),
    "where versions were sent": lambda rig: read(rig, rows.sent_to, [1, 2, 3]),
    "a list of what failed": lambda rig: read(
        rig, rows.list_forwards, ForwardFilter(states=(ForwardState.FAILED,), destination="PACS")
    ),
    "a list of all": lambda rig: read(rig, rows.list_forwards, ForwardFilter(before_key=MANY)),
    "a list of an instance": lambda rig: read(
        rig, rows.list_forwards, ForwardFilter(sop_instance_uid="1.2.3.1")
    ),
    "a job": queue,
    "what became of items": tell,
    "a job's end": end,
    "another try": lambda rig: rig.retry(destination="AWAY"),
    "the dropping of some": lambda rig: rig.drop(destination="PACS"),
}


def plans_of(database: Database, question: Callable[[], object]) -> dict[str, list[str]]:
    """Ask a question of a database, and return the steps by which SQLite answers each of its statements."""
    asked: list[str] = []
    watched: list[Any] = []

    def watch(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.set_trace_callback(asked.append)
        watched.append(driver)

    engines = (database._reader_engine, database._writer_engine)
    for engine in engines:
        event.listen(engine, "begin", watch)
    question()
    for engine in engines:
        event.remove(engine, "begin", watch)
    for driver in watched:
        driver.set_trace_callback(None)
    statements = {line for line in asked if line.startswith(("SELECT", "UPDATE", "DELETE", "INSERT", "WITH"))}
    with database.read() as connection:
        return {
            statement: [
                step[3]
                for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement.replace('%', '%%')}")
            ]
            for statement in statements
        }


@pytest.mark.slow
def test_nothing_that_is_asked_of_forwards_walks_through_a_table(rig: ForwardingRig) -> None:
    for name, question in HOT.items():
        if name == "a job":
            assert steps_of(rig, rig.look) < LOOK_STEPS_MAX < steps_of(rig, lambda: read(rig, rows.counts))
        plans = plans_of(rig.database, lambda question=question: question(rig))  # type: ignore[misc]  # of this turn
        assert plans, name
        for statement, steps in plans.items():
            walks = [step for step in steps if step.startswith("SCAN") and step.split()[1] in LARGE]
            # A page of all is the end of the table by its key; it is cut off by its limit.
            assert [step for step in walks if "LIMIT" not in statement] == [], (name, statement)
            sorts = [step for step in steps if "TEMP B-TREE FOR ORDER BY" in step]
            assert not sorts or name != "a look", statement
    with rig.database.read() as connection:
        counted = rows.counts(connection)
    assert counted == {("AWAY", ForwardState.WAITING): MANY - 1}


def steps_of(rig: ForwardingRig, question: Callable[[], object]) -> int:
    """Return how many thousand steps the database takes for a question."""
    counted: list[int] = []

    def count() -> int:
        counted.append(1)
        return 0

    def watch(connection: Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.set_progress_handler(count, STEPS)

    event.listen(rig.database._reader_engine, "begin", watch)
    try:
        question()
    finally:
        event.remove(rig.database._reader_engine, "begin", watch)
    return len(counted)
