"""The differential comparison can fail: a difference is planted in each aspect that it compares, and it has to be found.

DCMTK's programs stand on both sides, the one in place of ours with an option more or with something put in its way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
from differential_differences import ABORTS_SAY_WHY, DIFFERENCES
from differential_line import COMMON_ENVIRONMENT, common_files
from differential_lines_conversions import UNCOMPRESSED
from differential_lines_events import OBJECT
from differential_lines_names import SEVERAL, STUDIES
from differential_lines_network import LENGTHS, OBJECTS, PREFERENCES
from differential_lines_odd import REFUSED
from test_dcmtk_differential import what_is_wrong

from support.differential_comparison import mismatches
from support.differential_observation import Observation, StoredFile, observe
from support.differential_run import Trial, dcmtk_program, observe_both
from support.differential_steps import NOTHING, Scenario
from support.differential_tokens import log_tokens, output_tokens
from support.peers import DCMTK_COMPARED
from support.private_network import need_private_network

FILE = StoredFile(name="out/CT.1", mode="644", meta=(("00020010", "1.2"),), data_set=b"abcdef")
RESPONSE = {"status": "0000", "class": "1.2\0", "instance": "1.2.3\0"}
SEEN = Observation(
    exit=(-15,),
    answers=(RESPONSE, ["rejected", 1, 1, 1]),
    folders=("out/x 755",),
    files=(FILE, FILE),
    log=("I: Association Received", "I: Association Release"),
    output=("RECV: .",),
    events=("one", "two"),
)
PLANTED = {
    "exit": replace(SEEN, exit=(1,)),
    "status": replace(SEEN, answers=({**RESPONSE, "status": "A700"}, SEEN.answers[1])),
    "padding of a UID": replace(SEEN, answers=({**RESPONSE, "class": "1.2"}, SEEN.answers[1])),
    "instance": replace(SEEN, answers=({**RESPONSE, "instance": "1.2.4\0"}, SEEN.answers[1])),
    "reason": replace(SEEN, answers=(SEEN.answers[0], ["rejected", 1, 1, 2])),
    "one answer less": replace(SEEN, answers=SEEN.answers[:1]),
    "folder": replace(SEEN, folders=()),
    "permissions of a folder": replace(SEEN, folders=("out/x 700",)),
    "file missing": replace(SEEN, files=(FILE,)),
    "file too much": replace(SEEN, files=(FILE, FILE, replace(FILE, name="x"))),
    "name": replace(SEEN, files=(FILE, replace(FILE, name="out/CT.2"))),
    "permissions": replace(SEEN, files=(FILE, replace(FILE, mode="600"))),
    "meta": replace(SEEN, files=(FILE, replace(FILE, meta=(("00020010", "1.3"),)))),
    "data": replace(SEEN, files=(FILE, replace(FILE, data_set=b"abcdeg"))),
    "length": replace(SEEN, files=(FILE, replace(FILE, data_set=b"abcde"))),
    "log": replace(SEEN, log=SEEN.log[:1]),
    "order of the log": replace(SEEN, log=SEEN.log[::-1]),
    "output": replace(SEEN, output=("RECV: ..",)),
    "event": replace(SEEN, events=("one",)),
    "order of events": replace(SEEN, events=("two", "one")),
    "heading": replace(SEEN, heading="stderr"),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_difference_in_what_was_seen_is_found(planted):
    assert mismatches(SEEN, SEEN) == []
    assert mismatches(SEEN, PLANTED[planted])
    assert mismatches(PLANTED[planted], SEEN)


def test_every_aspect_has_a_planted_difference():
    changed = {
        field.name
        for other in PLANTED.values()
        for field in fields(Observation)
        if getattr(SEEN, field.name) != getattr(other, field.name)
    }
    assert changed == {field.name for field in fields(Observation)}


def test_a_difference_that_does_not_show_is_a_fault():
    from differential_line import Line

    line = Line(tool="storescp", options="", differences=(ABORTS_SAY_WHY,))
    assert what_is_wrong(line, SEEN, SEEN) == ["the difference aborts-say-why does not show"]
    aborted = replace(SEEN, answers=(["aborted", 0, 0],)), replace(SEEN, answers=(["aborted", 2, 6],))
    assert what_is_wrong(line, *aborted) == []
    assert what_is_wrong(replace(line, differences=()), *aborted)
    assert what_is_wrong(line, aborted[1], aborted[0])


@pytest.mark.parametrize("difference", DIFFERENCES, ids=lambda one: one.name)
def test_a_difference_settles_nothing_else(difference):
    for other in PLANTED.values():
        theirs, ours = difference.settle(SEEN, other)
        assert mismatches(theirs, ours)


# Shapes and tokens


def files_in(folder: Path, *names: str) -> Observation:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\x08\0\x16\0UI\2\0001")
    return observe({"exit": [-15], "answers": [None]}, folder, given=("out",))


@pytest.mark.parametrize(
    ("one", "other", "are_alike"),
    [
        ("CT.X.1.2.276.0.7230010.3.1.4.1.2.3.4", "CT.X.2.25.77", True),
        ("CT.X.1.2.3.dcm", "CT.X.2.25.77", False),
        ("CT_0123456789abcdef", "CT_fedcba9876543210", True),
        ("CT_0123456789abcdef", "CT_0123456789abcde", False),
        ("20260131120000123.CT", "20260201130000456.CT", True),
        ("20260131120000123.CT", "20260201130000456_0000.CT", True),
        ("20260131120000123.CT", "2026020113000045.CT", False),
        ("20260131120000.123456.CT", "20260201120000.000001.CT", True),
        ("x_20260131_120000123/CT.1", "x_20260201_110000000/CT.1", True),
        ("x_20260131_120000123/CT.1", "y_20260131_120000123/CT.1", False),
        ("data/undef/20260131/CT.1", "data/undef/20260201/CT.1", True),
        ("data/2026/01/31/CT.1", "data/2026/02/01/CT.1", False),
        ("CT.1.2.3", "CT.1.2.4", False),
        ("CT000001", "CT000002", False),
    ],
)
def test_shapes_of_names(tmp_path, one, other, are_alike):
    assert (files_in(tmp_path / "1", one) == files_in(tmp_path / "2", other)) == are_alike


def test_times_keep_their_order(tmp_path):
    seen = files_in(tmp_path, "20260131120000124.MR", "20260131120000123.CT", "20260131120000123_0000.CT")
    assert [each.name for each in seen.files] == ["<time-1>.CT", "<time-2>.CT", "<time-3>.MR"]


def test_tokens():
    text = "\n".join(
        [
            "I: Association Received",
            "W: something else",
            "I:   Context ID:        1 (Accepted)",
            "E: Store SCP Failed: 0006:020d DIMSE Failed to receive message",
            "E: cannot write DICOM file: out/a b: Illegal call",
            "I: Received Store Request (MsgID 1, CT)",
            "not a log line",
        ]
    )
    assert log_tokens(text) == (
        "I: Association Received",
        "I: Context ID: 1 (Accepted)",
        "E: Store SCP Failed: 0006:020d",
        "E: cannot write DICOM file: out/a b",
        "I: Received Store Request (MsgID 1, CT)",
    )
    assert output_tokens("RECV: ..\nRECV: RECV: .\nother\n") == ("RECV: ..", "RECV: ", "RECV: .")


# Whole runs


def more(*options: str) -> Callable[[str], Sequence[str]]:
    """Return DCMTK's program with some options before all others."""
    return lambda tool: [*dcmtk_program(tool), *options]


def behind(shell: str) -> Callable[[str], Sequence[str]]:
    """Return DCMTK's program started by a shell that does something before."""
    return lambda tool: ["/bin/sh", "-c", f'{shell}; exec "$@"', "sh", *dcmtk_program(tool)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A program in place of ours, the line it is tried on, and the aspects that have to be found wrong."""

    ours: Callable[[str], Sequence[str]]
    found: set[str]
    options: str = ""
    scenario: Scenario = OBJECTS
    tool: str = "storescp"


PLANTS = {
    "nothing": Plant(ours=dcmtk_program, found=set()),
    "exit code": Plant(ours=behind("exit 3"), found={"exit", "heading"}, options="-pdu 1", scenario=NOTHING),
    "heading": Plant(ours=more("--version"), found={"exit", "heading"}, options="-pdu 1", scenario=NOTHING),
    "error": Plant(ours=more("-ta", "0"), found={"heading"}, options="-pdu 1", scenario=NOTHING),
    "rejection": Plant(ours=more("--refuse"), found={"answers", "files"}),
    "abort": Plant(ours=more("--abort-after"), found={"answers", "files", "log"}),
    "status": Plant(ours=more("-fe", "/x"), found={"answers", "files", "log"}),
    "accepted contexts": Plant(ours=more("+xr"), found={"answers"}, scenario=PREFERENCES),
    "classes": Plant(ours=more("-pm"), found={"answers", "files", "log"}, scenario=SEVERAL),
    "length of PDUs": Plant(ours=more("-pdu", "8192"), found={"answers"}, scenario=LENGTHS),
    "names": Plant(ours=more("+uf"), found={"files"}),
    "folders": Plant(
        ours=more("-ss", "y"), found={"files", "folders", "log"}, options="-pm", scenario=STUDIES
    ),
    "folder of a study": Plant(
        ours=more("--fork"), found={"files", "folders"}, options="-pm -ss y", scenario=STUDIES
    ),
    "data": Plant(ours=more("-e"), found={"files"}, options="-xf all.cfg All", scenario=UNCOMPRESSED),
    "meta": Plant(ours=more("-F"), found={"files"}),
    "who may read": Plant(ours=behind("umask 077"), found={"files"}),
    "refused objects": Plant(ours=more("+B"), found={"answers", "files", "log"}, scenario=REFUSED),
    "words": Plant(ours=more("-v"), found={"log", "output"}),
    "command": Plant(ours=more("-xcr", "echo >>events"), found={"events"}),
    "placeholder": Plant(ours=more("-dhl"), found={"events"}, options=f"-xs {OBJECT}"),
    "words of dcmrecv": Plant(ours=more("-v"), found={"log"}, options="-xf all.cfg All", tool="dcmrecv"),
}


@pytest.mark.slow
@pytest.mark.peer(DCMTK_COMPARED)
@pytest.mark.parametrize("name", PLANTS)
def test_a_program_that_does_otherwise_is_found(name, tmp_path):
    need_private_network()
    plant = PLANTS[name]
    trial = Trial(tool=plant.tool, options=plant.options, scenario=plant.scenario)
    seen = observe_both(
        [trial], tmp_path / "runs", ours=plant.ours, common=common_files(), environment=COMMON_ENVIRONMENT
    )
    ((theirs, ours),) = seen
    found = mismatches(theirs, ours)
    assert {line.partition(":")[0] for line in found if not line.startswith("…")} == plant.found
