"""Who plays in a soak: peers that behave, peers that do not, people with a browser, and programs that watch.

Each is a thread with a chance of its own, seeded, that does one small thing after the other with pauses between them.
"""

import contextlib
import http.client
import http.server
import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from random import Random
from typing import Any

from soak_record import Record, Sent
from soak_server import COMMITTER, MODALITIES, SoakServer
from stowkeeper.dicom.part10 import PREFIX, encode_file_meta
from support.hostile import in_an_association, in_place_of_a_request
from support.instances import CT_IMAGE_STORAGE, Instance
from support.raw_commitment import action_data, ask, push_model_context
from support.raw_peer import PeerClosed, RawPeer, store_message
from support.stow_bodies import RELATED, answer_of, body_of

AFTER_A_FAILURE_SECONDS = 0.3
HTTP_SECONDS_MAX = 60.0
SMALL_BYTES, MIDDLE_BYTES, LARGE_BYTES = 3_000, 60_000, 1_500_000
INSTANCES_A_STUDY = 20
ENDPOINT_REFUSES = 0.02
"""The share of events that the endpoint answers 503 first."""
ABORT = b"\7\0\0\0\0\4\0\0\0\0"
"""An A-ABORT PDU (PS3.8 §9.3.8)."""
OWN_FAULTS = (
    OSError,
    PeerClosed,
    http.client.HTTPException,
    AssertionError,  # the raw peer: something else came in place of an answer
)
"""What a player meets when the server is killed; at any other time it is a surprise."""


class Player(threading.Thread, ABC):
    """One who plays until told to stop. `every` is the mean pause in seconds; subclasses say what is done after it."""

    def __init__(self, server: SoakServer, record: Record, seed: int, name: str, every: float) -> None:
        super().__init__(name=name, daemon=True)
        self.server, self.record, self.every = server, record, every
        self.chance = Random(f"{seed} {name}")
        self._over = threading.Event()
        self._study, self._left = "", 0

    def stop(self) -> None:
        """Tell it to stop after what it does now."""
        self._over.set()

    def run(self) -> None:
        """Play."""
        while not self.pause():
            if not self.server.is_up():
                continue
            begun = time.monotonic()
            try:
                self.play()
            except OWN_FAULTS as error:
                if self.server.may_fail_since(begun):
                    self.record.count("broken off by a kill")
                else:
                    self.record.surprise(f"{self.name}: {type(error).__name__}: {error}"[:300])
                self._over.wait(AFTER_A_FAILURE_SECONDS)
            except Exception as error:  # noqa: BLE001 - a player that ends unseen would prove nothing
                self.record.surprise(f"{self.name} itself failed: {type(error).__name__}: {error}"[:300])

    def pause(self) -> bool:
        """Wait for a while; return whether it is told to stop."""
        return self._over.wait(self.chance.expovariate(1 / self.every))

    @abstractmethod
    def play(self) -> None:
        """Do one thing."""

    def new_sent(self) -> Sent:
        """Return a new instance, mostly small, of the study that is on its way, or of a new one."""
        if not self._left:
            self._study, self._left = self.record.new_study(), self.chance.randint(1, 2 * INSTANCES_A_STUDY)
        self._left -= 1
        most = self.chance.choices((SMALL_BYTES, MIDDLE_BYTES, LARGE_BYTES), (70, 28, 2))[0]
        return self.record.new(self._study, self.chance.randint(100, most))

    def store(self, peer: RawPeer, sent: Sent, *, content: int = 0, removable: bool = False) -> None:
        """Send an instance by C-STORE and note the answer."""
        instance = sent.instance(content)
        self.record.sending(instance)
        status = peer.store(instance.sop_instance_uid, instance.data).status
        self.record.answer(sent, instance, status, removable=removable)

    @contextlib.contextmanager
    def associated(self, calling: str) -> Iterator[RawPeer]:
        """Hold an association for the length of a block, and release it in order."""
        with RawPeer(self.server.port) as peer:
            answer = peer.associate(calling=calling.encode())
            assert peer.accepted, f"no context was accepted: {answer.kind} {answer.reasons}"
            yield peer
            peer.release()

    def call(
        self, method: str, path: str, body: bytes | None = None, fields: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Make one HTTP request; return status and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.http_port, timeout=HTTP_SECONDS_MAX)
        with contextlib.closing(connection):
            connection.request(method, path, body, fields or {})
            answer = connection.getresponse()
            return answer.status, answer.read()


# Peers that behave


class Modality(Player):
    """Sends a few instances over an association of its own."""

    def play(self) -> None:
        with self.associated(self.name) as peer:
            for _ in range(self.chance.randint(1, 5)):
                self.store(peer, self.new_sent())


class Holder(Player):
    """Keeps one association open for long, and sends an instance now and then."""

    def play(self) -> None:
        with self.associated("HOLDER") as peer:
            for _ in range(self.chance.randint(10, 40)):
                self.store(peer, self.new_sent())
                if self.chance.random() < 0.2:
                    assert peer.echo().status == 0
                if self.pause():
                    break


class Passing(Player):
    """Sends what is removed later."""

    def play(self) -> None:
        with self.associated("PASSING") as peer:
            for _ in range(self.chance.randint(1, 3)):
                self.store(peer, self.new_sent(), removable=True)


class Repeater(Player):
    """Sends again what was answered before: the same, or another version of it, by a peer of each policy."""

    def play(self) -> None:
        with self.associated(self.chance.choice(MODALITIES)) as peer:
            for sent in self.record.some(self.chance, 2):
                self.store(peer, sent, content=self.chance.choice((0, 0, 1, 2)))
                self.record.count("sent again")


class Uploader(Player):
    """Stores by STOW-RS."""

    def play(self) -> None:
        parts = [self.new_sent() for _ in range(self.chance.randint(1, 4))]
        instances = {sent.uid: (sent, sent.instance()) for sent in parts}
        for _, instance in instances.values():
            self.record.sending(instance)
        body = body_of(*(as_file(instance) for _, instance in instances.values()))
        fields = {"Content-Type": RELATED, "Accept": "application/dicom+json"}
        status, content = self.call("POST", "/dicom-web/studies", body, fields)
        self.record.count(f"STOW-RS {status}")
        if status not in {200, 202}:
            self.record.surprise(f"STOW-RS was answered {status}: {content[:200]!r}")
            return
        for uid in answer_of(content).stored:
            self.record.answer(*instances[uid], 0)


def as_file(instance: Instance) -> bytes:
    """Return an instance as a DICOM file."""
    meta = encode_file_meta(
        [
            (0x00020001, b"OB", b"\0\1"),
            (0x00020002, b"UI", instance.sop_class_uid.encode()),
            (0x00020003, b"UI", instance.sop_instance_uid.encode()),
            (0x00020010, b"UI", instance.transfer_syntax_uid.encode()),
        ]
    )
    return PREFIX + meta + instance.data


class Committer(Player):
    """Asks for storage commitment of what was answered Success."""

    def play(self) -> None:
        named = [(CT_IMAGE_STORAGE, sent.uid) for sent in self.record.some(self.chance, 5)]
        if not named:
            return
        transaction = f"1.2.20.{time.time_ns()}"
        with RawPeer(self.server.port) as peer:
            peer.associate(push_model_context(), calling=COMMITTER.encode())
            status = ask(peer, action_data(transaction, named)).status
            if status == 0:
                self.record.asked[transaction] = {uid for _, uid in named}
            else:
                self.record.surprise(f"a request for storage commitment was answered {status:04X}H")
            peer.release()


# Peers that do not behave


class Breaker(Player):
    """Breaks off in the middle of an instance: closes, resets, or says A-ABORT."""

    def play(self) -> None:
        with RawPeer(self.server.port) as peer:
            peer.associate(calling=b"BREAKER")
            if self.chance.random() < 0.5:
                self.store(peer, self.new_sent())
            instance = self.record.new("1.2.11.1", self.chance.randint(1000, 400_000)).instance()
            message = store_message(1, instance.sop_instance_uid, instance.data)
            # Short by more than an abort is long: whose bytes would else be the last ones of a whole instance.
            peer.send(message[: self.chance.randrange(1, len(message) - len(ABORT))])
            self.chance.choice((peer.close, peer.reset, lambda: peer.send(ABORT)))()
        self.record.count("broken off by the peer")


class Garbler(Player):
    """Sends what no peer may send, by DICOM and by HTTP; the server has to say so and to go on."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._first = [each.data for each in in_place_of_a_request()]
        self._later = [each.data for each in in_an_association()]

    def play(self) -> None:
        self.record.count("garbage")
        kind = self.chance.randrange(4)
        if kind == 0:
            self._send_by_http()
            return
        with RawPeer(self.server.port) as peer:
            if kind == 1:
                peer.send(self.chance.choice(self._first))
            else:
                peer.associate(calling=b"GARBLER")
                noise = self.chance.randbytes(self.chance.randint(1, 4000))
                peer.send(noise if kind == 2 else self.chance.choice(self._later))
            peer.socket.settimeout(1)
            with contextlib.suppress(PeerClosed, TimeoutError):
                peer.read_pdu()

    def _send_by_http(self) -> None:
        fields = {"Content-Type": RELATED, "Accept": "application/dicom+json"}
        status, _ = self.call("POST", "/dicom-web/studies", self.chance.randbytes(2000), fields)
        if status not in {400, 409, 415}:
            self.record.surprise(f"garbage by STOW-RS was answered {status}")


# People and programs


class Looker(Player):
    """Looks at lists, files and metrics."""

    PATHS = (
        "/api/studies?limit=20",
        "/api/series?limit=20",
        "/api/instances?limit=100",
        "/api/receipts?limit=50",
        "/api/requests?limit=50",
        "/api/associations?limit=50",
        "/api/statistics",
        "/api/system",
        "/api/jobs?limit=50",
        "/api/commitments?limit=20",
        "/api/changes?limit=100",
        "/metrics",
        "/readyz",
        "/livez",
        "/statistics",
        "/system",
    )

    def play(self) -> None:
        path = self.chance.choice(self.PATHS)
        if self.chance.random() < 0.2 and (found := self.record.some(self.chance)):
            path = f"/api/instances/{found[0].uid}/file"
        status, body = self.call("GET", path)
        self.record.count("queries")
        if path.endswith("/file"):
            # It may not be listed yet, a moment after its answer.
            if status != 404 and not self.record.was_sent(found[0].uid, body):
                self.record.surprise(f"{path} was answered {status} with other bytes than were sent")
        elif status != 200:
            self.record.surprise(f"{path} was answered {status}: {body[:200]!r}")


class Remover(Player):
    """Removes instances by HTTP."""

    def play(self) -> None:
        sent = self.record.take_removable(self.chance)
        if sent is None:
            return
        status, body = self.call("DELETE", f"/api/instances/{sent.uid}?reason=soak")
        if status == 200:
            self.record.gone.add(sent.uid)
        elif status == 404:  # it is not listed yet
            self.record.give_back(sent)
        else:
            self.record.surprise(f"a removal was answered {status}: {body[:200]!r}")


class Reloader(Player):
    """Has the settings read anew, broken ones now and then."""

    def play(self) -> None:
        self.record.count("reloads")
        if not self.server.reload(self.chance):
            self.record.surprise("the log did not say what came of a reload")


class Watcher(Player):
    """Takes the copies out of the export folder, as a program does that watches it."""

    def play(self) -> None:
        for path in self.server.export.glob("*.dcm"):
            uid = path.stem
            if not self.record.was_sent(uid, path.read_bytes()):
                self.record.surprise(f"the copy of {uid} holds other bytes than were sent")
            path.unlink()
            self.record.exported.add(uid)


class Endpoint:
    """An HTTP endpoint that is told of events, and that refuses one now and then."""

    def __init__(self, record: Record, seed: int) -> None:
        chance = Random(f"{seed} endpoint")
        self.quiet: set[str] = set()
        quiet = self.quiet

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                event = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                refuses = chance.random() < ENDPOINT_REFUSES
                record.count("events refused" if refuses else "events told")
                if not refuses and event["event"] == "study.quiet":
                    quiet.add(event["study_instance_uid"])
                elif not refuses:
                    record.told.add(event["sop_instance_uid"])
                self.send_response(503 if refuses else 204)
                if refuses:
                    self.send_header("Retry-After", "1")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                """Say nothing: a server that is killed leaves its connections as they are."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._server.server_close()
