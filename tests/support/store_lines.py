"""Store requests by hand: heads and chunks, and a server on an archive that takes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stowkeeper.archive.archive import Archive
from support.archive_server import associations, instances, open_archive
from support.job_engine_thread import wait_until
from support.stow_bodies import RELATED
from support.web_server import Rig, WebThread, web_rig, web_serving


class StoreServer:
    """A server on an archive, and what is kept there."""

    def __init__(self, rig: Rig, thread: WebThread) -> None:
        self.rig = rig
        self.thread = thread
        assert isinstance(rig.archive, Archive)
        self.archive = rig.archive

    def kept(self) -> list[str]:
        return sorted(row["sop_instance_uid"] for row in instances(self.archive))

    def line(self) -> dict[str, object]:
        """Return the one request of the ledger, once it is there."""
        wait_until(lambda: associations(self.archive), "the line of the request")
        (line,) = associations(self.archive)
        return line


@contextmanager
def store_server(folder: Path) -> Iterator[StoreServer]:
    """Serve HTTP on an archive of its own for the length of a block."""
    archive = open_archive(folder)
    try:
        with web_rig(folder, archive=archive) as rig, web_serving(rig.application) as thread:
            yield StoreServer(rig, thread)
    finally:
        archive.close()


def head(
    length: int | None,
    *fields: str,
    path: str = "/dicom-web/studies",
    version: str = "1.1",
    content_type: str = RELATED,
) -> bytes:
    """Return the head of a store request; without a length its body comes chunked."""
    body = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [
        f"POST {path} HTTP/{version}",
        "Host: localhost",
        f"Content-Type: {content_type}",
        body,
        *fields,
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)
