"""Lines about what is written: every conversion on data that shows it, in all uncompressed and in a compressed syntax."""

from collections.abc import Sequence

from differential_differences_objects import IGNORE_LOOKS_AT_NOTHING, PADDING_FILLS_THE_FILE
from differential_line import Line, lines
from differential_objects import SYNTAXES, compressed, converted
from encoding_trees import JPEG, SECONDARY_CAPTURE

from support.differential_steps import Associate, Release, Scenario, Store


def _sent(
    objects: Sequence[tuple[str, str, bytes]], syntaxes: Sequence[str]
) -> tuple[Associate | Store | Release, ...]:
    contexts = tuple((2 * number + 1, SECONDARY_CAPTURE, (uid,)) for number, uid in enumerate(syntaxes))
    return (
        Associate(contexts=contexts),
        *(
            Store(uid=uid, data=data, sop_class=SECONDARY_CAPTURE, context_id=2 * syntaxes.index(syntax) + 1)
            for uid, syntax, data in objects
        ),
        Release(),
    )


UNCOMPRESSED = Scenario(name="everything in a data set, uncompressed", steps=_sent(converted(), SYNTAXES))
COMPRESSED = Scenario(name="compressed pixel data", steps=_sent(compressed(), (JPEG,)))
BOTH = (UNCOMPRESSED, COMPRESSED)

_PM = "-xf all.cfg All"
LINES: tuple[Line, ...] = (
    *lines("storescp", f"{_PM} | {_PM} -B | {_PM} +B | {_PM} +F | {_PM} -F | {_PM} +B -F | {_PM} +t=", *BOTH),
    *lines(
        "storescp",
        f"{_PM} +te | {_PM} +tb | {_PM} +ti | {_PM} +td | {_PM} +td +cl 1 | {_PM} +td +cl 0 -F",
        *BOTH,
    ),
    *lines("storescp", f"{_PM} +cl 9 | {_PM} +u | {_PM} -u | {_PM} -u +tb | {_PM} -u +ti", *BOTH),
    *lines("storescp", f"{_PM} +g= | {_PM} +g | {_PM} -g | {_PM} +g -e | {_PM} +g +tb | {_PM} -g +ti", *BOTH),
    *lines("storescp", f"{_PM} +e | {_PM} -e | {_PM} -e +te | {_PM} -e +tb -F | {_PM} -e +ti", *BOTH),
    *lines(
        "storescp",
        f"{_PM} -uc | {_PM} +uc | {_PM} +uc +tb | {_PM} +uc +te -g | {_PM} +uc -u +ti | {_PM} +uc +B",
        *BOTH,
    ),
    *lines("storescp", f"{_PM} -p | {_PM} +p 0 0 | {_PM} -p -F +tb +g -e", *BOTH),
    *lines("storescp", f"{_PM} +p 0 4 +te | {_PM} +p 0 16 -e", *BOTH),
    *lines(
        "storescp",
        f"{_PM} +p 128 16 | {_PM} +p 34 6 +g | {_PM} +p 64 0 +te | {_PM} +p 512 128 -e +ti | {_PM} +p 1024 32 +tb",
        *BOTH,
        differences=(PADDING_FILLS_THE_FILE,),
    ),
    *lines("storescp", f"{_PM} --ignore | {_PM} -up", *BOTH),
    *lines("dcmrecv", f"{_PM} | {_PM} -B | {_PM} +B", *BOTH),
    *lines("dcmrecv", f"{_PM} --ignore", UNCOMPRESSED),
    *lines("dcmrecv", f"{_PM} --ignore", COMPRESSED, differences=(IGNORE_LOOKS_AT_NOTHING,)),
)
