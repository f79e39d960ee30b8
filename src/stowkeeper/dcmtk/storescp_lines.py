"""What `storescp` says in its log, line by line; the table in `log_lines` tells when."""

from dataclasses import dataclass
from typing import ClassVar, Final

from stowkeeper.dcmtk.association_dump import Direction, rejection_line, shown
from stowkeeper.dcmtk.log_lines import NO_REQUEST, Condition, Lines, ProgramLines, shown_path
from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.modality_prefixes import UNKNOWN_CLASS_IN_LOG, modality_prefix
from stowkeeper.dimse.message_types import CEchoRequest, CStoreRequest
from stowkeeper.dimse.messages import Message
from stowkeeper.upperlayer.pdu import (
    REJECTED_APPLICATION_CONTEXT,
    REJECTED_NO_REASON,
    AssociateRJ,
    AssociateRQ,
)
from stowkeeper.upperlayer.reasons import RejectSource

STORESCP_LOGGER: Final = "dcmtk.apps.storescp"


@dataclass(frozen=True, slots=True, kw_only=True)
class StorescpLines(ProgramLines):
    """What `storescp` says. `directory` is the output directory when its subdirectories bear patients' names (-sp).

    Paths are given as they are; a patient's name in them is never shown.
    """

    program_logger: ClassVar[str] = STORESCP_LOGGER
    logger: ClassVar[str] = STORESCP_LOGGER

    directory: str | None = None

    def _shown(self, path: str) -> str:
        return path if self.directory is None else shown_path(path, self.directory)

    # Start

    def port_not_needed(self) -> Lines:
        """Warn that a port is of no use with --inetd."""
        return self.warning("Parameter port not required in inetd mode")

    def cannot_listen(self, words: str) -> Lines:
        """Say why the port cannot be listened on; the program ends."""
        return self.error(f"cannot create network: {Condition.TCP_INITIALIZATION.text(words)}")

    # Associations

    def receiving_failed(self, condition: Condition, words: str = "") -> Lines:
        """Say why a connection never came to a request: late, unreadable, TLS, kept out by the host tables."""
        return self.error(f"Receiving Association failed: {condition.text(words)}")

    def probed(self) -> Lines:
        """Say that a connection was closed before a request came, as those of port scans and load balancers are."""
        return self.line(LogLevel.INFO, f"Association Received {NO_REQUEST}")

    def association_received(
        self, request: AssociateRQ, maximum_length: int, *, child_pid: int | None = None
    ) -> Lines:
        """Say that a request came; `child_pid` is the process that serves it with --fork."""
        where = "" if child_pid is None else f" in child process (pid: {child_pid})"
        return (
            *self.line(LogLevel.INFO, f"Association Received{where}"),
            *self.parameters("Parameters:", request, maximum_length),
        )

    def refused(
        self, request: AssociateRQ | None, rejection: AssociateRJ, words: str, *, by_option: bool = False
    ) -> Lines:
        """Say that an association is rejected; `by_option` when every one is (--refuse).

        Without a request, or when the upper layer rejects by itself, it counts as not received.
        """
        if request is None or rejection.source == RejectSource.SERVICE_PROVIDER_ACSE:
            return self.receiving_failed(Condition.UNSUPPORTED_PROTOCOL, words)
        if by_option:
            text = "Refusing Association (forced via command line)"
        elif rejection == REJECTED_APPLICATION_CONTEXT:
            name = shown(request.application_context)
            text = f"Association Rejected: Bad Application Context Name: {name}"
        elif (
            rejection == REJECTED_NO_REASON
            and request.presentation_contexts
            and not request.user_information.implementation_class_uid
        ):
            text = "Association Rejected: No Implementation Class UID provided"
        else:
            text = f"Refusing Association ({words})"
        return (*self.line(LogLevel.INFO, text), *self.debug(rejection_line(rejection)))

    def released(self) -> Lines:
        """Say that the peer released the association."""
        return self.line(LogLevel.INFO, "Association Release")

    def peer_aborted(self, words: str = "") -> Lines:
        """Say that the peer aborted, or that the connection is lost."""
        return (*self.line(LogLevel.INFO, "Association Aborted"), *(self.debug(words) if words else ()))

    def aborting(self, condition: Condition, words: str = "") -> Lines:
        """Say why we abort."""
        return self.error(f"DIMSE failure (aborting association): {condition.text(words)}")

    # Messages

    def store_request(self, request: CStoreRequest, context_id: int) -> Lines:
        """Say that a C-STORE request came."""
        prefix = modality_prefix(request.affected_sop_class_uid or "", UNKNOWN_CLASS_IN_LOG)
        details = f"MsgID {request.message_id}, {prefix}"
        return self.exchange("Received Store Request", details, request, Direction.INCOMING, context_id)

    def echo_request(self, request: CEchoRequest, context_id: int) -> Lines:
        """Say that a C-ECHO request came; its answer is not mentioned."""
        details = f"MsgID {request.message_id}"
        return self.exchange("Received Echo Request", details, request, Direction.INCOMING, context_id)

    def unexpected_command(self, message: Message, context_id: int) -> Lines:
        """Say that a command came that is not served; `aborting` follows."""
        command = f"0x{message.command_field:04x}"
        return (
            *self.error(f"Expected C-ECHO or C-STORE request but received DIMSE command {command}"),
            *self.message(message, Direction.INCOMING, context_id),
        )

    def store_failed(self, condition: Condition, words: str = "") -> Lines:
        """Say why a C-STORE gets no answer, or with +B no file; `aborting` or `peer_aborted` follows without answer."""
        return self.error(f"Store SCP Failed: {condition.text(words)}")

    def cannot_create(self, path: str, words: str) -> Lines:
        """Say why there is no file with +B; the C-STORE is answered with A700H."""
        return self.store_failed(
            Condition.OUT_OF_RESOURCES, f"cannot create file: {self._shown(path)}: {words}"
        )

    def aborting_by_option(self) -> Lines:
        """Say that --abort-during or --abort-after takes effect; `store_failed` and `aborting` follow."""
        return self.line(LogLevel.INFO, "ABORT initiated (due to command line options)")

    # Files

    def storing(self, path: str) -> Lines:
        """Say under which name an object is stored; not with +B."""
        return self.line(LogLevel.INFO, f"storing DICOM file: {self._shown(path)}")

    def overwriting(self, path: str) -> Lines:
        """Warn that a file of that name is replaced; not with +B."""
        return self.warning(f"DICOM file already exists, overwriting: {self._shown(path)}")

    def cannot_write(self, path: str, words: str) -> Lines:
        """Say why an object is not stored; A700H."""
        return self.error(f"cannot write DICOM file: {self._shown(path)}: {words}")

    def bad_file(self, path: str, words: str) -> Lines:
        """Say what is wrong with an object that was to be stored under a name; A900H and C000H."""
        return self.error(f"bad DICOM file: {self._shown(path)}: {words}")

    def subdirectory_created(self, path: str) -> Lines:
        """Say that a study got a subdirectory."""
        return self.line(LogLevel.INFO, f"created new subdirectory for study: {self._shown(path)}")

    def subdirectory_exists(self, path: str) -> Lines:
        """Say that a study goes on in its subdirectory."""
        return self.line(LogLevel.INFO, f"using existing subdirectory for study: {self._shown(path)}")

    def cannot_create_subdirectory(self, path: str, words: str) -> Lines:
        """Say why a study has no subdirectory; C000H."""
        return self.error(f"could not create subdirectory for study: {self._shown(path)}: {words}")

    # Ended studies

    def cannot_rename(self, old_path: str, new_path: str, words: str) -> Lines:
        """Warn that a file of an ended study keeps its name (-rns)."""
        old, new = self._shown(old_path), self._shown(new_path)
        return self.warning(f"cannot rename file '{old}' to '{new}': {words}")

    def cannot_execute(self, words: str) -> Lines:
        """Say why a command (-xcr, -xcs) does not run. Its text stays out of the log: it may hold a patient's name."""
        return self.error(f"cannot execute command: {words}")
