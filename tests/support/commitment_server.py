"""Storage commitment as provider, put together of the real parts in this process: archive, server, service, job engine."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select, update

from stowkeeper.archive.archive import Archive
from stowkeeper.database.engine import Database, Transaction
from stowkeeper.database.schema import job_lanes, jobs
from stowkeeper.dicom.commitment_information import EventInformation, decode_event_information
from stowkeeper.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN
from stowkeeper.jobs.engine import JobEngine
from stowkeeper.jobs.states import JobState
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.checking_step import CheckTools
from stowkeeper.services.commitment.commitment_values import (
    Commitment,
    CommitmentInstance,
    CommitmentReport,
    CommitmentRole,
    CommitmentState,
)
from stowkeeper.services.commitment.external_policies import policy_named
from stowkeeper.services.commitment.options import CommitmentOptions
from stowkeeper.services.commitment.policies import CheckPolicy
from stowkeeper.services.commitment.provider_job import CommitmentJob, classes_taken_by
from stowkeeper.services.commitment.reporting import Reporter
from stowkeeper.services.commitment.requests import CommitmentService
from stowkeeper.services.dialing import OwnSide
from stowkeeper.services.peers import Peer, PeerBook
from stowkeeper.services.storage import StorageService
from support.archive_server import RULES, open_archive, settle
from support.commitment_user import named
from support.instances import Instance, make_instance
from support.job_engine_thread import engine_running
from support.raw_commitment import action_data, ask, push_model_context
from support.raw_peer import Context, RawPeer
from support.scripted_acceptor import Received
from support.server_thread import OPTIONS, ServerThread, serving

SECONDS_MAX = 30.0
UID = "1.2.840.1"


def no_tls() -> TLSContext:
    """Say that nobody is to be called over TLS."""
    raise AssertionError("no peer of these tests is called over TLS")


@dataclass(slots=True)
class CommitmentServer:
    """A running provider. `calls` are those of its report attempts that reached the network of this machine."""

    archive: Archive
    service: StorageService
    commitments: CommitmentService
    peers: PeerBook
    thread: ServerThread
    engine: JobEngine | None = None

    @property
    def port(self) -> int:
        """Return where it listens."""
        return self.thread.port

    @property
    def database(self) -> Database:
        """Return the archive's database."""
        return self.archive.database

    # What is kept.

    def keep(
        self, *numbers: int, calling: bytes = b"SCANNER", source: str = "", **more: Any
    ) -> list[Instance]:
        """Store instances by C-STORE, and wait until they are listed. `source` is an address of loopback to send from."""
        sent = [make_instance(number, **more) for number in numbers]
        self.store(sent, calling=calling, source=source)
        settle(self.archive)
        return sent

    def store(self, instances: Sequence[Instance], *, calling: bytes = b"SCANNER", source: str = "") -> None:
        """Store instances by C-STORE; each has to be answered Success."""
        classes = sorted({instance.sop_class_uid for instance in instances})
        contexts = [
            Context(
                context_id=2 * number + 1, abstract_syntax=uid, transfer_syntaxes=(EXPLICIT_VR_LITTLE_ENDIAN,)
            )
            for number, uid in enumerate(classes)
        ]
        with RawPeer(self.port, source=source) as peer:
            peer.associate(*contexts, calling=calling)
            for instance in instances:
                context_id = 2 * classes.index(instance.sop_class_uid) + 1
                answer = peer.store(
                    instance.sop_instance_uid,
                    instance.data,
                    context_id=context_id,
                    sop_class_uid=instance.sop_class_uid,
                )
                assert answer.status == 0, answer.comment
            peer.release()

    def path_of(self, sop_instance_uid: str) -> Path:
        """Return the path of the newest file of an instance."""
        return Path(self.archive.root, self.version_of(sop_instance_uid).path)

    def version_of(self, sop_instance_uid: str) -> Any:
        """Return the newest version of an instance."""
        from stowkeeper.archive.versions import find_versions

        with self.database.read() as connection:
            return find_versions(connection, [sop_instance_uid])[sop_instance_uid][-1]

    def request(
        self,
        uid: str = UID,
        numbers: Sequence[int] = (1,),
        *,
        calling: bytes = b"SCANNER",
        called: bytes = b"STOWKEEPER",
        source: str = "",
    ) -> None:
        """Ask for instances on an association of its own; it has to be answered Success."""
        with RawPeer(self.port, source=source) as peer:
            peer.associate(push_model_context(), calling=calling, called=called)
            assert ask(peer, action_data(uid, named(*numbers))).status == 0
            peer.release()

    # What is known of a transaction.

    def find(self, uid: str) -> Commitment | None:
        """Return a transaction."""
        with self.database.read() as connection:
            return rows.find(connection, CommitmentRole.PROVIDER, uid)

    def commitment(self, uid: str) -> Commitment:
        """Return a transaction that there has to be."""
        found = self.find(uid)
        assert found is not None
        return found

    def instances(self, uid: str) -> list[CommitmentInstance]:
        """Return the instances of a transaction."""
        key = self.commitment(uid).commitment_key
        with self.database.read() as connection:
            return rows.instances_of(connection, key, limit=100_000)

    def reports(self, uid: str) -> list[CommitmentReport]:
        """Return the attempts to report a transaction."""
        key = self.commitment(uid).commitment_key
        with self.database.read() as connection:
            return rows.reports_of(connection, key)

    def wait_for_state(self, uid: str, *states: CommitmentState) -> Commitment:
        """Wait until a transaction is in one of some states."""
        return self.wait(
            lambda: found if (found := self.find(uid)) is not None and found.state in states else None,
            f"{uid} to be {' or '.join(states)}",
        )

    def wait_for_job(self, uid: str, *states: JobState) -> Any:
        """Wait until the job of a transaction is in one of some states."""
        from stowkeeper.jobs import rows as job_rows

        def look() -> Any:
            commitment = self.find(uid)
            if commitment is None:
                return None
            with self.database.read() as connection:
                job = job_rows.find(connection, commitment.job_id)
            return job if job is not None and job.state in states else None

        return self.wait(look, f"the job of {uid} to be {' or '.join(states)}")

    def wait(self, look: Callable[[], Any], what: str) -> Any:
        """Wait until something is there."""
        end = time.monotonic() + SECONDS_MAX
        while not (found := look()):
            assert time.monotonic() < end, f"waited in vain for {what}"
            time.sleep(0.01)
        return found

    def lanes(self) -> dict[str, str]:
        """Return the lanes that are blocked, each with the words why."""
        with self.database.read() as connection:
            return {row.lane: row.words for row in connection.execute(select(job_lanes))}

    def hurry(self) -> None:
        """Let every job that waits for its time be due now, whatever its lane waits for.

        A job that is at work is waited for first: what it writes at its end would undo this.
        """
        self.wait(self._hurried, "every job to rest")
        if self.engine is not None:
            self.engine.wake()

    def _hurried(self) -> bool:
        with self.database.write() as transaction:
            if _is_one_running(transaction):
                return False
            transaction.execute(delete(job_lanes))
            transaction.execute(
                update(jobs)
                .where(jobs.c.state.in_([JobState.PENDING, JobState.RETRY]))
                .values(due_at="2020-01-01T00:00:00.000000Z")
            )
        return True

    def fail_often(self, since: str = "") -> None:
        """Let it seem that every job has failed some times in a row, for ages; `since` is when the request came, or another time.

        A job that is at work is waited for first: what it writes at its end would undo this.
        """
        failing = {
            "since": since or self.commitment(UID).requested_at,
            "seconds": 1e9,
            "last": seconds_ago(1),
        }
        checkpoint = func.json_set(jobs.c.checkpoint, "$.failing", func.json(json.dumps(failing)))

        def failed() -> bool:
            with self.database.write() as transaction:
                if _is_one_running(transaction):
                    return False
                transaction.execute(update(jobs).values(failures=5, checkpoint=checkpoint))
            return True

        self.wait(failed, "every job to rest")

    def set_back(self, uid: str, **columns: Any) -> None:
        """Write columns of a transaction, such as times that lie longer ago."""
        from stowkeeper.database.schema import commitments

        with self.database.write() as transaction:
            transaction.execute(
                update(commitments).where(commitments.c.transaction_uid == uid).values(**columns)
            )


def peer_at(port: int, name: str = "scanner", ae_title: str | None = "SCANNER", **more: Any) -> Peer:
    """Return a peer at a port of loopback that is not waited for long."""
    values: dict[str, Any] = {"connect_seconds": 2.0, "answer_seconds": 2.0, "host": "127.0.0.1"}
    return Peer(name=name, ae_title=ae_title, port=port, **(values | more))


def told_of(received: Received) -> EventInformation:
    """Read a report that a scripted acceptor got."""
    return decode_event_information(received.data_set, received.context.transfer_syntax)


def seconds_ago(seconds: float) -> str:
    """Return a time that long ago, as rows have it."""
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


@contextlib.contextmanager
def commitment_serving(
    root: Path,
    *peers: Peer,
    options: CommitmentOptions | None = None,
    policy: CheckPolicy | None = None,
    runs_jobs: bool = True,
    knows_open_associations: bool = True,
    archive_options: dict[str, Any] | None = None,
    **changes: Any,
) -> Iterator[CommitmentServer]:
    """Serve storage and storage commitment from an archive in a folder for the length of a block."""
    chosen = options or CommitmentOptions(grace_seconds=0.0)
    archive = open_archive(root, **(archive_options or {}))
    engines: list[JobEngine] = []
    try:
        book = PeerBook(peers, archive.database)
        commitments = CommitmentService(
            archive.database,
            book,
            refusal=archive.admission.association_refusal,
            wake=lambda: [engine.wake() for engine in engines] and None,
        )
        commitments.start()
        service = StorageService(archive, RULES, requests=commitments)
        with serving(service, options=OPTIONS, **changes) as thread:
            server = CommitmentServer(archive, service, commitments, book, thread)
            tools = CheckTools(
                archive=archive,
                peers=book,
                policy=policy
                or policy_named(
                    chosen.policy, chosen.policy_seconds, archive.files, archive.root, archive.database
                ),
                options=chosen,
                accepts_class=classes_taken_by(lambda: service.rules),
                open_associations=thread.server.open_associations if knows_open_associations else None,
            )
            reporter = Reporter(
                database=archive.database,
                peers=book,
                own=OwnSide(ae_title="STOWKEEPER", tls=no_tls),
                options=chosen,
                invoke=thread.server.invoke,
                open_associations=thread.server.open_associations,
            )
            running = contextlib.ExitStack()
            if runs_jobs:
                kind = CommitmentJob(tools=tools, reporter=reporter)
                server.engine = running.enter_context(engine_running(archive.database, root, lambda: [kind]))
                engines.append(server.engine)
            with running:
                yield server
        commitments.stop()
    finally:
        archive.close()


@contextlib.contextmanager
def dead_port() -> Iterator[int]:
    """Give a port at which nobody listens and nobody else will: it is bound, and refuses."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@contextlib.contextmanager
def silent_port() -> Iterator[int]:
    """Give a port that takes connections and never says a word."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        bound.listen(64)
        yield bound.getsockname()[1]


def _is_one_running(transaction: Transaction) -> bool:
    running = select(func.count()).where(jobs.c.state == JobState.RUNNING)
    return bool(transaction.execute(running).scalar_one())
