"""The whole server in this process, with the routes in Orthanc's shape: archive, associations, jobs, commitment, HTTP."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx

from stowkeeper.archive.archive import Archive
from stowkeeper.database.engine import Database
from stowkeeper.jobs.engine import JobEngine
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.services.commitment.checking_step import CheckTools
from stowkeeper.services.commitment.external_policies import policy_named
from stowkeeper.services.commitment.options import CommitmentOptions
from stowkeeper.services.commitment.provider_job import CommitmentJob
from stowkeeper.services.commitment.reporting import Reporter
from stowkeeper.services.commitment.request_job import CommitmentRequestJob
from stowkeeper.services.commitment.requests import CommitmentService
from stowkeeper.services.dialing import OwnSide
from stowkeeper.services.peers import Peer, PeerBook
from stowkeeper.services.storage import StorageService
from stowkeeper.services.store_job import StoreJob, StoreOptions
from stowkeeper.upperlayer.negotiation import is_storage
from stowkeeper.web import application, orthanc
from stowkeeper.web.credentials import add_credential, make_credential
from stowkeeper.web.orthanc_errors import orthanc_response
from stowkeeper.web.roles import Role
from stowkeeper.web.services import ServerFacts, WebOptions, WebServices
from support.archive_server import RULES, open_archive, settle
from support.instances import Instance, encode_element, make_instance
from support.job_engine_thread import engine_running
from support.quick_web import PLAIN_HTTP, quick_routes, quick_secrets
from support.server_thread import OPTIONS, serving
from support.web_server import web_serving

WAIT_SECONDS = 30.0
JOB_PAUSES = StoreOptions(back_off_seconds=0.01, write_seconds=0.02)


def no_tls() -> TLSContext:
    """Complain: no peer is called over TLS."""
    raise AssertionError("no peer is called over TLS here")


def part10_of(instance: Instance) -> bytes:
    """Return an instance as a Part 10 file."""
    meta = b"".join(
        (
            encode_element(0x00020001, b"OB", b"\0\1"),
            encode_element(0x00020002, b"UI", instance.sop_class_uid.encode()),
            encode_element(0x00020003, b"UI", instance.sop_instance_uid.encode()),
            encode_element(0x00020010, b"UI", instance.transfer_syntax_uid.encode()),
            encode_element(0x00020012, b"UI", b"1.2.3.4"),
        )
    )
    length = encode_element(0x00020000, b"UL", len(meta).to_bytes(4, "little"))
    return bytes(128) + b"DICM" + length + meta + instance.data


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was answered: the status, the body as JSON where it is some, else its bytes, and the fields."""

    status: int
    value: Any
    headers: httpx.Headers


@dataclass(slots=True)
class OrthancRig:
    """A running server, and a client of its HTTP."""

    archive: Archive
    services: WebServices
    client: httpx.Client
    port: int
    engine: JobEngine | None
    forget_credentials: Callable[[], None]

    def token(self, name: str, role: Role, *, may_store: bool | None = None) -> dict[str, str]:
        """Add a credential; return the field that presents it."""
        with quick_secrets():
            new = make_credential(name, role, may_store=may_store)
        with self.database.write() as transaction:
            add_credential(transaction, new, who="a test")
        self.forget_credentials()
        return {"Authorization": f"Bearer {new.secret}"}

    @property
    def database(self) -> Database:
        """Return the archive's database."""
        return self.archive.database

    def ask(self, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        """Make a request; a body that is no bytes is sent as JSON, without saying so, as Orthanc's clients do."""
        content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        response = self.client.request(method, path, content=content, **more)
        is_json = response.headers.get("content-type", "").startswith("application/json")
        return Answer(
            status=response.status_code,
            value=response.json() if is_json else response.content,
            headers=response.headers,
        )

    def get(self, path: str) -> Any:
        """Return what stands at a path; it has to be answered 200."""
        answer = self.ask("GET", path)
        assert answer.status == 200, answer
        return answer.value

    def post(self, path: str, body: Any = b"") -> Any:
        """Post something that has to be answered 200; return the answer."""
        answer = self.ask("POST", path, body)
        assert answer.status == 200, answer
        return answer.value

    def keep(self, *numbers: int, **more: Any) -> list[str]:
        """Put instances in, and return their ids."""
        return [self.upload(make_instance(number, **more)) for number in numbers]

    def upload(self, instance: Instance) -> str:
        """Put one instance in, and return its id."""
        return str(self.post("/instances", part10_of(instance))["ID"])

    def wait(self, look: Callable[[], Any], what: str = "") -> Any:
        """Wait until something is there: looks cost what is waited for its processor, so they become rarer."""
        end = time.monotonic() + WAIT_SECONDS
        pause = 0.01
        while not (found := look()):
            assert time.monotonic() < end, f"waited in vain for {what or look}"
            time.sleep(pause)
            pause = min(pause * 1.25, 0.1)
        return found

    def wait_for_job(self, job_id: str, *states: str) -> dict[str, Any]:
        """Wait until a job is in one of some of Orthanc's states; return it."""

        def look() -> Any:
            job = self.get(f"/jobs/{job_id}")
            return job if job["State"] in states else None

        found: dict[str, Any] = self.wait(look, f"{states} of {job_id}")
        return found

    def wait_for_report(self, path: str) -> dict[str, Any]:
        """Wait until a transaction of ours is no longer pending; return what is said of it."""

        def look() -> Any:
            report = self.get(path)
            return report if report["Status"] != "Pending" else None

        found: dict[str, Any] = self.wait(look, f"the report of {path}")
        return found

    def settle(self) -> None:
        """Wait until everything that was received is listed."""
        settle(self.archive)


@contextlib.contextmanager
def orthanc_rig(
    root: Path,
    *peers: Peer,
    runs_jobs: bool = True,
    options: WebOptions | None = None,
    commitment: CommitmentOptions | None = None,
    ae_title: str = "STOWKEEPER",
    archive_options: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Iterator[OrthancRig]:
    """Run the server on an archive in a folder for the length of a block."""
    chosen = commitment or CommitmentOptions(grace_seconds=0.0)
    engines: list[JobEngine] = []

    def wake() -> None:
        for engine in engines:
            engine.wake()

    with contextlib.ExitStack() as stack:
        archive = open_archive(root, **(archive_options or {}))
        stack.callback(archive.close)
        book = PeerBook(peers, archive.database)
        requests = CommitmentService(archive.database, book, wake=wake)
        requests.start()
        stack.callback(requests.stop)
        service = StorageService(archive, RULES, requests=requests)
        thread = stack.enter_context(serving(service, options=OPTIONS))
        own = OwnSide(ae_title=ae_title, tls=no_tls)
        if runs_jobs:
            kinds = _kinds(archive, book, own, thread, chosen)
            engines.append(stack.enter_context(engine_running(archive.database, root, kinds)))
        services = WebServices(
            archive=archive,
            peers=book,
            facts=ServerFacts(
                version="1.2.3",
                ae_title=ae_title,
                dicom_host="127.0.0.1",
                dicom_port=thread.port,
                started_at="2026-01-02T03:04:05.678901Z",
            ),
            jobs_wake=wake,
            associations=thread.server.open_associations,
            commitment=requests,
            calling_tls=no_tls,
        )
        routers = [make(services) for make in orthanc.ROUTERS if make not in application.ROUTERS]
        stack.enter_context(patch.object(application, "ROOT_ERRORS", orthanc_response))
        with quick_routes(), quick_secrets():
            built = application.build_application(services, options or WebOptions(), routers=routers)
        web = stack.enter_context(web_serving(built))
        client = stack.enter_context(
            httpx.Client(
                base_url=web.url, headers=dict(headers or {}), timeout=WAIT_SECONDS, verify=PLAIN_HTTP
            )
        )
        engine = engines[0] if engines else None
        forget = built.state.credential_book.forget
        yield OrthancRig(archive, services, client, thread.port, engine, forget)


def _kinds(
    archive: Archive, book: PeerBook, own: OwnSide, thread: Any, options: CommitmentOptions
) -> Callable[[], Sequence[Any]]:
    def make() -> Sequence[Any]:
        tools = CheckTools(
            archive=archive,
            peers=book,
            policy=policy_named(
                options.policy, options.policy_seconds, archive.files, archive.root, archive.database
            ),
            options=options,
            accepts_class=lambda _title, _address, uid: is_storage(uid),
            open_associations=thread.server.open_associations,
        )
        reporter = Reporter(
            database=archive.database,
            peers=book,
            own=own,
            options=options,
            invoke=thread.server.invoke,
            open_associations=thread.server.open_associations,
        )
        return [
            CommitmentJob(tools=tools, reporter=reporter),
            CommitmentRequestJob(archive.database, book, own),
            StoreJob(archive, book, own, options=JOB_PAUSES),
        ]

    return make
