"""A client of a server that stores, and the archive behind it."""

from typing import Any

import httpx

from stowkeeper.archive.archive import Archive
from support.archive_server import associations, instances
from support.job_engine_thread import wait_until
from support.stow_bodies import RELATED, Answer, answer_of
from support.web_server import Rig

STUDIES = "/dicom-web/studies"
PARTS = {"Content-Type": RELATED}


class Storing:
    """Posts to a server, and looks at what is kept."""

    def __init__(self, client: httpx.Client, rig: Rig) -> None:
        assert isinstance(rig.archive, Archive)
        self.client = client
        self.rig = rig
        self.archive = rig.archive

    def post(self, content: Any, headers: dict[str, str] = PARTS, path: str = STUDIES) -> tuple[int, Answer]:
        """Post a body whose answer is a store response."""
        response = self.client.post(path, content=content, headers=headers)
        assert response.headers["content-type"] == "application/dicom+json", response.text
        return response.status_code, answer_of(response.content)

    def problem(self, content: Any, headers: dict[str, str], path: str = STUDIES) -> tuple[int, str]:
        """Post a body whose answer is a problem; return its status and words."""
        response = self.client.post(path, content=content, headers=headers)
        assert response.headers["content-type"] == "application/problem+json", response.text
        assert response.json()["status"] == response.status_code
        return response.status_code, response.json()["detail"]

    def line(self) -> dict[str, Any]:
        """Return the one request of the ledger; it is written after the answer, so it is waited for."""
        wait_until(lambda: associations(self.archive), "the line of the request")
        (line,) = associations(self.archive)
        return line

    def kept(self) -> list[str]:
        """Return the UIDs of what is kept, each read from the medium."""
        return sorted(row["sop_instance_uid"] for row in instances(self.archive))
