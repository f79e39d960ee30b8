"""The probe runs an instance's whole path, and says of what fails what it was, where, and what to do."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import stowkeeper
from stowkeeper.durable.errors import StorageUnfitError
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.limits import PROBE_ATTEMPTS, PROBE_SIZE
from stowkeeper.durable.mounts import Mount
from stowkeeper.durable.probe import PROBE_FOLDER, StorageReport, probe_storage
from stowkeeper.durable.process_folder import PROBE_NAME
from support.model_filesystem import ModelFileSystem, Operation
from support.small_filesystem import small_filesystem

DEPOT, SHELF = "/archive/depot/1", "/archive/objects"
SLOT, TARGET = f"{DEPOT}/{PROBE_NAME}", f"{SHELF}/{PROBE_FOLDER}/1"


def an_archive(kind: type[ModelFileSystem] = ModelFileSystem) -> ModelFileSystem:
    model = kind(block_size=4096)
    model.place_folder(DEPOT)
    model.place_folder(SHELF)
    return model


def probe(model: ModelFileSystem) -> StorageReport:
    return probe_storage(model, process_folder=DEPOT, shelf=SHELF)


def refusal(model: ModelFileSystem) -> str:
    with pytest.raises(StorageUnfitError) as caught:
        probe(model)
    return str(caught.value)


def test_a_fit_disk_passes_and_nothing_of_the_probe_remains() -> None:
    model = an_archive()
    before = model.tree()
    report = probe(model)
    assert report.warnings == ()
    assert not report.on_network
    assert model.tree() == before
    assert model.open_paths == []
    assert model.crash(lambda _: False).tree() == before
    path = [f"{done.name} {done.path.removeprefix('/archive/')}" for done in model.log]
    assert path[: path.index("synchronize_directory objects/.probe")] == [
        "unlink depot/1/probe",
        "create depot/1/probe",
        "close depot/1/probe",
        "synchronize_directory depot/1",
        "open_for_writing depot/1/probe",
        "write depot/1/probe",
        "synchronize depot/1/probe",
        "close depot/1/probe",
        "open_for_reading depot/1/probe",
        "drop_cache depot/1/probe",
        "read depot/1/probe",
        "close depot/1/probe",
        "make_directory objects/.probe",
        "unlink objects/.probe/1",
        "link objects/.probe/1",
    ]


def test_a_real_folder_passes(tmp_path: Path) -> None:
    for name in ("depot/1", "objects"):
        (tmp_path / name).mkdir(parents=True)
    report = probe_storage(FileSystem(), process_folder=f"{tmp_path}/depot/1", shelf=f"{tmp_path}/objects")
    assert report.depot == report.shelf
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() or path.name == PROBE_FOLDER] == []


def test_more_than_a_page_and_an_odd_end_are_tried() -> None:
    model = an_archive()
    sizes = []

    def before(operation: Operation) -> None:
        if operation.name == "synchronize":
            sizes.append(len(model.content(SLOT)))

    model.before_each = before
    probe(model)
    assert sizes == [PROBE_SIZE] == [64 * 1024 + 1]


@pytest.mark.parametrize(
    ("operation", "path", "number", "words"),
    [
        (
            "create",
            "*",
            errno.EACCES,
            ["cannot create a file", SLOT, f"{DEPOT} belongs to user", "mode 0755"],
        ),
        ("create", "*", errno.ENOSPC, ["cannot create a file", "no limit on inodes are left", "make room"]),
        ("create", "*", errno.EDQUOT, ["quota of user"]),
        ("create", "*", errno.EROFS, ["mounted read-only"]),
        ("create", "*", errno.ENOENT, ["folder on this path is missing"]),
        ("create", "*", errno.EMFILE, ["too many files are open"]),
        ("synchronize_directory", DEPOT, errno.EINVAL, ["cannot sync a folder", "ext4, xfs or btrfs"]),
        ("open_for_writing", "*", errno.EACCES, ["cannot open a file for writing"]),
        ("write", "*", errno.EIO, ["cannot write a file", "Input/output error", "check the disk"]),
        ("synchronize", "*", errno.EIO, ["cannot sync a file", "check the disk"]),
        ("synchronize", "*", errno.ENOSPC, ["cannot sync a file", "make room"]),
        ("close", SLOT, errno.EDQUOT, ["cannot create a file", "quota of user"]),
        ("open_for_reading", SLOT, errno.EIO, ["cannot read a file"]),
        ("read", SLOT, errno.EIO, ["cannot read a file", SLOT]),
        ("make_directory", "*", errno.EACCES, ["cannot make a folder", f"{SHELF} belongs to user"]),
        ("link", "*", errno.EPERM, ["cannot link a file", "refuses hard links", "(ext4)"]),
        ("link", "*", errno.EOPNOTSUPP, ["refuses hard links"]),
        ("link", "*", errno.EXDEV, ["are on two file systems", "put both on the same"]),
        ("link", "*", errno.EACCES, ["cannot link", f"{SHELF}/{PROBE_FOLDER} belongs to user"]),
        ("synchronize_directory", f"{SHELF}/{PROBE_FOLDER}", errno.EIO, ["cannot sync a folder"]),
        ("synchronize_directory", SHELF, errno.EIO, ["cannot sync a folder", SHELF]),
        ("status", TARGET, errno.EIO, ["cannot look at a file"]),
        ("unlink", SLOT, errno.EPERM, ["cannot remove a file", SLOT]),
        ("open_for_reading", TARGET, errno.ESTALE, ["cannot read a file's second name"]),
        ("unlink", TARGET, errno.EPERM, ["cannot remove a file", TARGET]),
    ],
)
def test_what_fails_is_named_with_what_to_do(
    operation: str, path: str, number: int, words: list[str]
) -> None:
    model = an_archive()
    # What is cleared away before and after may fail unheard: only a call amid the path counts.
    first = 1 if operation == "unlink" else 0
    model.fail_next(operation, path, number, after=first, times=1)
    text = refusal(model)
    for word in words:
        assert word in text
    assert os.strerror(number) in text
    assert set(model.tree()) == {"/archive", "/archive/depot", DEPOT, SHELF}
    assert model.open_paths == []
    probe(model)  # and the next one starts clean


def test_a_close_after_the_sync_that_fails_counts() -> None:
    model = an_archive()
    model.fail_next("close", SLOT, errno.EIO, after=1)
    assert "cannot close a file" in refusal(model)


def test_the_last_syncs_count_as_well() -> None:
    for path, before in ((DEPOT, 1), (SHELF, 1)):
        model = an_archive()
        model.fail_next("synchronize_directory", path, after=before)
        assert f"cannot sync a folder ({path})" in refusal(model)


def test_bytes_that_come_back_otherwise_condemn_the_disk() -> None:
    class Forgetful(ModelFileSystem):
        def synchronize(self, descriptor: int) -> None:
            try:
                self.fail_next("synchronize")
                super().synchronize(descriptor)
            except OSError:
                pass  # a drive that says ok and loses the bytes

    assert "does not read as it was written" in refusal(an_archive(Forgetful))


def test_a_link_that_copies_is_no_link() -> None:
    class Copying(ModelFileSystem):
        def link(self, source: str, target: str) -> None:
            self.place(target, self.content(source))

    assert "made another file instead of a second name" in refusal(an_archive(Copying))


def test_a_link_that_replaces_is_refused() -> None:
    class Replacing(ModelFileSystem):
        def link(self, source: str, target: str) -> None:
            if target in self.tree():
                super().unlink(target)
            super().link(source, target)

    assert "would replace kept files" in refusal(an_archive(Replacing))


def test_a_link_that_fails_the_second_time_for_another_reason_is_told() -> None:
    model = an_archive()
    model.fail_next("link", error=errno.EIO, after=1)
    assert "cannot link a file" in refusal(model)


def test_what_probes_of_dead_processes_left_is_cleared_and_that_of_living_ones_is_not() -> None:
    model = an_archive()
    model.place(SLOT, b"of our last probe")
    model.place(TARGET, b"of our last probe")
    model.place(f"{SHELF}/{PROBE_FOLDER}/dead")
    model.place_folder("/archive/depot/living")
    model.place(f"{SHELF}/{PROBE_FOLDER}/living")
    probe(model)
    left = [path for path in model.tree() if PROBE_FOLDER in path or PROBE_NAME in path]
    assert left == [f"{SHELF}/{PROBE_FOLDER}", f"{SHELF}/{PROBE_FOLDER}/living"]


def remove_folder_before_link(model: ModelFileSystem, times: int) -> None:
    """Let another process that ends its probe remove the folder just before ours is linked there."""
    left = times

    def before(operation: Operation) -> None:
        nonlocal left
        if operation.name == "link" and left:
            left -= 1
            model.remove_directory(f"{SHELF}/{PROBE_FOLDER}")

    model.before_each = before


def test_another_process_that_ends_its_probe_does_no_harm() -> None:
    model = an_archive()
    remove_folder_before_link(model, PROBE_ATTEMPTS - 1)
    probe(model)
    model = an_archive()
    remove_folder_before_link(model, PROBE_ATTEMPTS)
    assert "folder on this path is missing" in refusal(model)


@pytest.mark.parametrize(
    ("type_", "options", "words", "on_network"),
    [
        ("xfs", "rw", [], False),
        ("tmpfs", "rw", ["is in memory (tmpfs)"], False),
        ("overlay", "rw", ["container's own layer", "mount a volume"], False),
        ("overlay", "volatile", ["container's own layer", "mounted with volatile"], False),
        ("nfs4", "rw", ["on another machine (nfs4)", "SQLite is refused"], True),
        ("vfat", "rw", ["is on vfat"], False),
        ("", "", ["is on an unknown file system"], False),
        ("ext4", "nobarrier", ["mounted with nobarrier", "remove that option"], False),
        ("ext4", "barrier=0", ["mounted with barrier=0"], False),
    ],
)
def test_what_weakens_the_promise_is_a_warning(
    type_: str, options: str, words: list[str], on_network: bool
) -> None:
    model = an_archive()
    model.mounted = Mount(type=type_, options=frozenset({options}))
    report = probe(model)
    text = "\n".join(report.warnings)
    for word in words:
        assert word in text
    assert bool(text) == bool(words)
    assert report.on_network is on_network


def test_two_mounts_are_judged_each() -> None:
    class Two(ModelFileSystem):
        def mount(self, path: str) -> Mount:
            return Mount(type="ext4" if path == DEPOT else "nfs", options=frozenset())

    report = probe(an_archive(Two))
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith(f"shelf {SHELF} is on another machine")
    assert report.on_network


# Real disks


def test_a_depot_on_another_disk_is_found(tmp_path: Path) -> None:
    (tmp_path / "objects").mkdir()
    with small_filesystem(tmp_path, size=1 << 20, inodes=50) as small:
        (small / "depot" / "1").mkdir(parents=True)
        with pytest.raises(
            StorageUnfitError, match=r"depot \(tmpfs\) and objects .* are on two file systems"
        ):
            probe_storage(FileSystem(), process_folder=f"{small}/depot/1", shelf=f"{tmp_path}/objects")
        assert list(small.rglob(PROBE_NAME)) == []


def test_a_full_disk_and_a_read_only_one_are_found(tmp_path: Path) -> None:
    with small_filesystem(tmp_path, size=64 << 10, inodes=5) as small:
        for name in ("depot/1", "objects"):
            (small / name).mkdir(parents=True)
        (small / "ballast").write_bytes(bytes(40 << 10))
        with pytest.raises(StorageUnfitError, match=r"cannot write a file.*0 bytes and 0 inodes are left"):
            probe_storage(FileSystem(), process_folder=f"{small}/depot/1", shelf=f"{small}/objects")
        subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
        with pytest.raises(StorageUnfitError, match="mounted read-only"):
            probe_storage(FileSystem(), process_folder=f"{small}/depot/1", shelf=f"{small}/objects")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may run as somebody else"
)
def test_folders_of_another_user_are_named_with_owner_and_mode(tmp_path: Path) -> None:
    code = (
        "import sys; from stowkeeper.durable.filesystem import FileSystem\n"
        "from stowkeeper.durable.probe import probe_storage\n"
        "import os; os.chroot(sys.argv[1]); os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "probe_storage(FileSystem(), process_folder='/depot/1', shelf='/objects')"
    )
    with small_filesystem(tmp_path, size=1 << 20, inodes=50) as small:
        for name in ("depot/1", "objects"):
            (small / name).mkdir(parents=True)
        ended = subprocess.run(
            [sys.executable, "-c", code, str(small)],
            env={**os.environ, "PYTHONPATH": str(Path(stowkeeper.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=False,
        )
    assert "/depot/1 belongs to user 0 with mode 0755, and this process runs as user 65534" in ended.stderr
