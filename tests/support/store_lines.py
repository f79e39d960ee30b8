"""Store requests by hand: heads and chunks, and a server on an archive that takes them."""

from stowkeeper.archive.archive import Archive
from support.archive_server import associations, instances
from support.job_engine_thread import wait_until
from support.stow_bodies import RELATED
from support.web_server import Rig, WebThread


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
