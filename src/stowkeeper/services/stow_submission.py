"""Asking for instances of the archive to be stored to an origin server: the job of kind `stow`, put in by the caller's transaction."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from stowkeeper.database.engine import Transaction
from stowkeeper.jobs.job import Job, JobRequest
from stowkeeper.jobs.submission import submit
from stowkeeper.services.origin_servers import OriginServer
from stowkeeper.services.store_submission import items_to_send

JOB_KIND: Final = "stow"


def submit_stow(
    transaction: Transaction,
    server: OriginServer,
    uids: Sequence[str],
    *,
    created_by: str,
    priority: int = 0,
) -> Job:
    """Put in the job that stores instances to an origin server; the UIDs are those of studies, series and instances.

    Where the server is and who we are to it stands in the settings alone, and is looked up there in each run.

    Raises:
        CannotStoreError: no UID is given, nothing is kept of one of them, or there are more than STORE_INSTANCES_MAX instances.

    """
    asked = list(dict.fromkeys(uids))
    items = items_to_send(transaction.connection, asked)
    subject = asked[0] if len(asked) == 1 else ""
    return submit(
        transaction, stow_request(server, items, created_by=created_by, priority=priority, subject=subject)
    )


def stow_request(
    server: OriginServer,
    sop_instance_uids: Sequence[str],
    *,
    created_by: str,
    priority: int = 0,
    arguments: Mapping[str, Any] = MappingProxyType({}),
    subject: str = "",
) -> JobRequest:
    """Return the job that stores these very instances to an origin server, in this order."""
    return JobRequest(
        kind=JOB_KIND,
        arguments=arguments,
        subject=subject,
        peer=server.name,
        lane=server.lane,
        priority=priority,
        created_by=created_by,
        items=sop_instance_uids,
    )
