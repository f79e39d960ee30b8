"""Check versions by their digest, as storage commitment does, beside a bare loop that reads the same files and hashes them.

    python bench/check.py [--sets ct,tiny] [--rounds 5] [--folder DIR] [--json]

Both read from the medium: before each turn every file's pages are dropped from the cache. The bare loop opens a file, reads
it in blocks of 1 MiB, feeds BLAKE3 and closes it, one after the other. The bar: the check, with its rows, receipts and
second thoughts, reaches 0.7 of the loop's rate, in the median of the rounds, each round both in turns.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from stowkeeper.archive import catalog
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.archive.catalog_values import Version
from stowkeeper.archive.checking import CheckLevel, CheckResult, check_versions
from stowkeeper.durable.filesystem import NoSyncFileSystem
from support.archive_rig import ArchiveRig
from support.catalog_rows import open_database
from support.instances import make_instance

BAR = 0.7
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Set:
    """Files of one size, in bytes."""

    title: str
    files: int
    size: int


SETS = {
    "ct": Set(title="CT 0.5 MB", files=800, size=525_000),
    "tiny": Set(title="tiny 8 kB", files=4000, size=6500),
    "big": Set(title="multi-frame 210 MB", files=4, size=210_000_000),
}


def make(folder: Path, chosen: Set) -> None:
    """Make an archive of a set; its bytes are on the medium when this returns."""
    folder.mkdir(parents=True)
    with open_database(folder, sync=False) as database:
        rig = ArchiveRig(
            NoSyncFileSystem(),
            database,
            root=str(folder),
            slots=300,
            uncatalogued_max=1000,
            sync_every=1 << 30,
        )
        for number in range(chosen.files):
            series = number // 200
            rig.keep(
                make_instance(
                    number, study=f"1.2.{series // 4}", series=f"1.2.{series // 4}.{series}", size=chosen.size
                )
            )
            if number % 200 == 199:
                rig.finish()
                rig.pool.fill()
        rig.finish()
        rig.folder.release()
    ArchiveReader(str(folder)).close()
    os.sync()


def drop(paths: list[str]) -> None:
    """Take the pages of files from the cache."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def bare(paths: list[str]) -> int:
    """Read and hash, and nothing else; return the bytes."""
    buffer = memoryview(bytearray(BLOCK))
    done = 0
    for path in paths:
        hasher = blake3()
        descriptor = os.open(path, os.O_RDONLY)
        while count := os.readv(descriptor, [buffer]):
            hasher.update(buffer[:count])
            done += count
        os.close(descriptor)
        hasher.digest()
    return done


def check(reader: ArchiveReader, versions: list[Version]) -> None:
    """Check every version; all have to be whole."""
    for version, result in check_versions(
        reader.files, reader.root, reader.database, versions, CheckLevel.DIGEST
    ):
        assert isinstance(result, CheckResult), result
        assert result.is_whole, (version.path, result)


def measure(folder: Path, rounds: int) -> list[tuple[float, float, int]]:
    """Return the seconds of the loop and of the check in each round, and the bytes that were read."""
    reader = ArchiveReader(str(folder))
    versions = list(catalog.iterate_versions(reader.database))
    paths = [reader.path_of(version.path) for version in versions]
    size = sum(version.file_size for version in versions)
    measured = []
    for number in range(rounds):
        seconds = {}
        for turn in ("bare", "check") if number % 2 == 0 else ("check", "bare"):
            drop(paths)
            begin = time.perf_counter()
            if turn == "bare":
                assert bare(paths) == size
            else:
                check(reader, versions)
            seconds[turn] = time.perf_counter() - begin
        measured.append((seconds["bare"], seconds["check"], size))
    reader.close()
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description="Check versions by their digest beside a bare loop.")
    parser.add_argument("--sets", default="ct,tiny", help=f"any of {','.join(SETS)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--folder", type=Path, help="where the archives are made, and left: on the disk in question"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="check-"))
    results = {}
    try:
        for name in arguments.sets.split(","):
            if not (folder / name).exists():
                make(folder / name, SETS[name])
            results[name] = measure(folder / name, arguments.rounds)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)
    ratios = {name: statistics.median(b / c for b, c, _ in rounds) for name, rounds in results.items()}
    if arguments.json:
        print(json.dumps({"rounds": results, "ratios": ratios, "met": min(ratios.values()) >= BAR}))
        return
    print(f"{'set':<20} {'bare loop':>11} {'check':>11} {'ratio':>6}   each round")
    for name, rounds in results.items():
        rates = [
            statistics.median(size / seconds[turn] / 1e6 for *seconds, size in rounds) for turn in (0, 1)
        ]
        each = " ".join(f"{b / c:.2f}" for b, c, _ in rounds)
        print(
            f"{SETS[name].title:<20} {rates[0]:>6.0f} MB/s {rates[1]:>6.0f} MB/s {ratios[name]:>6.2f}   {each}"
        )
    print(f"bar of {BAR}: {'met' if min(ratios.values()) >= BAR else 'MISSED'}")


if __name__ == "__main__":
    main()
