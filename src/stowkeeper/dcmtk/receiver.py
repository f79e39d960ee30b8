"""What `storescp` and `dcmrecv` do alike with the messages of an association.

C-ECHO is answered, a C-STORE goes to the program's own `keep`, and whatever else comes ends the association: both programs
know nothing else, and say so by A-ABORT. Everything happens on the thread of the association, one message after the other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from stowkeeper.dcmtk.encoding.identity import Identity
from stowkeeper.dcmtk.log_lines import Condition, Lines
from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.oflog.levels import NUMBERS
from stowkeeper.dcmtk.oflog.loggers import Loggers
from stowkeeper.dcmtk.reception import Keeping, Reception
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import UID_LENGTH_MAX
from stowkeeper.dimse.errors import PeerError
from stowkeeper.dimse.message_types import CEchoRequest, CStoreRequest, Response
from stowkeeper.dimse.messages import Message, command_name
from stowkeeper.net.handlers import AssociationFacts, StoreAnswer
from stowkeeper.net.tls_errors import TLSFailure
from stowkeeper.upperlayer.negotiation import Accepted, AcceptedContext, Rejected
from stowkeeper.upperlayer.pdu import AssociateRJ, AssociateRQ

SUCCESS = StoreAnswer(status=Status.SUCCESS)


class StoreInProgress:
    """One C-STORE between its command and its answer. Without `reception` its data set is dropped."""

    __slots__ = ("_answer", "_receiver", "context", "facts", "failure", "reception", "request")

    def __init__(
        self,
        receiver: "Receiver[Any]",
        facts: AssociationFacts,
        context: AcceptedContext,
        request: CStoreRequest,
        answer: Callable[[StoreAnswer], None],
        reception: Reception | None,
    ) -> None:
        self._receiver = receiver
        self._answer = answer
        self.facts = facts
        self.context = context
        self.request = request
        self.reception = reception
        self.failure: OSError | None = None
        """What kept bytes from being written while they came."""

    def write(self, piece: memoryview, release: Callable[[], None] | None) -> None:
        """Take the next bytes, and drop them when an earlier piece could not be written."""
        reception = self.reception
        if reception is None or self.failure is not None:
            if release is not None:
                release()
        else:
            try:
                reception.write(piece, release)
            except OSError as error:
                self._fail(error)

    def pdv_ended(self) -> None:
        """Tell that one more PDV came."""
        self._receiver.progress(self)

    def flush(self) -> None:
        """Write what waits."""
        if self.reception is not None and self.failure is None:
            try:
                self.reception.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failure = error
        if self.reception is not None:
            self.reception.discard()

    def commit(self) -> None:
        """Keep the data set and answer."""
        try:
            answer = self._receiver.keep(self)
        finally:
            if self.reception is not None:
                self.reception.discard()  # what is left of it: nothing, when it was kept
        self._answer(answer)

    def abort(self, words: str) -> None:
        """Give up what was received so far; the answer to what is kept already reaches nobody."""
        if self.reception is not None:
            self.reception.discard()
        self._receiver.given_up(self, words)

    def answered(self, answer: StoreAnswer) -> None:
        """Do what follows the answer, then make ready for the next object while its sender has the answer to read."""
        self._receiver.answered(self, answer)
        if self._receiver.keeping is not None:
            self._receiver.keeping.files.prepare()


def say(loggers: Loggers, lines: Lines) -> None:
    """Write lines to the log."""
    for line in lines:
        loggers.get(line.logger).log(NUMBERS[line.level], "%s", line.text)


class ReceiverLines(Protocol):
    """What both programs say, each in its own words."""

    @property
    def level(self) -> LogLevel:
        """Return the level from which on lines are read."""
        ...

    def warning(self, text: str) -> Lines:
        """Return a warning."""
        ...

    def released(self) -> Lines:
        """Say that the peer released the association."""
        ...

    def peer_aborted(self, words: str) -> Lines:
        """Say that the peer aborted the association, or is gone."""
        ...

    def aborting(self, condition: Condition, words: str) -> Lines:
        """Say why we abort."""
        ...

    def receiving_failed(self, condition: Condition, words: str) -> Lines:
        """Say why a connection came to no association request."""
        ...

    def echo_request(self, request: CEchoRequest, context_id: int) -> Lines:
        """Say that a C-ECHO request came."""
        ...

    def unexpected_command(self, message: Message, context_id: int) -> Lines:
        """Say that a message came for which the association is aborted."""
        ...


LinesOfProgram = TypeVar("LinesOfProgram", bound=ReceiverLines)


class Receiver(ABC, Generic[LinesOfProgram]):
    """The handlers of one program, for one server. `lines` are what it says."""

    def __init__(self, keeping: Keeping | None, loggers: Loggers, lines: LinesOfProgram) -> None:
        self.keeping = keeping
        self.is_verbose = lines.level <= LogLevel.INFO
        """Whether anybody reads what is no warning."""
        self._lines: LinesOfProgram = lines
        self._loggers = loggers
        self._condition = Condition.ILLEGAL_PDU

    def say(self, lines: Lines) -> None:
        """Write lines to the log."""
        say(self._loggers, lines)

    # What the programs do each in its own way.

    @abstractmethod
    def negotiate(self, request: AssociateRQ, facts: AssociationFacts) -> Accepted | Rejected:
        """Decide on an association."""

    @abstractmethod
    def keep(self, store: StoreInProgress) -> StoreAnswer:
        """Do with a complete data set what the program is for, and say what is answered. May raise PeerError."""

    @abstractmethod
    def store_begins(self, request: CStoreRequest, context: AcceptedContext) -> None:
        """Take note of a C-STORE request."""

    @abstractmethod
    def given_up(self, store: StoreInProgress, words: str) -> None:
        """Take note that a C-STORE got no answer, and why."""

    @abstractmethod
    def answered(self, store: StoreInProgress, answer: StoreAnswer) -> None:
        """Take note that an answer was handed to the network."""

    @abstractmethod
    def rejected(self, request: AssociateRQ | None, rejection: AssociateRJ, words: str) -> None:
        """Take note that an association was rejected."""

    @abstractmethod
    def probed(self, address: str) -> None:
        """Take note of a connection that was opened and closed without a word."""

    def identity_of(self, request: CStoreRequest) -> Identity:
        """Return what a command says that its data set is."""
        return Identity(
            sop_class_uid=request.affected_sop_class_uid,
            sop_instance_uid=request.affected_sop_instance_uid,
        )

    def progress(self, store: StoreInProgress) -> None:
        """Take note of a PDV of a data set, and do nothing about it. May raise PeerError."""

    # What becomes of associations.

    def handshake_ended(self, address: str, failure: TLSFailure | None, warnings: list[str]) -> None:
        """Take note of how a TLS handshake ended, and of what is weak about the peer's certificate."""
        for warning in warnings:
            self.say(self._lines.warning(f"{address}: {warning}"))
        if failure is None:
            return
        if failure.is_silent:
            self.probed(address)
        else:
            self.say(self._lines.receiving_failed(Condition.TLS, f"{address}: {failure.words}"))

    def association_opened(self, facts: AssociationFacts) -> None:
        """Pass on a rejection."""
        self._condition = Condition.ILLEGAL_PDU
        if facts.rejection is not None:
            result, source, reason = facts.rejection
            self.rejected(
                facts.request, AssociateRJ(result=result, source=source, reason=reason), facts.words
            )

    def association_ended(self, facts: AssociationFacts) -> None:
        """Sort out how it ended."""
        if self.keeping is not None:
            self.keeping.files.put_back()
        if facts.end == "rejected":
            return
        if facts.end == "released":
            self.say(self._lines.released())
        elif facts.request is None:
            self._connection_ended(facts)
        elif facts.end == "lost" or facts.was_aborted_by_peer or facts.timed_out:
            self.say(self._lines.peer_aborted(facts.words))
        else:
            self.say(self._lines.aborting(self._condition, facts.words))

    def _connection_ended(self, facts: AssociationFacts) -> None:
        """Take note of a connection without request. One that was merely looked at is not worth an error."""
        if facts.timed_out:
            self.say(self._lines.receiving_failed(Condition.READ_TIMEOUT, facts.words))
        elif facts.end == "lost" and not facts.bytes_received:
            self.probed(facts.peer_address)
        elif facts.end == "lost":
            self.say(self._lines.receiving_failed(Condition.PEER_ABORTED, facts.words))
        else:
            self.say(self._lines.receiving_failed(Condition.UNRECOGNIZED_PDU, facts.words))

    def meanwhile(self) -> None:
        """Put back the file that was made ahead: nothing comes just now."""
        if self.keeping is not None:
            self.keeping.files.put_back()

    def association_closed(self, facts: AssociationFacts) -> None:
        """Do nothing: all was said when it ended."""

    def cause_of_end(self, facts: AssociationFacts) -> Condition:
        """Return why the association of an object that was not received has ended."""
        if facts.timed_out:
            return Condition.NO_DATA
        return Condition.PEER_ABORTED if facts.end == "lost" or facts.was_aborted_by_peer else self._condition

    def end_of_association(self, condition: Condition, words: str) -> PeerError:
        """Return what is to be raised to abort the association; `condition` is what DCMTK's programs call it."""
        self._condition = condition
        return PeerError(words)

    # What they do alike.

    def store(
        self,
        facts: AssociationFacts,
        context: AcceptedContext,
        request: CStoreRequest,
        answer: Callable[[StoreAnswer], None],
    ) -> StoreInProgress:
        """Begin to take an object in. Raises PeerError for a request whose identifiers cannot be worked with."""
        self._require(request.affected_sop_class_uid, "Affected SOP Class UID")
        self._require(request.affected_sop_instance_uid, "Affected SOP Instance UID")
        self.store_begins(request, context)
        reception = None
        if self.keeping is not None:
            identity = self.identity_of(request)
            reception = Reception(self.keeping, identity, context.transfer_syntax, facts.calling_ae_title)
        return StoreInProgress(self, facts, context, request, answer, reception)

    def _require(self, uid: str | None, name: str) -> None:
        if not uid:
            raise self.end_of_association(Condition.BAD_MESSAGE, f"the C-STORE request has no {name}")
        if len(uid) > UID_LENGTH_MAX:
            words = f"the {name} of the C-STORE request has {len(uid)} letters"
            raise self.end_of_association(Condition.BAD_MESSAGE, words)

    def store_refused(
        self,
        facts: AssociationFacts,  # noqa: ARG002 - nothing depends on who asks
        context: AcceptedContext,  # noqa: ARG002 - nor on where
        request: CStoreRequest,
        answer: StoreAnswer,
    ) -> None:
        """End the association for a request that cannot be answered by an object's status."""
        words = f"C-STORE request {request.message_id}: {answer.error_comment}"
        raise self.end_of_association(Condition.BAD_MESSAGE, words)

    def data_set_bytes_max(self, context: AcceptedContext, message: Message) -> int:  # noqa: ARG002 - for all alike
        """Read no data set but those of C-STORE."""
        return 0

    def other_message(
        self,
        facts: AssociationFacts,  # noqa: ARG002 - nothing depends on who asks
        context: AcceptedContext,
        message: Message,
        data_set: bytes,  # noqa: ARG002 - there is none that anybody reads
        answer: Callable[[Response], None],  # noqa: ARG002 - nothing is answered later
    ) -> Response | None:
        """Answer C-ECHO; end the association for anything else."""
        if isinstance(message, CEchoRequest):
            self.say(self._lines.echo_request(message, context.context_id))
            return message.respond(Status.SUCCESS)
        self.say(self._lines.unexpected_command(message, context.context_id))
        words = f"{command_name(message.command_field)} is not taken here, C-STORE and C-ECHO alone are"
        raise self.end_of_association(Condition.BAD_COMMAND_TYPE, words)
