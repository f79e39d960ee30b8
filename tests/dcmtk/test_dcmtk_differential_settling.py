"""A named difference of the table settles what its name says, and nothing beside it.

The whole table shows that each one settles what it should; here it is shown where each one stops.
"""

from dataclasses import replace

import pytest
from differential_differences import ABORT_AT_TIMEOUT, ABORTS_SAY_WHY, ANSWERS_IN_SMALL_PDUS, DIFFERENCES
from differential_differences_objects import (
    COMMAND_NEEDS_A_FILE,
    DEBIAN_SHELL,
    GOES_ON_AFTER_A700,
    IGNORE_LOOKS_AT_NOTHING,
    NATIVE_PIXELS_ARE_ANSWERED,
    ODD_LENGTHS_ARE_TAKEN,
    RESPONSE_REPEATS_THE_UID,
)
from differential_differences_words import (
    ERROR_CODES,
    INETD_WITHOUT_SOCKET,
    LOG_ORDER,
    LOG_SAYS_WHY,
    PROBES,
    PROGRESS_DOTS,
    ROLE_LINES,
)

from support.differential_comparison import mismatches
from support.differential_observation import Observation, StoredFile
from support.generated_pages import generate

NOTHING = Observation(exit=(-15,), answers=(), folders=(), files=(), log=(), output=(), events=())


def seen(**aspects):
    return replace(NOTHING, **{name: tuple(entries) for name, entries in aspects.items()})


def is_settled(difference, theirs, ours):
    return not mismatches(*difference.settle(theirs, ours))


def stored(name):
    return StoredFile(name=name, mode="644", meta=(), data_set=b"")


def response(status="0000", instance="1.2.3\0"):
    return {"status": status, "instance": instance}


def test_every_difference_is_a_row_of_the_page():
    rows = {row["name"] for group in generate.differences()["groups"] for row in group["rows"]}
    assert {difference.name for difference in DIFFERENCES} <= rows


# Objects that are answered otherwise

FAILED = "E: Store SCP Failed: 0006:020d"
ABORTED = "E: DIMSE failure (aborting association): 0006:020d"
DCMTK_ABORTS = seen(answers=[["aborted", 0, 0], "not connected"], log=[FAILED, ABORTED])
STORED = seen(answers=[response(), "released"], files=[stored("out/CT.1.2.3.1")])


def test_what_follows_from_another_answer_is_settled():
    assert is_settled(ODD_LENGTHS_ARE_TAKEN, DCMTK_ABORTS, STORED)
    assert is_settled(IGNORE_LOOKS_AT_NOTHING, DCMTK_ABORTS, replace(STORED, files=()))


@pytest.mark.parametrize(
    "ours",
    [
        replace(STORED, files=()),
        replace(STORED, files=STORED.files * 2),
        replace(STORED, files=(stored("out/MR.1.2.3.1"),)),
        replace(STORED, log=(FAILED, ABORTED)),
        replace(STORED, log=("W: something",)),
        replace(STORED, answers=(response("A700"), "released")),
        replace(STORED, answers=(response(), "not connected")),
        replace(STORED, answers=(response(), ["aborted", 0, 0])),
        replace(STORED, events=("an event",)),
    ],
)
def test_success_needs_one_file_and_no_word(ours):
    assert not is_settled(ODD_LENGTHS_ARE_TAKEN, DCMTK_ABORTS, ours)


@pytest.mark.parametrize("log", [(FAILED,), (FAILED, FAILED), (FAILED, ABORTED, ABORTED), (ABORTED,)])
def test_what_dcmtk_says_has_to_be_all_there(log):
    assert not is_settled(ODD_LENGTHS_ARE_TAKEN, replace(DCMTK_ABORTS, log=log), STORED)


def test_an_answer_of_dcmtk_is_not_settled_the_other_way_round():
    assert not is_settled(ODD_LENGTHS_ARE_TAKEN, STORED, DCMTK_ABORTS)


def test_an_object_that_is_not_stored_needs_its_line():
    ours = seen(
        answers=[response("A700"), "released"],
        log=["E: cannot write DICOM file: out/SC.1.2.826.0.1.3680043.2.1125.7"],
    )
    assert is_settled(NATIVE_PIXELS_ARE_ANSWERED, DCMTK_ABORTS, ours)
    assert not is_settled(NATIVE_PIXELS_ARE_ANSWERED, DCMTK_ABORTS, replace(ours, log=()))
    assert not is_settled(NATIVE_PIXELS_ARE_ANSWERED, DCMTK_ABORTS, replace(ours, files=STORED.files))


def test_going_on_is_without_errors():
    theirs = seen(
        answers=[response("A700"), ["aborted", 0, 0]], log=["I: Received C-STORE Request (MsgID 1)"]
    )
    ours = seen(
        answers=[response("A700"), response()],
        files=[stored("out/CT.1.2.4")],
        log=[*theirs.log, "I: Received C-STORE Request (MsgID 2)"],
    )
    assert is_settled(GOES_ON_AFTER_A700, theirs, ours)
    assert not is_settled(GOES_ON_AFTER_A700, theirs, replace(ours, log=(*ours.log, "E: something")))
    assert not is_settled(GOES_ON_AFTER_A700, theirs, replace(ours, log=ours.log[1:]))


def test_small_pdus():
    theirs = replace(DCMTK_ABORTS, log=tuple(line.replace("020d", "020e") for line in DCMTK_ABORTS.log))
    assert is_settled(ANSWERS_IN_SMALL_PDUS, theirs, STORED)
    assert not is_settled(ANSWERS_IN_SMALL_PDUS, DCMTK_ABORTS, STORED)


@pytest.mark.parametrize(
    ("instance", "same"),
    [("a b\0", True), ("ab ", True), ("a c\0", False), ("ab\0\0", True), ("A b\0", False)],
)
def test_repeated_uids(instance, same):
    theirs, ours = (seen(answers=[response(instance=uid)]) for uid in ("ab", instance))
    assert is_settled(RESPONSE_REPEATS_THE_UID, theirs, ours) == same


def test_commands_without_a_file():
    ours = seen(
        answers=[response("C000", "1"), response(instance="2"), response("C000", "3")],
        events=["object out|2|"],
    )
    theirs = replace(ours, events=("object ||", "object out|2|", "object out|2|"))
    assert is_settled(COMMAND_NEEDS_A_FILE, theirs, ours)
    for events in (
        theirs.events[:2],
        ours.events,
        (*theirs.events, "object ||"),
        ("object ||", "x", "object out|2|"),
    ):
        assert is_settled(COMMAND_NEEDS_A_FILE, replace(theirs, events=events), ours) == (
            events == ours.events
        )


@pytest.mark.parametrize(
    ("event", "same"),
    [
        ("object out|1|A_q_|B|host", True),
        ("object out|2|A_q_|B|host", False),
        ("object out|1|A$q|B|host", False),
        ("object out|1|A_q_|`id`|host", False),
        ("object out|1|A_q_|B|other", False),
        ("object out|1|A_q_|B", False),
    ],
)
def test_titles(event, same):
    assert is_settled(DEBIAN_SHELL, seen(events=['object out|1|A"q"|B|host']), seen(events=[event])) == same


# Words


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (FAILED, FAILED.replace("020d", "0307"), True),
        (FAILED, FAILED.replace("020d", "0203"), False),
        (FAILED.replace("020d", "0307"), FAILED, False),
        (FAILED, ABORTED.replace("020d", "0307"), False),
        (FAILED, FAILED.replace("E:", "W:").replace("020d", "0307"), False),
    ],
)
def test_codes(one, other, same):
    assert is_settled(ERROR_CODES, seen(log=[one]), seen(log=[other])) == same
    assert not is_settled(ERROR_CODES, seen(log=[one]), seen(log=[other, other]))


BAD = "E: bad DICOM file: out/CT.1"


@pytest.mark.parametrize(
    ("statuses", "theirs", "ours", "same"),
    [
        (["A900"], [], [BAD], True),
        (["A900", "C000"], [BAD], [BAD, BAD], True),
        (["A900"], [], [], True),
        (["C000"], [], [BAD], False),
        (["A900"], [], [BAD, BAD], False),
        (["A900"], [BAD], [], False),
        (["A900"], [], ["E: cannot write DICOM file: out/CT.1"], False),
    ],
)
def test_lines_that_say_why(statuses, theirs, ours, same):
    answers = [response(status) for status in statuses]
    assert (
        is_settled(LOG_SAYS_WHY, seen(answers=answers, log=theirs), seen(answers=answers, log=ours)) == same
    )


def test_a_request_that_dcmtk_awaits():
    said = "E: Receiving Association failed: 0006:0321"
    ours = seen(answers=[["aborted", 2, 6]], log=[said])
    for answer, log, same in (("silence", [], True), ("silence", [said], False), ([], [], False)):
        theirs = seen(answers=[answer], log=log)
        assert is_settled(LOG_SAYS_WHY, replace(theirs, answers=ours.answers), ours) == (log == [said])
        assert (not mismatches(*_both(theirs, ours))) == same


def _both(theirs, ours):
    return ABORTS_SAY_WHY.settle(*LOG_SAYS_WHY.settle(theirs, ours))


def test_order_of_lines():
    wrote, failed = "I: storing DICOM file: out/CT.1", "E: cannot write DICOM file: out/CT.1"
    assert is_settled(LOG_ORDER, seen(log=[wrote, failed]), seen(log=[failed]))
    assert not is_settled(LOG_ORDER, seen(log=[wrote]), NOTHING)
    assert not is_settled(LOG_ORDER, seen(log=[wrote, failed]), seen(log=[failed.replace("CT.1", "CT.2")]))
    warned, request = "W: file already exists, overwriting: x", "I: Received C-STORE Request (MsgID 1)"
    assert is_settled(LOG_ORDER, seen(log=[warned, request]), seen(log=[request, warned]))
    assert not is_settled(LOG_ORDER, seen(log=[request, warned]), seen(log=[warned, request]))
    assert not is_settled(LOG_ORDER, seen(log=[warned, "I: other"]), seen(log=["I: other", warned]))


@pytest.mark.parametrize(
    ("proposed", "allowed", "answered", "same"),
    [
        ("Default", "SCU", "Default", True),
        ("SCP", "SCU", "None", True),
        ("SCP/SCU", "SCP", "SCP", True),
        ("SCP", "SCP/SCU", "SCP", True),
        ("SCP", "SCP/SCU", "SCP/SCU", False),
        ("SCP/SCU", "SCP", "SCU", False),
        ("Default", "SCU", "None", False),
    ],
)
def test_roles(proposed, allowed, answered, same):
    theirs, ours = (
        seen(log=[f"I: Proposed SCP/SCU Role: {proposed}", f"I: Accepted SCP/SCU Role: {role}"])
        for role in (allowed, answered)
    )
    assert is_settled(ROLE_LINES, theirs, ours) == same


def test_probes():
    one = ["I: Association Received", "I: Association Acknowledged (Max Send PDV: 16372)"]
    assert is_settled(PROBES, seen(log=[one[0], *one]), seen(log=one))
    assert not is_settled(PROBES, seen(log=one), seen(log=one[1:]))
    assert not is_settled(PROBES, seen(log=[one[0], one[0], *one]), seen(log=one))
    other = ["I: Association Received host:  -> ", "I: Refusing Association (bad application context)"]
    assert is_settled(PROBES, seen(log=other), NOTHING)
    assert not is_settled(PROBES, seen(log=[other[0].replace("  ->", " A ->"), other[1]]), NOTHING)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("", ".", True), (".", "", True), (".", "..", False), ("", "..", False), ("..", ".", False)],
)
def test_dots(one, other, same):
    assert is_settled(PROGRESS_DOTS, seen(output=[f"RECV: {one}"]), seen(output=[f"RECV: {other}"])) == same
    assert not is_settled(PROGRESS_DOTS, seen(output=[f"RECV: {one}"]), NOTHING)


def test_other_ends():
    theirs, ours = (
        replace(NOTHING, exit=(code,), heading=text) for code, text in ((0, "nothing"), (99, "stderr"))
    )
    assert is_settled(INETD_WITHOUT_SOCKET, theirs, ours)
    assert not is_settled(INETD_WITHOUT_SOCKET, theirs, replace(ours, exit=(1,)))
    assert not is_settled(INETD_WITHOUT_SOCKET, theirs, replace(ours, heading="stdout"))
    timed_out = seen(answers=[["aborted", 0, 0]])
    assert is_settled(ABORT_AT_TIMEOUT, seen(answers=[[]]), timed_out)
    assert not is_settled(ABORT_AT_TIMEOUT, seen(answers=["released"]), timed_out)
