"""nginx and Caddy before a real server, configured as docs/proxy.md says: bodies pass, and the right client is believed."""

import contextlib
import json
import shutil
import ssl
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from support.instances import Instance, make_instance
from support.orthanc_rig import part10_of
from support.proxies import NAME, printed, proxying
from support.stow_bodies import RELATED, answer_of, body_of, in_pieces
from support.stow_server import StowServer, stow_serving
from support.tls_fixtures import TLSFiles

pytestmark = [
    pytest.mark.slow,
    pytest.mark.peer("openssl"),
    pytest.mark.parametrize(
        "proxy",
        [
            pytest.param("nginx", marks=pytest.mark.peer("nginx")),
            pytest.param("caddy", marks=pytest.mark.peer("caddy")),
        ],
    ),
]

CLIENT = "127.0.0.2"
"""Where requests come from: another address of the loopback interface than the proxies'."""
PROXY = "127.0.0.1"
CLAIMED = "203.0.113.9"
CLAIMS = {"X-Forwarded-For": CLAIMED, "X-Real-IP": CLAIMED}
"""What a client says of itself, and nobody believes."""
RETRIEVE_URL = f"https://{NAME}/dicom-web"
PARTS = 5
PART_BYTES = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A way to a server through a proxy."""

    client: httpx.Client
    server: StowServer

    def post(self, content: bytes | Iterable[bytes], **fields: str) -> httpx.Response:
        """Store through the proxy; '' leaves a field out."""
        usual = {"Authorization": f"Bearer {self.server.token}", "Content-Type": RELATED, "Host": NAME}
        return self.client.post(
            "/dicom-web/studies",
            content=content,
            headers={name: value for name, value in (usual | fields).items() if value},
            extensions={"sni_hostname": NAME},
        )


@contextlib.contextmanager
def through(proxy: str, server: StowServer, folder: Path, tls_files: TLSFiles) -> Iterator[Route]:
    """Give the way through a proxy to a server."""
    identity = tls_files.authority.issue("proxy", key="rsa", names=(f"DNS:{NAME}",))
    with proxying(proxy, folder, server.port, identity) as (_, port):
        # A body that nginx wrote to a disk of its own first would have no place there.
        shutil.rmtree(folder / proxy / "body", ignore_errors=True)
        trusting = ssl.create_default_context(cafile=tls_files.authority.certificate)
        transport = httpx.HTTPTransport(verify=trusting, local_address=CLIENT)
        with httpx.Client(base_url=f"https://{PROXY}:{port}", transport=transport, timeout=60) as client:
            yield Route(client=client, server=server)


def large_instances(study: str) -> list[Instance]:
    """Return instances that make a body of 50 MB."""
    first = int(study.rpartition(".")[2]) * 100
    return [make_instance(first + number, study=study, size=PART_BYTES) for number in range(PARTS)]


def test_bodies_of_50_mb_pass_and_the_client_is_told(proxy: str, tmp_path: Path, tls_files: TLSFiles) -> None:
    settings = f'{printed("toml")}\n[dicomweb]\nretrieve_url = "{RETRIEVE_URL}"\n'
    with (
        stow_serving(tmp_path, settings) as server,
        through(proxy, server, tmp_path, tls_files) as route,
    ):
        for study, in_chunks in (("1.2.1", False), ("1.2.2", True)):
            sent = large_instances(study)
            body = body_of(*map(part10_of, sent))
            response = route.post(in_pieces(body, 100_000) if in_chunks else body, **CLAIMS)
            sent_fields = response.request.headers
            assert ("content-length" in sent_fields, "transfer-encoding" in sent_fields) == (
                not in_chunks,
                in_chunks,
            )
            assert response.status_code == 200, response.text
            assert answer_of(response.content).stored == [one.sop_instance_uid for one in sent]
            (url,) = json.loads(response.content)["00081190"]["Value"]
            assert url == f"{RETRIEVE_URL}/studies/{study}"
            kept = server.kept(*(one.sop_instance_uid for one in sent))
            assert kept == {one.sop_instance_uid: one.data for one in sent}
        assert server.addresses(2) == [CLIENT, CLIENT]
        # Refusals come through whole; without a credential nobody is served.
        small = body_of(part10_of(make_instance(1)))
        assert route.post(small, Authorization="").status_code == 401
        refused = route.post(small, **{"Content-Type": "text/plain"})
        assert (refused.status_code, refused.headers["content-type"]) == (415, "application/problem+json")


def test_the_proxy_is_not_believed_unless_it_is_trusted(
    proxy: str, tmp_path: Path, tls_files: TLSFiles
) -> None:
    settings = printed("toml").replace("trusted_proxies = ", "# ")
    body = body_of(part10_of(make_instance(1)))
    with (
        stow_serving(tmp_path, settings) as server,
        through(proxy, server, tmp_path, tls_files) as route,
    ):
        assert route.post(body, **CLAIMS).status_code == 200
        assert server.addresses(1) == [PROXY]


def test_what_a_client_says_of_itself_is_believed_neither_through_the_proxy_nor_past_it(
    proxy: str, tmp_path: Path, tls_files: TLSFiles
) -> None:
    body = body_of(part10_of(make_instance(1)))
    with (
        stow_serving(tmp_path, printed("toml")) as server,
        through(proxy, server, tmp_path, tls_files) as route,
    ):
        assert route.post(body, Forwarded=f"for={CLAIMED}").status_code == 200
        transport = httpx.HTTPTransport(local_address=CLIENT)
        with httpx.Client(transport=transport) as direct:
            fields = {"Authorization": f"Bearer {server.token}", "Content-Type": RELATED, **CLAIMS}
            answer = direct.post(f"{server.dicomweb}/studies", content=body, headers=fields)
            assert answer.status_code == 200, answer.text
        assert server.addresses(2) == [CLIENT, CLIENT]
