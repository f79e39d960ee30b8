"""/api/statistics: how much there is, and how it is."""

import threading
from typing import Any

from fastapi import APIRouter
from pydantic import Field
from sqlalchemy import Connection, Select, func, select, text

from stowkeeper.archive.counting import current_by_series
from stowkeeper.database.engine import Database, utc_now
from stowkeeper.database.schema import DAMAGED, changes, holds, receipts, series, studies, versions
from stowkeeper.jobs import rows as jobs
from stowkeeper.jobs.states import JobState
from stowkeeper.services.commitment import rows as commitments
from stowkeeper.services.commitment.commitment_values import CommitmentRole, CommitmentState
from stowkeeper.web.native_models import Shape
from stowkeeper.web.roles import Role
from stowkeeper.web.routes import allow, api_router
from stowkeeper.web.services import WebServices


class JobCount(Shape):
    """How many jobs there are of a kind in a state."""

    kind: str
    state: JobState
    jobs: int


class CommitmentCountShape(Shape):
    """How many transactions of storage commitment there are in a state, with the sums of their instances."""

    role: CommitmentRole
    state: CommitmentState
    commitments: int
    instances: int
    failures: int


class Statistics(Shape):
    """How much there is, and how it is."""

    studies: int = Field(description="With an instance that is kept.")
    series: int = Field(description="With an instance that is kept.")
    instances: int = Field(description="Of which a whole version is kept.")
    bytes: int = Field(description="Of the files of their current versions.")
    receipts: int
    damaged: int = Field(description="Versions whose bytes no longer fit their receipt.")
    in_conflict: int = Field(description="Versions that differ from another one of their instance.")
    held: int = Field(description="Versions that somebody was promised that they stay.")
    last_change: int = Field(description="Number of the newest change; 0 where there is none.")
    open_associations: int
    jobs: list[JobCount]
    oldest_waiting_job_at: str | None = Field(
        description="Since when the job has been due that waits for its turn longest; null where none does."
    )
    commitments: list[CommitmentCountShape]
    oldest_unreported_commitment_at: str | None = Field(
        description="When the oldest request came whose result its peer was not told yet."
    )


def router(services: WebServices) -> APIRouter:
    """Return the routes."""
    routes = api_router("/api", tag="system")
    counted = CountedArchive(services.database)

    @routes.get(
        "/statistics",
        operation_id="get_statistics",
        summary="Tell how much there is",
        response_model=Statistics,
    )
    @allow(Role.READ)
    def get_statistics() -> dict[str, object]:
        """Count what the archive keeps, its jobs, and its transactions of storage commitment."""
        counts = counted.now()
        with services.database.read() as connection:
            by_state = jobs.counts(connection)
            return {
                **counts,
                "open_associations": len(services.associations()),
                "jobs": [
                    {"kind": kind, "state": state, "jobs": number}
                    for (kind, state), number in sorted(by_state.items())
                ],
                "oldest_waiting_job_at": jobs.oldest_waiting_at(connection, utc_now()),
                "commitments": commitments.counts(connection),
                "oldest_unreported_commitment_at": commitments.oldest_unreported_at(connection),
            }

    return routes


class CountedArchive:
    """The counts of an archive, remembered until something changes: they walk over every instance. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}

    def now(self) -> dict[str, int]:
        """Return the counts. Raises DatabaseUnavailable."""
        with self._lock, self._database.read() as connection:
            newest = _number(connection, select(func.max(changes.c.seq)))
            if self._counts.get("last_change") != newest:
                self._counts = {**_count(connection), "last_change": newest}
            return self._counts


def _count(connection: Connection) -> dict[str, int]:
    current = current_by_series()
    row = connection.execute(
        select(
            func.count(studies.c.study_key.distinct()).label("studies"),
            func.count(series.c.series_key).label("series"),
            func.coalesce(func.sum(current.c.instances), 0).label("instances"),
            func.coalesce(func.sum(current.c.bytes), 0).label("bytes"),
        )
        .select_from(current)
        .outerjoin(series, series.c.series_key == current.c.series_key)
        .outerjoin(studies, studies.c.study_key == series.c.study_key)
    ).one()
    return {
        **row._mapping,  # noqa: SLF001 - SQLAlchemy's documented way to a row's names
        "receipts": _number(connection, select(func.count()).select_from(receipts)),
        "damaged": _number(connection, select(func.count()).where(text(DAMAGED)).select_from(versions)),
        "in_conflict": _number(
            connection, select(func.count()).where(text("conflict = 1")).select_from(versions)
        ),
        "held": _number(connection, select(func.count(holds.c.version_key.distinct()))),
    }


def _number(connection: Connection, query: Select[Any]) -> int:
    return int(connection.execute(query).scalar() or 0)
