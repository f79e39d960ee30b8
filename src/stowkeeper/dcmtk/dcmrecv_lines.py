"""What `dcmrecv` says in its log, line by line; the table in `log_lines` tells when."""

from dataclasses import dataclass
from typing import ClassVar, Final

from stowkeeper.dcmtk.association_dump import Direction, rejection_line, shown
from stowkeeper.dcmtk.log_lines import NO_REQUEST, Condition, Line, Lines, ProgramLines
from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dimse.message_types import CEchoRequest, CStoreRequest, CStoreResponse
from stowkeeper.dimse.messages import Message
from stowkeeper.upperlayer.pdu import (
    REJECTED_APPLICATION_CONTEXT,
    REJECTED_CALLED_AE_TITLE,
    REJECTED_CALLING_AE_TITLE,
    REJECTED_NO_REASON,
    AssociateRJ,
    AssociateRQ,
)
from stowkeeper.upperlayer.reasons import RejectSource

DCMRECV_LOGGER: Final = "dcmtk.apps.dcmrecv"
NETWORK_LOGGER: Final = "dcmtk.dcmnet"

_REFUSALS: Final = {
    (RejectSource.SERVICE_USER, REJECTED_APPLICATION_CONTEXT.reason): "bad application context",
    (RejectSource.SERVICE_USER, REJECTED_CALLED_AE_TITLE.reason): "called AE title not recognized",
    (RejectSource.SERVICE_USER, REJECTED_CALLING_AE_TITLE.reason): "calling AE title not recognized",
    (RejectSource.SERVICE_USER, REJECTED_NO_REASON.reason): "no acceptable presentation contexts",
}

_STATUSES: Final = (
    (0x0000, 0x0000, "Success"),
    (0xA700, 0xA7FF, "Refused: OutOfResources"),
    (0xA900, 0xA9FF, "Error: DataSetDoesNotMatchSOPClass"),
    (0xC000, 0xCFFF, "Error: CannotUnderstand"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DcmrecvLines(ProgramLines):
    """What `dcmrecv` says. Its `level` is that of the network library's logger."""

    program_logger: ClassVar[str] = DCMRECV_LOGGER
    logger: ClassVar[str] = NETWORK_LOGGER

    # Start

    def configuring(self) -> Lines:
        """Say that the options are being put to use: before the profile is read."""
        return self._own(LogLevel.INFO, "configuring service class provider ...")

    def no_profile(self) -> Lines:
        """Warn that nothing can be stored without -xf."""
        words = "no configuration file specified, SCP will only support the Verification SOP Class"
        return self._own(LogLevel.WARN, words)

    def starting(self) -> Lines:
        """Say that the port is about to be listened on: before TLS is set up."""
        return self._own(LogLevel.INFO, "starting service class provider and listening ...")

    def wrong_profile(self, words: str) -> Lines:
        """Say what is wrong with the profile; the program ends with 66."""
        return self._own(LogLevel.FATAL, f"cannot load association configuration: {words}")

    def wrong_directory(self, words: str) -> Lines:
        """Say what is wrong with the output directory; the program ends with 45."""
        return self._own(LogLevel.FATAL, f"cannot specify output directory: {words}")

    def cannot_listen(self, port: int, words: str) -> Lines:
        """Say why the port cannot be listened on; the program ends with 64."""
        cause = Condition.TCP_INITIALIZATION.named(words)
        return self._own(LogLevel.FATAL, f"cannot start SCP and listen on port {port}: {cause}")

    def cannot_start_tls(self, words: str) -> Lines:
        """Say why there is no TLS; the program ends with 71."""
        return self._own(LogLevel.FATAL, f"unable to create TLS transport layer for SCP: {words}")

    def _own(self, level: LogLevel, text: str) -> Lines:
        return (Line(logger=self.program_logger, level=level, text=text),)

    # Associations

    def receiving_failed(self, condition: Condition, words: str = "") -> Lines:
        """Say why a connection never came to a request: late, unreadable, TLS."""
        return self.error(f"Could not receive association request: {condition.named(words)}")

    def probed(self, host: str) -> Lines:
        """Say that a connection was closed before a request came, as those of port scans and load balancers are."""
        return self.line(LogLevel.INFO, f"Association Received {shown(host)}: {NO_REQUEST}")

    def association_received(self, request: AssociateRQ, maximum_length: int, host: str) -> Lines:
        """Say that a request came; `host` is the peer's name or address."""
        titles = f"{shown(request.calling_ae_title)} -> {shown(request.called_ae_title)}"
        return (
            *self.line(LogLevel.INFO, f"Association Received {shown(host)}: {titles}"),
            *self.parameters("Incoming Association Request:", request, maximum_length),
        )

    def refused(self, request: AssociateRQ | None, rejection: AssociateRJ, words: str) -> Lines:
        """Say that an association is rejected.

        Without a request, or when the upper layer rejects by itself, it counts as not received.
        """
        if request is None or rejection.source == RejectSource.SERVICE_PROVIDER_ACSE:
            return self.receiving_failed(Condition.UNSUPPORTED_PROTOCOL, words)
        reason = _REFUSALS.get((RejectSource(rejection.source), rejection.reason), words)
        head: Lines = ()
        if rejection == REJECTED_NO_REASON:
            head = self.line(LogLevel.INFO, "No Acceptable Presentation Contexts")
        return (
            *head,
            *self.line(LogLevel.INFO, f"Refusing Association ({reason})"),
            *self.debug(f"{rejection_line(rejection)}: {words}"),
        )

    def released(self) -> Lines:
        """Say that the peer asked for release."""
        return self.line(LogLevel.INFO, "Received Association Release Request")

    def peer_aborted(self, words: str = "") -> Lines:
        """Say that the peer aborted, or that the connection is lost."""
        text = "Received Association Abort Request"
        return (*self.line(LogLevel.INFO, text), *(self.debug(words) if words else ()))

    def aborting(self, condition: Condition, words: str = "") -> Lines:
        """Say why we abort."""
        return self.error(f"Aborting Association: {condition.text(words)}")

    # Messages

    def store_request(self, request: CStoreRequest, context_id: int) -> Lines:
        """Say that a C-STORE request came."""
        details = f"MsgID {request.message_id}"
        return self.exchange("Received C-STORE Request", details, request, Direction.INCOMING, context_id)

    def store_response(self, response: CStoreResponse, context_id: int) -> Lines:
        """Say how a C-STORE is answered."""
        status = response.status
        within = (words for first, last, words in _STATUSES if first <= status <= last)
        details = next(within, f"Unknown Status: 0x{status:x}")
        return self.exchange("Sending C-STORE Response", details, response, Direction.OUTGOING, context_id)

    def echo_request(self, request: CEchoRequest, context_id: int) -> Lines:
        """Say that a C-ECHO request came, and that it is answered."""
        details = f"MsgID {request.message_id}"
        sending = "Sending C-ECHO Response" if self.is_debug else "Sending C-ECHO Response (Success)"
        return (
            *self.exchange("Received C-ECHO Request", details, request, Direction.INCOMING, context_id),
            *self.line(LogLevel.INFO, sending),
        )

    def unexpected_command(self, message: Message, context_id: int) -> Lines:
        """Say that a command came that is not served; `aborting` follows."""
        command = f"(0x{message.command_field:04x})"
        return (
            *self.error(f"cannot handle this kind of DIMSE command {command}, we are a Storage SCP only"),
            *self.message(message, Direction.INCOMING, context_id),
        )

    def store_failed(self, context_id: int, condition: Condition, words: str = "") -> Lines:
        """Say why a C-STORE gets no answer, or with +B no file; `aborting` or `peer_aborted` follows without answer."""
        where = f"on presentation context {context_id}"
        return (
            *self.error(f"Unable to receive dataset {where}: {condition.text(words)}"),
            *self.error(f"Unable to receive C-STORE dataset {where}"),
        )

    # Files

    def stored(self, path: str) -> Lines:
        """Say under which name an object was stored, also with +B."""
        return self.line(LogLevel.INFO, f"Stored received object to file: {path}")

    def overwriting(self, path: str) -> Lines:
        """Warn that a file of that name is replaced."""
        return self.warning(f"file already exists, overwriting: {path}")

    def cannot_store(self, path: str, words: str) -> Lines:
        """Say why an object is not stored; A700H."""
        return self.error(f"cannot store received object: {path}: {words}")

    def cannot_create_directory(self, path: str, words: str) -> Lines:
        """Say why a subdirectory cannot be made (+ssd); A700H."""
        return self.error(f"cannot create directory for received object: {path}: {words}")

    def cannot_name(self, words: str) -> Lines:
        """Say why there is no name for a file; C000H."""
        return self.error(f"cannot generate directory or file name for received object: {words}")
