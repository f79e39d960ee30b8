"""What an answer says of each file of its request. Stored is only what the answer names so (PS3.18 §10.5.3)."""

import email.utils
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from http import HTTPStatus
from typing import Final

from stowkeeper.services.peer_words import quote
from stowkeeper.services.stow_client.batches import QueuedFile
from stowkeeper.services.stow_client.connection import Answer
from stowkeeper.services.stow_client.limits import ANSWER_WORDS_LETTERS_MAX
from stowkeeper.stow.reasons import is_out_of_resources, words_of
from stowkeeper.stow.response import (
    FailedInstance,
    OtherFailure,
    ResponseError,
    StoredInstance,
    StoreResult,
    read_response,
)

READ_STATUSES: Final = frozenset({200, 202, 400, 409, 503})
"""Statuses with which servers send a store response; the response outranks them, since some count in their own way."""

_PHRASES: Final = {int(status): status.phrase for status in HTTPStatus}
"""Ours, and not what the server says: anything may stand there."""


class Result(Enum):
    """What became of a file."""

    STORED = "stored"
    WARNING = "warning"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the server says of a file. `reason` is its Failure or Warning Reason; a failure that `may_pass` is for now."""

    result: Result
    reason: int | None = None
    words: str = ""
    may_pass: bool = False


def store_result(answer: Answer) -> StoreResult | None:
    """Return the store response in an answer; None where there is none that can be read."""
    if answer.status not in READ_STATUSES or not answer.body:
        return None
    try:
        return read_response(answer.body, answer.media_type)
    except ResponseError:
        return None


def verdicts(batch: Sequence[QueuedFile], result: StoreResult) -> list[Verdict]:
    """Return what a store response says of each file of a request, in their order. No SOP instance is in it twice."""
    stored = {instance.sop_instance_uid: instance for instance in result.stored}
    failed = {instance.sop_instance_uid: instance for instance in result.failed}
    alone = result.others[0] if len(batch) == len(result.others) == 1 else None
    return [
        _verdict(stored.get(uid), failed.get(uid), alone, len(result.others))
        for uid in (queued.file.sop_instance_uid for queued in batch)
    ]


def _verdict(
    stored: StoredInstance | None, failed: FailedInstance | None, alone: OtherFailure | None, others: int
) -> Verdict:
    if stored is not None and failed is not None:
        return Verdict(result=Result.UNKNOWN, words="the server names it as stored and as failed")
    if stored is not None:
        if stored.warning is None:
            return Verdict(result=Result.STORED)
        words = _with_words(words_of(stored.warning), stored.words)
        return Verdict(result=Result.WARNING, reason=stored.warning, words=words)
    refusal = failed or alone
    if refusal is not None:
        return Verdict(
            result=Result.FAILED,
            reason=refusal.reason,
            words=_with_words(words_of(refusal.reason), refusal.words),
            may_pass=is_out_of_resources(refusal.reason),
        )
    words = "the server's answer does not name it"
    if others:
        words += f", and tells of {others} failed parts without their names"
    return Verdict(result=Result.UNKNOWN, words=words)


def status_line(answer: Answer) -> str:
    """Say the status of an answer with what the server says of it, bounded."""
    said = _words_in(answer)
    line = f"{answer.status} {_PHRASES.get(answer.status, '')}".rstrip()
    return f"{line}: {quote(said)}" if said else line


def seconds_to_wait(answer: Answer) -> float | None:
    """Return what Retry-After asks for (RFC 9110 §10.2.3), in seconds from now; None where it asks for nothing readable."""
    value = answer.fields.get("retry-after", "").strip()
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        when = email.utils.parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return None
    return max(0.0, when - time.time())


def _with_words(meaning: str, words: str) -> str:
    return f"{meaning} ({quote(words[:ANSWER_WORDS_LETTERS_MAX])})" if words else meaning


def _words_in(answer: Answer) -> str:
    """Find a sentence for people: of problem details (RFC 9457), as Orthanc has it, or a line of plain text."""
    text = answer.body[: 64 * ANSWER_WORDS_LETTERS_MAX].decode("utf-8", "replace")
    if answer.media_type.endswith("json"):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return ""
        if not isinstance(found, dict):
            return ""
        said = next(
            (found[name] for name in ("detail", "Details", "Message", "title") if found.get(name)), ""
        )
        text = said if isinstance(said, str) else ""
    elif answer.media_type != "text/plain":
        return ""
    return " ".join(text.split())[:ANSWER_WORDS_LETTERS_MAX]
