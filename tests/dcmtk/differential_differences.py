"""The ways in which ours is meant to do otherwise than Debian's DCMTK 3.6.7, by name, each with its reason.

A line of the table that shows one names it. Anything else that differs is a fault, and so is a difference that is named
and does not show. `docs/dcmtk-differences.toml` has a row of the same name for each. Those about associations are here.
"""

from dataclasses import replace

from differential_differences_objects import OF_OBJECTS
from differential_differences_words import OF_WORDS
from differential_line import Difference, Pair
from differential_settling import AnsweredOtherwise, each_of, other_answers

from support.differential_observation import Observation

DEBIAN_CALLED_TITLE = Difference(
    name="debian-called-title",
    reason="dcmrecv enforces the title of -aet since 3.6.8",
    settle=other_answers(("accepted", "rejected 1 1 7"), ("released", "not connected")),
)
REQUESTS_ANSWERED = Difference(
    name="requests-answered",
    reason="DCMTK leaves requests without contexts or titles without answer until the peer gives up",
    settle=other_answers(("silence", "rejected 1 1 [137]")),
)
ABORT_AT_TIMEOUT = Difference(
    name="abort-at-timeout",
    reason="a peer whose time is over gets an A-ABORT; DCMTK closes without a word, or goes on waiting",
    settle=other_answers(("silence|", "aborted 0 0")),
)
ABORTS_SAY_WHY = Difference(
    name="aborts-say-why",
    reason="an A-ABORT for a broken rule names the service provider and the reason (PS3.8 §9.3.8); DCMTK's names none",
    settle=other_answers(("aborted 0 0|silence|", "aborted 2 [1-6]")),
)

_SENDING_FAILED = (
    r"E: Store SCP Failed: 0006:020e",
    r"E: DIMSE failure \(aborting association\): 0006:020e",
)


def _settle_shown_length(theirs: Observation, ours: Observation) -> Pair:
    """Take DCMTK's length of PDVs for ours, where it shows another than it sends."""
    shown = (
        "I: Association Acknowledged (Max Send PDV: 4084)",
        "I: Association Acknowledged (Max Send PDV: 0)",
    )
    pairs = zip(theirs.log, ours.log, strict=False)
    log = tuple(one if (one, other) == shown else other for one, other in pairs)
    return theirs, replace(ours, log=log + ours.log[len(log) :])


ANSWERS_IN_SMALL_PDUS = Difference(
    name="answers-in-small-pdus",
    reason="a peer that takes a few bytes at a time gets them; DCMTK cannot send to it, and aborts",
    settle=each_of(
        AnsweredOtherwise(
            dcmtk="aborted 0 0",
            ours="0000",
            dcmtk_says=_SENDING_FAILED,
            ours_says=("I: Association Release",),
            ours_keeps=r"out/CT\.1\.2\.3\.\d",
        ),
        _settle_shown_length,
    ),
)
DIFFERENCES = (
    *OF_OBJECTS,
    *OF_WORDS,
    DEBIAN_CALLED_TITLE,
    REQUESTS_ANSWERED,
    ABORT_AT_TIMEOUT,
    ABORTS_SAY_WHY,
    ANSWERS_IN_SMALL_PDUS,
)
