"""Check policies from outside: an entry point of Python, a command, or an HTTP endpoint.

Each is asked for some instances at a time and answers every one of them with a word of `PolicyOutcome`, such as
`success` or `no-such-instance`. It is asked of instances that this archive does not have, too, and may say why they are
missing or that they are still to come. A success of one of those counts as `no-such-instance`: what is not here cannot be
held, and is never committed. Of every other success the name and length of the file are looked at.

A policy that fails, or answers what nobody understands, has said nothing: it is asked again later, and never counts as a
success. How each is spoken to stands in docs/commitment.md.
"""

import contextlib
import http.client
import importlib.metadata
import json
import os
import selectors
import shlex
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import IO, Any, Final, Self

from stowkeeper.archive.catalog_values import Version
from stowkeeper.archive.checking import CheckLevel, CheckStoppedError
from stowkeeper.database.engine import Database
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.services.commitment.limits import (
    COMMITMENT_WORDS_LETTERS_MAX,
    POLICY_ANSWER_BYTES_MAX,
    POLICY_POLL_SECONDS,
    POLICY_WORDS_BYTES_MAX,
)
from stowkeeper.services.commitment.policies import (
    BuiltInPolicy,
    CheckAnswer,
    CheckContext,
    CheckPolicy,
    CheckQuestion,
    PolicyError,
    PolicyOutcome,
)

ENTRY_POINTS = "stowkeeper.commitment_policies"
"""The group of entry points in which packages offer policies by name."""

_ENTRY_POINT, _COMMAND = "entry-point:", "command:"
_HEAD_BYTES: Final = 4096

Asked = Callable[[Sequence[CheckQuestion], CheckContext], Iterable[CheckAnswer | str]]
"""What an entry point leads to: answers in the order of the questions, each an outcome's word or a `CheckAnswer`."""


class PolicyUnknownError(ValueError):
    """The settings name a policy that there is not; the text says which there are."""


def policy_named(name: str, seconds: float, files: FileSystem, root: str, database: Database) -> CheckPolicy:
    """Return the policy of a setting: `digest`, `exists`, `index`, `entry-point:NAME`, `command:ARGUMENT…` or a URL.

    `seconds` bound one question to a command or an endpoint, about up to CHECK_PORTION instances. Raises
    PolicyUnknownError, also where an entry point cannot be loaded.
    """
    levels = {str(level): level for level in CheckLevel}
    if name in levels:
        return BuiltInPolicy(levels[name], files, root, database)
    outside: _Outside
    if name.startswith(_ENTRY_POINT):
        outside = _EntryPoint(name.removeprefix(_ENTRY_POINT).strip())
    elif name.startswith(_COMMAND):
        outside = _Command(name.removeprefix(_COMMAND), seconds)
    elif name.startswith(("http://", "https://")):
        outside = _Endpoint(name, seconds)
    else:
        raise PolicyUnknownError(
            f"there is no commitment policy {name!r}: use digest, exists, index, entry-point:NAME, command:ARGUMENT…, or a"
            " URL that begins with http:// or https://"
        )
    return OutsidePolicy(outside, BuiltInPolicy(CheckLevel.EXISTS, files, root, database))


class OutsidePolicy:
    """A policy from outside, with a look at the files that are ours beside it. It can refuse, and never promise alone."""

    decides_on_unknown = True

    def __init__(self, outside: "_Outside", ours: BuiltInPolicy) -> None:
        self.name = outside.name
        self._outside = outside
        self._ours = ours

    def check(
        self, questions: Sequence[CheckQuestion], context: CheckContext, stopping: threading.Event
    ) -> list[CheckAnswer]:
        """Ask it, and look for the files of what it calls a success; see `CheckPolicy.check`."""
        answers = self._outside.ask(questions, context, stopping)
        if len(answers) != len(questions):
            raise PolicyError(
                f"{self.name} answered for {len(answers)} instances and was asked for {len(questions)}"
            )
        good = [number for number, answer in enumerate(answers) if answer.outcome is PolicyOutcome.SUCCESS]
        kept = [number for number in good if questions[number].version is not None]
        for number in set(good).difference(kept):
            answers[number] = _NOT_HERE
        for number, ours in zip(
            kept, self._ours.check([questions[number] for number in kept], context, stopping), strict=True
        ):
            answers[number] = ours
        return answers


_NOT_HERE: Final = CheckAnswer(
    outcome=PolicyOutcome.NO_SUCH_INSTANCE,
    words="the policy calls it a success, and it is not kept in this archive",
)


class _Outside:
    """Somebody who is asked. `ask` raises PolicyError and CheckStoppedError."""

    name: str

    def ask(
        self, questions: Sequence[CheckQuestion], context: CheckContext, stopping: threading.Event
    ) -> list[CheckAnswer]:
        raise NotImplementedError


class _Timed(_Outside):
    """Somebody who is outside of this process, and has some seconds to answer."""

    _seconds: float

    def _go_on(self, deadline: float, stopping: threading.Event) -> None:
        """Raise CheckStoppedError or PolicyError where the time is over."""
        if stopping.is_set():
            raise CheckStoppedError
        if time.monotonic() > deadline:
            raise PolicyError(f"{self.name} took longer than {self._seconds:g} seconds")


class _EntryPoint(_Outside):
    """A callable of another package, in this process. It is trusted to come to an end."""

    def __init__(self, name: str) -> None:
        self.name = f"{_ENTRY_POINT}{name}"
        found = importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)
        if not found:
            there = sorted(importlib.metadata.entry_points(group=ENTRY_POINTS).names)
            raise PolicyUnknownError(
                f"no installed package has the entry point {name!r} in the group {ENTRY_POINTS}; there"
                f" {'are ' + ', '.join(there) if there else 'is none at all'}"
            )
        try:
            self._asked: Asked = next(iter(found)).load()
        except Exception as error:
            raise PolicyUnknownError(
                f"the entry point {name!r} cannot be loaded: {type(error).__name__}: {error}"
            ) from error
        if not callable(self._asked):
            raise PolicyUnknownError(f"the entry point {name!r} leads to something that cannot be called")

    def ask(
        self, questions: Sequence[CheckQuestion], context: CheckContext, stopping: threading.Event
    ) -> list[CheckAnswer]:
        if stopping.is_set():
            raise CheckStoppedError
        try:
            answers = list(self._asked(questions, context))
        except Exception as error:
            raise PolicyError(f"{self.name} failed: {type(error).__name__}") from error
        return [self._checked(answer) for answer in answers]

    def _checked(self, answer: object) -> CheckAnswer:
        if isinstance(answer, CheckAnswer) and isinstance(answer.outcome, PolicyOutcome):
            return answer
        if isinstance(answer, str):
            return _answer_of(self.name, {"outcome": answer})
        raise PolicyError(f"{self.name} answered with neither an outcome nor a CheckAnswer")


class _Command(_Timed):
    """A program that reads a line of JSON for each instance, and writes one for each."""

    def __init__(self, command: str, seconds: float) -> None:
        try:
            self._arguments = shlex.split(command)
        except ValueError as error:
            raise PolicyUnknownError(f"the policy's command cannot be read: {error}") from None
        if not self._arguments:
            raise PolicyUnknownError("the policy's command is empty: name a program behind command:")
        self.name = f"{_COMMAND}{os.path.basename(self._arguments[0])}"
        self._seconds = seconds

    def ask(
        self, questions: Sequence[CheckQuestion], context: CheckContext, stopping: threading.Event
    ) -> list[CheckAnswer]:
        with tempfile.TemporaryFile() as questions_file:
            for question in questions:
                line = json.dumps({**_context_json(context), **_question_json(question)})
                questions_file.write(line.encode("ascii") + b"\n")
            questions_file.seek(0)
            output = self._run(questions_file, POLICY_ANSWER_BYTES_MAX * len(questions), stopping)
        lines = [line for line in output.split(b"\n") if line.strip()]
        return [_answer_of(self.name, _parsed(self.name, line)) for line in lines]

    def _run(self, questions: IO[bytes], bytes_max: int, stopping: threading.Event) -> bytes:
        try:
            process = subprocess.Popen(  # noqa: S603 - the settings name the program, and nobody else has a word in it
                self._arguments,
                stdin=questions,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise PolicyError(f"{self.name} cannot be started: {error.strerror}") from error
        with process:
            try:
                output, words = self._collect(process, bytes_max, stopping)
            except BaseException:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)  # with what it may have started itself
                raise
        if process.returncode:
            raise PolicyError(f"{self.name} ended with code {process.returncode}: {_last_line(words)}")
        return output

    def _collect(
        self, process: "subprocess.Popen[bytes]", bytes_max: int, stopping: threading.Event
    ) -> tuple[bytes, bytes]:
        """Read what it writes until it closes both, within the bounds of time and bytes."""
        deadline = time.monotonic() + self._seconds
        output, words = bytearray(), bytearray()
        with selectors.DefaultSelector() as selector:
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                self._go_on(deadline, stopping)
                for key, _ in selector.select(POLICY_POLL_SECONDS):
                    data = os.read(key.fd, 65536)
                    if not data:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is process.stdout:
                        output += data
                        if len(output) > bytes_max:
                            raise PolicyError(f"{self.name} wrote more than {bytes_max} bytes")
                    else:
                        words += data
                        del words[:-POLICY_WORDS_BYTES_MAX]
        while process.poll() is None:
            self._go_on(deadline, stopping)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLICY_POLL_SECONDS)
        return bytes(output), bytes(words)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it would turn a POST into a GET, and lead where nobody meant."""

    def redirect_request(self, *_arguments: object, **_named: object) -> None:
        return None


class _Line:
    """The connection of one request, so that another thread can cut it: a server that sends a byte now and then never times out."""

    def __init__(self, deadline: float, stopping: threading.Event) -> None:
        self._deadline = deadline
        self._stopping = stopping
        self._ended = threading.Event()
        self._socket: socket.socket | None = None

    def opener(self) -> urllib.request.OpenerDirector:
        """Return what opens the request, on this line."""
        line = self

        class Plain(http.client.HTTPConnection):
            def connect(self) -> None:
                super().connect()
                line._socket = self.sock

        class Secure(http.client.HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                line._socket = self.sock

        class PlainHandler(urllib.request.HTTPHandler):
            def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Plain, req)

        class SecureHandler(urllib.request.HTTPSHandler):
            def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
                return self.do_open(Secure, req)

        return urllib.request.build_opener(_NoRedirects, PlainHandler, SecureHandler)

    def __enter__(self) -> Self:
        threading.Thread(target=self._watch, name="policy-watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def _watch(self) -> None:
        while not self._ended.wait(POLICY_POLL_SECONDS):
            is_over = self._stopping.is_set() or time.monotonic() > self._deadline
            if is_over and self._socket is not None:
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)
                return


class _Endpoint(_Timed):
    """A URL that gets a POST with one JSON object, and answers with one."""

    def __init__(self, url: str, seconds: float) -> None:
        parts = urllib.parse.urlsplit(url)
        if not parts.hostname:
            raise PolicyUnknownError(f"the policy's URL names no host: {url!r}")
        # Without what the URL may carry of credentials.
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        self._url = url
        self._seconds = seconds

    def ask(
        self, questions: Sequence[CheckQuestion], context: CheckContext, stopping: threading.Event
    ) -> list[CheckAnswer]:
        body = json.dumps(
            {**_context_json(context), "instances": [_question_json(question) for question in questions]}
        )
        request = urllib.request.Request(  # noqa: S310 - `policy_named` lets http and https through alone
            self._url,
            data=body.encode("ascii"),
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            method="POST",
        )
        answer = self._fetch(request, _HEAD_BYTES + POLICY_ANSWER_BYTES_MAX * len(questions), stopping)
        found = _parsed(self.name, answer)
        outcomes = found.get("outcomes")
        if not isinstance(outcomes, list):
            raise PolicyError(f"{self.name} answered without a list of outcomes")
        return [_answer_of(self.name, outcome) for outcome in outcomes]

    def _fetch(self, request: urllib.request.Request, bytes_max: int, stopping: threading.Event) -> bytes:
        deadline = time.monotonic() + self._seconds
        data = bytearray()
        try:
            with (
                _Line(deadline, stopping) as line,
                line.opener().open(request, timeout=self._seconds) as response,
            ):
                if response.status != 200:
                    raise PolicyError(f"{self.name} answered with HTTP status {response.status}")
                while piece := response.read1(65536):
                    data += piece
                    if len(data) > bytes_max:
                        raise PolicyError(f"{self.name} answered with more than {bytes_max} bytes")
            self._go_on(deadline, stopping)
        except urllib.error.HTTPError as error:
            error.close()
            raise PolicyError(f"{self.name} answered with HTTP status {error.code}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._go_on(deadline, stopping)  # then it is the line that was cut
            reason = getattr(error, "reason", error)
            words = getattr(reason, "strerror", "") or str(reason) or type(error).__name__
            raise PolicyError(f"{self.name} cannot be asked: {words}") from error
        return bytes(data)


# What goes over.


def _context_json(context: CheckContext) -> dict[str, Any]:
    return {
        "transaction_uid": context.transaction_uid,
        "peer": context.peer,
        "peer_ae_title": context.peer_ae_title,
        "own_ae_title": context.own_ae_title,
    }


def _question_json(question: CheckQuestion) -> dict[str, Any]:
    reference = question.reference
    asked: dict[str, Any] = {
        "sop_class_uid": reference.sop_class_uid,
        "sop_instance_uid": reference.sop_instance_uid,
    }
    version: Version | None = question.version
    if version is None:
        return {**asked, "version": None}
    return {
        **asked,
        "version": {
            "path": question.path,
            "file_size": version.file_size,
            "transfer_syntax_uid": version.transfer_syntax_uid,
            "study_instance_uid": version.study_instance_uid,
            "series_instance_uid": version.series_instance_uid,
            "receipt_id": version.receipt_id,
            "digest": version.digest,
            "data_set_length": version.data_set_length,
            "received_at": version.received_at,
        },
    }


def _parsed(name: str, text: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise PolicyError(f"{name} answered with something that is no JSON object")
    return found


def _answer_of(name: str, answer: object) -> CheckAnswer:
    """Read `{"outcome": …, "words": …}`; the words may be left out."""
    if not isinstance(answer, dict):
        raise PolicyError(f"{name} answered with something that is no JSON object")
    try:
        outcome = PolicyOutcome(str(answer.get("outcome")))
    except ValueError:
        allowed = ", ".join(PolicyOutcome)
        raise PolicyError(f"{name} answered with an unknown outcome; there are {allowed}") from None
    words = answer.get("words", "")
    if not isinstance(words, str):
        raise PolicyError(f"{name} answered with words that are no text")
    if outcome is PolicyOutcome.SUCCESS:
        words = ""
    return CheckAnswer(outcome=outcome, words=words[:COMMITMENT_WORDS_LETTERS_MAX])


def _last_line(words: bytes) -> str:
    lines = words.decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:COMMITMENT_WORDS_LETTERS_MAX] if lines else "it wrote nothing to standard error"
