"""Lines about commands that storescp runs, files that it renames, and what both programs print."""

from differential_differences_objects import (
    COMMAND_NEEDS_A_FILE,
    DEBIAN_SHELL,
    HOST_IS_ONE_WORD,
    REFUSED_OBJECTS,
    RENAMED_FILES_STAY,
)
from differential_differences_words import LOG_ORDER, LOG_SAYS_WHY, NO_PATIENTS_IN_LOGS
from differential_line import KEEP_REFUSED, Line, lines
from differential_lines_names import (
    CONTEXTS,
    IDLE_STUDY,
    NO_STUDY,
    RUN_OF_ONE,
    SEVERAL,
    STUDIES,
    one_by_one,
    store,
)
from differential_lines_network import OBJECTS
from differential_lines_odd import NO_DATA, REFUSED
from differential_objects import CT, MR, STUDY_B, VERIFICATION, small
from encoding_trees import EXPLICIT

from support.differential_steps import (
    Abort,
    Associate,
    AwaitEvents,
    AwaitFolder,
    Close,
    Echo,
    Release,
    Scenario,
    Store,
)

OBJECT = """-xcr 'echo "object #p|#f|"#a"|"#c"|#r" >>events'"""
STUDY = """-xcs 'echo "study #p|#f|"#a"|"#c"|#r" >>events'"""
FILES = """-xcr 'test -s "#p/#f" && echo "there #f" >>events'"""
SIGNS = """-xcr 'echo "## #x #pp #ff #f#f #" >>events'"""
QUOTES = """-xcr "echo '#a' '#c' '#r' >>events\""""


def titled(calling: str, called: str) -> Scenario:
    """Return the sending of an object by a sender of some title."""
    return Scenario(
        name=f"titles {calling} and {called}",
        steps=(
            Associate(calling=calling, called=called),
            Store(uid="1.2.3", data=small("1.2.3")),
            Release(),
            AwaitEvents(count=1),
        ),
    )


HARMLESS = titled("A b-c.d:e@f", "LOWER_lower 9")
HOSTILE = titled("A$(touch x)", "B;touch y;`id`")
QUOTED = titled('A"q" b', "C'd e")
TWO_SENDERS = Scenario(
    name="studies of two senders",
    steps=(
        Associate(calling="FIRST", called="ONE", contexts=CONTEXTS),
        *one_by_one(store("1.2.3.1")),
        Release(),
        Associate(calling="SECOND", called="TWO", contexts=CONTEXTS),
        *one_by_one(store("1.2.3.2", study=STUDY_B)),
        Release(),
    ),
)
INTERLEAVED = Scenario(
    name="studies that come back",
    steps=(
        Associate(contexts=CONTEXTS),
        *one_by_one(
            store("1.2.3.1"),
            store("1.2.3.2", MR),
            store("1.2.3.3", study=STUDY_B),
            store("1.2.3.4"),
            store("1.2.3.5", study=STUDY_B),
        ),
        Release(),
    ),
)
DUPLICATES = Scenario(
    name="a study with an object twice",
    steps=(
        Associate(contexts=CONTEXTS),
        *one_by_one(store("1.2.3.1"), store("1.2.3.1"), store("1.2.3.2"), store("1.2.3.3", study=STUDY_B)),
        Release(),
    ),
)
ABORTED = Scenario(
    name="a study whose sender aborts",
    steps=(
        Associate(contexts=CONTEXTS),
        *one_by_one(store("1.2.3.1"), store("1.2.3.2")),
        Abort(),
        Associate(contexts=CONTEXTS),
        *one_by_one(store("1.2.3.3", study=STUDY_B)),
        Release(),
    ),
)
RENAMED_BY_TIME = Scenario(
    name="a study that is renamed by time",
    steps=(
        Associate(contexts=CONTEXTS),
        *one_by_one(store("1.2.3.1"), store("1.2.3.2", MR)),
        AwaitFolder(prefix="MR000002", count=1),
        Release(),
        Close(),
    ),
)
ECHOES = Scenario(
    name="echoes and an object",
    steps=(
        Associate(contexts=((1, CT, (EXPLICIT,)), (3, VERIFICATION, (EXPLICIT,)))),
        Echo(),
        Echo(message_id=65535),
        Store(uid="1.2.3", data=small("1.2.3"), message_id=300),
        Store(uid="1.2.3", data=small("1.2.3"), message_id=301),
        Release(),
    ),
)

FILE_CONFIGURATION = b"""log4cplus.rootLogger = INFO, f
log4cplus.appender.f = log4cplus::FileAppender
log4cplus.appender.f.File = receiver.log
log4cplus.appender.f.layout = log4cplus::PatternLayout
log4cplus.appender.f.layout.ConversionPattern = %P: %m%n
"""
LOG_FILES = {"file.cfg": FILE_CONFIGURATION}

_PM = "-xf all.cfg All"
LINES: tuple[Line, ...] = (
    # One object
    *lines(
        "storescp",
        f"-xs {OBJECT} | -xs {FILES} | -xs --fork {OBJECT} | -xs +B {OBJECT} | -xs --ignore {OBJECT}",
        OBJECTS,
    ),
    *lines("storescp", f"-xs -dhl {OBJECT} | -xs -fe .dcm {OBJECT} | -xs -F {FILES}", OBJECTS),
    *lines("storescp", f"{OBJECT} | {FILES} | --fork {OBJECT}", OBJECTS),
    *lines(
        "storescp",
        f"-pm -xs -od 'a folder' {OBJECT} | -pm -xs -od ./out/ {OBJECT} | -xs -pm -od . -tn {OBJECT}",
        SEVERAL,
        given={"a folder": None},
    ),
    *lines("storescp", f"-xs {SIGNS} | -xs -xcr '' | -xs -xcr 'exit 3'", OBJECTS),
    *lines(
        "storescp",
        "-xs -xcr 'echo told; echo mistaken >&2; echo done >>events' | -xs -xcr 'absent-command #f'",
        OBJECTS,
    ),
    *lines("storescp", "-xs -xcr 'cat >>events; echo end >>events'", OBJECTS),
    *lines("storescp", f"-xs {QUOTES}", OBJECTS, differences=(HOST_IS_ONE_WORD,)),
    *lines("storescp", f"-xs {OBJECT}", HARMLESS),
    *lines("storescp", f"-xs {OBJECT}", HOSTILE, QUOTED, differences=(DEBIAN_SHELL,)),
    *lines("storescp", f"-xs {OBJECT}", REFUSED, only_ours=KEEP_REFUSED, differences=(LOG_SAYS_WHY,)),
    *lines("storescp", f"-xs +B {OBJECT}", REFUSED, only_ours=KEEP_REFUSED),
    *lines("storescp", f"-xs +B {OBJECT}", NO_DATA),
    *lines("storescp", f"-xs {OBJECT}", NO_DATA, differences=(REFUSED_OBJECTS,)),
    *lines("storescp", f"-xs {OBJECT}", REFUSED, differences=(REFUSED_OBJECTS, LOG_SAYS_WHY)),
    *lines(
        "storescp",
        f"-xs -ss x {OBJECT} | -xs -su x {OBJECT} | -xs -sp {OBJECT} | -xs -su '' {FILES}",
        STUDIES,
    ),
    *lines(
        "storescp",
        f"-xs -ss x {OBJECT} | -xs -su x {OBJECT} | -xs -sp {OBJECT}",
        NO_STUDY,
        only_ours=KEEP_REFUSED,
        differences=(COMMAND_NEEDS_A_FILE,),
    ),
    # Studies
    *lines("storescp", f"-xs -ss x {STUDY} | -xs -su x {STUDY} | -xs -sp {STUDY}", STUDIES, RUN_OF_ONE),
    *lines(
        "storescp",
        f"-xs -ss x {STUDY} {OBJECT} | -xs -su x {STUDY} | -xs -sp -dhl {STUDY}",
        TWO_SENDERS,
        ABORTED,
    ),
    *lines("storescp", f"-ss x {STUDY} | -su '' {STUDY}", TWO_SENDERS),
    *lines("storescp", f"-xs -ss x --ignore {STUDY} {OBJECT}", STUDIES),
    *lines("storescp", f"-xs -ss x -rns {_PM} | -ss x -rns -fe .dcm {_PM}", STUDIES, RUN_OF_ONE),
    *lines("storescp", f"-sp -rns -v {_PM}", STUDIES, RUN_OF_ONE, differences=(NO_PATIENTS_IN_LOGS,)),
    *lines(
        "storescp",
        f"-xs -ss x -rns {STUDY} {OBJECT} | -xs -ss x -rns -tn {STUDY} | -ss x -rns +uf",
        INTERLEAVED,
    ),
    *lines("storescp", "-ss x -rns | -sp -rns", ABORTED),
    *lines("storescp", "-ss x -rns", DUPLICATES),
    *lines(
        "storescp", f"-su '' -rns | -xs -su x -rns {STUDY}", INTERLEAVED, differences=(RENAMED_FILES_STAY,)
    ),
    *lines("storescp", f"-xs -ss x -tos 1 {STUDY} | -xs -su x -tos 1 {STUDY} {OBJECT}", IDLE_STUDY),
    *lines("storescp", "-ss x -tos 1 -rns", RENAMED_BY_TIME),
    *lines("storescp", f"-xs -ss x -tos 30 {STUDY} | -xs -ss x -tos 30", TWO_SENDERS),
    # Words
    *lines(
        "storescp",
        "-q | -v | -d | -v -q | -ll info | -ll error | -ll debug | -ll trace -v | +v -v | +v -d | -v +v -dhl",
        ECHOES,
    ),
    *lines(
        "storescp",
        "-ll fatal | -ll warn | -v --arguments | --arguments | -v +B | -v --fork | -v -pm +uf",
        ECHOES,
    ),
    *lines("storescp", "-lc file.cfg | -lc file.cfg +v | -lc file.cfg --arguments", ECHOES, given=LOG_FILES),
    *lines("storescp", "-id -lc file.cfg | -id -lc file.cfg -ss x", OBJECTS, given=LOG_FILES),
    *lines(
        "dcmrecv",
        f"{_PM} -q | {_PM} -v | {_PM} -d | {_PM} -ll info | {_PM} -ll error | {_PM} -ll trace | {_PM} +v -v | {_PM} +v -d",
        ECHOES,
    ),
    *lines("dcmrecv", f"{_PM} -v --arguments | {_PM} -v --ignore | {_PM} -ll fatal", ECHOES),
    *lines("dcmrecv", f"{_PM} -v +B", ECHOES, differences=(LOG_ORDER,)),
    *lines("dcmrecv", f"{_PM} -lc file.cfg | {_PM} -lc file.cfg +v", ECHOES, given=LOG_FILES),
)
