"""The commands and renamings of `stowkeeper storescp`: when they come, with what in them, and that no peer gets code into them."""

import re
import shlex
import time
from pathlib import Path

import pytest

from support.dropin import Receiver, instance, receiving, wait_for
from support.instances import Instance, encode_element
from support.raw_peer import (
    ABORT,
    COMMAND,
    CT_IMAGE_STORAGE,
    LAST,
    RawPeer,
    associate_rq,
    data_set_pdus,
    echo_command,
    p_data,
    store_command,
)

pytestmark = pytest.mark.slow

OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = 0xA700, 0xA900, 0xC000
STUDY, OTHER_STUDY, THIRD_STUDY = "1.2.10", "1.2.20", "1.2.30"


class Record:
    """A file that commands write into, line by line."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "record"

    def line(self, text: str) -> str:
        """Return the command that writes a line."""
        return f"echo {text} >> {shlex.quote(str(self.path))}"

    @property
    def lines(self) -> list[str]:
        return self.path.read_text(encoding="latin-1").splitlines() if self.path.exists() else []

    def wait_for(self, count: int) -> list[str]:
        """Wait until there are so many lines; return them."""
        wait_for(lambda: len(self.lines) >= count, f"for {count} lines, there are {self.lines}")
        return self.lines


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record(tmp_path)


def has_nothing(peer: RawPeer, seconds: float) -> bool:
    peer.socket.settimeout(seconds)
    try:
        peer.read_pdu()
    except TimeoutError:
        return True
    finally:
        peer.socket.settimeout(20)
    return False


# When


@pytest.mark.parametrize("waits", [True, False], ids=["sync", "async"])
def test_the_answer_comes_first_and_only_the_next_message_waits_for_a_command(
    tmp_path: Path, record: Record, *, waits: bool
) -> None:
    gate = tmp_path / "gate"
    command = f"while [ ! -e {gate} ]; do sleep 0.02; done; {record.line('#f')}"
    options = ["-xs"] if waits else []
    with receiving(tmp_path, "-xcr", command, *options) as receiver, receiver.association() as peer:
        assert peer.store("1.2.3.1", instance(1).data).status == 0
        assert receiver.files() == ["CT.1.2.3.1"]
        assert record.lines == []
        peer.send(p_data(3, echo_command(9), control=COMMAND | LAST))
        if waits:
            assert has_nothing(peer, 0.3)
            gate.touch()
        assert peer.read_answer().status == 0
        assert (record.lines == ["CT.1.2.3.1"]) is waits
        gate.touch()
        assert record.wait_for(1) == ["CT.1.2.3.1"]


def test_an_object_is_stored_then_told_of_and_then_the_study_before_it_ends(
    tmp_path: Path, record: Record
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    on_object = record.line(f"xcr #p #f sees $(ls {out}/s_{STUDY})")
    on_study = record.line("xcs #p '#f' has $(ls #p)")
    options = ("-su", "s", "-xcr", on_object, "-xcs", on_study, "-rns", "-xs")
    with receiving(tmp_path, *options, folder=out) as receiver:
        sent = instance(1), instance(2), instance(3, study=OTHER_STUDY)
        assert receiver.store(*sent) == [0, 0, 0]
        assert receiver.is_serving()  # so the commands behind the last answer are over
    first, other = f"{out}/s_{STUDY}", f"{out}/s_{OTHER_STUDY}"
    assert record.lines == [
        f"xcr {first} CT.1.2.3.1 sees CT.1.2.3.1",
        f"xcr {first} CT.1.2.3.2 sees CT.1.2.3.1 CT.1.2.3.2",
        f"xcr {other} CT.1.2.3.3 sees CT.1.2.3.1 CT.1.2.3.2",
        f"xcs {first} #f has CT000001 CT000002",
    ]


def test_a_command_that_fails_changes_nothing(tmp_path: Path, record: Record) -> None:
    with receiving(tmp_path, "-xcr", f"{record.line('#f')}; exit 3", "-xs") as receiver:
        assert receiver.store(instance(1), instance(2)) == [0, 0]
        assert receiver.is_serving()
        assert record.lines == ["CT.1.2.3.1", "CT.1.2.3.2"]


def test_commands_that_are_not_waited_for_leave_no_zombies(tmp_path: Path) -> None:
    with receiving(tmp_path, "-xcr", "true") as receiver:
        assert receiver.store(*(instance(number) for number in range(5))) == [0] * 5
        assert receiver.is_serving()  # so the command behind the last answer has started
        receiver.wait_until(lambda: not receiver.children(), "before its commands were forgotten")


@pytest.mark.parametrize("model", ["--single-process", "--fork"])
def test_a_command_gets_no_socket_and_no_file(tmp_path: Path, record: Record, model: str) -> None:
    command = f"ls -l /proc/self/fd >> {record.path}"
    with receiving(tmp_path, "-xcr", command, "-xs", model) as receiver:
        receiver.store(instance(1, size=900_000))
        assert receiver.is_serving()
        lines = record.wait_for(1)
    assert not [line for line in lines if "socket:" in line or str(receiver.folder) in line], lines
    (standard_input,) = (line for line in lines if " 0 -> " in line)
    assert standard_input.endswith("/dev/null")


def test_standard_descriptors_that_are_closed_do_not_become_connections(
    tmp_path: Path, record: Record
) -> None:
    """What the command prints would go to the peer, where standard output is its connection."""
    wrapper = ("/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    with receiving(
        tmp_path, "-v", "-xcr", f"echo noise; {record.line('#f')}", "-xs", wrapper=wrapper
    ) as receiver:
        with receiver.association() as peer:
            assert peer.store("1.2.3.1", instance(1).data).status == 0
            assert peer.echo().status == 0
        assert record.lines == ["CT.1.2.3.1"]
        assert receiver.is_serving()


# With what in them


def test_placeholders_of_an_object(tmp_path: Path, record: Record) -> None:
    values = record.line("'#p|#f|'#a'|'#c'|#r|#x|##'; " + record.line('"#f #f"')[5:])
    command = f"printf '%s\\n' '#p' '#f' #a #c '#r' '#x' '##' >> {record.path}; : {values}"
    with receiving(tmp_path, "-dhl", "-xcr", command, "-xs") as receiver:
        receiver.store(instance(1), calling=b"CT 1.a:b@c", called=b"STORE_1")
        assert receiver.is_serving()
        folder = receiver.folder
    assert record.lines == [str(folder), "CT.1.2.3.1", "CT 1.a:b@c", "STORE_1", "127.0.0.1", "#x", "##"]


def test_placeholders_of_a_study_name_the_latest_peer(tmp_path: Path, record: Record) -> None:
    command = f"printf '%s\\n' #p '#f' #a #c #r >> {record.path}"
    with receiving(tmp_path, "-dhl", "-su", "", "-xcs", command, "-xs") as receiver:
        receiver.store(instance(1), calling=b"FIRST", called=b"ONE")
        receiver.store(instance(2, study=OTHER_STUDY), calling=b"SECOND", called=b"TWO")
        assert receiver.is_serving()
        folder = receiver.folder
    assert record.lines == [f"{folder}/{STUDY}", "#f", "SECOND", "TWO", "127.0.0.1"]


@pytest.mark.parametrize("options", [["--ignore"], ["+B"], ["-F"], ["--fork"]])
def test_commands_behind_objects_of_other_kinds(tmp_path: Path, record: Record, options: list[str]) -> None:
    with receiving(tmp_path, *options, "-xcr", record.line("'#p #f'"), "-xs") as receiver:
        assert receiver.store(instance(1)) == [0]
        expected = "#p #f" if options == ["--ignore"] else f"{receiver.folder} CT.1.2.3.1"
        assert record.wait_for(1) == [expected]
        assert receiver.files() == ([] if options == ["--ignore"] else ["CT.1.2.3.1"])


# Hostile values


def hostile_instance(sop_instance_uid: str, study: str = STUDY, name: bytes = b"A") -> Instance:
    elements = [
        (0x00080016, b"UI", CT_IMAGE_STORAGE.encode()),
        (0x00080018, b"UI", sop_instance_uid.encode("latin-1")),
        (0x00100010, b"PN", name),
        (0x0020000D, b"UI", study.encode("latin-1")),
    ]
    return Instance(
        sop_instance_uid=sop_instance_uid, data=b"".join(encode_element(*element) for element in elements)
    )


CODES = (
    "$(touch hit)",
    "`touch hit`",
    ";touch hit;",
    "|touch hit",
    "&touch hit&",
    "\ntouch hit\n",
    "';touch hit;'",
    '";touch hit;"',
    ">hit",
    "$IFS",
    "../../hit",
    "/hit",
    "-rf *",
    "~",
    "\\",
    "!!",
    "ü\x80\xff",
)


@pytest.mark.parametrize("sort", [["-su", ""], ["-sp"]])
def test_what_a_peer_sends_is_never_run_and_never_leaves_the_directory(
    tmp_path: Path, record: Record, sort: list[str]
) -> None:
    working, out = tmp_path / "working", tmp_path / "working" / "deep" / "out"
    out.mkdir(parents=True)
    command = (
        "true #p #f #a #c #r \"#p #f #a #c #r\" '#p #f #a #c #r' $(true #f #a) `true #f #a`; echo x #f #a >> "
        f"{record.path}"
    )
    study_command = f"true #p #a #c \"#p #a\" '#p #a' `true #p #a`; {record.line('end #p')}"
    options = (*sort, "-xcr", command, "-xcs", study_command, "-xs", "-dhl")
    with receiving(tmp_path, *options, folder=out, wrapper=("/usr/bin/env", "-C", str(working))) as receiver:
        for number, code in enumerate(CODES):
            title = code.replace("\n", " ")[:16].encode("latin-1")
            uid = f"1.{number}{code}"
            one = hostile_instance(uid, study=f"{number}{code}", name=code.encode("latin-1"))
            with receiver.association(calling=title, called=title) as peer:
                assert peer.store(uid, one.data).status in {0, CANNOT_UNDERSTAND}, code
        assert receiver.is_serving()
        names = receiver.names()
    assert len([line for line in record.lines if line.startswith("x ")]) == len(CODES)
    assert len([line for line in record.lines if line.startswith("end ")]) == len(CODES) - 1
    assert [path.name for path in working.iterdir()] == ["deep"]
    assert [path.name for path in (working / "deep").iterdir()] == ["out"]
    assert not [name for name in names if "hit" in name.split("/")]
    assert len(receiver.files()) == len(CODES)


def test_a_study_uid_does_not_name_a_directory_elsewhere(tmp_path: Path) -> None:
    out = tmp_path / "place" / "out"
    out.mkdir(parents=True)
    with receiving(tmp_path, "-su", "", folder=out) as receiver:
        for uid in ("..", ".", "  ", "/", "../..", "../sibling"):
            (status,) = receiver.store(hostile_instance("1.2.3.9", study=uid))
            assert status == (CANNOT_UNDERSTAND if uid in {"..", ".", "  "} else 0), uid
        assert sorted(path.name for path in out.iterdir()) == [".._..", ".._sibling", "_"]
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["out"]


# The end of a study


def test_a_study_ends_by_another_and_neither_by_release_nor_abort(tmp_path: Path, record: Record) -> None:
    with receiving(tmp_path, "-su", "", "-xcs", record.line("#p"), "-xs") as receiver:
        receiver.store(instance(1))
        with RawPeer(receiver.port) as peer:
            peer.associate()
            peer.store("1.2.3.2", instance(2).data)
            peer.send(b"\7\0\0\0\0\4\0\0\0\0")
        receiver.store(instance(3))
        assert record.lines == []
        receiver.store(instance(4, study=OTHER_STUDY), instance(5, study=THIRD_STUDY), instance(6))
        assert receiver.is_serving()
        folder = receiver.folder
    assert record.lines == [f"{folder}/{study}" for study in (STUDY, OTHER_STUDY, THIRD_STUDY)]


@pytest.mark.parametrize("is_open", [True, False], ids=["in an association", "without one"])
def test_a_study_ends_when_nothing_has_come_for_so_long(
    tmp_path: Path, record: Record, *, is_open: bool
) -> None:
    with receiving(tmp_path, "-ss", "s", "-tos", "1", "-xcs", record.line("#p"), "-ts", "1") as receiver:
        with receiver.association() as peer:
            began = time.monotonic()
            assert peer.store("1.2.3.1", instance(1).data).status == 0
            if is_open:
                record.wait_for(1)
                assert peer.echo().status == 0, "silence is no fault while a study's end is waited for"
        record.wait_for(1)
        assert time.monotonic() - began >= 0.9
        receiver.store(instance(2))  # of the same study, which has ended
        assert len(record.wait_for(2)) == 2
        assert len(set(record.lines)) == 2
        assert len(receiver.files()) == 2


def test_a_study_that_ends_at_once(tmp_path: Path, record: Record) -> None:
    with receiving(tmp_path, "-su", "", "-tos", "0", "-xcs", record.line("#p")) as receiver:
        with receiver.association() as peer:
            assert peer.store("1.2.3.1", instance(1).data).status == 0
            record.wait_for(1)
            assert peer.store("1.2.3.2", instance(2).data).status == 0
            record.wait_for(2)
        assert record.lines == [f"{receiver.folder}/{STUDY}"] * 2


def test_a_study_does_not_end_while_an_object_of_it_comes(tmp_path: Path, record: Record) -> None:
    with receiving(tmp_path, "-su", "", "-tos", "1", "-xcs", record.line("#p")) as receiver:
        with receiver.association() as peer:
            peer.store("1.2.3.1", instance(1).data)
            peer.send(p_data(1, store_command("1.2.3.2"), control=COMMAND | LAST))
            assert has_nothing(peer, 2.0)
            assert record.lines == []
            peer.send(data_set_pdus(1, instance(2).data))
            assert peer.read_answer().status == 0
            record.wait_for(1)
        assert len(receiver.files()) == 2


@pytest.mark.parametrize("uid", ["1" * 65])
def test_a_study_ends_too_behind_a_request_that_could_not_be_worked_with(
    tmp_path: Path, record: Record, uid: str | None
) -> None:
    with receiving(tmp_path, "-v", "-su", "", "-tos", "1", "-xcs", record.line("#p")) as receiver:
        receiver.store(instance(1))
        with RawPeer(receiver.port) as peer:
            peer.associate()
            peer.send(p_data(1, store_command(uid), control=COMMAND | LAST))
            assert peer.read_pdu().kind == ABORT
        record.wait_for(1)
        assert not re.search(r"RECV: \.*[^.\n]", receiver.log()), "the line of the object is ended, too"


# Renaming


def all_data(receiver: Receiver) -> list[bytes]:
    """Return what all files end with, as sent."""
    return sorted((receiver.folder / name).read_bytes()[-600:] for name in receiver.files())


def test_nothing_is_lost_by_renaming_twice_in_one_directory(tmp_path: Path) -> None:
    rounds = [
        [instance(1), instance(2)],
        [instance(11, study=OTHER_STUDY)],
        [instance(3), instance(4)],
        [instance(12, study=OTHER_STUDY)],
        [instance(1, content=7)],
        [instance(13, study=OTHER_STUDY)],
    ]
    with receiving(tmp_path, "-su", "", "-rns") as receiver:
        for objects in rounds:
            assert set(receiver.store(*objects)) == {0}
        assert receiver.is_serving()
        assert receiver.files() == [
            *(f"{STUDY}/CT{number:06d}" for number in range(1, 6)),
            f"{OTHER_STUDY}/CT.1.2.3.13",
            f"{OTHER_STUDY}/CT000001",
            f"{OTHER_STUDY}/CT000002",
        ]
        assert all_data(receiver) == sorted(one.data[-600:] for objects in rounds for one in objects)


def test_an_object_that_came_twice_is_renamed_once(tmp_path: Path) -> None:
    with receiving(tmp_path, "-su", "", "-rns") as receiver:
        again = instance(1, content=1)
        receiver.store(instance(1), instance(2), again, instance(3), instance(9, study=OTHER_STUDY))
        assert receiver.is_serving()
        assert [name for name in receiver.files() if name.startswith(STUDY)] == [
            f"{STUDY}/CT000001",
            f"{STUDY}/CT000002",
            f"{STUDY}/CT000004",
        ]
        assert (receiver.folder / STUDY / "CT000001").read_bytes().endswith(again.data)


# Refused objects


def wrong_instance() -> bytes:
    return instance(77).data


def without_uids() -> bytes:
    return encode_element(0x00100010, b"PN", b"A") + encode_element(0x0020000D, b"UI", STUDY.encode())


REFUSED = [(wrong_instance(), MISMATCH), (without_uids(), CANNOT_UNDERSTAND)]


@pytest.mark.parametrize(("data", "status"), REFUSED, ids=["mismatch", "no UIDs"])
@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "not kept"])
def test_refused_objects(tmp_path: Path, record: Record, data: bytes, status: int, *, keeps: bool) -> None:
    environment = {"STOWKEEPER_KEEP_REFUSED": "1"} if keeps else {}
    options = ("-su", "", "-xcr", record.line("#f"), "-xs")
    with receiving(tmp_path, *options, environment=environment) as receiver:
        with receiver.association() as peer:
            assert peer.store("1.2.3.5", data).status == status
            assert peer.echo().status == 0
        assert receiver.names() == ([STUDY, f"{STUDY}/CT.1.2.3.5"] if keeps else [])
        assert record.lines == (["CT.1.2.3.5"] if keeps else [])


def test_a_refused_object_does_not_end_a_study_nor_take_the_place_of_a_good_one(
    tmp_path: Path, record: Record
) -> None:
    with receiving(tmp_path, "-su", "", "-xcs", record.line("#p"), "-xs") as receiver:
        with receiver.association() as peer:
            assert peer.store("1.2.3.1", instance(1).data).status == 0
            other = instance(66, study=OTHER_STUDY).data
            assert peer.store("1.2.3.1", other).status == MISMATCH
            assert peer.echo().status == 0
        assert record.lines == []
        assert receiver.names() == [STUDY, f"{STUDY}/CT.1.2.3.1"]
        assert (receiver.folder / STUDY / "CT.1.2.3.1").read_bytes().endswith(instance(1).data)


def test_an_object_without_a_study_is_refused_where_studies_are_sorted(
    tmp_path: Path, record: Record
) -> None:
    with receiving(tmp_path, "-ss", "x", "-xcr", record.line("#f"), "-xs") as receiver:
        with receiver.association() as peer:
            assert peer.store("1.2.3.1", instance(1, study="").data).status == CANNOT_UNDERSTAND
            assert peer.echo().status == 0
        assert receiver.names() == []
        assert record.lines == []


def test_nothing_follows_an_object_whose_answer_reaches_nobody(tmp_path: Path, record: Record) -> None:
    with receiving(tmp_path, "--sleep-during", "1", "-xcr", record.line("#f"), "-xs") as receiver:
        with RawPeer(receiver.port) as peer:
            peer.associate()
            peer.send(p_data(1, store_command("1.2.3.1"), control=COMMAND | LAST))
            peer.send(data_set_pdus(1, instance(1).data))
            peer.reset()
        assert receiver.is_serving()
        assert record.lines == []
        assert receiver.hidden() == []


def test_associations_without_a_request_name_nobody(tmp_path: Path) -> None:
    """A connection that is only looked at does not disturb the one behind it."""
    with receiving(tmp_path, "-ta", "1") as receiver:
        RawPeer(receiver.port).close()
        with RawPeer(receiver.port) as peer:
            peer.send(associate_rq([])[:20])
            assert receiver.is_serving()
