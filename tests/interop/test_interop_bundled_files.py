"""Every one of pydicom's bundled files, sent as it lies in its file: what is kept is the same byte for byte."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from blake3 import blake3

from support.archive_server import ArchiveServer, archive_serving, settle
from support.bundled_files import BundledFile, bundled_files
from support.raw_peer import Answer, Context, RawPeer, store_message
from support.stored import Content, check_readable, content_of, kept_files

NO_CONTEXT = "the class is not accepted"
NO_STUDY = "(0020,000D) is missing"
REFUSED = {
    "JPEGLSNearLossless_08.dcm": NO_STUDY,
    "JPEGLSNearLossless_16.dcm": NO_STUDY,
    "MR_truncated.dcm": "the data set ends at 9296, 62 bytes before the end of the val...",
    "SC_rgb_jls_lossy_line.dcm": NO_STUDY,
    "SC_rgb_jls_lossy_sample.dcm": NO_STUDY,
    "SC_rgb_jpeg.dcm": "the VR of (0008,0008) at offset 0 is not two uppercase letter...",
    "UN_sequence.dcm": "(0008,0016) is missing",
    "dicomdirtests/DICOMDIR": NO_CONTEXT,
    "dicomdirtests/DICOMDIR-bigEnd": NO_CONTEXT,
    "dicomdirtests/DICOMDIR-empty.dcm": NO_CONTEXT,
    "dicomdirtests/DICOMDIR-implicit": NO_CONTEXT,
    "dicomdirtests/DICOMDIR-nooffset": NO_CONTEXT,
    "dicomdirtests/DICOMDIR-nopatient": NO_CONTEXT,
    "dicomdirtests/DICOMDIR-reordered": NO_CONTEXT,
    "dicomdirtests/TINY_ALPHA/DICOMDIR": NO_CONTEXT,
    "nested_priv_SQ.dcm": NO_CONTEXT,
    "no_meta_group_length.dcm": "(0008,0016) is missing",
    "priv_SQ.dcm": "(0008,0016) is missing",
    "rtplan_truncated.dcm": "the data set ends at 1829, 265 bytes before the end of the va...",
}
"""The files that cannot be kept, and why: no storage class, no identifiers, or no end."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArchiveServer]:
    with archive_serving(tmp_path_factory.mktemp("bundled") / "archive") as running:
        yield running


def named_as_it_is(file: BundledFile) -> BundledFile:
    """Return a file named by its data set, as senders do, where its file meta says otherwise."""
    found = pydicom.dcmread(file.path, stop_before_pixels=True).get("SOPInstanceUID")
    return replace(file, sop_instance_uid=str(found or file.sop_instance_uid))


def contents(files: Iterable[BundledFile]) -> set[Content]:
    """Return what an archive that kept these files holds."""
    return {
        (file.transfer_syntax_uid, file.sop_instance_uid, blake3(file.data_set).hexdigest()) for file in files
    }


def send(server: ArchiveServer, file: BundledFile) -> Answer | None:
    """Send one file on an association of its own; None when its context is refused."""
    context = Context(
        context_id=1, abstract_syntax=file.sop_class_uid, transfer_syntaxes=(file.transfer_syntax_uid,)
    )
    with RawPeer(server.port) as peer:
        peer.associate(context)
        if peer.results != {1: 0}:
            return None
        answer = peer.store(file.sop_instance_uid, file.data_set, sop_class_uid=file.sop_class_uid)
        peer.release()
    return answer


@pytest.mark.slow
def test_all_bundled_files_are_kept_byte_for_byte_or_refused_with_a_reason(server: ArchiveServer) -> None:
    files = [named_as_it_is(file) for file in bundled_files()]
    assert len(files) > 150
    answers = {file.name: send(server, file) for file in files}
    refused = {
        name: NO_CONTEXT if answer is None else answer.comment
        for name, answer in answers.items()
        if answer is None or answer.status
    }
    assert refused == REFUSED
    settle(server.archive)
    kept = kept_files(Path(server.archive.root))
    sent = contents(file for file in files if file.name not in REFUSED)
    assert {content_of(path) for path in kept} == sent


@pytest.mark.slow
def test_all_of_them_on_one_association_with_eight_outstanding(tmp_path: Path) -> None:
    files = [file for file in map(named_as_it_is, bundled_files()) if file.name not in REFUSED]
    pairs = sorted({(file.sop_class_uid, file.transfer_syntax_uid) for file in files})
    ids = {pair: 2 * number + 1 for number, pair in enumerate(pairs)}
    contexts = [
        Context(context_id=ids[pair], abstract_syntax=pair[0], transfer_syntaxes=(pair[1],)) for pair in pairs
    ]
    with archive_serving(tmp_path / "archive") as server, RawPeer(server.port) as peer:
        peer.associate(*contexts, window=(8, 1))
        assert set(peer.results.values()) == {0}
        answers = []
        for number, file in enumerate(files):
            context_id = ids[file.sop_class_uid, file.transfer_syntax_uid]
            peer.send(
                store_message(
                    context_id,
                    file.sop_instance_uid,
                    file.data_set,
                    sop_class_uid=file.sop_class_uid,
                    message_id=number,
                )
            )
            if number >= 7:
                answers.append(peer.read_answer())
        answers += [peer.read_answer() for _ in range(7)]
        assert sorted(answer.responds_to for answer in answers) == list(range(len(files)))
        assert {answer.status for answer in answers} == {0}
        peer.release()
        settle(server.archive)
        assert {content_of(path) for path in kept_files(Path(server.archive.root))} == contents(files)


@pytest.mark.slow
def test_files_whose_meta_names_another_instance_are_told_so(server: ArchiveServer) -> None:
    odd = [file for file in bundled_files() if named_as_it_is(file) != file and file.name not in REFUSED]
    assert len(odd) == 6
    for file in odd:
        answer = send(server, file)
        assert answer is not None
        assert (answer.status, answer.offending) == (0xA900, [0x00080018])


@pytest.mark.slow
@pytest.mark.peer("dcmdump")
def test_what_is_kept_can_be_read_by_others(server: ArchiveServer) -> None:
    for file in bundled_files():
        send(server, named_as_it_is(file))
    settle(server.archive)
    kept = kept_files(Path(server.archive.root))
    check_readable(kept)
    originals = {blake3(file.data_set).hexdigest(): file for file in bundled_files()}
    assert len(kept) > len(originals) / 2
    for path in kept:
        original = originals[content_of(path)[2]]
        assert pydicom.dcmread(path) == pydicom.dcmread(original.path), original.name
