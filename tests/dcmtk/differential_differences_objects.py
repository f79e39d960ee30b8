"""Differences about objects: what is taken, what is refused, what becomes of files, names and commands."""

import re
import struct
from collections.abc import Sequence
from dataclasses import replace

from differential_line import Difference, Pair
from differential_settling import (
    AnsweredOtherwise,
    each_of,
    only_dcmtk_has,
    only_ours_has,
    other_answers,
    told,
)

from support.differential_observation import Observation, StoredFile

NOT_RECEIVED = r"E: Store SCP Failed: 0006:020d"
ABORTED_FOR_IT = r"E: DIMSE failure \(aborting association\): 0006:020d"

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

# Objects that are taken

ODD_LENGTHS_ARE_TAKEN = Difference(
    name="odd-lengths-are-taken",
    reason="the pixels of a patient are worth more than a pad byte that is missing; DCMTK aborts",
    settle=AnsweredOtherwise(
        dcmtk="aborted 0 0",
        ours="0000",
        dcmtk_says=(NOT_RECEIVED, ABORTED_FOR_IT),
        ours_keeps=r"out/CT\.1\.2\.3\.\d",
    ),
)
IGNORE_LOOKS_AT_NOTHING = Difference(
    name="ignore-looks-at-nothing",
    reason="what is thrown away need not be read; DCMTK parses it, and aborts when it cannot",
    settle=AnsweredOtherwise(dcmtk="aborted 0 0", ours="0000", dcmtk_says=(NOT_RECEIVED, ABORTED_FOR_IT)),
)
PRIVATE_SYNTAXES_ARE_STORED = Difference(
    name="private-syntaxes-are-stored",
    reason="what a profile accepts is received, GE's private transfer syntax too; DCMTK aborts at the first object",
    settle=AnsweredOtherwise(
        dcmtk="aborted 0 0", ours="0000", dcmtk_says=(ABORTED_FOR_IT,), ours_keeps=r"out/CT\.1\.2\.3"
    ),
)
NATIVE_PIXELS_ARE_ANSWERED = Difference(
    name="native-pixels-are-answered",
    reason="one object that cannot be written is no reason to drop the association with those behind it",
    settle=AnsweredOtherwise(
        dcmtk="aborted 0 0",
        ours="A700",
        dcmtk_says=(NOT_RECEIVED, ABORTED_FOR_IT),
        ours_says=(r"E: cannot write DICOM file: out/SC\.1\.2\.826\.0\.1\.3680043\.2\.1125\.7",),
    ),
)


def _settle_goes_on(theirs: Observation, ours: Observation) -> Pair:
    """Leave out what ours says about what comes behind the failure."""
    said = len(theirs.log)
    if ours.log[:said] != theirs.log or any(line.startswith("E: ") for line in ours.log[said:]):
        return theirs, ours
    return theirs, replace(ours, log=theirs.log)


GOES_ON_AFTER_A700 = Difference(
    name="goes-on-after-a700",
    reason="one object that cannot be stored is no reason to drop the association with those behind it",
    settle=each_of(
        AnsweredOtherwise(dcmtk="aborted 0 0", ours="0000", ours_keeps=r"out/CT\.1\.2\.4"), _settle_goes_on
    ),
)

# Objects that are refused


def _refused(theirs: Observation) -> str:
    """Return a pattern of the SOP Instance UIDs of the objects that DCMTK answered with an error."""
    uids = [
        answer["instance"].rstrip("\0 ")
        for answer in theirs.answers
        if told(answer) in ("A700", "A900", "C000") and isinstance(answer, dict)
    ]
    return "|".join(map(re.escape, uids)) or r"(?!)"


REFUSED_OBJECTS = Difference(
    name="refused-objects",
    reason="an object that was answered with an error is not kept: no file, and no command of -xcr",
    settle=lambda theirs, ours: only_dcmtk_has(
        files=rf".*\.(?:{_refused(theirs)})",
        log=rf"I: storing DICOM file: .*\.(?:{_refused(theirs)})",
        events=rf"object [^|]*\|\w+\.(?:{_refused(theirs)})\|.*",
    )(theirs, ours),
)


def _settle_commands_without_file(theirs: Observation, ours: Observation) -> Pair:
    """Leave out DCMTK's commands for objects without a place: they name no file, or that of the object before."""
    events = theirs.events
    kept = tuple(
        event
        for at, event in enumerate(events)
        if not event.startswith("object ||") and (at == 0 or event != events[at - 1])
    )
    refused = [answer for answer in ours.answers if told(answer) == "C000"]
    return (replace(theirs, events=kept) if len(events) - len(kept) == len(refused) else theirs), ours


COMMAND_NEEDS_A_FILE = Difference(
    name="command-needs-a-file",
    reason="an object without a Study Instance UID has no place, and DCMTK's command names none or another object's",
    settle=_settle_commands_without_file,
)
INCOMPLETE_DATA_SETS = Difference(
    name="incomplete-data-sets",
    reason="what was cut off is missing; DCMTK closes the sequence, or writes the last value empty, and says Success",
    settle=each_of(
        AnsweredOtherwise(dcmtk="0000", ours="aborted 0 0", ours_says=(NOT_RECEIVED, ABORTED_FOR_IT)),
        only_dcmtk_has(
            files=r"out/(?:SC|CT\.1\.2\.3)\..*", log=r"W: .*already exists, overwriting: out/SC\..*"
        ),
    ),
)
WHOLE_FILES = Difference(
    name="whole-files",
    reason="a file is replaced only by one that is whole; DCMTK has opened the earlier one for writing by then",
    settle=each_of(
        only_ours_has(files=r"out/CT\.1\.2\.3"), only_dcmtk_has(log=r"W: file already exists, .*")
    ),
)

# Places and names

STUDY_DIRECTORY_INSIDE = Difference(
    name="study-directory-inside",
    reason="a study UID of one or two dots would be the output directory or its parent",
    settle=each_of(
        other_answers(("0000", "C000")), only_dcmtk_has(files=r"CT\.1\.2\.3\.1|out/CT\.1\.2\.3\.2")
    ),
)
STUDY_DIRECTORY_TRIED_AGAIN = Difference(
    name="study-directory-tried-again",
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


RENAMED_FILES_STAY = Difference(
    name="renamed-files-stay",
    reason="a number that a file of the study has already is never given again",
    settle=_settle_renaming,
)


def _settle_repeated_uids(theirs: Observation, ours: Observation) -> Pair:
    """Take DCMTK's UID for ours where white space is all that DCMTK has not."""
    taken = list(ours.answers)
    for at, (one, other) in enumerate(zip(theirs.answers, ours.answers, strict=False)):
        if isinstance(one, dict) and isinstance(other, dict) and "instance" in one and "instance" in other:
            expected = re.sub(r"[\s\0]", "", other["instance"])
            if one["instance"].rstrip("\0") == expected:
                taken[at] = {**other, "instance": one["instance"]}
    return theirs, replace(ours, answers=tuple(taken))


RESPONSE_REPEATS_THE_UID = Difference(
    name="response-repeats-the-uid",
    reason="the response has the UID of the request as it came (PS3.7 Table 9.1-1); DCMTK removes white space in it",
    settle=_settle_repeated_uids,
)

# Commands


def _settle_titles(theirs: Observation, ours: Observation) -> Pair:
    """Take DCMTK's titles for ours, where ours are harmless, and leave out the files that DCMTK's have made."""
    pairs = zip(theirs.events, ours.events, strict=False)
    events = tuple(one if _has_harmless_titles(one, other) else other for one, other in pairs)
    settled = replace(ours, events=events + ours.events[len(events) :])
    return only_dcmtk_has(files=r"[xy]")(theirs, settled)


def _has_harmless_titles(one: str, other: str) -> bool:
    theirs, ours = one.split("|"), other.split("|")
    if not len(theirs) == len(ours) == len(("object", "file", "calling", "called", "host")):
        return False
    rest = slice(0, 2), slice(4, None)
    return all(theirs[part] == ours[part] for part in rest) and all(
        re.fullmatch(r"[\w .:@-]+", title) for title in ours[2:4]
    )


DEBIAN_SHELL = Difference(
    name="debian-shell",
    reason="an AE title that a shell would take for a command loses the signs that make it one, in -xcr too",
    settle=_settle_titles,
)
HOST_IS_ONE_WORD = Difference(
    name="host-is-one-word",
    reason="Debian's patched program puts the peer's host into double quotes, the releases up to 3.7.0 do not",
    settle=lambda theirs, ours: (
        replace(theirs, events=tuple(event.replace('"localhost"', "localhost") for event in theirs.events)),
        ours,
    ),
)
OF_OBJECTS: Sequence[Difference] = (
    PADDING_FILLS_THE_FILE,
    ODD_LENGTHS_ARE_TAKEN,
    IGNORE_LOOKS_AT_NOTHING,
    PRIVATE_SYNTAXES_ARE_STORED,
    NATIVE_PIXELS_ARE_ANSWERED,
    GOES_ON_AFTER_A700,
    REFUSED_OBJECTS,
    COMMAND_NEEDS_A_FILE,
    INCOMPLETE_DATA_SETS,
    WHOLE_FILES,
    STUDY_DIRECTORY_INSIDE,
    STUDY_DIRECTORY_TRIED_AGAIN,
    RENAMED_FILES_STAY,
    RESPONSE_REPEATS_THE_UID,
    DEBIAN_SHELL,
    HOST_IS_ONE_WORD,
)
