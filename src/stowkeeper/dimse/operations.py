"""Operations in progress on one association: message ids, and the asynchronous operations window of PS3.7 §D.3.3.3.

`InvokedOperations` is for the user (we sent the requests), `PerformedOperations` for the provider (the peer did).
A window of 0 is unlimited on the wire and our own bound here. Without negotiation a window is 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from stowkeeper.dimse.errors import LocalError, PeerError
from stowkeeper.dimse.limits import (
    MESSAGE_ID_MAX,
    OPERATIONS_EXCESS_MAX,
    OPERATIONS_INVOKED_MAX,
    OPERATIONS_PERFORMED_MAX,
)
from stowkeeper.dimse.message_types import RESPONSE_BIT, Request, Response
from stowkeeper.dimse.messages import command_name

Subject = TypeVar("Subject")


@dataclass(frozen=True, slots=True, kw_only=True)
class InvokedOperation(Generic[Subject]):
    """An operation of ours that awaits its response; `subject` is whatever the caller keeps with it."""

    message_id: int
    command_field: int
    subject: Subject


class InvokedOperations(Generic[Subject]):
    """The operations that we invoked on one association and whose responses are still to come.

    `window` is the number that the peer lets us invoke at once. Ids run from 1 to 65535 and round again; one is never
    given out while its operation is in progress.
    """

    __slots__ = ("_in_progress", "_last_message_id", "window")

    def __init__(self, window: int) -> None:
        self.window = _bounded_window(window, OPERATIONS_INVOKED_MAX)
        self._in_progress: dict[int, InvokedOperation[Subject]] = {}
        self._last_message_id = 0

    def __len__(self) -> int:
        """Return the number of operations in progress."""
        return len(self._in_progress)

    def __iter__(self) -> Iterator[InvokedOperation[Subject]]:
        """Iterate over a copy of the operations in progress, oldest first: what fails when the association ends."""
        return iter(tuple(self._in_progress.values()))

    @property
    def has_room(self) -> bool:
        """Whether the window allows one more operation now."""
        return len(self._in_progress) < self.window

    def begin(self, command_field: int, subject: Subject) -> int:
        """Open an operation and return the message id for its request.

        Raises:
            LocalError: the window is full; ask `has_room` first.

        """
        if not self.has_room:
            raise LocalError(f"All {self.window} operations that the window allows await their responses")
        message_id = self._last_message_id % MESSAGE_ID_MAX + 1
        while message_id in self._in_progress:
            message_id = message_id % MESSAGE_ID_MAX + 1
        self._last_message_id = message_id
        self._in_progress[message_id] = InvokedOperation(
            message_id=message_id, command_field=command_field, subject=subject
        )
        return message_id

    def finish(self, response: Response) -> InvokedOperation[Subject] | None:
        """Close the operation that a response belongs to and return it; None when nobody awaits that response.

        An unexpected response is to be logged and otherwise ignored: it asks for nothing, and may be the late answer
        to an operation that was given up.

        Raises:
            PeerError: the id is awaited, but the response is that of another command, so nothing it says holds.

        """
        operation = self._in_progress.get(response.responds_to)
        if operation is None:
            return None
        if response.command_field != operation.command_field | RESPONSE_BIT:
            raise PeerError(
                f"{command_name(response.command_field)} answers message {operation.message_id}, "
                f"which was a {command_name(operation.command_field)}"
            )
        del self._in_progress[operation.message_id]
        return operation

    def give_up(self, message_id: int) -> InvokedOperation[Subject]:
        """Close an operation without its response, say after a time limit; a response that still comes is unexpected.

        Raises:
            LocalError: no such operation is in progress.

        """
        operation = self._in_progress.pop(message_id, None)
        if operation is None:
            raise LocalError(f"No operation with message id {message_id} is in progress")
        return operation


class Admission(Enum):
    """What becomes of a request that the peer sent."""

    PERFORM = "perform it, then call finish"
    DUPLICATE = "take in its data set, if any, and answer 0210H, duplicate invocation; do not call finish"


class PerformedOperations:
    """The operations that the peer invoked on one association and that we have not answered yet.

    `window` is the number that we granted, 1 to a peer that asked for none. A peer that goes beyond it is served all the same, since it costs no more
    than waiting: while `pause` is True, read nothing more from it. Only a caller that pays no heed to `pause` can get
    so far that the peer is given up.
    """

    __slots__ = ("_in_progress", "window")

    def __init__(self, window: int) -> None:
        self.window = _bounded_window(window, OPERATIONS_PERFORMED_MAX)
        self._in_progress: set[int] = set()

    def __len__(self) -> int:
        """Return the number of operations in progress."""
        return len(self._in_progress)

    @property
    def pause(self) -> bool:
        """Whether the peer has gone beyond its window, so that nothing more is to be taken from it for now.

        A window that is just full does not pause: a peer that keeps to it may still cancel, release or abort, and
        that should be noticed at once.
        """
        return len(self._in_progress) > self.window

    def begin(self, request: Request) -> Admission:
        """Count a request in, or find that its message id is already in progress (PS3.7 §9.1.1.1, Annex C).

        The answer to a duplicate carries the same id as the answer to come for the first: the peer cannot tell them
        apart, but it broke the rule, and the first operation is not to suffer.

        Raises:
            PeerError: `OPERATIONS_EXCESS_MAX` operations beyond the window.

        """
        if request.message_id in self._in_progress:
            return Admission.DUPLICATE
        if len(self._in_progress) >= self.window + OPERATIONS_EXCESS_MAX:
            raise PeerError(
                f"{len(self._in_progress)} operations in progress, the negotiated window is {self.window} "
                "(PS3.7 §D.3.3.3)"
            )
        self._in_progress.add(request.message_id)
        return Admission.PERFORM

    def finish(self, message_id: int) -> None:
        """Count an operation out: its response has been handed on for sending.

        Raises:
            LocalError: no such operation is in progress.

        """
        if message_id not in self._in_progress:
            raise LocalError(f"No operation with message id {message_id} is in progress")
        self._in_progress.remove(message_id)


def _bounded_window(window: int, bound: int) -> int:
    if window < 0:
        raise LocalError(f"A window of {window} operations: use 0 for unlimited or a positive number")
    return min(window or bound, bound)
