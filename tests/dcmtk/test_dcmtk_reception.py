"""Data sets on their way into files: the same file whatever pieces they come in, and nothing on the disk when one fails."""

import errno
import io
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from encoding_chance import chance_data_set
from encoding_dictionary import dictionary_of_tests
from encoding_trees import (
    BIG_ENDIAN,
    DEFLATED,
    EXPLICIT,
    HEAD,
    IMPLICIT,
    JPEG,
    PIXELS,
    SECONDARY_CAPTURE,
    UNCOMPRESSED,
    USUAL,
    El,
    Sq,
    encode,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.dcmtk import incoming_file, reception
from stowkeeper.dcmtk.encoding.errors import EmptyDataSetError, EncodingError, NotWritableError
from stowkeeper.dcmtk.encoding.form import DCMRECV_FORM, STORESCP_FORM, Form, GroupLengths
from stowkeeper.dcmtk.encoding.identity import Identity, find_identity
from stowkeeper.dcmtk.encoding.meta import NO_SOP_CLASS_UID, encode_meta
from stowkeeper.dcmtk.encoding.writer import write_data_set
from stowkeeper.dcmtk.limits import WAITING_BYTES_MAX
from stowkeeper.dcmtk.reception import PATIENT_NAME, STUDY_INSTANCE_UID, Keeping, Reception
from support.bundled_files import file_meta
from support.examples import examples

COMMAND = Identity(sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid="1.2.3.4")
"""What the C-STORE command says; data sets here say something else."""
CALLING = "SCANNER"
FORMS = (
    STORESCP_FORM,
    DCMRECV_FORM,
    replace(STORESCP_FORM, with_meta=False),
    replace(STORESCP_FORM, transfer_syntax=EXPLICIT, padding=(64, 6)),
    replace(STORESCP_FORM, transfer_syntax=BIG_ENDIAN, convert_un=True, new_vr=False),
    replace(
        STORESCP_FORM, transfer_syntax=IMPLICIT, group_length=GroupLengths.CREATE, explicit_lengths=False
    ),
    replace(STORESCP_FORM, transfer_syntax=DEFLATED, compression_level=1),
)


def keeping(folder: Path, form: Form | None, *, with_meta: bool | None = None) -> Keeping:
    return Keeping(
        directory=str(folder),
        form=form,
        with_meta=(form is None or form.with_meta) if with_meta is None else with_meta,
        keeps_source_ae_title=True,
        dictionary=dictionary_of_tests(),
        synchronizes=False,
    )


def taken_in(
    kept: Keeping, data: bytes, syntax: str, cuts: Sequence[int] = (), releases: list[int] | None = None
) -> Reception:
    """Give a data set to a new reception, cut at these places; note the releases of its pieces."""
    taken = Reception(kept, COMMAND, syntax, CALLING)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    noted = [] if releases is None else releases
    for number, (start, end) in enumerate(pairwise(places)):
        taken.write(memoryview(data)[start:end], lambda number=number: noted.append(number))
    taken.finish()
    return taken


def file_of(taken: Reception, path: Path) -> bytes:
    """Complete a reception and return what its file holds then."""
    try:
        taken.complete(taken.identity())
        taken.place(str(path))
    finally:
        taken.discard()
    return path.read_bytes()


def expected_file(data: bytes, syntax: str, form: Form) -> bytes:
    """Return what the file is to hold, made from the whole data set at once."""
    target = io.BytesIO()
    if form.with_meta:
        identity = find_identity(io.BytesIO(data), syntax, form, dictionary_of_tests())
        target.write(
            encode_meta(
                sop_class_uid=identity.sop_class_uid,
                sop_instance_uid=identity.sop_instance_uid,
                transfer_syntax_uid=form.transfer_syntax or syntax,
                source_application_entity_title=CALLING,
            )
        )
    write_data_set(io.BytesIO(data), syntax, form, target, dictionary_of_tests())
    return target.getvalue()


def same(one: bytes, other: bytes, syntax: str, form: Form) -> bool:
    """Compare files; a deflated data set that needs no change may keep the deflating of its sender."""
    if (form.transfer_syntax or syntax) != DEFLATED:
        return one == other
    starts = (file_meta(file)[1] if form.with_meta else 0 for file in (one, other))
    (head, body), (other_head, other_body) = (
        (file[:start], file[start:]) for file, start in zip((one, other), starts, strict=True)
    )
    inflated, other_inflated = (zlib.decompress(part, wbits=-15) for part in (body, other_body))
    return head == other_head and inflated == other_inflated


def outcome(make: Callable[[], bytes]) -> bytes | type[EncodingError]:
    try:
        return make()
    except EncodingError as error:
        return type(error)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no more than a few bytes wait in memory, so that all goes through the file."""
    monkeypatch.setattr(reception, "WAITING_BYTES_MAX", 20)


@pytest.fixture(autouse=True)
def nothing_is_left_unfinished() -> Iterator[None]:
    yield
    assert incoming_file._unfinished == set()


# The same file whatever the pieces


@pytest.mark.slow
@pytest.mark.parametrize("waiting", [20, WAITING_BYTES_MAX], ids=["through the file", "in memory"])
@given(
    seed=st.integers(0, 1 << 32),
    syntax=st.sampled_from(UNCOMPRESSED),
    form=st.sampled_from(FORMS),
    cuts=st.lists(st.integers(0, 2000), max_size=12),
)
@settings(max_examples=examples(50), deadline=None)
def test_a_file_holds_what_is_written_of_the_whole_data_set(
    tmp_path_factory: pytest.TempPathFactory,
    waiting: int,
    seed: int,
    syntax: str,
    form: Form,
    cuts: list[int],
) -> None:
    folder = tmp_path_factory.mktemp("reception")
    data = encode(chance_data_set(Random(seed), implicit=syntax == IMPLICIT), syntax)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reception, "WAITING_BYTES_MAX", waiting)
        made = file_of(taken_in(keeping(folder, form), data, syntax, cuts), folder / "file")
    assert same(made, expected_file(data, syntax, form), syntax, form)
    assert os.listdir(folder) == ["file"]


@pytest.mark.slow
@given(
    seed=st.integers(0, 1 << 32),
    syntax=st.sampled_from(UNCOMPRESSED),
    form=st.sampled_from(FORMS),
    cuts=st.lists(st.integers(0, 2000), max_size=4),
    places=st.lists(st.tuples(st.integers(0, 500), st.binary(min_size=1, max_size=8)), max_size=4),
)
@settings(max_examples=examples(80), deadline=None)
def test_damaged_data_sets_become_what_the_writer_makes_of_them_or_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    syntax: str,
    form: Form,
    cuts: list[int],
    places: list[tuple[int, bytes]],
) -> None:
    """What stands in the form that is asked for is not written anew, but has to be just as sound."""
    folder = tmp_path_factory.mktemp("reception")
    damaged = bytearray(encode(chance_data_set(Random(seed), implicit=syntax == IMPLICIT), syntax))
    for place, damage in places:
        damaged[place : place + len(damage)] = damage
    data = bytes(damaged)
    plain = replace(form, with_meta=False)  # a UID that is made up is another one each time
    made = outcome(lambda: file_of(taken_in(keeping(folder, plain), data, syntax, cuts), folder / "file"))
    expected = outcome(lambda: expected_file(data, syntax, plain))
    if isinstance(made, bytes) and isinstance(expected, bytes):
        assert same(made, expected, syntax, plain)
    else:
        assert made == expected
        assert os.listdir(folder) == []


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=5))
def test_preserved_bytes_are_not_looked_at(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("reception")
    head = encode_meta(
        sop_class_uid=COMMAND.sop_class_uid,
        sop_instance_uid=COMMAND.sop_instance_uid,
        transfer_syntax_uid=JPEG,
        source_application_entity_title=CALLING,
    )
    assert file_of(taken_in(keeping(folder, None), data, JPEG, cuts), folder / "a") == head + data
    bare = keeping(folder, None, with_meta=False)
    assert file_of(taken_in(bare, data, JPEG, cuts), folder / "b") == data


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_a_large_data_set_goes_through_a_file(tmp_path: Path, syntax: str, form: Form) -> None:
    pixels = El(0x7FE00010, b"OB", Random(5).randbytes(2 * WAITING_BYTES_MAX))
    data = encode((*HEAD, pixels), syntax)
    cuts = range(0, len(data), 16_372)
    made = file_of(taken_in(keeping(tmp_path, form), data, syntax, cuts), tmp_path / "file")
    assert same(made, expected_file(data, syntax, form), syntax, form)
    assert os.listdir(tmp_path) == ["file"]


def test_a_small_data_set_touches_no_disk_before_it_is_complete(tmp_path: Path) -> None:
    data = encode(USUAL, EXPLICIT)
    taken = taken_in(keeping(tmp_path, STORESCP_FORM), data, EXPLICIT, [100, 200])
    assert os.listdir(tmp_path) == []
    taken.discard()
    large = taken_in(keeping(tmp_path, None), bytes(WAITING_BYTES_MAX), EXPLICIT)
    assert len(os.listdir(tmp_path)) == 1
    large.discard()
    assert os.listdir(tmp_path) == []


def test_pieces_are_released_once_each_when_they_are_written(tmp_path: Path) -> None:
    releases: list[int] = []
    data = encode(USUAL, EXPLICIT)
    taken = taken_in(keeping(tmp_path, STORESCP_FORM), data, EXPLICIT, [10, 20, 30], releases)
    assert releases == []
    taken.flush()
    assert sorted(releases) == [0, 1, 2, 3]
    file_of(taken, tmp_path / "file")
    assert sorted(releases) == [0, 1, 2, 3]


@pytest.mark.usefixtures("impatient")
def test_pieces_of_what_is_discarded_are_released(tmp_path: Path) -> None:
    releases: list[int] = []
    taken = Reception(keeping(tmp_path, STORESCP_FORM), COMMAND, EXPLICIT, CALLING)
    for number, piece in enumerate((b"0123456789", b"0123456789012345", b"012")):
        taken.write(memoryview(piece), lambda number=number: releases.append(number))
    taken.discard()
    assert sorted(releases) == [0, 1, 2]
    assert os.listdir(tmp_path) == []


# What it says of itself


def uids_of(file: bytes) -> tuple[str, str]:
    meta, _ = file_meta(file)
    sop_class, instance = (meta[tag].decode().rstrip("\0") for tag in (0x00020002, 0x00020003))
    return sop_class, instance


def test_the_uids_of_the_data_set_go_into_the_head(tmp_path: Path) -> None:
    file = file_of(
        taken_in(keeping(tmp_path, STORESCP_FORM), encode(HEAD, EXPLICIT), EXPLICIT), tmp_path / "file"
    )
    sop_class, instance = uids_of(file)
    assert sop_class == SECONDARY_CAPTURE
    assert instance != COMMAND.sop_instance_uid


def test_uids_behind_what_was_written_already_get_into_the_head(tmp_path: Path) -> None:
    """Long before the UIDs of such a data set came, its head was written without them."""
    long = El(0x00080001, b"OB", Random(1).randbytes(2 * WAITING_BYTES_MAX))
    data = encode((long, *HEAD), EXPLICIT)
    cuts = range(0, len(data), 16_372)
    file = file_of(taken_in(keeping(tmp_path, STORESCP_FORM), data, EXPLICIT, cuts), tmp_path / "file")
    assert file == expected_file(data, EXPLICIT, STORESCP_FORM)
    assert uids_of(file)[0] == SECONDARY_CAPTURE
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("waiting", [20, WAITING_BYTES_MAX])
def test_uids_of_an_item_count_where_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    monkeypatch.setattr(reception, "WAITING_BYTES_MAX", waiting)
    data = encode((Sq(0x00081140, (HEAD,)), PIXELS), EXPLICIT)
    taken = taken_in(keeping(tmp_path, STORESCP_FORM), data, EXPLICIT, [50])
    assert taken.identity().sop_class_uid == SECONDARY_CAPTURE
    assert uids_of(file_of(taken, tmp_path / "file"))[0] == SECONDARY_CAPTURE


@pytest.mark.parametrize("waiting", [20, WAITING_BYTES_MAX])
def test_a_data_set_without_uids_gets_others_in_its_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    monkeypatch.setattr(reception, "WAITING_BYTES_MAX", waiting)
    data = encode((PIXELS,), EXPLICIT)
    taken = taken_in(keeping(tmp_path, STORESCP_FORM), data, EXPLICIT, [10])
    assert taken.identity() == Identity(sop_class_uid=None, sop_instance_uid=None)
    file = file_of(taken, tmp_path / "file")
    sop_class, instance = uids_of(file)
    assert sop_class == NO_SOP_CLASS_UID
    assert instance.startswith("2.25.")
    assert file.endswith(data)


def test_values_at_the_top_level_can_be_asked_for(tmp_path: Path) -> None:
    tree = (*HEAD, El(PATIENT_NAME, b"PN", b"Some^One"), El(STUDY_INSTANCE_UID, b"UI", b"1.2.3\0"))
    inner = Sq(0x00081140, ((El(STUDY_INSTANCE_UID, b"UI", b"9.9.9\0"),),))
    data = encode((inner, *tree), EXPLICIT)
    taken = taken_in(keeping(tmp_path, STORESCP_FORM), data, EXPLICIT, [3, 70])
    assert taken.value(PATIENT_NAME).rstrip() == b"Some^One"
    assert taken.value(STUDY_INSTANCE_UID) == b"1.2.3\0"
    assert taken.value(0x00080021) == b""
    taken.discard()


# What cannot be kept


def test_an_empty_data_set_is_no_file(tmp_path: Path) -> None:
    taken = Reception(keeping(tmp_path, STORESCP_FORM), COMMAND, EXPLICIT, CALLING)
    taken.finish()
    with pytest.raises(EmptyDataSetError):
        file_of(taken, tmp_path / "file")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("waiting", [20, WAITING_BYTES_MAX])
def test_a_data_set_that_is_cut_off_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    monkeypatch.setattr(reception, "WAITING_BYTES_MAX", waiting)
    data = encode(USUAL, EXPLICIT)[:-1]
    with pytest.raises(EncodingError):
        file_of(taken_in(keeping(tmp_path, STORESCP_FORM), data, EXPLICIT, [50]), tmp_path / "file")
    assert os.listdir(tmp_path) == []


@pytest.mark.usefixtures("impatient")
def test_compressed_pixels_are_not_written_in_another_syntax(tmp_path: Path) -> None:
    data = encode((*HEAD, Sq(0x7FE00010, (b"", b"\xff\xd8\xff\xd9"), is_open=True, vr=b"OB")), JPEG)
    form = replace(STORESCP_FORM, transfer_syntax=EXPLICIT)
    with pytest.raises(NotWritableError):
        file_of(taken_in(keeping(tmp_path, form), data, JPEG, [50]), tmp_path / "file")
    assert os.listdir(tmp_path) == []


class _FullDisk:
    """Lets the file system take so many bytes, and not one more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room = room
        self._write, self._writev = os.write, os.writev
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "writev", lambda descriptor, parts: self.write(descriptor, b"".join(parts)))
        monkeypatch.setattr(incoming_file, "open", self.open, raising=False)

    def write(self, descriptor: int, data: bytes) -> int:
        taken = bytes(data)[: self.room]
        if not taken and len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= len(taken)
        return self._write(descriptor, taken)

    def open(self, descriptor: int, mode: str) -> io.BufferedRandom:
        disk = self

        class Raw(io.FileIO):
            def write(self, data) -> int:
                return disk.write(self.fileno(), data)

        return io.BufferedRandom(Raw(descriptor, mode.replace("b", "")), 64)


@pytest.mark.parametrize(
    "form", [None, STORESCP_FORM, FORMS[4]], ids=["preserved", "as it came", "converted"]
)
@pytest.mark.parametrize("waiting", [20, WAITING_BYTES_MAX], ids=["through the file", "in memory"])
def test_a_disk_that_is_full_at_any_byte_gets_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: int, form: Form | None
) -> None:
    """The good copy of an earlier time stays, and there is nothing beside it."""
    monkeypatch.setattr(reception, "WAITING_BYTES_MAX", waiting)
    data = encode(USUAL, EXPLICIT)
    good = tmp_path / "file"
    good.write_bytes(b"the good copy")
    disk = _FullDisk(monkeypatch, 1 << 30)
    whole = file_of(taken_in(keeping(tmp_path, form), data, EXPLICIT, [90, 180]), tmp_path / "whole")
    used = (1 << 30) - disk.room
    (tmp_path / "whole").unlink()
    assert used >= len(whole)
    for room in range(0, used, 41):
        disk.room = room
        taken = Reception(keeping(tmp_path, form), COMMAND, EXPLICIT, CALLING)
        with closing(_Discarding(taken)), pytest.raises(OSError) as raised:  # noqa: PT012 - at whatever step
            for start in range(0, len(data), 90):
                taken.write(memoryview(data)[start : start + 90], None)
            taken.finish()
            taken.complete(taken.identity())
        assert raised.value.errno == errno.ENOSPC
        assert os.listdir(tmp_path) == ["file"]
    assert good.read_bytes() == b"the good copy"


class _Discarding:
    def __init__(self, taken: Reception) -> None:
        self.close = taken.discard


def test_a_file_that_cannot_be_named_leaves_nothing(tmp_path: Path) -> None:
    taken = taken_in(keeping(tmp_path, None), b"abc", EXPLICIT)
    taken.complete(taken.identity())
    with pytest.raises(FileNotFoundError):
        taken.place(str(tmp_path / "nowhere" / "file"))
    taken.discard()
    assert os.listdir(tmp_path) == []


def test_a_name_that_is_taken_can_be_followed_by_another(tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(b"somebody else's")
    taken = taken_in(keeping(tmp_path, None, with_meta=False), b"abc", EXPLICIT)
    taken.complete(taken.identity())
    with pytest.raises(FileExistsError):
        taken.place(str(tmp_path / "1"), replaces=False)
    taken.place(str(tmp_path / "2"), replaces=False)
    taken.discard()
    assert (tmp_path / "1").read_bytes() == b"somebody else's"
    assert (tmp_path / "2").read_bytes() == b"abc"
