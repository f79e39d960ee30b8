"""The Storage service as user: files to a peer, over associations side by side, until each has its outcome.

- What the peer does not take as it is is converted if that is possible (`conversion`); a Warning is an acceptance.
- A peer that is out of resources (A7xx) is left alone for a while, and then asked again.
- When an association ends early, another takes its place and goes on with what was not answered. Files that were on
  the way then are sent again one at a time, each waiting for its answer: so a file at which the peer gives up fails
  alone.
- Each file is tried at most `retries` times again. Sending an instance twice is always safe.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol

from stowkeeper.dicom.sop_classes import SOP_CLASSES
from stowkeeper.dicom.status import Status, StatusCategory, category_of, meaning_of
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.dimse.message_types import CStoreRequest, Response
from stowkeeper.net.association_errors import AssociationError, AssociationRejectedError
from stowkeeper.net.client import Answer, ClientAssociation, association_request
from stowkeeper.net.client_connection import ClientTimeouts
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.services.conversion import CONVERSION_TARGETS, can_convert, conversion_obstacle
from stowkeeper.services.limits import BACK_OFF_SECONDS_MAX, FILES_AHEAD_MAX
from stowkeeper.services.peer_words import quote
from stowkeeper.services.send_plan import PlannedAssociation, SendableFile, plan_associations
from stowkeeper.services.send_source import DataSetSource, FileReader, SourceError
from stowkeeper.upperlayer.limits import OPERATIONS_WINDOW_DEFAULT
from stowkeeper.upperlayer.reasons import PresentationResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """A storage provider."""

    ae_title: str
    host: str
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SendOptions:
    """How to send.

    `back_off_seconds` is the first wait before a peer is tried again; each further one is twice as long, up to a bound.
    With `tls`, the peer is asked for `server_name`, or for its host where there is none. Without `waits_for_resources` an
    instance that the peer has no resources for (A7xx) has failed for now, at once.
    """

    calling_ae_title: str
    associations: int = 1
    window: int = OPERATIONS_WINDOW_DEFAULT
    retries: int = 3
    back_off_seconds: float = 1.0
    timeouts: ClientTimeouts = ClientTimeouts()  # noqa: RUF009 - an immutable value
    tls: TLSContext | None = None
    server_name: str | None = None
    waits_for_resources: bool = True


class Result(Enum):
    """What became of a file."""

    ACCEPTED = "accepted"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one file.

    `status` is the peer's last, None when it gave none. `words` say why it failed, or what the warning is. `sent_as`
    is the transfer syntax that it went in, empty when it was not sent. `attempts` counts how often it was sent. Of a file
    that failed, `may_pass` says that it was for now: the peer was out of resources, or gone.
    """

    file: SendableFile
    result: Result
    words: str
    status: int | None
    sent_as: str
    attempts: int
    may_pass: bool = False


class SendObserver(Protocol):
    """Who wants to know how it goes; called on the event loop."""

    def sent(self, count: int) -> None:
        """Know of bytes that were given to the network, or, if negative, that have to be sent again."""
        ...

    def decided(self, outcome: Outcome) -> None:
        """Know what became of a file, once for each."""
        ...

    def notice(self, words: str) -> None:
        """Know of an event that a person may want to read about: a lost association, a wait."""
        ...


class _Entry:
    """A file until it is decided."""

    __slots__ = ("attempts", "file", "goes_alone", "sent", "sent_as", "status", "words")

    def __init__(self, file: SendableFile) -> None:
        self.file = file
        self.attempts = 0
        self.goes_alone = False
        self.sent = 0
        self.sent_as = ""
        self.status: int | None = None
        self.words = ""


async def send_files(
    files: Sequence[SendableFile],
    destination: Destination,
    options: SendOptions,
    observer: SendObserver,
    stop: asyncio.Event | None = None,
) -> AssociationError | None:
    """Send files; the observer gets an outcome for each.

    Once `stop` is set no further file is begun: what is on the way is answered and the associations are released. The
    observer hears nothing of the files that are left.

    Returns what kept the peer from ever being reached: then no file was sent. None otherwise.
    """
    sender = _Sender(destination, options, observer, stop)
    watch = asyncio.ensure_future(sender.watch_for_stop())
    try:
        for planned in plan_associations(files, can_convert):
            await sender.send(planned)
    finally:
        watch.cancel()
    return None if sender.was_reached else sender.last_error


class _Sender:
    """Sends the files of one plan. What all its associations share is here."""

    def __init__(
        self,
        destination: Destination,
        options: SendOptions,
        observer: SendObserver,
        stop: asyncio.Event | None = None,
    ) -> None:
        self.destination = destination
        self.options = options
        self.observer = observer
        self.pending: deque[_Entry] = deque()
        self.was_reached = False
        self.last_error: AssociationError | None = None
        self._stop = stop or asyncio.Event()
        self._undecided = 0
        self._is_over = asyncio.Event()
        self._pause_until = 0.0
        self._pauses = 0

    async def send(self, planned: PlannedAssociation) -> None:
        """Send the files of one association request, over as many associations as allowed."""
        self.pending.extend(_Entry(file) for file in planned.files)
        self._undecided = len(planned.files)
        self._is_over.clear()
        if self.last_error is None or self.was_reached:
            count = min(self.options.associations, len(planned.files))
            async with asyncio.TaskGroup() as lanes:
                for _ in range(count):
                    lanes.create_task(_Lane(self, planned).run())
        reason = self.last_error or "the peer was lost"
        for entry in self.pending if not self.is_stopping else ():
            words = f"not sent: {reason}" if not entry.attempts else entry.words
            self.decide(entry, Result.FAILED, words, entry.status, may_pass=True)
        self.pending.clear()

    @property
    def is_stopping(self) -> bool:
        """Whether no further file is to be begun."""
        return self._stop.is_set()

    async def watch_for_stop(self) -> None:
        """Wake who waits once no further file is to be begun."""
        await self._stop.wait()
        self._is_over.set()

    def back_off(self, times: int) -> float:
        """Return how long to wait before trying for the `times`th time again, in seconds."""
        return min(self.options.back_off_seconds * 2.0 ** (times - 1), BACK_OFF_SECONDS_MAX)

    def pause(self, words: str) -> None:
        """Send nothing for a while: the peer is out of resources. All associations keep to it."""
        now = asyncio.get_running_loop().time()
        if now >= self._pause_until:
            self._pauses += 1
            seconds = self.back_off(self._pauses)
            self._pause_until = now + seconds
            self.observer.notice(f"{words}: sending goes on in {seconds:g} s.")

    async def wait_out_pause(self) -> None:
        """Wait until nothing speaks against sending, or nothing more is to be begun."""
        while True:
            seconds = self._pause_until - asyncio.get_running_loop().time()
            if seconds <= 0 or self.is_stopping:
                return
            await self.wait_until_over(seconds)

    async def wait_until_over(self, seconds: float | None = None) -> None:
        """Wait until all files of the request have their outcome, or no more are begun, but not longer than that."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_over.wait(), seconds)

    def judge(self, entry: _Entry, response: Response) -> None:
        """Take the peer's answer to a file."""
        words = meaning_of(response.status)
        if response.error_comment:
            words = f"{words} ({quote(response.error_comment)})"
        category = category_of(response.status)
        if category is StatusCategory.SUCCESS:
            self._pauses = 0
            self.decide(entry, Result.ACCEPTED, "", response.status)
        elif category is StatusCategory.WARNING:
            self._pauses = 0
            self.decide(entry, Result.WARNING, words, response.status)
        elif 0xA700 <= response.status <= 0xA7FF and self.options.waits_for_resources:
            self.pause(f"The peer is out of resources ({words})")
            self.try_again(entry, words, response.status)
        else:
            may_pass = 0xA700 <= response.status <= 0xA7FF or response.status == Status.RESOURCE_LIMITATION
            self.decide(entry, Result.FAILED, words, response.status, may_pass=may_pass)

    def try_again(self, entry: _Entry, words: str, status: int | None = None) -> None:
        """Put a file at the end of the queue, unless it was tried often enough."""
        entry.words = words
        entry.status = status
        if entry.attempts > self.options.retries:
            self.decide(entry, Result.FAILED, words, status, may_pass=True)
            return
        self.observer.sent(-entry.sent)
        entry.sent = 0
        self.pending.append(entry)

    def decide(
        self, entry: _Entry, result: Result, words: str, status: int | None = None, *, may_pass: bool = False
    ) -> None:
        """Tell the outcome of a file."""
        outcome = Outcome(
            file=entry.file,
            result=result,
            words=words,
            status=status,
            sent_as=entry.sent_as,
            attempts=entry.attempts,
            may_pass=may_pass,
        )
        self.observer.sent(entry.file.data_set_length - entry.sent)  # a conversion has another length
        self.observer.decided(outcome)
        self._undecided -= 1
        if not self._undecided:
            self._is_over.set()


class _Lane:
    """One association after the other, as long as there is something to send."""

    def __init__(self, sender: _Sender, planned: PlannedAssociation) -> None:
        self._sender = sender
        self._planned = planned

    async def run(self) -> None:
        """Send what is pending; end when nothing is, or the peer is not to be had."""
        sender = self._sender
        fruitless = 0
        while sender.pending and not sender.is_stopping:
            decided = 0
            error: AssociationError | None
            try:
                association = await self._open()
            except AssociationError as failure:
                sender.last_error = error = failure
                if not self._is_worth_another_try(failure):
                    return
            else:
                if association is None:
                    return
                sender.was_reached = True
                course = _Course(sender, self._planned, association)
                error = await course.run()
                decided = course.decided
                if error is None or course.was_given_up:
                    continue
                sender.last_error = error
            fruitless = 0 if decided else fruitless + 1
            if fruitless > sender.options.retries or not sender.pending:
                return
            seconds = sender.back_off(max(1, fruitless))
            sender.observer.notice(f"{error} A new association is tried in {seconds:g} s.")
            await sender.wait_until_over(seconds)

    def _is_worth_another_try(self, error: AssociationError) -> bool:
        if isinstance(error, AssociationRejectedError):
            return error.is_transient
        return self._sender.was_reached

    async def _open(self) -> ClientAssociation | None:
        """Ask for an association; None when there is nothing more to send before it is there."""
        sender = self._sender
        destination = sender.destination
        request = association_request(
            called_ae_title=destination.ae_title,
            calling_ae_title=sender.options.calling_ae_title,
            contexts=self._planned.contexts,
            operations_window=sender.options.window,
        )
        opening = asyncio.ensure_future(
            ClientAssociation.open(
                destination.host,
                destination.port,
                request,
                sender.options.timeouts,
                tls=sender.options.tls,
                server_name=sender.options.server_name,
            )
        )
        over = asyncio.ensure_future(sender.wait_until_over())
        try:
            await asyncio.wait({opening, over}, return_when=asyncio.FIRST_COMPLETED)
            if opening.done():
                return opening.result()
            return None
        finally:
            over.cancel()
            if not opening.done():
                opening.cancel()
                await asyncio.wait({opening})


class _Course:
    """The use of one association, from its first request to its release.

    `decided` counts the files that have their outcome by it. `was_given_up` says that it was we who ended it, in the
    middle of a file that cannot be read to its end.
    """

    def __init__(self, sender: _Sender, planned: PlannedAssociation, association: ClientAssociation) -> None:
        self.decided = 0
        self.was_given_up = False
        self._sender = sender
        self._association = association
        self._routes = _Routes(planned, association)
        self._in_flight: dict[asyncio.Future[Answer], _Entry] = {}
        self._ahead: deque[tuple[_Entry, DataSetSource, int]] = deque()

    async def run(self) -> AssociationError | None:
        """Send what is pending. Returns what ended the association too early, None when it was released."""
        reader = FileReader(self._association.data_length_per_pdu)
        try:
            while not self._sender.is_stopping and await self._has_next(reader):
                await self._send_next()
            await self._association.release()
        except AssociationError as error:
            self._give_back(error)
            return error
        except BaseException:
            self._association.abort()
            raise
        finally:
            reader.close()
            await self._association.close()
        return None

    async def _has_next(self, reader: FileReader) -> bool:
        """Open files ahead. When there are none, wait for the answers, which may bring some back."""
        while True:
            self._open_ahead(reader)
            if self._ahead:
                return True
            await self._association.wait_until_answered()
            self._take_answers()
            if not self._sender.pending:
                return False

    def _open_ahead(self, reader: FileReader) -> None:
        sender = self._sender
        while sender.pending and len(self._ahead) < FILES_AHEAD_MAX:
            entry = sender.pending.popleft()
            context_id, target = self._routes.of(entry.file)
            if context_id is None:
                sender.decide(entry, Result.FAILED, self._routes.refusal(entry.file))
                continue
            source = reader.open(entry.file, target, sender.observer.sent)
            self._ahead.append((entry, source, context_id))

    async def _send_next(self) -> None:
        sender = self._sender
        await sender.wait_out_pause()
        entry, source, context_id = self._ahead[0]
        if entry.goes_alone or source.target is not None:
            # A conversion that fails half-way ends the association: nothing else is to be on the way then.
            await self._association.wait_until_answered()
        await self._association.wait_for_room()
        if sender.is_stopping:
            return
        self._ahead.popleft()
        file = entry.file
        request = CStoreRequest(
            message_id=0,
            affected_sop_class_uid=file.sop_class_uid,
            affected_sop_instance_uid=file.sop_instance_uid,
        )
        entry.sent_as = source.target or file.transfer_syntax_uid
        entry.attempts += 1
        try:
            future = await self._association.start(context_id, request, source, source.length)
        except SourceError as error:
            entry.sent = source.taken
            self.decided += 1
            self.was_given_up = self._association.error is not None
            sender.decide(entry, Result.FAILED, str(error))
            return
        except AssociationError as error:
            entry.sent = source.taken
            self._lose(entry, error)
            raise
        entry.sent = source.taken
        self._in_flight[future] = entry
        future.add_done_callback(self._take_answer)
        if entry.goes_alone:
            await self._association.wait_until_answered()

    # Answers, and their absence.

    def _take_answer(self, future: "asyncio.Future[Answer]") -> None:
        entry = self._in_flight.get(future)
        if entry is None or future.exception() is not None:
            return
        del self._in_flight[future]
        self.decided += 1
        self._sender.judge(entry, future.result().response)

    def _take_answers(self) -> None:
        """Take the answers whose callbacks have not run yet."""
        for future in [future for future in self._in_flight if future.done()]:
            self._take_answer(future)

    def _give_back(self, error: AssociationError) -> None:
        """Return what was not answered: what was on the way to be sent again, what was not as it was."""
        self._take_answers()
        for entry in self._in_flight.values():
            self._lose(entry, error)
        self._in_flight.clear()
        self._sender.pending.extendleft(entry for entry, _, _ in reversed(self._ahead))
        self._ahead.clear()

    def _lose(self, entry: _Entry, error: AssociationError) -> None:
        entry.goes_alone = True
        self._sender.try_again(entry, f"no answer: {error}")


class _Routes:
    """Which presentation context each file goes by, and in which transfer syntax."""

    def __init__(self, planned: PlannedAssociation, association: ClientAssociation) -> None:
        accepted: Mapping[int, object] = association.contexts
        self._context_ids: Final = {
            (context.abstract_syntax, context.transfer_syntaxes[0]): context.context_id
            for context in planned.contexts
            if context.context_id in accepted
        }
        answers = {result.context_id: result for result in association.response.presentation_contexts}
        self._results: Final = {
            (context.abstract_syntax, context.transfer_syntaxes[0]): answers.get(context.context_id)
            for context in planned.contexts
        }

    def of(self, file: SendableFile) -> tuple[int | None, str | None]:
        """Return context id and, if the file must be converted, the transfer syntax to convert to.

        No context id means that it cannot be sent to this peer; see `refusal`.
        """
        sop_class = file.sop_class_uid
        context_id = self._context_ids.get((sop_class, file.transfer_syntax_uid))
        if context_id is not None:
            return context_id, None
        if can_convert(file.transfer_syntax_uid):
            for target in CONVERSION_TARGETS:
                context_id = self._context_ids.get((sop_class, target))
                if context_id is not None:
                    return context_id, target
        return None, None

    def refusal(self, file: SendableFile) -> str:
        """Say why a file has no context."""
        result = self._results.get((file.sop_class_uid, file.transfer_syntax_uid))
        known_class = SOP_CLASSES.get(file.sop_class_uid)
        class_name = known_class.name if known_class else f"SOP class {file.sop_class_uid}"
        if result is not None and result.result == PresentationResult.ABSTRACT_SYNTAX_NOT_SUPPORTED:
            return f"the peer does not accept {class_name}"
        syntax = TRANSFER_SYNTAXES.get(file.transfer_syntax_uid)
        syntax_name = syntax.name if syntax else f"transfer syntax {file.transfer_syntax_uid}"
        words = f"the peer does not accept {syntax_name} for {class_name}"
        if result is None or result.result != PresentationResult.TRANSFER_SYNTAXES_NOT_SUPPORTED:
            words += f" ({result.words if result else 'it gave no result'})"
        obstacle = (
            conversion_obstacle(file.transfer_syntax_uid)
            or "nor does it accept what the file could be converted to"
        )
        return f"{words}; {obstacle}"
