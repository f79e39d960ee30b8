"""The real web server on a free port of the loopback interface, its event loop in a thread of its own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.net.handlers import AssociationFacts
from stowkeeper.services.peers import Peer, PeerBook
from stowkeeper.web.application import build_application
from stowkeeper.web.credentials import NewCredential, add_credential, make_credential
from stowkeeper.web.roles import Role
from stowkeeper.web.server import ServerTLS, WebServer
from stowkeeper.web.services import ServerFacts, WebOptions, WebServices
from support.archive_server import open_archive
from support.quick_web import PLAIN_HTTP, quick_routes, quick_secrets
from support.server_thread import LOOPS, WAIT_SECONDS

Result = TypeVar("Result")

FACTS = ServerFacts(
    version="1.2.3",
    ae_title="STOWKEEPER",
    dicom_host="127.0.0.1",
    dicom_port=11112,
    started_at="2026-01-02T03:04:05.678901Z",
)


@dataclass(kw_only=True)
class Rig:
    """What a web server works with. `woken` counts how often the engine of the jobs was woken."""

    archive: ArchiveReader
    services: WebServices
    application: FastAPI
    associations: list[AssociationFacts]
    woken: list[None] = field(default_factory=list)

    def token(self, name: str = "tester", role: Role = Role.ADMIN, *, may_store: bool | None = None) -> str:
        """Add a credential; return its token."""
        with quick_secrets():
            return self._add(make_credential(name, role, may_store=may_store))

    def password(self, name: str, role: Role, password: str, *, may_store: bool | None = None) -> None:
        """Add a credential with a password."""
        with quick_secrets():
            self._add(make_credential(name, role, may_store=may_store, password=password))

    def _add(self, new: NewCredential) -> str:
        with self.archive.database.write() as transaction:
            add_credential(transaction, new, who="a test")
        self.application.state.credential_book.forget()
        return new.secret


def bearer(token: str) -> dict[str, str]:
    """Return the field that presents a token."""
    return {"Authorization": f"Bearer {token}"}


class WebThread:
    """A running web server. `faults` are exceptions that reached the event loop: there should be none."""

    def __init__(self, application: ASGIApp, loop: str = "asyncio", **changes: Any) -> None:
        self._loop = LOOPS[loop]()
        self.faults: list[dict[str, Any]] = []
        self._loop.set_exception_handler(lambda _loop, context: self.faults.append(context))
        self._thread = threading.Thread(target=self._loop.run_forever, name="web", daemon=True)
        self._thread.start()
        self.tls: ServerTLS | None = changes.get("tls")
        self.server = WebServer(application, changes.pop("host", "127.0.0.1"), 0, **changes)
        self.host, self.port = self.run(self.server.start())

    @property
    def url(self) -> str:
        """Return the address of the server."""
        return f"{'http' if self.tls is None else 'https'}://{self.host}:{self.port}"

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine on the server's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(WAIT_SECONDS)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds on the server's loop."""

        async def waiting() -> None:
            async with asyncio.timeout(WAIT_SECONDS):
                while not condition():  # noqa: ASYNC110 - what is awaited is any state of the product
                    await asyncio.sleep(0.001)

        self.run(waiting())

    def close(self) -> None:
        """End it."""
        self.run(self.server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS)
        self._loop.close()


@contextlib.contextmanager
def web_serving(application: ASGIApp, loop: str = "asyncio", **changes: Any) -> Iterator[WebThread]:
    """Serve an application for the length of a block; check that nothing reached its loop unhandled."""
    thread = WebThread(application, loop, **changes)
    try:
        yield thread
    finally:
        thread.close()
    assert thread.faults == []


@contextlib.contextmanager
def web_rig(
    root: Path,
    *,
    options: WebOptions | None = None,
    routers: Sequence[APIRouter] = (),
    peers: Sequence[Peer] = (),
    archive: ArchiveReader | None = None,
    **more: Any,
) -> Iterator[Rig]:
    """Put the real application together on an archive, which is closed at the end if it was opened here."""
    opened = archive if archive is not None else open_archive(root)
    associations: list[AssociationFacts] = []
    woken: list[None] = []
    try:
        services = WebServices(
            archive=opened,
            peers=PeerBook(peers, opened.database),
            facts=FACTS,
            jobs_wake=lambda: woken.append(None),
            associations=lambda: list(associations),
            **more,
        )
        with quick_routes(), quick_secrets():
            application = build_application(services, options or WebOptions(), routers=routers)
        yield Rig(
            archive=opened,
            services=services,
            application=application,
            associations=associations,
            woken=woken,
        )
    finally:
        if archive is None:
            opened.close()


@contextlib.contextmanager
def web_client(
    root: Path, *, headers: dict[str, str] | None = None, **changes: Any
) -> Iterator[tuple[httpx.Client, Rig]]:
    """Serve an archive and give a client of the server; for tests of routes."""
    with (
        web_rig(root, **changes) as rig,
        web_serving(rig.application) as thread,
        httpx.Client(
            base_url=thread.url, headers=headers or {}, timeout=WAIT_SECONDS, verify=PLAIN_HTTP
        ) as client,
    ):
        yield client, rig
