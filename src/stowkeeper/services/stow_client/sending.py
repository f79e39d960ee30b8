"""Files to a DICOMweb server, in requests side by side, until each has its outcome (PS3.18 §10.5).

- Stored is what the server's answer names as stored, and nothing else.
- A server that is busy (408, 429, 503) or away is left alone for a while and asked again, for a bounded time.
- A request without an answer is sent again, its files one to a request: so a file at which the server gives up fails alone.
  Sending an instance twice is always safe.
- A body that is too large (413) is sent in halves, and what follows in smaller ones.
- Any other refusal of the request itself ends the sending: the next one would be refused too.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from stowkeeper import __version__
from stowkeeper.services.send_plan import SendableFile
from stowkeeper.services.stow_client.answers import (
    Result,
    Verdict,
    seconds_to_wait,
    status_line,
    store_result,
    verdicts,
)
from stowkeeper.services.stow_client.batches import (
    Batch,
    BatchBody,
    BatchQueue,
    QueuedFile,
    UnreadableFileError,
)
from stowkeeper.services.stow_client.connection import (
    Answer,
    AnswerLostError,
    ServerConnection,
    StoppedError,
    UnreachableError,
)
from stowkeeper.services.stow_client.journal import Journal
from stowkeeper.services.stow_client.limits import (
    REDIRECTS_MAX,
    REFUSED_IN_A_ROW_MAX,
    STOP_ANSWER_SECONDS,
    WATCH_SECONDS,
)
from stowkeeper.services.stow_client.options import (
    Cause,
    Destination,
    Ended,
    Outcome,
    StowObserver,
    StowOptions,
)
from stowkeeper.services.stow_client.patience import Patience
from stowkeeper.services.stow_client.refusals import refusal
from stowkeeper.stow.media_types import DICOM_JSON, DICOM_XML

_BUSY: Final = frozenset({408, 429, 503})
_REDIRECTS: Final = frozenset({307, 308})


def stow_files(
    files: Sequence[SendableFile],
    destination: Destination,
    options: StowOptions,
    observer: StowObserver,
    journal: Journal | None = None,
) -> str:
    """Send files; the observer gets an outcome for each. What is stored goes into the journal.

    Returns what ended the sending before any answer told of a file, as a sentence, '' otherwise. Raises KeyboardInterrupt when it is
    interrupted: what was on its way then is decided, what was not begun is not. Raises OSError when the journal fails.
    """
    count = min(options.parallel, len(files))
    sender = _Sender(files, destination, options, observer, journal, count)
    lanes = [
        threading.Thread(target=sender.run_lane, name=f"stowkeeper-stow-{number}", daemon=True)
        for number in range(count)
    ]
    try:
        for lane in lanes:
            lane.start()
        # Not `join`: interrupted, it takes a thread that runs for one that has ended.
        sender.over.wait()
    except KeyboardInterrupt:
        sender.stop()
        sender.over.wait(STOP_ANSWER_SECONDS + WATCH_SECONDS * 2)
        sender.abandon()
        raise
    for lane in lanes:
        lane.join()
    return sender.finish()


class StowSending:
    """Sending that goes on in threads of its own, for who must not wait: `over` is called in one of them at its end.

    There is at least one file. Every method may be called from any thread, and returns at once.
    """

    def __init__(
        self,
        files: Sequence[SendableFile],
        destination: Destination,
        options: StowOptions,
        observer: StowObserver,
        over: Callable[[], None],
    ) -> None:
        count = min(options.parallel, len(files))
        self._over = over
        self._sender = _Sender(files, destination, options, observer, None, count)
        for number in range(count):
            threading.Thread(target=self._run_lane, name=f"stowkeeper-stow-{number}", daemon=True).start()

    def end(self, words: str) -> None:
        """Begin nothing more; what is on its way goes on to its answer."""
        self._sender.end(words)

    def stop(self) -> None:
        """Begin nothing more, and cut off what is on its way out."""
        self._sender.stop()

    def finish(self) -> Ended | None:
        """Decide what was never sent, when it is over; return what ended the sending before all was. Raises what went wrong here."""
        self._sender.settle()
        return self._sender.ended

    def _run_lane(self) -> None:
        if self._sender.run_lane():
            self._over()


class _Sender:
    """What all requests of a run share. Whatever changes is behind one lock."""

    def __init__(
        self,
        files: Sequence[SendableFile],
        destination: Destination,
        options: StowOptions,
        observer: StowObserver,
        journal: Journal | None,
        lanes: int,
    ) -> None:
        self.over: Final = threading.Event()
        """Is set when the last thread has ended."""
        self._lanes = lanes
        self._queue: Final = BatchQueue(files, instances=options.instances, bytes_max=options.bytes_max)
        self._destination = destination
        self._address = destination.address
        self._options = options
        self._observer = observer
        self._journal = journal
        self._changed = threading.Condition(threading.RLock())
        self._stop = threading.Event()
        self._on_the_way = 0
        self.ended: Ended | None = None
        self._fault: BaseException | None = None
        self._was_reached = False
        self._has_news = False
        self._accept = DICOM_JSON
        self._redirects = 0
        self._refused_in_a_row = 0
        self._patience: Final = Patience(options.back_off_seconds, options.retry_seconds)

    # The threads.

    def run_lane(self) -> bool:
        """Send batches, one after the other, until nothing is left; tell whether it was the last thread to end."""
        connection = ServerConnection(
            self._address, self._destination.context, seconds=self._options.seconds, stop=self._stop
        )
        try:
            while batch := self._next_batch():
                try:
                    self._send(batch, connection)
                finally:
                    with self._changed:
                        self._on_the_way -= 1
                        self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it goes to who waits for the threads
            with self._changed:
                self._fault = self._fault or error
                self.ended = self.ended or Ended(sentence="a fault of our own", is_for_all=False)
            self.stop()
        finally:
            connection.close()
            with self._changed:
                self._lanes -= 1
                is_last = not self._lanes
                if is_last:
                    self.over.set()
        return is_last

    def end(self, words: str) -> None:
        """Begin nothing more."""
        with self._changed:
            self._end((), words, None, is_for_all=False)

    def stop(self) -> None:
        """Begin nothing more, and cut off what is on its way out."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()

    def abandon(self) -> None:
        """Decide what was to be sent again after a lost answer; what was never sent has no outcome."""
        with self._changed:
            for queued in self._queue.drain():
                if queued.lost:
                    self._fail(queued, "sending was interrupted", cause=Cause.END)

    def settle(self) -> None:
        """Decide what was never sent. Raises what went wrong here."""
        with self._changed:
            words = f"not sent: {self.ended.sentence}" if self.ended is not None else "not sent"
            for queued in self._queue.drain():
                self._fail(queued, words, is_news=False, cause=Cause.END)
            if self._fault is not None:
                raise self._fault

    def finish(self) -> str:
        """Decide what was never sent; return what ended the sending before any answer told of a file."""
        with self._changed:
            self.settle()
            ended_by = self.ended.sentence if self.ended is not None else ""
            if ended_by and self._has_news:
                self._observer.notice(ended_by)
                return ""
            return ended_by

    def _next_batch(self) -> Batch:
        """Wait until something may be sent and return it; () when nothing is left, or nothing more is to be begun."""
        with self._changed:
            while not self._stop.is_set() and self.ended is None:
                seconds = self._patience.seconds_left()
                if seconds > 0:
                    self._changed.wait(seconds)
                elif self._queue:
                    self._on_the_way += 1
                    return self._queue.take()
                elif self._on_the_way:
                    self._changed.wait()  # what is on its way may have to be sent again
                else:
                    break
            self._changed.notify_all()
            return ()

    def _send(self, batch: Batch, connection: ServerConnection) -> None:
        progress = _Progress(self)
        try:
            body = BatchBody(batch)
            with self._changed:
                request = _Request(
                    batch=batch, accept=self._accept, target=self._address.target, length=body.length
                )
            for queued in batch:
                queued.attempts += 1
            answer = connection.post(request.target, self._fields(request), body, progress.add)
        except UnreadableFileError as error:
            connection.close()
            with self._changed:
                progress.take_back()
                self._fail(error.file, str(error), cause=Cause.FILE)
                self._queue.give_back([queued for queued in batch if queued is not error.file])
        except UnreachableError as error:
            with self._changed:
                self._on_unreachable(batch, error)
        except StoppedError as error:
            with self._changed:
                progress.take_back()
                self._decide_all(batch, Verdict(result=Result.UNKNOWN, words=str(error)), cause=Cause.END)
        except AnswerLostError as error:
            with self._changed:
                progress.take_back()
                self._on_lost(batch, str(error), None)
        else:
            with self._changed:
                progress.take_back()
                self._was_reached = True
                self._on_answer(request, answer)

    def _fields(self, request: "_Request") -> dict[str, str]:
        fields = {"Accept": request.accept, "User-Agent": f"stowkeeper/{__version__}"}
        if self._destination.credential is not None:
            fields["Authorization"] = self._destination.credential.value
        return fields

    # Answers, and their absence. Under the lock.

    def _on_answer(self, request: "_Request", answer: Answer) -> None:
        batch = request.batch
        result = store_result(answer)
        if result is not None and not (answer.status == 503 and not result.stored):
            self._judge(batch, verdicts(batch, result), answer)
        elif answer.status in _BUSY:
            self._on_busy(batch, answer, verdicts(batch, result) if result is not None else ())
        elif answer.status == 413:
            self._on_too_large(request, answer)
        elif answer.status in {400, 409}:
            self._on_refused(batch, answer)
        elif answer.status in _REDIRECTS and self._follow(request, answer):
            self._queue.give_back(batch)
        elif answer.status == 406 and request.accept == DICOM_JSON:
            self._accept = DICOM_XML
            self._queue.give_back(batch)
        elif 200 <= answer.status < 300:
            words = f"the server answered {status_line(answer)}, and names no instance"
            verdict = Verdict(result=Result.UNKNOWN, words=words)
            self._decide_all(batch, verdict, answer.status, cause=Cause.NO_ANSWER)
        elif answer.status >= 500:
            self._on_lost(batch, f"the server answered {status_line(answer)}", answer.status)
        else:
            self._end(batch, refusal(answer, self._address, self._destination), answer.status)

    def _judge(self, batch: Batch, told: list[Verdict], answer: Answer) -> None:
        """Take what a store response says."""
        again: list[QueuedFile] = []
        alone: list[QueuedFile] = []
        asked = seconds_to_wait(answer)
        is_full = any(verdict.may_pass for verdict in told)
        may_wait = is_full and self._is_worth_waiting(asked)
        for queued, verdict in zip(batch, told, strict=True):
            if verdict.may_pass and may_wait and queued.attempts <= self._options.retries:
                again.append(queued)
            elif verdict.result is Result.UNKNOWN and answer.status == 400 and len(batch) > 1:
                alone.append(queued)  # some servers answer for all by one bad part
            else:
                is_unknown = verdict.result is Result.UNKNOWN
                cause = Cause.NO_ANSWER if is_unknown else Cause.ANSWER
                self._decide(queued, verdict, answer.status, cause=cause)
        if any(verdict.result in {Result.STORED, Result.WARNING} for verdict in told):
            self._patience.renew()
            self._refused_in_a_row = 0
        self._queue.give_back(alone, parts=len(alone) or 1)
        if again:
            self._queue.give_back(again)
            self._pause("The server is out of resources", asked)
        elif is_full and not self._options.waits_when_busy:
            # It may be so for this instance alone: nobody else is held up unless the server asks for it.
            words = "The server is out of resources."
            self._end((), words, answer.status, asked=asked, is_for_all=asked is not None)

    def _on_busy(self, batch: Batch, answer: Answer, told: Sequence[Verdict]) -> None:
        """Wait, or give up; `told` is what the answer says of each file, if it says anything."""
        words = f"The server is busy ({status_line(answer)})"
        asked = seconds_to_wait(answer)
        if self._is_worth_waiting(asked):
            self._queue.give_back(batch)
            self._pause(words, asked)
            return
        for queued, verdict in zip(batch, told, strict=False):
            if verdict.result is Result.FAILED:
                self._decide(queued, verdict, answer.status)
        wanted = f", and asks to be left alone for {asked:g} seconds" if asked else ""
        tried = f"; it was tried for up to {self._options.retry_seconds:g} seconds"
        if not self._options.waits_when_busy:
            tried = ""
        refused = {
            queued for queued, verdict in zip(batch, told, strict=False) if verdict.result is Result.FAILED
        }
        rest = [queued for queued in batch if queued not in refused]
        self._end(rest, f"{words}{wanted}{tried}.", answer.status, asked=asked)

    def _on_too_large(self, request: "_Request", answer: Answer) -> None:
        if len(request.batch) == 1:
            self._fail(
                request.batch[0],
                f"the server takes no file of this size ({status_line(answer)})",
                answer.status,
            )
            return
        self._queue.shrink(request.length // 2)
        self._queue.give_back(request.batch, parts=2)
        size = f"{request.length / 1e6:.1f} MB"
        self._observer.notice(
            f"The server takes no request of {size} ({status_line(answer)}): it gets smaller ones."
        )

    def _on_refused(self, batch: Batch, answer: Answer) -> None:
        """Find out, one by one, which file it is that makes the server refuse the request without a store response."""
        if len(batch) > 1:
            self._queue.give_back(batch, parts=len(batch))
            return
        self._fail(batch[0], f"the server answered {status_line(answer)}", answer.status)
        self._refused_in_a_row += 1
        if self._refused_in_a_row >= REFUSED_IN_A_ROW_MAX:
            sentence = f"The server refuses every request: {status_line(answer)}."
            self._end((), sentence, answer.status, is_for_all=False)

    def _on_lost(self, batch: Batch, words: str, status: int | None) -> None:
        """Send again what may have been stored or not, one by one; an instance that is kept already is kept once."""
        again = []
        for queued in batch:
            queued.lost += 1
            if queued.lost > self._options.retries:
                verdict = Verdict(result=Result.UNKNOWN, words=words)
                self._decide(queued, verdict, status, cause=Cause.NO_ANSWER)
            else:
                again.append(queued)
        if not again:
            return
        if self._patience.is_worth_waiting():
            self._queue.give_back(again, parts=len(again))
            self._pause(f"An answer is missing: {words}")
        else:
            tried = f"it was tried for up to {self._options.retry_seconds:g} seconds"
            self._end(again, f"Answers are missing ({words}); {tried}.", status)

    def _on_unreachable(self, batch: Batch, error: UnreachableError) -> None:
        for queued in batch:
            queued.attempts -= 1
        if error.for_good or not self._was_reached or not self._patience.is_worth_waiting():
            self._end(batch, str(error), None)
            return
        self._queue.give_back(batch)
        self._pause(str(error).rstrip("."))

    def _follow(self, request: "_Request", answer: Answer) -> bool:
        """Go where the server sends us within itself: nobody else is to see the files, or the credential."""
        if self._address.target != request.target:
            return True  # another request has gone there already
        found = self._address.redirected(answer.fields.get("location", ""))
        self._redirects += 1
        if found is None or self._redirects > REDIRECTS_MAX:
            return False
        self._address = found
        return True

    def _is_worth_waiting(self, asked: float | None) -> bool:
        """Tell whether a server that is busy may be tried again in this run."""
        return self._options.waits_when_busy and self._patience.is_worth_waiting(asked)

    def _pause(self, words: str, asked: float | None = None) -> None:
        """Begin no request for a while."""
        seconds = self._patience.pause(asked)
        if seconds is not None:
            self._observer.notice(f"{words}: sending goes on in {seconds:g} s.")

    # Ends.

    def _end(
        self,
        batch: Sequence[QueuedFile],
        sentence: str,
        status: int | None,
        *,
        asked: float | None = None,
        is_for_all: bool = True,
    ) -> None:
        """Begin nothing more: a further request would fare the same, or nobody wants one."""
        self.ended = self.ended or Ended(sentence=sentence, is_for_all=is_for_all, asked_seconds=asked)
        for queued in batch:
            self._fail(queued, f"not stored: {sentence}", status, is_news=False, cause=Cause.END)
        self._changed.notify_all()

    def _fail(
        self,
        queued: QueuedFile,
        words: str,
        status: int | None = None,
        *,
        is_news: bool = True,
        cause: Cause = Cause.ANSWER,
    ) -> None:
        """Decide on a file that no answer names: after a lost answer nobody knows whether it is stored."""
        result = Result.FAILED
        if queued.lost:
            result = Result.UNKNOWN
            words = f"an answer to it was lost, and then: {words}"
        self._decide(queued, Verdict(result=result, words=words), status, is_news=is_news, cause=cause)

    def _decide_all(
        self, batch: Batch, verdict: Verdict, status: int | None = None, *, cause: Cause = Cause.ANSWER
    ) -> None:
        for queued in batch:
            self._decide(queued, verdict, status, cause=cause)

    def _decide(
        self,
        queued: QueuedFile,
        verdict: Verdict,
        status: int | None = None,
        *,
        is_news: bool = True,
        cause: Cause = Cause.ANSWER,
    ) -> None:
        """Tell the outcome of a file."""
        self._has_news = self._has_news or (is_news and queued.attempts > 0)
        if verdict.result in {Result.STORED, Result.WARNING}:
            self._write_down(queued)
        self._observer.sent(queued.file.size)
        self._observer.settled(
            Outcome(
                file=queued.file,
                result=verdict.result,
                words=verdict.words,
                reason=verdict.reason,
                status=status,
                attempts=queued.attempts,
                cause=cause,
                may_pass=verdict.may_pass or cause is Cause.END,
            )
        )

    def _write_down(self, queued: QueuedFile) -> None:
        """Put a file into the journal; where that fails nothing more is begun, and what is on its way has its outcome."""
        if self._journal is None or self._fault is not None:
            return
        try:
            self._journal.add(queued.file)
        except OSError as error:
            self._fault = error
            self.ended = self.ended or Ended(sentence="the journal cannot be written", is_for_all=False)

    def count(self, number: int) -> None:
        """Tell of bytes that went out, or have to go out again."""
        with self._changed:
            self._observer.sent(number)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """What was asked, by the time of its answer others may have learned better. `length` is that of the body."""

    batch: Batch
    accept: str
    target: str
    length: int


class _Progress:
    """The bytes of one request that the observer was told of. Decided files are counted as what they are instead."""

    def __init__(self, sender: _Sender) -> None:
        self._sender = sender
        self._bytes = 0

    def add(self, count: int) -> None:
        """Tell of bytes that went out."""
        self._bytes += count
        self._sender.count(count)

    def take_back(self) -> None:
        """Tell that they do not count."""
        count, self._bytes = self._bytes, 0
        self._sender.count(-count)
