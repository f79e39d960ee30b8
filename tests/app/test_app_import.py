"""`import` takes files by the path that instances from the network take, and leaves them as they were."""

import errno
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Self

import pytest
from blake3 import blake3
from pydicom.data import get_testdata_file

from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.limits import IMPORT_SLOT_POOL_MAX
from stowkeeper.archive.archive import Archive, ArchiveOptions
from stowkeeper.archive.examine import Finding, examine
from stowkeeper.dicom.part10 import PREFIX, encode_file_meta, read_file_meta
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.server_lock import ServerLock
from stowkeeper.services import importing
from stowkeeper.services.importing import Importer, ImportOutcome, SourceFile
from stowkeeper.services.limits import IMPORT_BUFFER_BYTES, IMPORT_BUFFERS, IMPORT_LOOKUP_BATCH
from support.command_line import CommandLine, environment, keep, program, serving, write_part10
from support.instances import HANGING_PROTOCOL_STORAGE, make_instance
from support.peers import run_peer
from support.send_files import LONG_AGO_NS


@pytest.fixture
def stow(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """Commands on an archive that is not there yet."""
    return CommandLine(tmp_path / "archive", capsys)


@pytest.fixture(autouse=True)
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stay in a folder without settings; the syncs and the slots are not what is tried here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STOWKEEPER_SYNC", "false")
    monkeypatch.setenv("STOWKEEPER_STORAGE__SLOT_POOL_SIZE", "8")
    monkeypatch.setenv("STOWKEEPER_STORAGE__WORKER_THREADS", "4")


def outcomes(stow: CommandLine, *paths: str | Path) -> dict[str, tuple[str, str]]:
    """Import; return the outcome and the reason of each file by its name."""
    lines = stow("import", "--json", *paths).lines[:-1]
    return {os.path.basename(line["path"]): (line["outcome"], line["reason"] or "") for line in lines}


# What is kept, and how.


@pytest.mark.slow
def test_files_and_folders_are_kept_listed_and_left_as_they_were(tmp_path: Path, stow: CommandLine) -> None:
    one, two = make_instance(1), make_instance(2, study="", sop_class_uid=HANGING_PROTOCOL_STORAGE)
    first = write_part10(tmp_path / "in/a.dcm", one)
    second = write_part10(tmp_path / "in/deep/er/b", two)
    os.chmod(first, 0o400)
    before = {
        path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) for path in (first, second)
    }
    ended = stow("import", tmp_path / "in")
    assert (ended.code, ended.err) == (ExitCode.OK, "")
    assert ended.out.startswith("2 stored; ")
    rows = {row["sop_instance_uid"]: row for row in stow.list("instances")}
    for instance in (one, two):
        row = rows[instance.sop_instance_uid]
        assert row["received_by"] == "import"
        assert row["digest"] == blake3(instance.data).hexdigest()
        assert (stow.archive / row["path"]).read_bytes().endswith(instance.data)
        assert examine(FileSystem(), str(stow.archive / row["path"])).finding is Finding.WHOLE
    assert {
        path: (path.read_bytes(), path.stat().st_mtime_ns, path.stat().st_mode) for path in before
    } == before
    assert stow("verify").code == ExitCode.OK
    assert list((stow.archive / "depot").iterdir()) == []
    assert not (stow.archive / "reserve").exists(), "it is for the server to keep"


def test_of_the_file_meta_information_the_transfer_syntax_alone_is_kept(
    tmp_path: Path, stow: CommandLine
) -> None:
    stow("import", write_part10(tmp_path / "a.dcm", make_instance(1)))
    meta = read_file_meta(stow.path_of("1.2.3.1").read_bytes()[:4096])
    assert meta.transfer_syntax_uid == make_instance(1).transfer_syntax_uid
    assert meta.source_application_entity_title == ""
    (receipt,) = stow.list("receipts")
    assert (receipt["received_by"], receipt["calling_ae_title"], receipt["association_id"]) == (
        "import",
        "",
        "",
    )


@pytest.mark.slow
def test_what_is_there_already_is_identical_and_what_differs_is_a_version(
    tmp_path: Path, stow: CommandLine
) -> None:
    write_part10(tmp_path / "in/a.dcm", make_instance(1))
    assert outcomes(stow, tmp_path / "in") == {"a.dcm": ("stored", "")}
    write_part10(tmp_path / "in/b.dcm", make_instance(1, content=1))
    assert outcomes(stow, tmp_path / "in") == {"a.dcm": ("identical", ""), "b.dcm": ("conflict", "")}
    ended = stow("import", tmp_path / "in")
    assert (ended.code, ended.out.split(";")[0]) == (ExitCode.OK, "2 identical to what was kept already")
    assert len(stow.list("instances", "--all-versions")) == 2


def test_the_policy_for_duplicates_is_that_of_the_settings(tmp_path: Path, stow: CommandLine) -> None:
    keep(stow.archive, make_instance(1))
    (tmp_path / "site.toml").write_text("[storage]\nduplicates = 'refuse'\n")
    path = write_part10(tmp_path / "a.dcm", make_instance(1, content=1))
    ended = stow("import", "--config", tmp_path / "site.toml", path)
    assert ended.code == ExitCode.FINDINGS
    assert ended.out.startswith(f"refused: {path}: the instance is kept already")


@pytest.mark.parametrize("policy", ["zero", "keep", "refuse"])
def test_a_preamble_goes_by_the_settings(
    tmp_path: Path, stow: CommandLine, monkeypatch: pytest.MonkeyPatch, policy: str
) -> None:
    monkeypatch.setenv("STOWKEEPER_STORAGE__PREAMBLE", policy)
    path = write_part10(tmp_path / "in/a.dcm", make_instance(1))
    preamble = b"MZ" + bytes(range(126))
    path.write_bytes(preamble + path.read_bytes()[128:])
    ((outcome, reason),) = outcomes(stow, path).values()
    if policy == "refuse":
        assert (outcome, "preamble" in reason) == ("refused", True)
        return
    assert outcome == "stored"
    kept = stow.path_of("1.2.3.1")
    assert kept.read_bytes()[:128] == (preamble if policy == "keep" else bytes(128))
    assert examine(FileSystem(), str(kept)).finding is Finding.WHOLE


def test_a_server_that_has_the_archive_for_itself_is_no_hindrance(tmp_path: Path, stow: CommandLine) -> None:
    keep(stow.archive)
    lock = ServerLock(str(stow.archive / "server.lock"), shared=False)
    assert stow("import", write_part10(tmp_path / "a.dcm", make_instance(1))).code == ExitCode.OK
    lock.release()


def test_the_settings_file_in_the_archive_holds(tmp_path: Path, stow: CommandLine) -> None:
    keep(stow.archive, make_instance(1))
    (stow.archive / "stowkeeper.toml").write_text("[storage]\nfile_mode = '0600'\n")
    stow("import", write_part10(tmp_path / "a.dcm", make_instance(2)))
    assert stow.path_of("1.2.3.2").stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
@pytest.mark.parametrize(
    "size", [IMPORT_BUFFER_BYTES - 2000, IMPORT_BUFFER_BYTES, 3 * IMPORT_BUFFER_BYTES + 5]
)
def test_a_file_of_any_size_goes_through_buffers_of_one(tmp_path: Path, stow: CommandLine, size: int) -> None:
    instance = make_instance(1, size=size)
    path = write_part10(tmp_path / "a.dcm", instance)
    whole = path.stat().st_size
    # Also one whose end is that of a buffer.
    fitting = make_instance(2, size=size + -whole % IMPORT_BUFFER_BYTES)
    assert write_part10(tmp_path / "b.dcm", fitting).stat().st_size % IMPORT_BUFFER_BYTES in {0, 1}
    assert stow("import", path, tmp_path / "b.dcm").out.startswith("2 stored")
    assert stow.path_of("1.2.3.1").read_bytes().endswith(instance.data)
    assert stow.path_of("1.2.3.2").read_bytes().endswith(fitting.data)


def test_the_bounds_of_an_import_are_as_written(monkeypatch: pytest.MonkeyPatch) -> None:
    from stowkeeper.app.commands.import_ import _options
    from stowkeeper.app.settings import load_settings

    assert (IMPORT_BUFFERS, IMPORT_BUFFER_BYTES, IMPORT_LOOKUP_BATCH) == (24, 1 << 20, 256)
    assert IMPORT_SLOT_POOL_MAX == 128
    assert _options(load_settings(None, {"storage.slot_pool_size": 1000}, {})).slot_pool_size == 128
    assert _options(load_settings(None, {"storage.slot_pool_size": 5}, {})).slot_pool_size == 5


@pytest.mark.slow
def test_many_files_need_no_more_buffers_and_no_more_memory(
    tmp_path: Path, stow: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "IMPORT_LOOKUP_BATCH", 10)
    monkeypatch.setattr(importing, "IMPORT_BUFFERS", 2)
    monkeypatch.setenv("STOWKEEPER_STORAGE__UNCATALOGUED_MAX", "3")
    for number in range(60):
        write_part10(tmp_path / f"in/{number}.dcm", make_instance(number))
    ended = stow("import", "--json", tmp_path / "in")
    assert (ended.code, ended.summary["stored"], len(ended.lines)) == (ExitCode.OK, 60, 61)


# What a file is.


@pytest.mark.slow
def test_real_files_without_file_meta_information_are_known_by_their_first_element(
    tmp_path: Path, stow: CommandLine
) -> None:
    names = ("ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm", "MR_small_implicit.dcm")
    big, little, implicit = (str(get_testdata_file(name)) for name in names)
    bare = tmp_path / "implicit"
    content = Path(implicit).read_bytes()
    bare.write_bytes(content[read_file_meta(content[:4096]).length :])
    found = outcomes(stow, big, little, bare)
    assert found.pop("implicit") == ("stored", "")
    # They are the same instance, and several workers take them: whichever comes first is no conflict.
    assert sorted(found) == ["ExplVR_BigEndNoMeta.dcm", "ExplVR_LitEndNoMeta.dcm"]
    assert sorted(found.values()) == [("conflict", ""), ("stored", "")]
    assert {row["transfer_syntax_uid"] for row in stow.list("instances", "--all-versions")} == {
        "1.2.840.10008.1.2.2",
        "1.2.840.10008.1.2.1",
        "1.2.840.10008.1.2",
    }


def test_heads_without_preamble_or_without_transfer_syntax_are_read(
    tmp_path: Path, stow: CommandLine
) -> None:
    instance = make_instance(1)
    whole = write_part10(tmp_path / "whole", instance).read_bytes()
    (tmp_path / "prefix").write_bytes(whole[128:])
    (tmp_path / "bare").write_bytes(whole[132:])
    write_part10(tmp_path / "untold", instance, transfer_syntax=False)
    found = outcomes(stow, *(tmp_path / name for name in ("whole", "prefix", "bare", "untold")))
    assert sorted(outcome for outcome, _ in found.values()) == ["identical"] * 3 + ["stored"]


def test_identifiers_are_those_of_the_data_set(tmp_path: Path, stow: CommandLine) -> None:
    path = write_part10(tmp_path / "a.dcm", make_instance(1), uid="9.9.9")
    assert outcomes(stow, path) == {
        "a.dcm": ("stored", "its file meta information names another instance (9.9.9)")
    }
    assert [row["sop_instance_uid"] for row in stow.list("instances")] == ["1.2.3.1"]


def test_identifiers_far_behind_the_beginning_are_found(tmp_path: Path, stow: CommandLine) -> None:
    from dataclasses import replace

    from support.instances import encode_element

    instance = make_instance(1)
    filler = b"".join(encode_element(0x00080001 + n, b"UN", bytes(3000)) for n in (2, 3, 4))
    late = replace(instance, data=filler + instance.data)
    path = write_part10(tmp_path / "a.dcm", late, uid="9.9.9")
    assert outcomes(stow, path)["a.dcm"][0] == "stored"
    assert [row["sop_instance_uid"] for row in stow.list("instances")] == ["1.2.3.1"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is no DICOM file"),
        (b"no instance at all" * 100, "it is no DICOM file"),
        (bytes(2000), "it is no DICOM file"),
        (PREFIX, "no file meta information stands at offset 132"),
        (PREFIX + b"garbage all the way" * 20, "no file meta information stands at offset 132"),
        (b"\x08\x00\x16\x00UI\x04\x001.2\x00", "it has no SOP Instance UID"),
    ],
)
def test_other_files_are_left_out_in_folders_and_refused_by_name(
    tmp_path: Path, stow: CommandLine, content: bytes, words: str
) -> None:
    path = tmp_path / "in/file"
    path.parent.mkdir()
    path.write_bytes(content)
    (outcome,) = outcomes(stow, path).values()
    assert outcome[0] == "refused"
    assert words in outcome[1]
    is_other = words == "it is no DICOM file"
    ended = stow("import", path.parent)
    assert ended.code == (ExitCode.NO_INPUT if is_other else ExitCode.FINDINGS)
    assert ("1 left out, since they are no instances" in ended.out) is is_other


@pytest.mark.slow
def test_a_dicomdir_is_left_out_wherever_it_is(tmp_path: Path, stow: CommandLine) -> None:
    path = str(get_testdata_file("DICOMDIR"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in/DICOMDIR").write_bytes(Path(path).read_bytes())
    assert outcomes(stow, tmp_path / "in") == {
        "DICOMDIR": ("skipped", "it is a DICOMDIR, which lists other files")
    }
    assert stow("import", path).code == ExitCode.FINDINGS


def test_what_must_not_be_kept_is_refused_with_the_reason(tmp_path: Path, stow: CommandLine) -> None:
    from dataclasses import replace

    instance = make_instance(1)
    write_part10(tmp_path / "in/cut", replace(instance, data=instance.data[:-1]))
    write_part10(tmp_path / "in/unknown", replace(instance, transfer_syntax_uid="1.2.3.4"))
    write_part10(tmp_path / "in/class", make_instance(1, sop_class_uid="1.2.840.10008.1.1"))
    write_part10(
        tmp_path / "in/malformed", replace(instance, data=instance.data.replace(b"1.2.3.1\0", b"1.2.3.X\0"))
    )
    found = outcomes(stow, tmp_path / "in")
    assert {outcome for outcome, _ in found.values()} == {"refused"}
    assert "the data set ends at" in found["cut"][1]
    assert "1.2.3.4 is not known" in found["unknown"][1]
    assert found["class"][1] == "the SOP class is not accepted here"
    assert found["malformed"][1] == "it has a malformed SOP Instance UID"
    assert stow.list("instances") == []
    assert list((stow.archive / "depot").iterdir()) == []


def test_an_unknown_transfer_syntax_is_taken_where_the_settings_say_so(
    tmp_path: Path, stow: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setenv("STOWKEEPER_NEGOTIATION__ACCEPT_UNKNOWN_TRANSFER_SYNTAXES", "true")
    path = write_part10(tmp_path / "a.dcm", replace(make_instance(1), transfer_syntax_uid="1.2.3.4"))
    assert outcomes(stow, path) == {"a.dcm": ("stored", "")}


def test_a_head_that_is_longer_than_a_buffer_is_refused(tmp_path: Path, stow: CommandLine) -> None:
    path = tmp_path / "a.dcm"
    head = [(0x00020100, b"UI", b"1.2"), (0x00020102, b"OB", bytes(2 * IMPORT_BUFFER_BYTES))]
    path.write_bytes(PREFIX + encode_file_meta(head))
    (outcome,) = outcomes(stow, path).values()
    assert outcome[0] == "refused"
    assert "longer than 1048576 bytes" in outcome[1]


# Folders.


def test_a_folder_is_walked_once_whatever_links_there_are(tmp_path: Path, stow: CommandLine) -> None:
    write_part10(tmp_path / "in/a/1.dcm", make_instance(1))
    (tmp_path / "in/loop").symlink_to("..")
    (tmp_path / "in/again").symlink_to("a")
    (tmp_path / "in/broken").symlink_to("none")
    os.mkfifo(tmp_path / "in/pipe")
    ended = stow("import", "--json", tmp_path / "in")
    assert (ended.code, ended.summary["stored"], ended.summary["identical"]) == (ExitCode.OK, 1, 0)


def test_the_archive_itself_is_not_imported_into_itself(tmp_path: Path, stow: CommandLine) -> None:
    keep(stow.archive, make_instance(1))
    write_part10(tmp_path / "other.dcm", make_instance(2))
    numbers = stow("import", "--json", tmp_path).summary
    assert (numbers["stored"], numbers["identical"], numbers["refused"]) == (1, 0, 0)


def test_a_path_that_is_not_there_is_told_before_anything_is_done(tmp_path: Path, stow: CommandLine) -> None:
    path = write_part10(tmp_path / "a.dcm", make_instance(1))
    ended = stow("import", path, tmp_path / "none")
    assert ended.code == ExitCode.NO_INPUT
    assert f"{tmp_path / 'none'}: No such file or directory" in ended.err
    assert not stow.archive.exists()


@pytest.mark.slow
def test_an_empty_folder_and_a_pipe_are_no_success(tmp_path: Path, stow: CommandLine) -> None:
    (tmp_path / "in").mkdir()
    ended = stow("import", tmp_path / "in")
    assert (ended.code, ended.err) == (ExitCode.NO_INPUT, "Error: There is no instance in what was named.\n")
    (tmp_path / "in/notes.txt").touch()
    ended = stow("import", "--json", tmp_path / "in")
    assert (ended.code, ended.summary["skipped"]) == (ExitCode.NO_INPUT, 1)
    os.mkfifo(tmp_path / "pipe")
    ended = stow("import", tmp_path / "pipe")
    assert (ended.code, "it is no file" in ended.out) == (ExitCode.FINDINGS, True)


# Trouble.


def test_a_full_disk_ends_an_import_with_what_was_kept_told(
    tmp_path: Path, stow: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STOWKEEPER_STORAGE__REFUSE_INSTANCE_BELOW", "1000 TB")
    ended = stow("import", write_part10(tmp_path / "a.dcm", make_instance(1)))
    assert ended.code == ExitCode.IO_ERROR
    assert "takes no more: the disk is full" in ended.err


class Unreadable:
    """A file that gives its first bytes and then an error."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._reads = 0

    def readinto(self, view: memoryview) -> int:
        self._reads += 1
        if self._reads > 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        count: int = self._stream.readinto(view)  # type: ignore[attr-defined]  # it is opened without a buffer
        return count

    def fileno(self) -> int:
        return self._stream.fileno()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()


@pytest.mark.slow
def test_a_file_that_cannot_be_read_to_its_end_leaves_nothing(
    tmp_path: Path, stow: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_part10(tmp_path / "a.dcm", make_instance(1, size=5 * IMPORT_BUFFER_BYTES))
    other = write_part10(tmp_path / "b.dcm", make_instance(2))

    def open_file(name: Any, *arguments: Any, **options: Any) -> Any:
        stream = open(name, *arguments, **options)  # noqa: SIM115 - the caller closes it
        return Unreadable(stream) if name == str(path) else stream

    monkeypatch.setattr(importing, "open", open_file, raising=False)
    found = outcomes(stow, path, other)
    assert found == {"a.dcm": ("refused", "it cannot be read: Input/output error"), "b.dcm": ("stored", "")}
    assert len(stow.list("instances")) == 1
    assert list((stow.archive / "depot").iterdir()) == []


def overwrite(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.seek(-4, os.SEEK_END)
        stream.write(b"late")


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(b"more")


@pytest.mark.parametrize("change", [overwrite, append])
@pytest.mark.parametrize("size", [900, 5 * IMPORT_BUFFER_BYTES])
def test_a_file_that_is_written_to_while_it_is_read_leaves_nothing(
    tmp_path: Path,
    stow: CommandLine,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Path], None],
    size: int,
) -> None:
    path = write_part10(tmp_path / "a.dcm", make_instance(1, size=size))
    os.utime(path, ns=(LONG_AGO_NS, LONG_AGO_NS))
    other = write_part10(tmp_path / "b.dcm", make_instance(2))
    fill = importing._fill
    fills = []

    def fill_before_it_changes(stream: IO[bytes], view: memoryview) -> tuple[int, bool]:
        filled = fill(stream, view)
        if not fills:
            change(path)
        fills.append(filled)
        return filled

    monkeypatch.setattr(importing, "_fill", fill_before_it_changes)
    ended = stow("import", "--json", path, other)
    assert ended.code == ExitCode.FINDINGS
    assert [(line["outcome"], line["reason"] or "") for line in ended.lines[:-1]] == [
        ("refused", "it changed while it was read"),
        ("stored", ""),
    ]
    assert [row["sop_instance_uid"] for row in stow.list("instances")] == ["1.2.3.2"]
    assert list((stow.archive / "depot").iterdir()) == []


def test_what_the_catalog_cannot_list_in_time_is_kept_all_the_same(
    tmp_path: Path, stow: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "IMPORT_LISTING_SECONDS", 0.0)
    path = write_part10(tmp_path / "a.dcm", make_instance(1))
    archive = Archive(str(stow.archive), ArchiveOptions(exclusive=False, reserve_size=0, slot_pool_size=4))
    begun = threading.Event()
    go_on = threading.Event()
    finish = archive.finisher._finish

    def finish_later(*arguments: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return finish(*arguments)

    monkeypatch.setattr(archive.finisher, "_finish", finish_later)
    try:
        (result,) = Importer(archive).run([SourceFile(path=str(path), is_named=True)])
        assert result.outcome is ImportOutcome.KEPT
        assert begun.wait(60)
    finally:
        go_on.set()
        archive.close()
    assert [row["receipt_id"] for row in stow.list("receipts")] == [result.receipt_id]


# Beside a server, and killed.


@pytest.mark.slow
@pytest.mark.peer("storescu")
def test_beside_a_server_that_receives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = tmp_path / "archive"
    for number in range(100):
        instance = make_instance(number, study=f"1.2.{number % 5}")
        write_part10(tmp_path / f"sent/{number}.dcm", instance)
        write_part10(
            tmp_path / f"imported/{number}.dcm", instance if number < 50 else make_instance(1000 + number)
        )
    with serving(archive, tmp_path / "server.log") as (server, port):
        importing_one = subprocess.Popen(
            program("import", "--archive", archive, "--json", tmp_path / "imported"),
            env=environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        sent = run_peer(
            "storescu", "-aec", "STOWKEEPER", "+sd", "127.0.0.1", str(port), str(tmp_path / "sent")
        )
        output, _ = importing_one.communicate(timeout=60)
        assert (sent.returncode, importing_one.returncode) == (0, 0), output
        stow = CommandLine(archive, capsys)
        server.wait_until(lambda: len(stow.list("receipts")) == 200, "before all was listed")
        assert len(stow.list("instances")) == 150
        assert all(not row["conflict"] for row in stow.list("instances"))
        assert stow("verify").code == ExitCode.OK


@pytest.mark.slow
def test_what_a_killed_import_had_kept_is_listed_by_the_next(tmp_path: Path, stow: CommandLine) -> None:
    for number in range(400):
        write_part10(tmp_path / f"in/{number:03}.dcm", make_instance(number, size=20_000))
    killed = subprocess.Popen(
        program("import", "--archive", stow.archive, "--json", tmp_path / "in"),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert killed.stdout is not None
    first = killed.stdout.readline()
    killed.kill()
    killed.communicate()
    assert '"outcome": "stored"' in first
    assert stow("import", "--json", tmp_path / "in").summary["refused"] == 0
    assert len(stow.list("instances")) == 400
    assert stow("verify").code == ExitCode.OK
    assert list((stow.archive / "depot").iterdir()) == []
