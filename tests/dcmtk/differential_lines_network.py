"""Lines about associations: transfer syntax preferences, classes, profiles, roles, rejections, limits, aborts."""

from differential_differences import (
    ABORT_AT_TIMEOUT,
    ABORTS_SAY_WHY,
    ANSWERS_IN_SMALL_PDUS,
    DEBIAN_CALLED_TITLE,
    REQUESTS_ANSWERED,
)
from differential_differences_words import ERROR_CODES, PROGRESS_DOTS, ROLE_LINES
from differential_line import Line, lines, profile
from differential_objects import (
    CT,
    DOSE_REPORT,
    ENHANCED_CT,
    MR,
    ROOT,
    UNKNOWN_CLASS,
    VERIFICATION,
    small,
)
from encoding_trees import BIG_ENDIAN, DEFLATED, EXPLICIT, IMPLICIT, JPEG

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
    Store,
)
from support.raw_peer import COMMAND, LAST, P_DATA, data_set_pdus, p_data, pdu, pdv, store_command

COMPRESSED = tuple(f"{ROOT}1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81, 90, 91, *range(100, 109)))
ALL_SYNTAXES = (IMPLICIT, EXPLICIT, BIG_ENDIAN, DEFLATED, f"{ROOT}1.2.5", *COMPRESSED)
"""What 3.6.7 has options for, and one that no option accepts."""

PREFERENCES = Scenario(
    name="every transfer syntax",
    steps=(
        Associate(
            contexts=(
                (1, CT, ALL_SYNTAXES),
                (3, CT, tuple(reversed(ALL_SYNTAXES))),
                (5, VERIFICATION, ALL_SYNTAXES),
                (7, MR, COMPRESSED),
                (9, MR, (IMPLICIT, EXPLICIT)),
                (11, MR, (IMPLICIT,)),
                *((13 + 2 * number, CT, (uid,)) for number, uid in enumerate(ALL_SYNTAXES)),
            )
        ),
        Release(),
    ),
)
CLASSES = Scenario(
    name="classes of all kinds",
    steps=(
        Associate(
            contexts=tuple(
                (2 * number + 1, uid, (EXPLICIT,))
                for number, uid in enumerate(
                    (
                        VERIFICATION,
                        CT,
                        DOSE_REPORT,
                        UNKNOWN_CLASS,
                        f"{ROOT}5.1.4.1.2.2.1",
                        f"{ROOT}3.1.2.3.3",
                        f"{ROOT}5.1.4.38.1",
                        f"{ROOT}5.1.4.39.1",
                        f"{ROOT}5.1.4.1.1.200.1",
                        "1.2.840.113619.4.30",
                    )
                )
            )
        ),
        Release(),
    ),
)
NOTHING_ACCEPTABLE = Scenario(
    name="nothing acceptable",
    steps=(
        Associate(contexts=((1, UNKNOWN_CLASS, (EXPLICIT,)), (3, CT, (COMPRESSED[0],)))),
        Release(),
        Associate(contexts=((1, VERIFICATION, (IMPLICIT,)),)),
        Echo(context_id=1),
        Release(),
    ),
)
REQUESTS = Scenario(
    name="odd requests",
    steps=(
        Associate(version=2),
        Close(),
        Associate(version=3),
        Release(),
        Associate(application_context="1.2.3"),
        Close(),
        Associate(asks_identity=True),
        Release(),
        Associate(has_implementation=False),
        Release(),
        Associate(calling="A", called="A B  C"),
        Release(),
        Associate(called="x" * 16, calling="y" * 16),
        Release(),
        Associate(uid_padding=b"\0"),
        Release(),
        Associate(maximum_length=None),
        Release(),
        Associate(roles=((CT, 0, 1), (MR, 1, 1))),
        Abort(),
    ),
)
SILENT = Scenario(
    name="requests that DCMTK leaves without answer",
    steps=(
        Associate(contexts=(), seconds=0.5),
        Close(),
        Associate(calling="", seconds=0.5),
        Close(),
        Associate(called="", seconds=0.5),
        Close(),
    ),
)
_LENGTHS = (0, 128, 4096, 16384, 16385, 131072, 200000, 4294967295)
LENGTHS = Scenario(
    name="lengths of PDUs",
    steps=tuple(
        step
        for length in _LENGTHS
        for step in (
            Associate(maximum_length=length),
            Store(uid="1.2.3", data=small("1.2.3"), piece=60),
            Release(),
        )
    ),
)
TINY_LENGTHS = Scenario(
    name="lengths that no answer fits in",
    steps=tuple(
        step
        for length in (1, 12)
        for step in (
            Associate(maximum_length=length),
            Store(uid=f"1.2.3.{length % 10}", data=small(f"1.2.3.{length % 10}")),
            Release(),
        )
    ),
)


def _with_piece(length: int) -> tuple[Associate | Send | Receive | AwaitEnd | Close, ...]:
    """Return the sending of an object in one PDU of a length."""
    content = small("1.2.3")
    content += bytes(max(0, length - 6 - len(content)))
    command = p_data(1, store_command("1.2.3"), control=COMMAND | LAST)
    return (
        Associate(),
        Send(data=command + pdu(P_DATA, pdv(1, content, control=0))),
        Send(data=data_set_pdus(1, b"")),
        Receive(),
        Close(),
    )


def too_long(limit: int) -> Scenario:
    """Return the sending of a PDU that is too long by some bytes."""
    return Scenario(name=f"a PDU longer than {limit}", steps=_with_piece(limit + 1000))


_FOUR = (CT, MR, ENHANCED_CT, DOSE_REPORT)
_FOUR_CONTEXTS = tuple((2 * number + 1, uid, (EXPLICIT,)) for number, uid in enumerate(_FOUR))
ROLES = Scenario(
    name="roles",
    steps=(
        Associate(contexts=_FOUR_CONTEXTS),
        Release(),
        *(
            step
            for scu in (0, 1)
            for scp in (0, 1)
            for step in (
                Associate(
                    contexts=_FOUR_CONTEXTS,
                    roles=tuple((uid, scu, scp) for uid in _FOUR),
                    extended=((CT, b"\1\2"),),
                ),
                Release(),
            )
        ),
    ),
)
_ROLES = {
    "roles.cfg": profile(
        [CT, MR, ENHANCED_CT, DOSE_REPORT],
        [EXPLICIT],
        roles=[f"{CT}\\SCU", f"{MR}\\SCP", f"{ENHANCED_CT}\\both"],
        extended=[f"{CT}\\0102ff"],
    ),
    "order.cfg": profile([CT, MR, VERIFICATION], [JPEG, IMPLICIT, BIG_ENDIAN, EXPLICIT]),
    "wrong.cfg": profile([CT, CT], [EXPLICIT]),
}
OBJECTS = Scenario(
    name="two associations with objects",
    steps=(
        Associate(),
        Store(uid="1.2.3", data=small("1.2.3"), piece=100),
        Store(uid="1.2.4", data=small("1.2.4"), piece=100),
        Release(),
        Associate(),
        Store(uid="1.2.5", data=small("1.2.5")),
        Release(),
    ),
)
TITLES = Scenario(
    name="called titles",
    steps=tuple(
        step
        for called in ("RECEIVER", "receiver", "OTHER", "RECEIVER2")
        for step in (Associate(called=called), Release())
    ),
)
TOGETHER = Scenario(
    name="two associations at a time",
    steps=(
        Associate(connection=1),
        Associate(connection=2),
        Store(connection=2, uid="1.2.3", data=small("1.2.3")),
        Store(connection=1, uid="1.2.4", data=small("1.2.4")),
        Release(connection=1),
        Release(connection=2),
    ),
)
STALLED = Scenario(
    name="a sender that stalls",
    steps=(
        Associate(),
        Send(
            data=p_data(1, store_command("1.2.3"), control=COMMAND | LAST) + p_data(1, b"\x08\0", control=0)
        ),
        AwaitEnd(seconds=2.5),
        Close(),
    ),
)
IDLE = Scenario(name="a sender that waits", steps=(Associate(), AwaitEnd(seconds=2.5), Close()))
CONNECTION = Scenario(
    name="a connection that is closed again", steps=(Send(data=b""), AwaitEnd(seconds=2.0), Close())
)
NO_REQUEST = Scenario(name="no request", steps=(Send(data=b""), AwaitEnd(seconds=4.0), Close()))

_PREFERENCES = """
+x= | +xe | +xb | +xs | +xy | +xx | +xv | +xw | +xt | +xu | +xm | +xh | +xn | +xl | +x2 | +x3 | +xo | +x4 | +x5 | +xr | +xd
+xi | +xa | - | +xa +xe | +xe +xa | +xa +x= | +xi +xd | +xs -pm | +xi -v
"""
_PM = "-xf all.cfg All"
LINES: tuple[Line, ...] = (
    *lines("storescp", _PREFERENCES, PREFERENCES),
    *lines("storescp", f"- | -pm | -pm +xa | {_PM}", CLASSES),
    *lines("storescp", "-xf order.cfg All | -xf order.cfg All +x=", PREFERENCES, given=_ROLES),
    *lines("dcmrecv", "-xf order.cfg All | - | -v -xf order.cfg all", PREFERENCES, CLASSES, given=_ROLES),
    *lines(("storescp", "dcmrecv"), "-xf roles.cfg All", ROLES, given=_ROLES),
    *lines(
        ("storescp", "dcmrecv"),
        "+v -v -xf roles.cfg All",
        ROLES,
        given=_ROLES,
        differences=(ROLE_LINES,),
    ),
    *lines("storescp", "-xf wrong.cfg All | -xf order.cfg None | -q -xf wrong.cfg All", given=_ROLES),
    *lines("dcmrecv", "-xf wrong.cfg All | -xf order.cfg None | -q -xf wrong.cfg All", given=_ROLES),
    *lines("storescp", "- | -v", NOTHING_ACCEPTABLE),
    *lines("dcmrecv", f"- | -v | {_PM} -v", NOTHING_ACCEPTABLE),
    *lines(
        "storescp",
        "- | -v | -aet OTHER | --refuse | --refuse -v | --reject | --reject -v | -pm --reject",
        REQUESTS,
    ),
    *lines("dcmrecv", f"{_PM} | {_PM} -v | {_PM} -uca | {_PM} -aet OTHER -uca", REQUESTS),
    *lines("storescp", "-", SILENT, differences=(REQUESTS_ANSWERED,)),
    *lines("storescp", "-aet RECEIVER | -aet ''", TITLES),
    *lines("dcmrecv", f"{_PM} -uca | {_PM}", TITLES),
    *lines(
        "dcmrecv",
        f"{_PM} -aet RECEIVER | {_PM} -uca -aet RECEIVER",
        TITLES,
        differences=(DEBIAN_CALLED_TITLE,),
    ),
    *lines("storescp", "- | -pdu 4096 | -pdu 131072 -v | -pdu 5001", LENGTHS),
    *lines("dcmrecv", f"{_PM} | -pdu 4096 {_PM} | -pdu 131072 -v {_PM}", LENGTHS),
    *lines("storescp", "- | -v", TINY_LENGTHS, differences=(ANSWERS_IN_SMALL_PDUS,)),
    *lines("dcmrecv", _PM, TINY_LENGTHS, differences=(ANSWERS_IN_SMALL_PDUS,)),
    *lines("storescp", "-", too_long(16384), differences=(ABORTS_SAY_WHY, ERROR_CODES)),
    *lines("storescp", "-pdu 4096", too_long(4096), differences=(ABORTS_SAY_WHY, ERROR_CODES)),
    *lines("storescp", "-pdu 131072", too_long(131072), differences=(ABORTS_SAY_WHY, ERROR_CODES)),
    *lines("storescp", "-pdu 131072", too_long(16384)),
    *lines("dcmrecv", f"{_PM}", too_long(16384), differences=(ABORTS_SAY_WHY,)),
    *lines("dcmrecv", f"{_PM} -pdu 4096", too_long(4096), differences=(ABORTS_SAY_WHY,)),
    *lines(
        "storescp",
        "--abort-after | --abort-after -v | --abort-after --ignore",
        OBJECTS,
    ),
    *lines("storescp", "--abort-during | --abort-during +B", OBJECTS, differences=(ERROR_CODES,)),
    *lines("storescp", "--abort-during -v", OBJECTS, differences=(ERROR_CODES, PROGRESS_DOTS)),
    *lines(
        "storescp",
        "--refuse --abort-after | --sleep-after 0 | --sleep-during 0 | --sleep-after 0 --sleep-during 0 -v",
        OBJECTS,
    ),
    *lines(
        "storescp", "--single-process | --fork --single-process | --fork -v | -dhl -v | -ac | -ac -v", OBJECTS
    ),
    *lines("storescp", "+ac | +ac -dhl | +ac -v --fork", OBJECTS),
    *lines("storescp", "-id -v | -id --ignore | -id -aet X -pdu 8192 | -id +B -uf", OBJECTS),
    *lines(
        "storescp",
        "-ts 30 -ta 10 -td 20 | -ts -1 | -ts 0 | --socket-timeout 5 --acse-timeout 5 --dimse-timeout 5",
        OBJECTS,
    ),
    *lines(
        "dcmrecv", f"{_PM} -ta 10 -td 20 | {_PM} -dhl -v | {_PM} -dhl -pdu 8192 --acse-timeout 3", OBJECTS
    ),
    *lines("storescp", "--fork | --fork +B", TOGETHER),
    *lines("storescp", "-ta 1 | -ta 1 -v", NO_REQUEST),
    *lines("dcmrecv", f"-ta 1 {_PM}", NO_REQUEST),
    *lines("storescp", "-td 1", STALLED, differences=(ABORT_AT_TIMEOUT,)),
    *lines("dcmrecv", f"-td 1 {_PM}", STALLED, IDLE),
    *lines("storescp", "-ts 1", IDLE, differences=(ABORT_AT_TIMEOUT,)),
)
