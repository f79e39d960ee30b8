"""What `storescp` and `dcmrecv` do alike with the messages of an association.

C-ECHO is answered, a C-STORE goes to the program's own `keep`, and whatever else comes ends the association: both programs
know nothing else, and say so by A-ABORT. Everything happens on the thread of the association, one message after the other.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from stowkeeper.dcmtk.encoding.identity import Identity
from stowkeeper.dcmtk.oflog.loggers import Logger
from stowkeeper.dcmtk.reception import Keeping, Reception
from stowkeeper.dicom.status import Status
from stowkeeper.dicom.uid import UID_LENGTH_MAX
from stowkeeper.dimse.errors import PeerError
from stowkeeper.dimse.message_types import CEchoRequest, CStoreRequest, Response
from stowkeeper.dimse.messages import Message, command_name
from stowkeeper.net.handlers import AssociationFacts, StoreAnswer
from stowkeeper.upperlayer.negotiation import Accepted, AcceptedContext, Rejected
from stowkeeper.upperlayer.pdu import AssociateRQ

SUCCESS = StoreAnswer(status=Status.SUCCESS)


class StoreInProgress:
    """One C-STORE between its command and its answer. Without `reception` its data set is dropped."""

    __slots__ = ("_answer", "_receiver", "context", "facts", "failure", "reception", "request")

    def __init__(
        self,
        receiver: "Receiver",
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

    def abort(self, words: str) -> None:  # noqa: ARG002 - the association's own line says it
        """Give up what was received so far; the answer to what is kept already reaches nobody."""
        if self.reception is not None:
            self.reception.discard()
        self._receiver.given_up(self)

    def answered(self, answer: StoreAnswer) -> None:
        """Do what follows the answer."""
        self._receiver.answered(self, answer)


class Receiver(ABC):
    """The handlers of one program, for one server."""

    def __init__(self, keeping: Keeping | None, log: Logger) -> None:
        self.keeping = keeping
        self.log = log

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
    def echo(self, request: CEchoRequest, context: AcceptedContext) -> None:
        """Take note of a C-ECHO request, which is answered."""

    def progress(self, store: StoreInProgress) -> None:
        """Take note of a piece of a data set, and do nothing about it. May raise PeerError."""

    def answered(self, store: StoreInProgress, answer: StoreAnswer) -> None:
        """Take note that an answer was handed to the network."""

    def given_up(self, store: StoreInProgress) -> None:
        """Take note that a C-STORE got no answer."""

    @abstractmethod
    def association_opened(self, facts: AssociationFacts) -> None:
        """Take note that an association was accepted or rejected."""

    @abstractmethod
    def association_ended(self, facts: AssociationFacts) -> None:
        """Take note of the end of an association."""

    def association_closed(self, facts: AssociationFacts) -> None:
        """Take note that its connection is closed, too."""

    # What they do alike.

    def store(
        self,
        facts: AssociationFacts,
        context: AcceptedContext,
        request: CStoreRequest,
        answer: Callable[[StoreAnswer], None],
    ) -> StoreInProgress:
        """Begin to take an object in. Raises PeerError for a request whose identifiers cannot be worked with."""
        self.store_begins(request, context)
        for name, uid in (
            ("Affected SOP Class UID", request.affected_sop_class_uid),
            ("Affected SOP Instance UID", request.affected_sop_instance_uid),
        ):
            if not uid:
                raise PeerError(f"the C-STORE request has no {name}")
            if len(uid) > UID_LENGTH_MAX:
                raise PeerError(f"the {name} of the C-STORE request has {len(uid)} letters")
        reception = None
        if self.keeping is not None:
            identity = Identity(
                sop_class_uid=request.affected_sop_class_uid,
                sop_instance_uid=request.affected_sop_instance_uid,
            )
            reception = Reception(self.keeping, identity, context.transfer_syntax, facts.calling_ae_title)
        return StoreInProgress(self, facts, context, request, answer, reception)

    def store_refused(
        self,
        facts: AssociationFacts,  # noqa: ARG002 - nothing depends on who asks
        context: AcceptedContext,
        request: CStoreRequest,
        answer: StoreAnswer,
    ) -> None:
        """End the association for a request that cannot be answered by an object's status."""
        self.store_begins(request, context)
        raise PeerError(f"C-STORE request {request.message_id}: {answer.error_comment}")

    def other_message(
        self,
        facts: AssociationFacts,  # noqa: ARG002 - nothing depends on who asks
        context: AcceptedContext,
        message: Message,
    ) -> Response | None:
        """Answer C-ECHO; end the association for anything else."""
        if isinstance(message, CEchoRequest):
            self.echo(message, context)
            return message.respond(Status.SUCCESS)
        raise PeerError(
            f"{command_name(message.command_field)} is not taken here, C-STORE and C-ECHO alone are"
        )
