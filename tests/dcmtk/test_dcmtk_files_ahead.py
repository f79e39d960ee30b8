"""The file that is made ahead of its time, while a sender has its answer to read."""

import os
from pathlib import Path

from stowkeeper.dcmtk.incoming_file import HIDDEN_PREFIX, IncomingFile, IncomingFiles


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_made_ahead_is_the_next_one_and_the_only_one(tmp_path: Path) -> None:
    files = IncomingFiles(str(tmp_path), synchronizes=False)
    files.prepare()
    files.prepare()
    (hidden,) = names(tmp_path)
    assert hidden.startswith(HIDDEN_PREFIX)
    file = files.take()
    assert names(tmp_path) == [hidden]
    file.write([b"whole"])
    file.finish(str(tmp_path / "CT.1"))
    assert names(tmp_path) == ["CT.1"]
    assert (tmp_path / "CT.1").read_bytes() == b"whole"


def test_what_was_made_ahead_is_put_back(tmp_path: Path) -> None:
    files = IncomingFiles(str(tmp_path), synchronizes=False)
    files.prepare()
    files.put_back()
    files.put_back()
    assert names(tmp_path) == []


def test_a_file_that_cannot_be_made_ahead_is_missed_only_when_it_is_needed(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    files = IncomingFiles(str(folder), synchronizes=False)
    files.prepare()
    folder.mkdir()
    files.take().discard()
    assert names(folder) == []


def test_each_file_has_a_descriptor_of_its_own(tmp_path: Path) -> None:
    files = IncomingFiles(str(tmp_path), synchronizes=False)
    before = len(os.listdir("/proc/self/fd"))
    files.prepare()
    first, second = files.take(), files.take()
    assert isinstance(first, IncomingFile)
    assert first is not second
    first.discard()
    second.discard()
    assert len(os.listdir("/proc/self/fd")) == before
