"""Lines about objects and messages that are not as they should be, and about what befalls a receiver from outside."""

import struct

import encoding_samples as samples
from differential_differences import ABORTS_SAY_WHY
from differential_differences_objects import (
    GOES_ON_AFTER_A700,
    IGNORE_LOOKS_AT_NOTHING,
    INCOMPLETE_DATA_SETS,
    NATIVE_PIXELS_ARE_ANSWERED,
    ODD_LENGTHS_ARE_TAKEN,
    PRIVATE_SYNTAXES_ARE_STORED,
    REFUSED_OBJECTS,
    WHOLE_FILES,
)
from differential_differences_words import (
    ERROR_CODES,
    INETD_WITHOUT_SOCKET,
    LOG_ORDER,
    LOG_SAYS_WHY,
    PROBES,
    PROGRESS_DOTS,
)
from differential_line import KEEP_REFUSED, Line, lines
from differential_objects import CT, MR, VERIFICATION, small
from encoding_trees import EXPLICIT, GE_PIXELS, IMPLICIT, JPEG, SECONDARY_CAPTURE, El, encode

from support.differential_steps import (
    Abort,
    Associate,
    AwaitEnd,
    Close,
    Echo,
    Receive,
    Release,
    Scenario,
    Send,
    Step,
    Store,
)
from support.raw_peer import (
    COMMAND,
    LAST,
    P_DATA,
    RELEASE_REQUEST,
    command_set,
    data_set_pdus,
    p_data,
    pdu,
    pdv,
    store_command,
)

CONTEXTS = (
    (1, CT, (EXPLICIT,)),
    (3, VERIFICATION, (EXPLICIT, IMPLICIT)),
    (5, MR, (EXPLICIT,)),
    (7, CT, (IMPLICIT,)),
)
ASSOCIATE = Associate(contexts=CONTEXTS)
WHOLE = small("1.2.3")


def after_each(*steps: Step) -> tuple[Step, ...]:
    """Put each step on an association of its own, which is released behind it if it is still there."""
    return tuple(one for step in steps for one in (ASSOCIATE, step, Release()))


REFUSED = Scenario(
    name="UIDs that are missing or others",
    steps=(
        ASSOCIATE,
        Store(uid="1.2.3.1", data=small("1.2.3.2")),
        Store(uid="1.2.3.3", data=small("1.2.3.3", sop_class=MR)),
        Store(uid="1.2.3.4", data=small(None)),
        Store(uid="1.2.3.5", data=small("1.2.3.5", sop_class=None)),
        Store(uid="1.2.3.6", data=small(None, sop_class=None)),
        Store(uid="1.2.3.7", data=small("")),
        Store(uid="1.2.3.8", data=small("1.2.3.8")),
        Release(),
    ),
)
NO_DATA = Scenario(
    name="data sets of nothing",
    steps=after_each(Store(uid="1.2.3.1", data=b""), Store(uid="1.2.3.2", data=b"", context_id=7)),
)
GARBAGE = Scenario(
    name="garbage",
    steps=after_each(
        *(
            Store(uid=f"1.2.3.{number}", data=data, context_id=context_id)
            for number, (data, context_id) in enumerate(
                (
                    (b"GIF89a" * 50, 1),
                    (b"\xff" * 64, 1),
                    (b"\0" * 64, 1),
                    (b"\xff" * 64, 7),
                    (bytes(range(256)), 7),
                    (b"this is no data set.", 1),
                )
            )
        )
    ),
)
CUT = Scenario(
    name="cut in an element",
    steps=after_each(
        *(Store(uid="1.2.3", data=WHOLE[:length]) for length in (len(WHOLE) - 2, len(WHOLE) - 8, 12, 30))
    ),
)
CUT_IN_HEADERS = Scenario(
    name="cut in a header",
    steps=after_each(
        *(
            Store(uid=f"1.2.3.{number}", data=small(f"1.2.3.{number}")[:-cut])
            for number, cut in enumerate((18, 20, 22, 24, 26))
        )
    ),
)
CUT_IN_SEQUENCES = Scenario(
    name="cut in a sequence",
    steps=tuple(
        one
        for name, data in samples.malformed()
        if name
        in (
            "opened, cut at 104",
            "opened, cut at 124",
            "closed, cut at 86",
            "closed, cut at 110",
            "trailing letters 8",
        )
        for one in (
            Associate(contexts=((1, SECONDARY_CAPTURE, (EXPLICIT,)),)),
            Store(uid="1.2.826.0.1.3680043.2.1125.7", data=data, sop_class=SECONDARY_CAPTURE),
            Release(),
        )
    ),
)
INTERRUPTED = Scenario(
    name="transfers that are broken off",
    steps=(
        ASSOCIATE,
        Send(
            data=p_data(1, store_command("1.2.3"), control=COMMAND | LAST) + p_data(1, WHOLE[:50], control=0)
        ),
        Abort(),
        ASSOCIATE,
        Send(
            data=p_data(1, store_command("1.2.3"), control=COMMAND | LAST) + p_data(1, WHOLE[:50], control=0)
        ),
        Close(),
        ASSOCIATE,
        Send(data=p_data(1, store_command("1.2.3"), control=COMMAND | LAST)),
        Close(by_reset=True),
        ASSOCIATE,
        Store(uid="1.2.3", data=WHOLE),
        Close(),
    ),
)
FAILED_RESEND = Scenario(
    name="a transfer of a stored object that is broken off",
    steps=(
        ASSOCIATE,
        Store(uid="1.2.3", data=WHOLE),
        Send(
            data=p_data(1, store_command("1.2.3"), control=COMMAND | LAST) + p_data(1, WHOLE[:50], control=0)
        ),
        Abort(),
    ),
)
FRAGMENTED = Scenario(
    name="many small pieces",
    steps=(
        ASSOCIATE,
        Store(uid="1.2.3", data=WHOLE, piece=10),
        Store(uid="1.2.4", data=small("1.2.4"), piece=2),
        Send(data=p_data(1, store_command("1.2.5")[:20], control=COMMAND)),
        Send(data=p_data(1, store_command("1.2.5")[20:], control=COMMAND | LAST)),
        Send(
            data=pdu(
                P_DATA,
                pdv(1, small("1.2.5")[:40], control=0) + pdv(1, small("1.2.5")[40:], control=LAST),
            )
        ),
        Receive(),
        Echo(),
        Release(),
    ),
)


def command(**elements: object) -> Send:
    """Return the sending of a command set."""
    numbers = {int(name.removeprefix("e"), 16): value for name, value in elements.items()}
    return Send(data=p_data(1, command_set(numbers), control=COMMAND | LAST))  # type: ignore[arg-type]  # so it is


UNKNOWN_COMMANDS = Scenario(
    name="commands that are not served",
    steps=tuple(
        one
        for field in (
            0x0010,
            0x0020,
            0x0021,
            0x0100,
            0x0110,
            0x0120,
            0x0130,
            0x0140,
            0x0150,
            0x0FFF,
            0x8001,
            0x4711,
        )
        for one in (
            ASSOCIATE,
            command(
                e0002=CT,
                e0003=CT,
                e0100=field,
                e0110=1,
                e0120=1,
                e0800=0x0101,
                e0900=0,
                e0700=0,
                e1000="1.2.3",
            ),
            AwaitEnd(seconds=3.0),
            Close(),
        )
    ),
)
_TWO_ODD = (El(0x7FE10010, b"LO", b"odd"), El(0x7FE11010, b"OB", b"odd"))
"""Two odd values, with which a data set is even: both programs take it in normal mode."""
ODD_LENGTHS = Scenario(
    name="odd lengths",
    steps=after_each(
        Store(uid="1.2.3.1", data=small("1.2.3.1") + b"x"),
        Store(uid="1.2.3.2", data=small("1.2.3.2", more=(El(0x7FE10010, b"LO", b"odd"),))),
        Store(uid="1.2.3.3", data=small("1.2.3.3", more=(El(0x7FE10010, b"LO", b"odd"),)), piece=50),
        Store(uid="1.2.4", data=small("1.2.4", more=_TWO_ODD)),
    ),
)
BROKEN_MESSAGES = Scenario(
    name="messages that break rules",
    steps=(
        *after_each(
            Store(uid="1.2.3", data=WHOLE, has_data_set=False),
            Store(uid="1." + "2" * 64, data=WHOLE),
            Store(uid=None, data=WHOLE),
            Store(uid="1.2.3", data=WHOLE, sop_class=None),
            Store(uid="1.2.3", data=WHOLE, sop_class=MR),
            Store(uid="1.2.3", data=WHOLE, context_id=9),
        ),
        ASSOCIATE,
        Send(data=p_data(1, store_command("1.2.3"), control=COMMAND | LAST) + data_set_pdus(5, WHOLE)),
        AwaitEnd(),
        Close(),
        ASSOCIATE,
        Send(data=p_data(1, store_command("1.2.3"), control=COMMAND | LAST)),
        Send(data=p_data(1, store_command("1.2.4"), control=COMMAND | LAST)),
        AwaitEnd(),
        Close(),
        ASSOCIATE,
        Send(data=data_set_pdus(1, WHOLE)),
        AwaitEnd(),
        Close(),
        ASSOCIATE,
        Send(data=p_data(1, b"\0\0\0\0\4\0\0\0\xff\xff\xff\xff", control=COMMAND | LAST)),
        AwaitEnd(),
        Close(),
    ),
)
BROKEN_PDUS = Scenario(
    name="PDUs that break rules",
    steps=(
        Send(data=b"GET / HTTP/1.0\r\n\r\n"),
        AwaitEnd(),
        Close(),
        Send(data=RELEASE_REQUEST),
        AwaitEnd(),
        Close(),
        Send(data=struct.pack(">BxI", 1, 2 << 20)),
        AwaitEnd(seconds=3.0),
        Close(),
        ASSOCIATE,
        Send(data=pdu(9, b"abcd")),
        AwaitEnd(seconds=3.0),
        Close(),
        ASSOCIATE,
        Send(data=pdu(2, b"abcd")),
        AwaitEnd(seconds=3.0),
        Close(),
    ),
)
GE = Scenario(
    name="a transfer syntax that is accepted and not received",
    steps=(
        Associate(contexts=((1, CT, (GE_PIXELS,)),)),
        Store(uid="1.2.3", data=small("1.2.3", syntax=GE_PIXELS)),
        Release(),
    ),
)
NATIVE = Scenario(
    name="native pixels in a compressed transfer syntax",
    steps=(
        Associate(contexts=((1, SECONDARY_CAPTURE, (JPEG,)),)),
        Store(
            uid="1.2.826.0.1.3680043.2.1125.7",
            data=encode(dict(samples.compressed())["native pixels"], JPEG),
            sop_class=SECONDARY_CAPTURE,
        ),
        Release(),
    ),
)
PROBE = Scenario(name="a connection without a word", steps=(Send(data=b""), Close(), ASSOCIATE, Release()))
TAKEN_NAME = {"out/CT.1.2.3": None}
EARLIER_COPY = {"out/CT.1.2.3": b"an earlier copy"}
TWO = Scenario(
    name="two objects",
    steps=(ASSOCIATE, Store(uid="1.2.3", data=WHOLE), Store(uid="1.2.4", data=small("1.2.4")), Release()),
)

_PM = "-xf all.cfg All"
_MODES = "- | +B | --ignore | -v -up"
LINES: tuple[Line, ...] = (
    *lines("storescp", "+B | --ignore", REFUSED, only_ours=KEEP_REFUSED),
    *lines(
        "storescp",
        "- | -v -up | -su '' | +uf -v",
        REFUSED,
        only_ours=KEEP_REFUSED,
        differences=(LOG_SAYS_WHY,),
    ),
    *lines("storescp", "- | -v", REFUSED, differences=(REFUSED_OBJECTS, LOG_SAYS_WHY)),
    *lines("dcmrecv", f"{_PM} | +B {_PM} | --ignore {_PM} | -v {_PM}", REFUSED),
    *lines("storescp", "- | +B | --ignore", NO_DATA, only_ours=KEEP_REFUSED),
    *lines("storescp", "-v -up", NO_DATA, only_ours=KEEP_REFUSED, differences=(LOG_ORDER,)),
    *lines("storescp", "- | +B", GARBAGE, CUT, only_ours=KEEP_REFUSED),
    *lines("storescp", "-v -up", GARBAGE, CUT, only_ours=KEEP_REFUSED, differences=(PROGRESS_DOTS,)),
    *lines("storescp", "--ignore", GARBAGE, CUT, differences=(IGNORE_LOOKS_AT_NOTHING,)),
    *lines("storescp", _MODES, INTERRUPTED, FRAGMENTED),
    *lines("dcmrecv", f"{_PM} | +B {_PM} | -v {_PM}", NO_DATA, GARBAGE, CUT, INTERRUPTED, FRAGMENTED),
    *lines("dcmrecv", f"--ignore {_PM}", NO_DATA, INTERRUPTED, FRAGMENTED),
    *lines("dcmrecv", f"--ignore {_PM}", GARBAGE, CUT, differences=(IGNORE_LOOKS_AT_NOTHING,)),
    *lines("storescp", "- | +B", ODD_LENGTHS, differences=(ODD_LENGTHS_ARE_TAKEN,)),
    *lines("dcmrecv", f"{_PM} | +B {_PM}", ODD_LENGTHS, differences=(ODD_LENGTHS_ARE_TAKEN,)),
    *lines("storescp", "-", CUT_IN_HEADERS, CUT_IN_SEQUENCES, differences=(INCOMPLETE_DATA_SETS,)),
    *lines("dcmrecv", _PM, CUT_IN_HEADERS, CUT_IN_SEQUENCES, differences=(INCOMPLETE_DATA_SETS,)),
    *lines("storescp", "+B", CUT_IN_HEADERS, CUT_IN_SEQUENCES),
    *lines("storescp", "-", FAILED_RESEND, differences=(WHOLE_FILES,)),
    *lines("storescp", "+B", FAILED_RESEND, differences=(WHOLE_FILES,)),
    *lines("dcmrecv", f"{_PM}", FAILED_RESEND),
    *lines("dcmrecv", f"+B {_PM}", FAILED_RESEND, differences=(WHOLE_FILES,)),
    *lines("storescp", "- | -v", UNKNOWN_COMMANDS, differences=(ERROR_CODES,)),
    *lines("dcmrecv", f"{_PM} | -v {_PM}", UNKNOWN_COMMANDS),
    *lines("storescp", "-", BROKEN_PDUS, differences=(LOG_SAYS_WHY, ABORTS_SAY_WHY, ERROR_CODES)),
    *lines("storescp", "-v", BROKEN_PDUS, differences=(PROBES, LOG_SAYS_WHY, ABORTS_SAY_WHY, ERROR_CODES)),
    *lines(
        "storescp",
        "-",
        BROKEN_MESSAGES,
        only_ours=KEEP_REFUSED,
        differences=(LOG_SAYS_WHY, ABORTS_SAY_WHY, ERROR_CODES),
    ),
    *lines(
        "storescp",
        "-v",
        BROKEN_MESSAGES,
        only_ours=KEEP_REFUSED,
        differences=(LOG_SAYS_WHY, ABORTS_SAY_WHY, ERROR_CODES, PROGRESS_DOTS),
    ),
    *lines("dcmrecv", f"{_PM} | -v {_PM}", BROKEN_MESSAGES, differences=(ABORTS_SAY_WHY,)),
    *lines("dcmrecv", _PM, BROKEN_PDUS, differences=(ABORTS_SAY_WHY,)),
    *lines("dcmrecv", f"-v {_PM}", BROKEN_PDUS, differences=(ABORTS_SAY_WHY, PROBES)),
    *lines(("storescp", "dcmrecv"), f"{_PM} | +B {_PM}", GE, differences=(PRIVATE_SYNTAXES_ARE_STORED,)),
    *lines(("storescp", "dcmrecv"), _PM, NATIVE, differences=(NATIVE_PIXELS_ARE_ANSWERED,)),
    *lines(("storescp", "dcmrecv"), f"+B {_PM}", NATIVE),
    *lines("storescp", "-", PROBE),
    *lines("storescp", "-v", PROBE, differences=(PROBES,)),
    *lines("dcmrecv", _PM, PROBE),
    *lines("dcmrecv", f"-v {_PM}", PROBE, differences=(PROBES,)),
    *lines(
        "storescp",
        "@inetd.txt",
        given={"inetd.txt": b"-id"},
        is_whole=True,
        differences=(INETD_WITHOUT_SOCKET,),
    ),
    # What is in the way
    *lines("storescp", "- | -v", TWO, given=TAKEN_NAME),
    *lines("storescp", "+B -v", TWO, given=TAKEN_NAME, differences=(PROGRESS_DOTS,)),
    *lines("dcmrecv", f"{_PM} | -v {_PM}", TWO, given=TAKEN_NAME),
    *lines("dcmrecv", f"+B -v {_PM}", TWO, given=TAKEN_NAME, differences=(GOES_ON_AFTER_A700,)),
    *lines("storescp", "-v | -v +B | -v --ignore", TWO, given=EARLIER_COPY),
    *lines("dcmrecv", f"-v {_PM}", TWO, given=EARLIER_COPY),
    *lines("dcmrecv", f"-v +B {_PM}", TWO, given=EARLIER_COPY, differences=(LOG_ORDER,)),
)
