"""Lines about names: every scheme of both tools with several modalities, duplicates, odd UIDs, subdirectories."""

from differential_differences_objects import (
    RESPONSE_REPEATS_THE_UID,
    STUDY_DIRECTORY_INSIDE,
    STUDY_DIRECTORY_TRIED_AGAIN,
)
from differential_differences_words import NO_PATIENTS_IN_LOGS
from differential_line import Line, lines
from differential_objects import (
    CT,
    ENHANCED_CT,
    MODALITIES,
    MR,
    STUDY_A,
    STUDY_B,
    UNKNOWN_CLASS,
    small,
)
from encoding_trees import EXPLICIT

from support.differential_steps import (
    Associate,
    AwaitEvents,
    NextMillisecond,
    Release,
    Scenario,
    Step,
    Store,
)

_CLASSES = (*MODALITIES, UNKNOWN_CLASS)
CONTEXTS = tuple((2 * number + 1, uid, (EXPLICIT,)) for number, uid in enumerate(_CLASSES))
ASSOCIATE = Associate(contexts=CONTEXTS)


def store(uid: str, sop_class: str = CT, **more: object) -> Store:
    """Return the sending of a small object of a class, over its own context."""
    data = small(uid, sop_class=sop_class, **more)  # type: ignore[arg-type]  # handed on as they are
    return Store(uid=uid, data=data, sop_class=sop_class, context_id=2 * _CLASSES.index(sop_class) + 1)


def one_by_one(*steps: Step) -> tuple[Step, ...]:
    """Put a new millisecond before each step."""
    return tuple(each for step in steps for each in (NextMillisecond(), step))


SEVERAL = Scenario(
    name="several modalities",
    steps=(
        ASSOCIATE,
        *one_by_one(*(store(f"1.2.3.{number}", uid) for number, uid in enumerate(_CLASSES))),
        Release(),
    ),
)
TWICE = Scenario(
    name="the same object twice",
    steps=(
        ASSOCIATE,
        *one_by_one(store("1.2.3"), store("1.2.3", patient=b"Roe^Joe "), store("1.2.4", MR)),
        Release(),
        ASSOCIATE,
        *one_by_one(store("1.2.4", MR, patient=b"Again   ")),
        Release(),
    ),
)
BURST = Scenario(
    name="a burst",
    steps=(
        ASSOCIATE,
        NextMillisecond(not_after=600),
        *(store(f"1.2.3.{number}") for number in range(30)),
        Release(),
    ),
)
ODD_UIDS = Scenario(
    name="odd instance UIDs",
    steps=(
        ASSOCIATE,
        *(
            store(uid)
            for uid in ("1.2/../3", "../../x", "a b", "..", ".", "a;$(id)`x`", "1.2:3@4-5_6", "-rf")
        ),
        Release(),
    ),
)
PADDED_UIDS = Scenario(
    name="instance UIDs with blanks",
    steps=(
        ASSOCIATE,
        Store(uid="1.2.3 ", data=small("1.2.3"), sop_class=CT),
        Store(uid=" 1.2.4", data=small("1.2.4"), sop_class=CT),
        Store(uid="1.2.5", data=small("1.2.5 "), sop_class=CT),
        Store(uid="1.2.6", data=small(" 1.2.6"), sop_class=CT),
        Store(uid="1.2.7", data=small("1.2.7"), sop_class=f"{CT} "),
        Release(),
    ),
)

# Sorting


def a_a_b_a(first: int) -> tuple[Step, ...]:
    """Return the sending of four objects of two studies, A, A, B and A, with UIDs from a number on."""
    classes = (CT, MR, CT, ENHANCED_CT)
    studies = (STUDY_A, STUDY_A, STUDY_B, STUDY_A)
    return one_by_one(
        *(
            store(f"1.2.3.{first + number}", uid, study=study)
            for number, (uid, study) in enumerate(zip(classes, studies, strict=True))
        )
    )


STUDIES = Scenario(
    name="A, A, B, A and again",
    steps=(
        ASSOCIATE,
        *a_a_b_a(1),
        Release(),
        ASSOCIATE,
        *a_a_b_a(5),
        *one_by_one(store("1.2.3.2", MR)),
        Release(),
    ),
)
RUN_OF_ONE = Scenario(
    name="one study in two associations",
    steps=(
        ASSOCIATE,
        *one_by_one(store("1.2.3.1"), store("1.2.3.2", MR)),
        Release(),
        ASSOCIATE,
        *one_by_one(store("1.2.3.3"), store("1.2.3.4", MR)),
        Release(),
    ),
)
PATIENT_NAMES = (
    b"Doe^Jane",
    b"O'Neil-Smith^A. B=x",
    b"M\xfcller^J\xf6rg",
    b"\xc4\xd6\xdc\xdf\xe5\xc6\xe7\xd0\xd1\xd8\xdd\xff\xd7\xf7\xde\xfe",
    b"",
    None,
    b"A\\B",
    b"..",
    b"a/../b$(id)",
    b" ",
)
PATIENTS = Scenario(
    name="names of patients",
    steps=(
        ASSOCIATE,
        *one_by_one(
            *(
                store(f"1.2.3.{number}", study=f"1.2.3.4.{number}", patient=patient)
                for number, patient in enumerate(PATIENT_NAMES)
            ),
            store("1.2.3.90", study="1.2.90", patient="Müller".encode(), character_set=b"ISO_IR 192"),
            store("1.2.3.91", study="1.2.91", patient=b"M\xfcller", character_set=b"ISO_IR 100"),
            store("1.2.3.92", study="1.2.92", patient=b"M\xfcller", character_set=b"ISO_IR 101"),
        ),
        Release(),
    ),
)
NO_STUDY = Scenario(
    name="no study UID",
    steps=(
        ASSOCIATE,
        *one_by_one(store("1.2.3.1", study=None), store("1.2.3.2"), store("1.2.3.3", study="")),
        *one_by_one(store("1.2.3.4")),
        Release(),
    ),
)
ODD_STUDIES = Scenario(
    name="odd study UIDs",
    steps=(
        ASSOCIATE,
        *one_by_one(
            *(
                store(f"1.2.3.{number}", study=uid)
                for number, uid in enumerate(("1.2/3", "a b", "a;$(id)`x`", "x/../../y", "1.2:3@4-5_6"))
            )
        ),
        Release(),
    ),
)
CLIMBING_STUDIES = Scenario(
    name="study UIDs that climb",
    steps=(ASSOCIATE, *one_by_one(store("1.2.3.1", study=".."), store("1.2.3.2", study=".")), Release()),
)
SERIES_DATES = Scenario(
    name="series dates",
    steps=(
        ASSOCIATE,
        *one_by_one(
            *(
                store(f"1.2.3.{number}", uid, series_date=date)
                for number, (uid, date) in enumerate(
                    (
                        (CT, b"20260131"),
                        (MR, b"20260131"),
                        (CT, b"2024.02.29"),
                        (CT, None),
                        (CT, b""),
                        (ENHANCED_CT, b"99999999"),
                        (CT, b"20261301"),
                        (CT, b"20230229"),
                        (CT, b"2026"),
                        (CT, b"20260131\\20250101"),
                    )
                )
            )
        ),
        Release(),
    ),
)
IDLE_STUDY = Scenario(
    name="a study that ends by time",
    steps=(
        ASSOCIATE,
        *one_by_one(store("1.2.3.1"), store("1.2.3.2", MR)),
        AwaitEvents(count=1),
        *one_by_one(store("1.2.3.3")),
        Release(),
        AwaitEvents(count=2),
    ),
)

_PM = "-xf all.cfg All"
LINES: tuple[Line, ...] = (
    *lines(
        "storescp",
        f"{_PM} | {_PM} -uf | {_PM} +uf | {_PM} -tn | {_PM} -fe .dcm | {_PM} +uf -fe .dcm | {_PM} -tn -fe x | -pm -fe ''",
        SEVERAL,
    ),
    *lines(
        "storescp",
        f"{_PM} -tn -uf | {_PM} +uf -uf | +B {_PM} | +B +uf {_PM} | +B -tn {_PM} | +B -fe .d -pm",
        SEVERAL,
    ),
    *lines("storescp", f"{_PM} | +B {_PM} | {_PM} -fe .dcm", TWICE),
    *lines("storescp", f"-tn {_PM} | -tn -fe .dcm -pm | -tn +B {_PM} | +uf {_PM}", BURST),
    *lines("storescp", "- | +B | -fe /x/../y", ODD_UIDS, differences=(RESPONSE_REPEATS_THE_UID,)),
    *lines("storescp", "- | +B | -fe /x/../y", PADDED_UIDS),
    *lines(
        "dcmrecv",
        f"{_PM} | {_PM} +fd | {_PM} +fu | {_PM} +fsu | {_PM} +fst | {_PM} -fe .dcm | {_PM} +fu -fe .dcm | {_PM} +fsu -fe x",
        SEVERAL,
    ),
    *lines(
        "dcmrecv", f"{_PM} +fst -fe .d | +B {_PM} | +B +fu {_PM} | +B +fsu {_PM} | +B +fst {_PM}", SEVERAL
    ),
    *lines("dcmrecv", f"{_PM} | +B {_PM} | {_PM} -fe .dcm | --ignore {_PM}", TWICE),
    *lines("dcmrecv", f"+fsu {_PM} | +fst {_PM} | +fu {_PM}", BURST),
    *lines("dcmrecv", f"{_PM} | +B {_PM} | -fe /x {_PM}", ODD_UIDS, PADDED_UIDS),
    *lines(
        "dcmrecv",
        f"{_PM} -s | {_PM} +ssd | {_PM} +ssd +fu | {_PM} +ssd +fsu | {_PM} +ssd +fst -fe .d | {_PM} +ssd -s",
        SERIES_DATES,
    ),
    *lines("dcmrecv", f"{_PM} +ssd +B -B | {_PM} +ssd -v", SERIES_DATES),
    *lines("dcmrecv", f"-v +ssd {_PM}", SERIES_DATES, given={"out/data": b"in the way"}),
    # Sorting
    *lines(
        "storescp",
        f"{_PM} -ss x | {_PM} -ss '' | {_PM} -su x | {_PM} -su '' | {_PM} -sp | {_PM} -v -ss x | {_PM} -v -su ''",
        STUDIES,
        RUN_OF_ONE,
    ),
    *lines("storescp", f"{_PM} -v -sp", STUDIES, RUN_OF_ONE, differences=(NO_PATIENTS_IN_LOGS,)),
    *lines(
        "storescp",
        f"{_PM} -ss x -su y | {_PM} -su y -sp | {_PM} -sp -ss z | {_PM} -su '' +uf | {_PM} -su s -tn",
        STUDIES,
    ),
    *lines("storescp", f"{_PM} -ss s -tn -fe .d | {_PM} -sp --ignore -v", STUDIES),
    *lines("storescp", f"{_PM} --fork -ss x | {_PM} --fork -su x | {_PM} --fork -sp", RUN_OF_ONE),
    *lines("storescp", "-sp | -sp -q", PATIENTS),
    *lines("storescp", "-v -sp", PATIENTS, differences=(NO_PATIENTS_IN_LOGS,)),
    *lines("storescp", "-ss x | -su x -v | -sp", NO_STUDY),
    *lines("storescp", "-su x | -su '' -v | -su 'a b'", ODD_STUDIES),
    *lines("storescp", "-su ''", CLIMBING_STUDIES, differences=(STUDY_DIRECTORY_INSIDE,)),
    *lines("storescp", "-su x", CLIMBING_STUDIES),
    *lines(
        "storescp",
        "-v -ss absent/x | -v -su absent/x",
        RUN_OF_ONE,
        differences=(STUDY_DIRECTORY_TRIED_AGAIN,),
    ),
    *lines("storescp", "-v -ss there/x | -v -su there/x", RUN_OF_ONE, given={"out/there": None}),
)
