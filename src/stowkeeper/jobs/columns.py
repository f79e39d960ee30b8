"""Between the columns of the tables and the values of this room: JSON within its bounds, rows to jobs and items."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row

from stowkeeper.jobs.job import JSON, Job, JobItem, JobTooLargeError
from stowkeeper.jobs.limits import (
    ARGUMENTS_BYTES_MAX,
    CHECKPOINT_BYTES_MAX,
    TEXT_LENGTH_MAX,
    WORDS_LENGTH_MAX,
)
from stowkeeper.jobs.states import JobState, JobWish


def encode_arguments(arguments: Mapping[str, Any]) -> str:
    """Return arguments as a row keeps them. Raises JobTooLargeError, and TypeError for what JSON cannot say."""
    return _encode("arguments", arguments, ARGUMENTS_BYTES_MAX)


def encode_checkpoint(checkpoint: Mapping[str, Any]) -> str:
    """Return a checkpoint as a row keeps it. Raises JobTooLargeError, and TypeError for what JSON cannot say."""
    return _encode("checkpoint", checkpoint, CHECKPOINT_BYTES_MAX)


def _encode(what: str, value: Mapping[str, Any], bytes_max: int) -> str:
    if not value:
        return "{}"
    # ASCII alone, so that characters are bytes; and NaN is no JSON.
    text = json.dumps(dict(value), separators=(",", ":"), allow_nan=False)
    if len(text) > bytes_max:
        raise JobTooLargeError(
            f"the {what} of a job take {len(text)} bytes, {bytes_max} are allowed: what there is much of belongs into items"
        )
    return text


def checked_text(what: str, text: str) -> str:
    """Return a text as a row keeps it. Raises JobTooLargeError, and ValueError for what no UTF-8 can say."""
    if len(text) > TEXT_LENGTH_MAX:
        raise JobTooLargeError(
            f"the {what} of a job has {len(text)} characters, {TEXT_LENGTH_MAX} are allowed"
        )
    text.encode()
    return text


def cut_words(words: str) -> str:
    """Return words about an ending or an item as a row keeps them: a peer's own text may be in them."""
    words = words.encode(errors="replace").decode()
    return words if len(words) <= WORDS_LENGTH_MAX else words[: WORDS_LENGTH_MAX - 1] + "…"


def job_of(row: Row[Any]) -> Job:
    """Return the job of a whole row of `jobs`. What cannot be read of its JSON is empty: nobody is to run that."""
    values = dict(row._mapping)  # noqa: SLF001 - the public name of a row's columns by name
    values["state"] = JobState(values["state"])
    values["wish"] = JobWish(values["wish"])
    values["arguments"] = _decode(values["arguments"]) or {}
    values["checkpoint"] = _decode(values["checkpoint"]) or {}
    return Job(**values)


def is_readable(row: Row[Any]) -> bool:
    """Tell whether the JSON of a whole row of `jobs` can be read: a bad disk or another's hand may have spoilt it."""
    return _decode(row.arguments) is not None and _decode(row.checkpoint) is not None


def _decode(text: Any) -> JSON | None:  # noqa: ANN401 - SQLite keeps any type in any column
    """Return an object of JSON, None for what is none."""
    try:
        value = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def item_of(row: Row[Any]) -> JobItem:
    """Return the item of a row of `job_items`."""
    return JobItem(
        position=row.position,
        name=row.name,
        outcome=row.outcome,
        code=row.code,
        words=row.words,
        done_at=row.done_at,
    )
