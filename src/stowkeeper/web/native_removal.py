"""Taking studies, series and instances away: at once where it is little, by a job where it is much."""

from pydantic import Field
from sqlalchemy import Connection, select

from stowkeeper.archive.removal import HeldVersion, Removal, RemovalPlan, RemovalResult
from stowkeeper.database.schema import instance_among, instances, series, studies
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.rows import submit
from stowkeeper.services.archive_jobs import remove_request
from stowkeeper.web.limits import HELD_NAMED_MAX, REMOVED_AT_ONCE_MAX
from stowkeeper.web.native_models import Shape
from stowkeeper.web.problems import ProblemError, not_found
from stowkeeper.web.roles import Principal, Role
from stowkeeper.web.services import WebServices

BY_HTTP = "removed by HTTP"
"""The reason where none is given."""


class Left(Shape):
    """A file that could not be removed now; the server tries again."""

    path: str
    words: str


class Removed(Shape):
    """What a removal did."""

    uid: str
    removed: int = Field(description="Versions that are gone.")
    passed_over: int = Field(description="Versions that became held, or were removed by others, meanwhile.")
    left: list[Left]
    quarantined: list[str] = Field(description="Damaged files, which stay in quarantine.")


def remove(
    services: WebServices, level: str, uid: str, asker: Principal, *, reason: str | None, override: bool
) -> dict[str, object] | Job:
    """Remove a study, series or instance; return what was done, or the job that does it.

    Raises ProblemError where there is no such thing, where something of it is held and not overridden, and where an override
    lacks role or reason.
    """
    if override:
        _check_override(asker, reason)
    archive = services.archive
    removal = Removal(archive.files, archive.root, archive.database, override_holds=override, who=asker.who)
    with services.database.read() as connection:
        is_there = _is_there(connection, level, uid)
    plan = removal.plan(uid) if is_there else RemovalPlan(uid=uid)
    if plan.held:
        raise _held(plan.held)
    if not plan.versions:
        raise not_found(f"{level} of this UID")
    if plan.versions > REMOVED_AT_ONCE_MAX:
        return _by_job(services, uid, asker, reason or BY_HTTP, override=override)
    return _said(uid, removal.carry_out(plan, reason or BY_HTTP))


def _check_override(asker: Principal, reason: str | None) -> None:
    if not asker.role.includes(Role.ADMIN):
        raise ProblemError(
            403,
            f"to override holds needs the role {Role.ADMIN}, and the credential {asker.name!r} has {asker.role}",
        )
    if reason is None:
        raise ProblemError(
            422,
            "to override holds needs a reason",
            errors=[{"where": "query.reason", "what": "it must be given"}],
        )


def _is_there(connection: Connection, level: str, uid: str) -> bool:
    """Tell whether a UID is one of this level: a removal would take any."""
    column, condition = {
        "study": (studies.c.study_key, studies.c.study_instance_uid == uid),
        "series": (series.c.series_key, series.c.series_instance_uid == uid),
        "instance": (instances.c.instance_key, instance_among([uid])),
    }[level]
    return connection.execute(select(column).where(condition).limit(1)).first() is not None


def _held(held: list[HeldVersion]) -> ProblemError:
    return ProblemError(
        409,
        f"{len(held)} held, nothing was removed: an administrator can override that, with a reason",
        held=[
            {"sop_instance_uid": version.sop_instance_uid, "reasons": list(version.reasons)}
            for version in held[:HELD_NAMED_MAX]
        ],
        held_count=len(held),
    )


def _by_job(services: WebServices, uid: str, asker: Principal, reason: str, *, override: bool) -> Job:
    request = remove_request([uid], reason=reason, created_by=asker.who, override_holds=override)
    with services.database.write() as transaction:
        job = submit(transaction, request)
    services.jobs_wake()
    return job


def _said(uid: str, result: RemovalResult) -> dict[str, object]:
    return {
        "uid": uid,
        "removed": result.removed + result.closed,
        "passed_over": result.passed_over,
        "left": [{"path": path, "words": words} for path, words in result.left],
        "quarantined": result.quarantined,
    }
