"""Who may let a job go on. Roles are asked for by routes; here is what depends on the job itself."""

from sqlalchemy import Connection

from stowkeeper.jobs import rows
from stowkeeper.jobs.states import JobAction
from stowkeeper.services.archive_jobs import OVERRIDE_HOLDS, overrides_holds
from stowkeeper.web.problems import ProblemError
from stowkeeper.web.roles import Principal, Role

_GOES_ON = frozenset({JobAction.RESUME, JobAction.RESUBMIT})


def check_may_act(connection: Connection, job_id: str, action: JobAction, asker: Principal) -> None:
    """See that who asks may do it to this job: who lets a removal go on that overrides holds overrides them.

    Call it in the transaction of the action. Raises ProblemError. A job that there is not is no matter of permission.
    """
    if action not in _GOES_ON or asker.role.includes(Role.ADMIN):
        return
    job = rows.find(connection, job_id)
    if job is not None and overrides_holds(job):
        raise ProblemError(
            403,
            f"the job removes what is held, so to let it go on needs the role {Role.ADMIN}, and the credential {asker.name!r}"
            f" has {asker.role}",
            needed_role=Role.ADMIN.value,
        )


def argument_left_out(action: JobAction, asker: Principal) -> str:
    """Return the argument without which jobs are that who asks may do this to, for a `JobFilter`; '' where all are."""
    return OVERRIDE_HOLDS if action in _GOES_ON and not asker.role.includes(Role.ADMIN) else ""
