"""What `storescp` and `dcmrecv` say in their logs, each line with its level and its logger.

Scripts look for these lines, so their first words are those of DCMTK's programs, and each stands at the level and under
the logger where those have it. What follows behind a colon is ours. All `storescp` says comes from one logger; `dcmrecv`
says what it does at its start under its own name and everything about associations under that of DCMTK's network
library, which counts for files of -lc.

| event | storescp | dcmrecv |
|---|---|---|
| start | D: identification | D: identification, I: configuring, W: no profile, I: starting |
| closed before a request | I: Association Received | I: Association Received HOST: |
| request received | I: Association Received | I: Association Received HOST: CALLING -> CALLED |
| its parameters (+v; else debug) | I/D: Parameters: | I/D: Incoming Association Request: |
| first PDU unreadable or late | E: Receiving Association failed: MMMM:CCCC | E: Could not receive association request: |
| accepted | I: Association Acknowledged (Max Send PDV: N) | the same |
| no context accepted | I: (but no valid presentation contexts) | I: No Acceptable Presentation Contexts, I: Refusing … |
| rejected | I: Refusing Association (…), Association Rejected: … | I: Refusing Association (…) |
| C-ECHO | I: Received Echo Request (MsgID N) | I: Received C-ECHO Request (MsgID N), Sending C-ECHO Response (Success) |
| C-STORE | I: Received Store Request (MsgID N, PREFIX) | I: Received C-STORE Request (MsgID N) |
| both of them at debug | without what is in parentheses, D: the message | the same |
| file stored | I: storing DICOM file: PATH, not with +B | I: Stored received object to file: PATH |
| file replaced | W: DICOM file already exists, overwriting: PATH, not with +B | W: file already exists, overwriting: PATH |
| subdirectory | I: created new …, using existing subdirectory for study: PATH | nothing |
| no subdirectory | E: could not create subdirectory for study: PATH | E: cannot create directory for received object: PATH |
| A700 | E: cannot write DICOM file: PATH | E: cannot store received object: PATH |
| A900, C000 | E: bad DICOM file: PATH (DCMTK: C000 only) | never |
| C-STORE-RSP | nothing | I: Sending C-STORE Response (…) |
| data set broken off | E: Store SCP Failed: MMMM:CCCC, then how it ends | E: Unable to receive dataset …, Unable to receive C-STORE dataset … |
| other command | E: Expected C-ECHO or C-STORE request …, then as below | E: cannot handle this kind of DIMSE command (0xNNNN) … |
| we abort | E: DIMSE failure (aborting association): MMMM:CCCC | E: Aborting Association: MMMM:CCCC (DCMTK: at debug only) |
| peer aborts or is gone | I: Association Aborted | I: Received Association Abort Request |
| release | I: Association Release | I: Received Association Release Request |
| -xcr, -xcs, -rns | nothing; W: cannot rename file …, E: cannot execute command | none of these options |

The programs' own lines are in `storescp_lines` and `dcmrecv_lines`. Nothing here writes to a log. Every method returns
lines, in order, for the logger that each names.
"""

import os
import re
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Final

from stowkeeper.dcmtk.association_dump import (
    Direction,
    acceptance_lines,
    message_lines,
    request_lines,
)
from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dimse.messages import Message
from stowkeeper.upperlayer.pdu import AssociateAC, AssociateRQ

NO_REQUEST: Final = "(the connection was closed before a request came)"

_PDV_OVERHEAD: Final = 12
"""Bytes of the headers of a PDU and the PDV in it (PS3.8 §9.3.5)."""

_SEND_PDU_MAX: Final = 131_072
"""Between these the programs keep what they say of PDUs that they send."""

_NETWORK_MODULE: Final = 6
"""What stands for the network library in front of the number of a condition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One message for a log. Its text may have several lines."""

    logger: str
    level: LogLevel
    text: str


Lines = tuple[Line, ...]


class Condition(Enum):
    """What went wrong, by the number and the short name that DCMTK's programs give it."""

    BAD_CONTEXT_ID = (0x0101, "ASC Bad presentation context ID")
    BAD_COMMAND_TYPE = (0x0201, "DIMSE Bad command type")
    BAD_MESSAGE = (0x0203, "DIMSE Badly formed message")
    CONTEXTS_DIFFER = (0x0206, "DIMSE: Presentation Contexts of Command and Data Differ")
    NO_DATA = (0x0207, "DIMSE No data available (timeout in non-blocking mode)")
    OUT_OF_RESOURCES = (0x020A, "DIMSE Out of resources")
    PARSE_FAILED = (0x020B, "DIMSE: Command Parse Failed")
    RECEIVE_FAILED = (0x020D, "DIMSE Failed to receive message")
    SEND_FAILED = (0x020E, "DIMSE Failed to send message")
    ILLEGAL_PDU = (0x0307, "DUL Illegal or ill-formed PDU")
    ILLEGAL_PDU_LENGTH = (0x0308, "DUL Illegal PDU Length")
    PEER_ABORTED = (0x0317, "Peer aborted Association (or never connected)")
    READ_TIMEOUT = (0x031A, "DUL network read timeout")
    TCP_INITIALIZATION = (0x031C, "TCP Initialization Error")
    TLS = (0x031E, "TLS error")
    UNRECOGNIZED_PDU = (0x0321, "Unrecognized PDU type")
    UNSUPPORTED_PROTOCOL = (0x0322, "DUL Unsupported peer protocol")
    TCP_WRAPPER = (0x0324, "TCP wrapper")

    def text(self, words: str = "") -> str:
        """Return module and code in hexadecimal, the name, and what else is known."""
        return f"{_NETWORK_MODULE:04x}:{self.value[0]:04x} {self.named(words)}"

    def named(self, words: str = "") -> str:
        """Return the name and what else is known."""
        return f"{self.value[1]}: {words}" if words else self.value[1]


def maximum_send_pdv(request: AssociateRQ) -> int:
    """Return the bytes of the longest PDV that is sent to a peer, as the programs state it.

    It is even, and at most what 131072 bytes of a PDU leave; a peer that names no limit, or 0, has that.
    """
    length = min(request.user_information.maximum_length or _SEND_PDU_MAX, _SEND_PDU_MAX)
    return max(length // 2 * 2 - _PDV_OVERHEAD, 0)


_HIDDEN: Final = "<patient>"
_STAMP = re.compile(r"_[0-9]{8}_[0-9]{9}\Z")


def shown_path(path: str, directory: str) -> str:
    """Return a path below the output directory without the patient's name that its subdirectory carries (-sp).

    A name stands in front of the time there; `<patient>` stands in its place. The output directory itself, and what is
    not below it, stay as they are.
    """
    head = os.path.join(directory, "")
    if not path.startswith(head) or path == head:
        return path
    folder, separator, rest = path.removeprefix(head).partition(os.sep)
    stamp = _STAMP.search(folder)
    return f"{head}{_HIDDEN}{stamp.group() if stamp else ''}{separator}{rest}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramLines:
    """What both programs say alike.

    `level` is the effective level of the logger: it decides on the wording, and what is below it and takes some work is
    left out. `shows_parameters` is +v.
    """

    program_logger: ClassVar[str]
    logger: ClassVar[str]

    level: LogLevel
    shows_parameters: bool = False

    @property
    def is_debug(self) -> bool:
        """Tell whether messages are shown."""
        return self.level <= LogLevel.DEBUG

    def debug(self, text: str) -> Lines:
        """Return a line of our own at the level debug."""
        return self.line(LogLevel.DEBUG, text)

    def warning(self, text: str) -> Lines:
        """Return a line of our own at the level warn."""
        return self.line(LogLevel.WARN, text)

    def error(self, text: str) -> Lines:
        """Return a line of our own at the level error."""
        return self.line(LogLevel.ERROR, text)

    def started(self, identification: str) -> Lines:
        """Say what runs, with the line that `--version` begins with."""
        return (Line(logger=self.program_logger, level=LogLevel.DEBUG, text=f"{identification}\n"),)

    def acknowledged(self, request: AssociateRQ, response: AssociateAC) -> Lines:
        """Say that an association is accepted, and by what."""
        head = f"Association Acknowledged (Max Send PDV: {maximum_send_pdv(request)})"
        lines = (*self.line(LogLevel.INFO, head), *self._nothing_accepted(response))
        if self._parameter_level < self.level:
            return lines
        return (*lines, *self.line(self._parameter_level, "\n".join(acceptance_lines(request, response))))

    def _nothing_accepted(self, response: AssociateAC) -> Lines:
        if any(result.is_accepted for result in response.presentation_contexts):
            return ()
        return self.line(LogLevel.INFO, "    (but no valid presentation contexts)")

    @property
    def _parameter_level(self) -> LogLevel:
        return LogLevel.INFO if self.shows_parameters else LogLevel.DEBUG

    def parameters(self, head: str, request: AssociateRQ, maximum_length: int) -> Lines:
        """Show what a request asks for, below a line that says so."""
        if self._parameter_level < self.level:
            return ()
        return self.line(self._parameter_level, "\n".join((head, *request_lines(request, maximum_length))))

    def exchange(
        self, head: str, details: str, message: Message, direction: Direction, context: int
    ) -> Lines:
        """Say in one line that a message came or goes, or show it below that at the level debug."""
        if not self.is_debug:
            return self.line(LogLevel.INFO, f"{head} ({details})")
        return (
            *self.line(LogLevel.INFO, head),
            *self.message(message, direction, context),
        )

    def message(self, message: Message, direction: Direction, context_id: int) -> Lines:
        """Show a message at the level debug."""
        if not self.is_debug:
            return ()
        return self.line(LogLevel.DEBUG, "\n".join(message_lines(message, direction, context_id)))

    def line(self, level: LogLevel, text: str) -> Lines:
        """Return one line of the program's logger."""
        return (Line(logger=self.logger, level=level, text=text),)
