"""What the settings say of storage commitment as provider."""

from dataclasses import dataclass

COMMITMENT_JOB = "commitment"
"""The kind of job that checks and reports a storage commitment (`provider_job.py`)."""

LOOKS_AGAIN = "looks_again"
"""Stands in the arguments of such a job that a person asked for: everything is looked at before it is reported."""

AFTER_REPORT = "after_report"
"""Stands in the arguments of such a job that is not the first of its transaction: the last report before it, by its key. A later
one that the peer answered is what the job is there for."""


def peer_lane(name: str) -> str:
    """Return the lane of the jobs that call a peer: one at a time."""
    return f"peer:{name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitmentOptions:
    """How storage commitment is done here.

    `policy` is a name that `policy_named` knows, and `policy_seconds` bounds one question to a command or an endpoint. An
    instance that is not there yet is waited for `grace_seconds` while it may still come. A report that goes out more than
    `recheck_after_seconds` after the check, and was never answered, is checked again first. Reports are tried for
    `report_days`, and so is a check that cannot be made. `retrieve_ae_title` stands in reports where it is not empty:
    that of a retrieve service which has these instances.
    """

    policy: str = "digest"
    policy_seconds: float = 30.0
    grace_seconds: float = 60.0
    recheck_after_seconds: float = 3600.0
    report_days: float = 7.0
    retrieve_ae_title: str = ""
