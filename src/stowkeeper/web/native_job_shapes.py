"""Jobs as the native interface shows them."""

from dataclasses import asdict
from typing import Any

from pydantic import Field

from stowkeeper.jobs.job import Job
from stowkeeper.jobs.states import JobState, JobWish
from stowkeeper.web.native_models import MeasuredSeconds, Shape


class JobShape(Shape):
    """A job."""

    job_id: str
    kind: str = Field(description="What is to be done.")
    state: JobState
    wish: JobWish = Field(description="What a running job was asked for and has not done yet.")
    priority: int = Field(description="The larger goes first.")
    lane: str = Field(description="Jobs of one lane wait for each other; '' is no lane.")
    step: str
    arguments: dict[str, Any]
    checkpoint: dict[str, Any] = Field(description="How far it is, in the terms of its kind.")
    items_total: int = Field(description="0 while it is not known.")
    items_done: int
    subject: str = Field(description="The UID that it is about, or ''.")
    peer: str = Field(description="The name of the peer that it is about, or ''.")
    created_at: str
    created_by: str
    due_at: str = Field(description="Not to be started before.")
    started_at: str | None
    finished_at: str | None
    seconds_run: MeasuredSeconds
    attempts: int
    failures: int = Field(description="In a row, without progress.")
    error: str = Field(description="Why the last attempt ended so, in words.")
    owner: str = Field(description="The process that runs it, '' when none does.")


class JobItemShape(Shape):
    """One of the things that a job does one by one."""

    position: int
    name: str
    outcome: str = Field(description="'' while it is to be done, then a word of the kind.")
    code: int | None = Field(description="A DIMSE status or failure reason, where there is one.")
    words: str
    done_at: str | None


def job_shape(job: Job) -> dict[str, Any]:
    """Return a job as a JSON object with the keys of JobShape."""
    return asdict(job)
