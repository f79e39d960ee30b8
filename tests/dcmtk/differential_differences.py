"""The ways in which ours is meant to do otherwise than Debian's DCMTK 3.6.7, by name, each with its reason.

A line of the table that shows one names it. Anything else that differs is a fault, and so is a difference that is named
and does not show.
"""

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from typing import Any

from differential_line import Difference, Pair

from support.differential_observation import Observation, StoredFile

Settle = Callable[[Observation, Observation], Pair]


def told(answer: Any) -> str:
    """Return the short form of an answer: a status, or what else came."""
    if isinstance(answer, dict):
        return str(answer.get("status", "accepted"))
    return " ".join(map(str, answer)) if isinstance(answer, list) else str(answer)


# What can be settled


def other_answers(*allowed: tuple[str, str]) -> Settle:
    """Settle that DCMTK's answer and ours are one of some pairs, which are patterns of their short forms."""

    def settle(theirs: Observation, ours: Observation) -> Pair:
        pairs = zip(theirs.answers, ours.answers, strict=False)
        taken = tuple(one if _is_allowed(told(one), told(other)) else other for one, other in pairs)
        return theirs, replace(ours, answers=taken + ours.answers[len(taken) :])

    def _is_allowed(one: str, other: str) -> bool:
        return any(re.fullmatch(a, one) and re.fullmatch(b, other) for a, b in allowed)

    return settle


def only_dcmtk_has(**aspects: str) -> Settle:
    """Settle that DCMTK has entries of an aspect that match a pattern and ours has none of them."""
    return lambda theirs, ours: (_without(theirs, aspects), ours)


def only_ours_has(**aspects: str) -> Settle:
    """Settle that ours has entries of an aspect that match a pattern and DCMTK has none of them."""
    return lambda theirs, ours: (theirs, _without(ours, aspects))


def each_of(*settles: Settle) -> Settle:
    """Settle several things."""
    return lambda theirs, ours: reduce(lambda pair, settle: settle(*pair), settles, (theirs, ours))


def _without(seen: Observation, aspects: dict[str, str]) -> Observation:
    kept = {
        aspect: tuple(
            entry
            for entry in getattr(seen, aspect)
            if not re.fullmatch(pattern, getattr(entry, "name", entry))
        )
        for aspect, pattern in aspects.items()
    }
    return replace(seen, **kept)


# Padding

PADDING_MAX = 1100
"""More bytes than the lines ask for."""


def _without_padding(each: StoredFile) -> StoredFile:
    """Leave out what stands at the end of a file only to make it as long as the command line asks for."""
    data = each.data_set
    while (shorter := _without_last_padding(data)) != data:
        data = shorter
    return replace(each, data_set=data)


def _without_last_padding(data: bytes) -> bytes:
    """Leave out a last element of group FFFC: padding, or the length of its group."""
    for form in ("<HH2sxxI", ">HH2sxxI", "<HH2sH", ">HH2sH", "<HHI"):
        size = struct.calcsize(form)
        for at in range(len(data) - size, max(-1, len(data) - size - PADDING_MAX), -2):
            group, element, *_, length = struct.unpack_from(form, data, at)
            if group == 0xFFFC and element in (0, 0xFFFC) and at + size + length == len(data):
                return data[:at]
    return data


def _settle_padding(theirs: Observation, ours: Observation) -> Pair:
    one, other = (replace(seen, files=tuple(map(_without_padding, seen.files))) for seen in (theirs, ours))
    return one, other


PADDING_FILLS_THE_FILE = Difference(
    name="padding-fills-the-file",
    reason="the names of the implementations have other lengths, so files need another padding to the same length",
    settle=_settle_padding,
)

# Objects that are refused


def _refused(theirs: Observation) -> list[str]:
    """Return the SOP Instance UIDs of the objects that DCMTK answered with an error."""
    return [
        answer["instance"].rstrip("\0 ")
        for answer in theirs.answers
        if told(answer) in ("A700", "A900", "C000") and isinstance(answer, dict)
    ]


def _of(uids: Sequence[str]) -> str:
    return "|".join(map(re.escape, uids)) or r"(?!)"


REFUSED_LEAVE_NOTHING = Difference(
    name="refused-objects-leave-no-file",
    reason="an object that was answered with an error is not kept, so no file of it may be taken for one",
    settle=lambda theirs, ours: only_dcmtk_has(
        files=rf".*\.(?:{_of(_refused(theirs))})",
        log=rf"I: storing DICOM file: .*\.(?:{_of(_refused(theirs))})",
    )(theirs, ours),
)
REFUSED_START_NO_COMMAND = Difference(
    name="refused-objects-start-no-command",
    reason="there is no file that a command of -xcr could work on",
    settle=lambda theirs, ours: only_dcmtk_has(events=rf"object [^|]*\|\w+\.(?:{_of(_refused(theirs))})\|.*")(
        theirs, ours
    ),
)
CUT_OBJECTS_ARE_REFUSED = Difference(
    name="cut-objects-are-refused",
    reason="what was cut off is missing; DCMTK closes the sequence, or writes the last value empty, and says Success",
    settle=each_of(
        other_answers(("0000", "aborted .*|C000|A700"), ("released", "not connected")),
        only_dcmtk_has(files=r"out/SC\..*", log=r"[WE]: .*"),
        only_ours_has(log=r"[WE]: .*"),
    ),
)
RESEND_KEEPS_THE_COPY = Difference(
    name="failed-resend-keeps-the-copy",
    reason="a file is replaced only by one that is whole; DCMTK has opened the earlier one for writing by then",
    settle=each_of(
        only_ours_has(files=r"out/CT\.1\.2\.3"), only_dcmtk_has(log=r"W: file already exists, .*")
    ),
)
GOES_ON_AFTER_A_FAILURE = Difference(
    name="goes-on-after-a-failure",
    reason="one object that cannot be stored is no reason to drop the association with those behind it",
    settle=each_of(
        other_answers(("aborted 0 0", "0000"), ("not connected", "released")),
        only_ours_has(files=r"out/CT\.1\.2\.4", log=r"I: .*"),
        only_dcmtk_has(log=r"I: .*"),
    ),
)

# Places and names

HOSTILE_STUDY_UID = Difference(
    name="study-uid-stays-inside",
    reason="a study UID of one or two dots would be the output directory or its parent",
    settle=each_of(
        other_answers(("0000", "C000")), only_dcmtk_has(files=r"CT\.1\.2\.3\.1|out/CT\.1\.2\.3\.2")
    ),
)
STUDY_DIRECTORY_THAT_CANNOT_BE_MADE = Difference(
    name="study-directory-is-tried-again",
    reason="DCMTK takes a directory that it could not make for made, so the next object fails for another reason",
    settle=each_of(
        other_answers(("A700", "C000")),
        only_dcmtk_has(log=r"(?:I: storing|E: cannot write) DICOM file: out/absent/.*"),
    ),
)


def _settle_renaming(theirs: Observation, ours: Observation) -> Pair:
    """Leave out the files if ours has one for each object; DCMTK's would have fewer."""
    objects = {answer["instance"] for answer in ours.answers if told(answer) == "0000"}
    if len(ours.files) != len(objects) or not len(theirs.files) < len(objects):
        return theirs, ours
    return replace(theirs, files=()), replace(ours, files=())


NEVER_TAKEN_NAMES = Difference(
    name="renaming-loses-nothing",
    reason="a number that a file of the study has already is never given again",
    settle=_settle_renaming,
)


def _settle_patients(theirs: Observation, ours: Observation) -> Pair:
    hidden = tuple(re.sub(r"(?<= out/)\w+(?=_<time-\d+>)", "<patient>", line) for line in theirs.log)
    return replace(theirs, log=hidden), ours


NO_PATIENTS_IN_LOGS = Difference(
    name="no-patients-in-logs",
    reason="logs go where patients' names must not; the directory that is made of one shows <patient> there",
    settle=_settle_patients,
)

# Commands


def _settle_titles(theirs: Observation, ours: Observation) -> Pair:
    harmless = all(re.fullmatch(r"[\w .:@|-]+", event) for event in ours.events)
    settled = replace(ours, events=theirs.events) if harmless else ours
    return only_dcmtk_has(files=r"[xy]")(theirs, settled)


HOST_WITHOUT_QUOTES = Difference(
    name="host-without-quotes",
    reason="Debian's patched program puts the peer's host into double quotes, the releases up to 3.7.0 do not",
    settle=lambda theirs, ours: (
        replace(theirs, events=tuple(event.replace('"localhost"', "localhost") for event in theirs.events)),
        ours,
    ),
)
HOSTILE_TITLES_ARE_HARMLESS = Difference(
    name="titles-run-no-commands",
    reason="an AE title that a shell would take for a command loses the signs that make it one",
    settle=_settle_titles,
)

# Associations

CALLED_TITLE_IS_CHECKED = Difference(
    name="called-title-is-checked",
    reason="dcmrecv enforces the title of -aet since 3.6.8",
    settle=other_answers(("accepted", "rejected 1 1 7"), ("released", "not connected")),
)
NOTHING_TO_AGREE_ON_IS_REJECTED = Difference(
    name="unusable-requests-are-rejected",
    reason="DCMTK leaves requests without contexts or titles without answer until the peer gives up",
    settle=each_of(other_answers(("silence", "rejected 1 1 [137]")), only_ours_has(log=r"[EI]: .*")),
)
SILENT_PEERS_ARE_TOLD = Difference(
    name="silent-peers-are-told",
    reason="a peer whose time is over gets an A-ABORT; DCMTK closes without a word, or goes on waiting",
    settle=other_answers(("silence|", "aborted 0 0"), ("None", "None")),
)
ABORTS_SAY_WHY = Difference(
    name="aborts-say-why",
    reason="an A-ABORT for a broken rule names the service provider and the reason (PS3.8 §9.3.8); DCMTK's names none",
    settle=other_answers(("aborted 0 0|silence|", "aborted 2 [1-6]")),
)
DIFFERENCES = (
    PADDING_FILLS_THE_FILE,
    REFUSED_LEAVE_NOTHING,
    REFUSED_START_NO_COMMAND,
    CUT_OBJECTS_ARE_REFUSED,
    RESEND_KEEPS_THE_COPY,
    GOES_ON_AFTER_A_FAILURE,
    HOSTILE_STUDY_UID,
    STUDY_DIRECTORY_THAT_CANNOT_BE_MADE,
    NEVER_TAKEN_NAMES,
    NO_PATIENTS_IN_LOGS,
    HOST_WITHOUT_QUOTES,
    HOSTILE_TITLES_ARE_HARMLESS,
    CALLED_TITLE_IS_CHECKED,
    NOTHING_TO_AGREE_ON_IS_REJECTED,
    SILENT_PEERS_ARE_TOLD,
    ABORTS_SAY_WHY,
)
