"""When something that fails is not tried any more: late by the clock, and by the pauses between the failures as well."""

from stowkeeper.jobs.job import JSON
from stowkeeper.jobs.kind import JobRun
from stowkeeper.services.commitment.limits import FAILURES_TO_GIVE_UP_MIN, PAUSES_TO_GIVE_UP_MIN
from stowkeeper.services.commitment.options import CommitmentOptions
from stowkeeper.services.commitment.times import DAY_SECONDS, age_seconds, utc_now

FAILING = "failing"
"""Stands in the checkpoint of the job: since when it fails, for how many seconds by its pauses, and when it failed last."""


def is_to_be_given_up(run: JobRun, since: str, options: CommitmentOptions) -> bool:
    """Note a failure of what has been tried since a time; tell whether that has gone on for too long.

    A pause counts as a part of the whole time at most, however long it was by a clock that can be set. Blocks; raises
    LeaseLostError and DatabaseUnavailable.
    """
    seconds_max = options.report_days * DAY_SECONDS
    before: JSON = run.job.checkpoint.get(FAILING, {})
    if before.get("since") != since:
        before = {"since": since, "seconds": 0.0, "last": since}
    pause = min(max(age_seconds(before["last"]), 0.0), seconds_max / PAUSES_TO_GIVE_UP_MIN)
    failing = {"since": since, "seconds": before["seconds"] + pause, "last": utc_now()}
    with run.write() as transaction:
        run.progress(transaction, checkpoint={**run.job.checkpoint, FAILING: failing})
    is_late = age_seconds(since) > seconds_max and failing["seconds"] >= seconds_max
    return is_late and run.job.failures >= FAILURES_TO_GIVE_UP_MIN
