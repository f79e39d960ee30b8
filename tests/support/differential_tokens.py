"""What scripts look for in the output of DCMTK's receivers: the lines that count, and the part of each that does.

All other lines may be worded as one likes. A line is its level, a letter, and its text behind the colon.
"""

import re
from collections.abc import Iterator

_LINE = re.compile(r"([FEWIDT]): (.*)")
_PROGRESS = re.compile(r"RECV: \.*")
_CODE = r"(?: [0-9a-f]{4}:[0-9a-f]{4})?"

_WHOLE = tuple(
    re.compile(pattern)
    for pattern in (
        # storescp
        r"Association Received",
        r"Association Acknowledged \(Max Send PDV: \d+\)",
        r"Received (?:Store|Echo) Request(?: \(MsgID \d+(?:, \w+)?\))?",
        r"storing DICOM file: .*",
        r"created new subdirectory for study: .*",
        r"using existing subdirectory for study: .*",
        r"Association (?:Release|Aborted)",
        r"DICOM file already exists, overwriting: .*",
        # dcmrecv
        r"Association Received \S+: .* -> .*",
        r"Received C-(?:STORE|ECHO) Request(?: \(MsgID \d+\))?",
        r"Stored received object to file: .*",
        r"file already exists, overwriting: .*",
        r"Sending C-(?:STORE|ECHO) Response(?: \(.*\))?",
        r"Received Association Release Request",
        r"Received Association Abort Request",
        r"Refusing Association \(.*\)",
    )
)
_BEGINNINGS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"Store SCP Failed:{_CODE}",
        rf"DIMSE failure \(aborting association\):{_CODE}",
        rf"Receiving Association failed:{_CODE}",
        r"cannot write DICOM file: [^:]*",
        r"bad DICOM file: [^:]*",
    )
)
_DUMPED = tuple(
    re.compile(pattern)
    for pattern in (
        r"=+ (?:BEGIN|END) A-ASSOCIATE-(?:RQ|AC|RJ) =+",
        r"(?:Application Context|Calling Application|Called Application|Responding Application) Name:.*",
        r"Their Implementation (?:Class UID|Version Name):.*",
        r"(?:Our|Their) Max PDU Receive Size:.*",
        r"Context ID:.*",
        r"Abstract Syntax:.*",
        r"(?:Proposed|Accepted) SCP/SCU Role:.*",
        r"Proposed Transfer Syntax\(es\):",
        r"Accepted Transfer Syntax:.*",
        r"=[\w:+@/.&;-]+",
    )
)
"""The parameters of an association, of which the width of blanks does not count."""


def log_tokens(text: str) -> tuple[str, ...]:
    """Return what counts of a log, in its order."""
    return tuple(_log_tokens(text))


def _log_tokens(text: str) -> Iterator[str]:
    for line in text.splitlines():
        found = _LINE.fullmatch(line)
        if found is None:
            continue
        level, words = found.groups()
        dumped = " ".join(words.split())
        if any(pattern.fullmatch(words) for pattern in _WHOLE):
            yield f"{level}: {words}"
        elif any(pattern.fullmatch(dumped) for pattern in _DUMPED):
            yield f"{level}: {dumped}"
        else:
            for pattern in _BEGINNINGS:
                if begun := pattern.match(words):
                    yield f"{level}: {begun[0]}"


def output_tokens(text: str) -> tuple[str, ...]:
    """Return what counts of the standard output of a program that serves: the lines of progress, and log lines."""
    return (*_PROGRESS.findall(text), *_log_tokens(text))
