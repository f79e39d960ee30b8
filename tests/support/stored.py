"""What an archive, or a folder of another receiver, holds: by transfer syntax, instance and bytes of the data set."""

import subprocess
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from pathlib import Path

import pydicom
from blake3 import blake3

from stowkeeper.archive import listing
from stowkeeper.archive.examine import Finding, examine
from stowkeeper.archive.ledger import RequestRecord, requests_of
from support.bundled_files import file_meta
from support.peers import program_path
from support.server_process import looking_into

Content = tuple[str, str, str]
"""Transfer syntax UID, SOP Instance UID, and the digest of the data set's bytes."""


def content_of(path: Path) -> Content:
    """Return what a Part 10 file holds, read without any library."""
    content = path.read_bytes()
    meta, start = file_meta(content)
    syntax, instance = (meta[tag].decode("ascii").rstrip("\0 ") for tag in (0x00020010, 0x00020003))
    return syntax, instance, blake3(content[start:]).hexdigest()


def kept_files(archive: Path) -> list[Path]:
    """Return the files on the archive's shelves, after comparing each with its receipt."""
    found = sorted((archive / "objects").rglob("*.dcm"))
    with looking_into(archive) as reader:
        for path in found:
            examination = examine(reader.files, str(path))
            assert examination.finding is Finding.WHOLE, f"{path}: {examination.words}"
            assert examination.receipt is not None
            assert content_of(path)[2] == examination.receipt.digest
    return found


def request_lines(archive: Path) -> list[RequestRecord]:
    """Return every line on C-STORE in the ledger."""
    with looking_into(archive) as reader:
        ids = [row["association_id"] for row in listing.associations(reader.database)]
        with reader.database.read() as connection:
            return [line for association_id in ids for line in requests_of(connection, association_id)]


def check_everything_kept(archive: Path, sent: AbstractSet[Content]) -> dict[str, str]:
    """Check that all that was sent is kept, byte for byte, but for what the ledger says was refused.

    Returns the reasons of what was refused by SOP Instance UID. `sent` is what another receiver got.
    """
    kept = {content_of(path) for path in kept_files(archive)}
    lines = request_lines(archive)
    refused = {line.sop_instance_uid: line.error_comment for line in lines if line.outcome == "refused"}
    assert {line.outcome for line in lines} <= {"kept", "refused"}
    assert kept - sent == set(), "bytes that nobody sent"
    unexplained = {instance for _, instance, _ in sent - kept} - set(refused)
    assert not unexplained, f"neither kept nor refused: {unexplained}"
    assert all(refused.values()), "a refusal without a reason"
    return refused


def check_readable(paths: Iterable[Path]) -> None:
    """Check that pydicom and dcmdump read files to their end."""
    files = [str(path) for path in paths]
    assert files
    for path in files:
        assert len(pydicom.dcmread(path)) > 0
    run = subprocess.run(
        [program_path("dcmdump"), "-q", "-M", *files], capture_output=True, timeout=60, check=False
    )
    if run.returncode:
        failed = [
            path
            for path in files
            if subprocess.run(
                [program_path("dcmdump"), "-q", "-M", path], capture_output=True, timeout=60, check=False
            ).returncode
        ]
        raise AssertionError(f"dcmdump cannot read {failed}: {run.stderr.decode()[-1000:]}")
