"""`stowkeeper serve` with HTTP and a token that may store, as a process of its own: what programs of others store into."""

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stowkeeper.archive import listing
from support import forked
from support.bundled_files import file_meta
from support.command_line import environment, program
from support.job_engine_thread import wait_until
from support.server_process import (
    ServerProcess,
    association_rows,
    kept_instances,
    looking_into,
    serve_process,
)

_HTTP = re.compile(r"^stowkeeper ready .* http=(\S+):([0-9]+) ", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class StowServer:
    """A running server, and the token that every request to it needs."""

    process: ServerProcess
    token: str
    port: int

    @property
    def url(self) -> str:
        """Return its address, without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def dicomweb(self) -> str:
        """Return the address of its DICOMweb services, as clients want it."""
        return f"{self.url}/dicom-web"

    def kept(self, *sop_instance_uids: str) -> dict[str, bytes]:
        """Wait until instances are listed, compare each with its receipt, and return its data set as it lies in its file."""
        archive = self.process.archive
        wait_until(lambda: self.listed() >= set(sop_instance_uids), "instances")
        rows = kept_instances(archive)
        return {uid: data_set_in(archive / rows[uid]["path"]) for uid in sop_instance_uids}

    def listed(self) -> set[str]:
        """Return the UIDs of what is listed now."""
        with looking_into(self.process.archive) as reader:
            return {row["sop_instance_uid"] for row in listing.instances(reader.database)}

    def addresses(self, count: int) -> list[str]:
        """Wait until the ledger has so many requests; return the address that each came from, oldest first."""
        archive = self.process.archive
        wait_until(lambda: len(association_rows(archive)) >= count, f"{count} requests")
        return [row["peer_address"] for row in association_rows(archive)]


def data_set_in(path: Path) -> bytes:
    """Return the data set of a Part 10 file, cut out without any library."""
    content = path.read_bytes()
    return content[file_meta(content)[1] :]


@contextlib.contextmanager
def stow_serving(folder: Path, settings: str = "") -> Iterator[StowServer]:
    """Serve for the length of a block, on free ports; the archive is in `folder/archive`."""
    added = forked.run(
        program("token", "add", "viewer", "--role", "read", "--store", "--archive", folder / "archive"),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert added.returncode == 0, added.stderr
    with serve_process(folder, "--http-port", "0", settings=settings) as process:
        found = _HTTP.search(process.log_text())
        assert found is not None, process.log_text()
        yield StowServer(process=process, token=added.stdout.strip(), port=int(found[2]))
