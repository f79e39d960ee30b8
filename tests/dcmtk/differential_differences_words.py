"""Differences about what is logged and printed."""

import re
from collections.abc import Sequence
from dataclasses import replace

from differential_line import Difference, Pair
from differential_settling import each_of, told

from support.differential_observation import Observation

# Codes

CODES = {
    # a message that is not served, of which DCMTK reads the fields before it looks at the kind
    ("0203", "0201"),
    ("020b", "0201"),
    # a C-STORE request without a UID
    ("020b", "0203"),
    # a command set that cannot be read, a data set in another context than its command, a command in place of one
    ("020b", "0307"),
    ("0206", "0307"),
    ("020f", "0307"),
    # a PDV of no accepted context, a data set without command, a PDU of an unknown kind or out of turn
    ("020d", "0307"),
    # a PDU longer than was agreed
    ("020c", "0307"),
    # --abort-during
    ("020c", "020e"),
    # a first PDU that is no request
    ("0437", "0321"),
}
"""What DCMTK and ours put behind the same words for the same cause, without the number of the module."""
_CODED = re.compile(r"(E: [^:]+: 0006:)([0-9a-f]{4})")


def _settle_codes(theirs: Observation, ours: Observation) -> Pair:
    """Take DCMTK's code for ours in lines at the same place, where the two are one of the pairs."""
    if len(theirs.log) != len(ours.log):
        return theirs, ours
    pairs = zip(theirs.log, ours.log, strict=True)
    return theirs, replace(ours, log=tuple(one if _is_same(one, other) else other for one, other in pairs))


def _is_same(one: str, other: str) -> bool:
    a, b = _CODED.fullmatch(one), _CODED.fullmatch(other)
    return a is not None and b is not None and a[1] == b[1] and (a[2], b[2]) in CODES


ERROR_CODES = Difference(
    name="error-codes",
    reason="the code behind the words tells the cause as ours sees it, where its parser meets another fault first",
    settle=_settle_codes,
)

# Lines

_BAD_FILE = r"E: bad DICOM file: .*"
_NO_REQUEST = "E: Receiving Association failed: 0006:0321"


def _settle_mismatches(theirs: Observation, ours: Observation) -> Pair:
    """Leave out a line of ours for each object that is answered A900."""
    refused = sum(told(answer) == "A900" for answer in ours.answers)
    kept = _without_extra(ours.log, theirs.log, _BAD_FILE)
    return theirs, replace(ours, log=kept) if len(ours.log) - len(kept) == refused else ours


def _settle_long_requests(theirs: Observation, ours: Observation) -> Pair:
    """Leave out a line of ours for each request that is too long, of which DCMTK awaits the end."""
    answers = zip(theirs.answers, ours.answers, strict=False)
    awaited = sum((told(one), told(other)) == ("silence", "aborted 2 6") for one, other in answers)
    if ours.log.count(_NO_REQUEST) < 1 or awaited != 1:
        return theirs, ours
    last = len(ours.log) - 1 - ours.log[::-1].index(_NO_REQUEST)
    return theirs, replace(ours, log=ours.log[:last] + ours.log[last + 1 :])


def _without_extra(some: Sequence[str], others: Sequence[str], pattern: str) -> tuple[str, ...]:
    """Leave out lines that match where the others do not go on with them."""
    kept: list[str] = []
    for line in some:
        is_next = len(kept) < len(others) and line == others[len(kept)]
        if is_next or not re.fullmatch(pattern, line):
            kept.append(line)
    return tuple(kept)


LOG_SAYS_WHY = Difference(
    name="log-says-why",
    reason="an error that the peer is told has a line in the log; DCMTK has none for A900 and for what it awaits",
    settle=each_of(_settle_mismatches, _settle_long_requests),
)


def _settle_storing(theirs: Observation, ours: Observation) -> Pair:
    """Leave out that DCMTK is storing what neither program can write."""
    failed = {line.removeprefix("E: cannot write") for line in ours.log if line.startswith("E: cannot write")}
    kept = tuple(line for line in theirs.log if line.removeprefix("I: storing") not in failed)
    return replace(theirs, log=kept), ours


def _settle_overwriting(theirs: Observation, ours: Observation) -> Pair:
    """Put DCMTK's warning behind the line that the request was received."""
    log = list(theirs.log)
    for at in range(len(log) - 1):
        one, other = log[at : at + 2]
        if one.startswith("W: file already exists, ") and other.startswith("I: Received C-STORE Request"):
            log[at : at + 2] = [other, one]
    return replace(theirs, log=tuple(log)), ours


LOG_ORDER = Difference(
    name="log-order",
    reason="`storing` is said of what is stored, and of overwriting is warned when it happens, behind the request",
    settle=each_of(_settle_storing, _settle_overwriting),
)


def _settle_patients(theirs: Observation, ours: Observation) -> Pair:
    hidden = tuple(re.sub(r"(?<= out/)\w+(?=_<time-\d+>)", "<patient>", line) for line in theirs.log)
    return replace(theirs, log=hidden), ours


NO_PATIENTS_IN_LOGS = Difference(
    name="no-patients-in-logs",
    reason="logs go where patients' names must not; the directory that is made of one shows <patient> there",
    settle=_settle_patients,
)

_PROPOSED, _ACCEPTED = "I: Proposed SCP/SCU Role: ", "I: Accepted SCP/SCU Role: "
_ROLES = {
    "None": set[str](),
    "SCU": {"SCU"},
    "SCP": {"SCP"},
    "SCP/SCU": {"SCU", "SCP"},
}


def _settle_roles(theirs: Observation, ours: Observation) -> Pair:
    """Make of the role that the profile allows, which DCMTK shows, the one that was answered."""
    log = list(theirs.log)
    for at in range(1, len(log)):
        proposed, allowed = log[at - 1].removeprefix(_PROPOSED), log[at].removeprefix(_ACCEPTED)
        if not log[at - 1].startswith(_PROPOSED) or allowed not in _ROLES:
            continue
        if proposed == "Default":
            log[at] = f"{_ACCEPTED}Default"
        else:
            answered = _ROLES[proposed] & _ROLES[allowed]
            log[at] = _ACCEPTED + next(name for name, roles in _ROLES.items() if roles == answered)
    return replace(theirs, log=tuple(log)), ours


ROLE_LINES = Difference(
    name="role-lines",
    reason="the log shows the role that is answered; DCMTK shows the one that the profile would allow",
    settle=_settle_roles,
)

_RECEIVED = "I: Association Received"
_OF_NOBODY = (r"I: Association Received \S+:  -> ", r"I: Refusing Association \(bad application context\)")


def _settle_probes(theirs: Observation, ours: Observation) -> Pair:
    """Leave out the one association of which DCMTK says that it was received, although no request came."""
    log = list(theirs.log)
    for at in range(len(log)):
        if log[at] == _RECEIVED and not any(
            line.startswith("I: Association Ack") for line in log[at + 1 : at + 2]
        ):
            del log[at]
            break
        if [bool(re.fullmatch(p, line)) for p, line in zip(_OF_NOBODY, log[at : at + 2], strict=False)] == [
            1,
            1,
        ]:
            del log[at : at + 2]
            break
    return replace(theirs, log=tuple(log)), ours


PROBES = Difference(
    name="probes",
    reason="a connection that is closed before a request comes is no association; DCMTK says that it received one",
    settle=_settle_probes,
)


def _settle_dots(theirs: Observation, ours: Observation) -> Pair:
    """Take DCMTK's line of progress for ours where they differ by the dot of one piece."""
    if len(theirs.output) != len(ours.output):
        return theirs, ours
    taken = tuple(
        one if {len(one) - len("RECV: "), len(other) - len("RECV: ")} == {0, 1} else other
        for one, other in zip(theirs.output, ours.output, strict=True)
    )
    return theirs, replace(ours, output=taken)


PROGRESS_DOTS = Difference(
    name="progress-dots",
    reason="a dot stands for a piece that came; DCMTK has none for one that it fails at",
    settle=_settle_dots,
)


def _settle_missing_socket(theirs: Observation, ours: Observation) -> Pair:
    if (theirs.exit, theirs.heading, ours.exit, ours.heading) != ((0,), "nothing", (99,), "stderr"):
        return theirs, ours
    return theirs, replace(ours, exit=theirs.exit, heading=theirs.heading)


INETD_WITHOUT_SOCKET = Difference(
    name="inetd-without-socket",
    reason="-id where standard input is no connection is a mistake; DCMTK ends with 0 and without a word",
    settle=_settle_missing_socket,
)
OF_WORDS: Sequence[Difference] = (
    ERROR_CODES,
    LOG_SAYS_WHY,
    LOG_ORDER,
    NO_PATIENTS_IN_LOGS,
    ROLE_LINES,
    PROBES,
    PROGRESS_DOTS,
    INETD_WITHOUT_SOCKET,
)
