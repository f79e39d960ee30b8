"""What is to be sent: files of all kinds in folders of all kinds, and the contexts that they need."""

import os
import zlib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from stowkeeper.dicom.part10 import PREFIX, encode_file_meta
from stowkeeper.services import send_plan
from stowkeeper.services.limits import CONTEXTS_PER_ASSOCIATION_MAX
from stowkeeper.services.send_plan import (
    MEDIA_STORAGE_DIRECTORY,
    SendableFile,
    SendPlan,
    plan_associations,
    plan_sending,
    read_sendable,
)
from support.examples import examples
from support.send_files import (
    CT_IMAGE_STORAGE,
    EXPLICIT_VR_LITTLE_ENDIAN,
    LONG_AGO_NS,
    data_set_of,
    file_head,
    write_file,
)

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
DEFLATED = "1.2.840.10008.1.2.1.99"


def plan(*paths: Path, odd_allowed: bool = False) -> SendPlan:
    return plan_sending(map(str, paths), odd_allowed=odd_allowed)


def reason_of(path: Path) -> str:
    (unsendable,) = plan(path).unsendable
    assert unsendable.path == str(path)
    return unsendable.reason


# Files


def test_a_file_is_what_its_data_set_says(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data_set = data_set_of("1.2.3.9", sop_class_uid="1.2.840.10008.5.1.4.1.1.4")
    head = file_head("1.2.3.1")
    path.write_bytes(head + data_set)
    file = read_sendable(str(path))
    assert file == SendableFile(
        path=str(path),
        sop_class_uid="1.2.840.10008.5.1.4.1.1.4",
        sop_instance_uid="1.2.3.9",
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        offset=len(head),
        size=len(head) + len(data_set),
        modified_ns=path.stat().st_mtime_ns,
    )
    assert file.data_set_length == len(data_set)


@pytest.mark.parametrize(
    ("place", "step", "is_unchanged"),
    [(os, "stat", True), (os, "fstat", False), (send_plan, "_read_meta", False)],
)
def test_a_file_is_described_as_it_was_when_it_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: ModuleType, step: str, is_unchanged: bool
) -> None:
    path = tmp_path / "file"
    write_file(path)
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    take = getattr(place, step)

    def take_before_it_changes(*arguments: Any) -> Any:
        monkeypatch.setattr(place, step, take)
        taken = take(*arguments)
        path.write_bytes(path.read_bytes() + bytes(100))
        return taken

    monkeypatch.setattr(place, step, take_before_it_changes)
    file = read_sendable(str(path))
    assert getattr(place, step) is take
    assert file.is_unchanged(path.stat()) is is_unchanged


@pytest.mark.parametrize(
    ("digest", "size", "modified_ns", "is_unchanged"),
    [
        ("", 200, 5, True),
        ("", 200, 6, False),
        ("", 201, 5, False),
        ("af13", 200, 6, True),
        ("af13", 201, 5, False),
    ],
)
def test_a_file_that_is_proven_by_its_digest_may_be_of_any_time(
    tmp_path: Path, digest: str, size: int, modified_ns: int, is_unchanged: bool
) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(size))
    os.utime(path, ns=(modified_ns, modified_ns))
    planned = replace(file_of("1.1", "9.1"), modified_ns=5, digest=digest)
    assert planned.is_unchanged(path.stat()) is is_unchanged


def test_file_meta_information_stands_in_where_the_data_set_does_not_tell(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(file_head("1.2.3.1") + b"\x10\0\x10\0PN\2\0A ")
    file = read_sendable(str(path))
    assert (file.sop_class_uid, file.sop_instance_uid) == (CT_IMAGE_STORAGE, "1.2.3.1")


def test_a_long_head_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data_set = write_file(path, receipt=bytes(20_000))
    file = read_sendable(str(path))
    assert file.data_set_length == len(data_set)
    assert file.sop_instance_uid == "1.2.3.1"


@pytest.mark.parametrize("start", [128, 132])
def test_a_head_without_preamble_is_taken(tmp_path: Path, start: int) -> None:
    path = tmp_path / "file"
    data_set = write_file(path)
    path.write_bytes(path.read_bytes()[start:])
    assert read_sendable(str(path)).data_set_length == len(data_set)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "no DICM prefix"),
        (b"%PDF-1.7", "no DICM prefix"),
        (b"\2\0 some text", "no DICM prefix"),
        (bytes(5000), "no DICM prefix"),
        (data_set_of("1.2.3"), "without file meta information"),
        (data_set_of("1.2.3", transfer_syntax_uid="1.2.840.10008.1.2.2"), "without file meta information"),
        (b"\x08\0\x05\0\x0a\0\0\0ISO_IR 100", "without file meta information"),
        (PREFIX + b"\2\0\x10\0UI\x14\0" + b"1.2.840", r"inside (0002,0010)"),
        (PREFIX + b"\2\0\2\0UI\2\0001.\2\0\x10\0u!\x14\0" + b"1.2.840", "two uppercase letters"),
        (PREFIX + encode_file_meta([(0x00020010, b"UI", b"")]) + b"12", "names no transfer syntax"),
        (PREFIX + encode_file_meta([(0x00020010, b"UI", b"\xff")]) + b"12", "names no transfer syntax"),
        (file_head("1.2.3"), "there is no data set"),
        (file_head("1.2.3", sop_class_uid="") + b"\x10\0\x10\0PN\2\0A ", "no SOP Class UID"),
        (file_head("") + b"\x10\0\x10\0PN\2\0A ", "no SOP Instance UID"),
        (file_head("1" * 65) + b"\x10\0\x10\0PN\2\0A ", "no SOP Instance UID"),
    ],
)
def test_what_cannot_be_sent_says_why(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert words in reason_of(path)


def test_a_data_set_of_odd_length_is_sent_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_file(path, pixels=b"123")
    assert "odd number of bytes" in reason_of(path)
    assert len(plan(path, odd_allowed=True).files) == 1


@pytest.mark.parametrize("padding", [b"", b"\0"])
def test_a_deflated_data_set_may_be_odd(tmp_path: Path, padding: bytes) -> None:
    path = tmp_path / "file"
    stream = zlib.compressobj(wbits=-15)
    deflated = stream.compress(data_set_of("1.2.3.4")) + stream.flush() + padding
    path.write_bytes(file_head("1.2.3", transfer_syntax_uid=DEFLATED) + deflated)
    (file,) = plan(path).files
    assert file.sop_instance_uid == "1.2.3.4"


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.symlink_to(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError):
        plan(path)
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "pipe").symlink_to("/proc/self/mem")  # a regular file for stat, and an error for read
    if os.path.exists("/proc/self/mem"):
        (unsendable,) = plan(folder).unsendable
        assert "cannot be read" in unsendable.reason


def test_a_pipe_is_never_opened(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert "no regular file" in reason_of(pipe)
    assert plan(tmp_path).other_files == 1


# Folders


def test_a_folder_is_searched_with_all_that_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "b" / "deep").mkdir(parents=True)
    (tmp_path / "a").mkdir()
    for number, name in enumerate(("z.dcm", "b/2", "b/10", "b/deep/1", "a/no_extension")):
        write_file(tmp_path / name, number)
    (tmp_path / "notes.txt").write_text("Nothing of interest.")
    (tmp_path / "b" / "empty").write_bytes(b"")
    (tmp_path / "DICOMDIR").write_bytes(
        file_head("1.2.3", sop_class_uid=MEDIA_STORAGE_DIRECTORY) + data_set_of("1.2.3")
    )
    found = plan(tmp_path)
    names = [os.path.relpath(file.path, tmp_path) for file in found.files]
    assert names == ["z.dcm", "a/no_extension", "b/10", "b/2", "b/deep/1"]
    assert found.other_files == 2
    assert found.directories == [str(tmp_path / "DICOMDIR")]
    assert found.unsendable == []
    assert found.size == sum((tmp_path / name).stat().st_size for name in names)


def test_a_named_file_that_is_not_dicom_is_a_failure_and_one_of_a_folder_is_not(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("Nothing of interest.")
    assert "no DICM prefix" in reason_of(path)
    assert (plan(tmp_path).other_files, plan(tmp_path).unsendable) == (1, [])


def test_a_bare_data_set_in_a_folder_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "bare").write_bytes(data_set_of("1.2.3"))
    assert len(plan(tmp_path).unsendable) == 1


def test_links_are_followed_and_circles_are_not(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    write_file(elsewhere / "file")
    (folder / "link").symlink_to(elsewhere)
    (folder / "same").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    (folder / "broken").symlink_to(tmp_path / "nothing")
    found = plan(folder)
    assert [file.path for file in found.files] == [str(folder / "link" / "file")]
    assert found.other_files == 1


def test_every_file_that_is_looked_at_is_told(tmp_path: Path) -> None:
    write_file(tmp_path / "one")
    (tmp_path / "two").write_text("no")
    calls: list[None] = []
    plan_sending([str(tmp_path)], looked_at=lambda: calls.append(None))
    assert len(calls) == 2


def test_real_files_are_looked_at_without_a_fault() -> None:
    folder = Path(str(get_testdata_file("CT_small.dcm"))).parent
    found = plan(folder)
    assert len(found.files) > 100
    reasons = {Path(unsendable.path).name: unsendable.reason for unsendable in found.unsendable}
    assert "without file meta" in reasons["ExplVR_LitEndNoMeta.dcm"]
    assert "names no transfer syntax" in reasons["meta_missing_tsyntax.dcm"]


# Presentation contexts


def file_of(sop_class: str, syntax: str, number: int = 0) -> SendableFile:
    return SendableFile(
        path=f"/{sop_class}/{syntax}/{number}",
        sop_class_uid=sop_class,
        sop_instance_uid="1.2.3",
        transfer_syntax_uid=syntax,
        offset=100,
        size=200,
    )


def pairs_of(planned: object) -> list[tuple[str, str]]:
    contexts = planned.contexts  # type: ignore[attr-defined]  # a PlannedAssociation
    assert all(len(context.transfer_syntaxes) == 1 for context in contexts)
    return [(context.abstract_syntax, context.transfer_syntaxes[0]) for context in contexts]


def test_each_class_gets_its_syntaxes_and_implicit_vr_little_endian_where_a_conversion_is_possible() -> None:
    files = [file_of("1.1", "9.1"), file_of("1.2", "9.2"), file_of("1.1", "9.3"), file_of("1.1", "9.1", 2)]
    files += [file_of("1.3", IMPLICIT_VR_LITTLE_ENDIAN), file_of("1.3", "9.1")]
    (planned,) = plan_associations(files, lambda syntax: syntax in {"9.1", IMPLICIT_VR_LITTLE_ENDIAN})
    assert pairs_of(planned) == [
        ("1.1", "9.1"),
        ("1.1", "9.3"),
        ("1.1", IMPLICIT_VR_LITTLE_ENDIAN),
        ("1.2", "9.2"),
        ("1.3", IMPLICIT_VR_LITTLE_ENDIAN),
        ("1.3", "9.1"),
    ]
    assert [context.context_id for context in planned.contexts] == [1, 3, 5, 7, 9, 11]
    assert planned.files == tuple(files)


def test_nothing_needs_no_association() -> None:
    assert plan_associations([], lambda _: True) == []


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3)), max_size=400),
    st.booleans(),
)
@settings(max_examples=examples(50), deadline=None)
def test_more_contexts_than_an_association_has_are_divided(
    numbers: list[tuple[int, int]], convertible: bool
) -> None:
    files = [file_of(f"1.{a}", f"9.{b}", number) for number, (a, b) in enumerate(numbers)]
    check_division(files, convertible)


def test_a_class_with_more_syntaxes_than_an_association_has_contexts_is_divided() -> None:
    check_division([file_of("1.1", f"9.{number}") for number in range(300)], convertible=True)


def check_division(files: list[SendableFile], convertible: bool) -> None:
    planned = plan_associations(files, lambda _: convertible)
    for association in planned:
        pairs = pairs_of(association)
        assert len(pairs) <= CONTEXTS_PER_ASSOCIATION_MAX
        assert len(set(pairs)) == len(pairs)
        assert [context.context_id for context in association.contexts] == list(range(1, 2 * len(pairs), 2))
        for file in association.files:
            assert (file.sop_class_uid, file.transfer_syntax_uid) in pairs
            assert not convertible or (file.sop_class_uid, IMPLICIT_VR_LITTLE_ENDIAN) in pairs
    sent = [file for association in planned for file in association.files]
    assert sorted(sent, key=str) == sorted(files, key=str)
