"""Send C-STORE requests at almost no client cost, to measure the receiver and not the sender.

Every PDU of an instance is encoded before the clock starts and leaves in one `sendall`; each association is one blocking
socket with a thread of its own, and waits for the answer before the next request. Used by run.py, and by itself:

    cstore_load.py PORT FOLDER [-c ASSOCIATIONS] [-n INSTANCES] [-p PDU_LENGTH] [-a CALLED_AE_TITLE]

DCMTK as a peer: start it with TCP_NODELAY=1 and -pdu 131072, or Nagle's algorithm costs 44 ms an instance.
"""

import argparse
import socket
import struct
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pydicom.filereader import read_file_meta_info

HOST = "127.0.0.1"
CALLING_AE_TITLE = "BENCH"
IMPLEMENTATION_CLASS_UID = b"2.25.271828182845904523536028747135266249"
APPLICATION_CONTEXT = b"1.2.840.10008.3.1.1.1"
UNLIMITED_PDU_LENGTH = 1 << 20
"""What is sent to a peer that advertises 0, that is, no limit (PS3.8 §D.1)."""
RESPONSE_MAX = 16384
ASSOCIATION_SECONDS_MAX = 30.0
"""An association that takes longer counts as refused: whoever serves it is busy with another for good."""
ANSWER_SECONDS_MAX = 300.0
"""An answer that takes longer counts as none: the slowest receiver needs some seconds for 210 MB."""

Context = tuple[str, str]
"""Abstract syntax and transfer syntax, one of each: what a presentation context proposes here."""


class PeerFailed(Exception):  # noqa: N818 - the name says what happened, as the benchmark's table shows it
    """The receiver rejected, aborted, closed or answered what no receiver may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """An instance ready to be sent: its identifiers and the bytes of its data set."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes

    @property
    def context(self) -> Context:
        """Return the presentation context it goes by."""
        return self.sop_class_uid, self.transfer_syntax_uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a run measured, from the first association request to the last release."""

    instances: int
    data_set_bytes: int
    seconds: float
    latencies: tuple[float, ...]
    """Seconds from a request's first byte to its answer, ascending."""
    statuses: Counter[int]
    client_cpu_seconds: float

    @property
    def instances_a_second(self) -> float:
        """Return answered instances per second."""
        return self.instances / self.seconds

    @property
    def megabytes_a_second(self) -> float:
        """Return data set bytes per second, in units of 10^6."""
        return self.data_set_bytes / self.seconds / 1e6

    @property
    def refused(self) -> int:
        """Return how many answers were not Success."""
        return self.instances - self.statuses[0]

    def latency_ms(self, quantile: float) -> float:
        """Return a quantile (0 to 1) of the times from request to answer, in milliseconds."""
        return self.latencies[min(int(len(self.latencies) * quantile), len(self.latencies) - 1)] * 1e3


def read_instances(folder: Path, limit: int = 0) -> list[Instance]:
    """Read the Part 10 files of a folder by name, the first `limit` of them, or all for 0."""
    return [read_instance(path) for path in sorted(folder.glob("*.dcm"))[: limit or None]]


def read_instance(path: Path) -> Instance:
    """Read one Part 10 file; its data set starts behind the group length's count (PS3.10 §7.1)."""
    meta = read_file_meta_info(path)
    start = 128 + 4 + 12 + int(meta.FileMetaInformationGroupLength)
    return Instance(
        sop_class_uid=str(meta.MediaStorageSOPClassUID),
        sop_instance_uid=str(meta.MediaStorageSOPInstanceUID),
        transfer_syntax_uid=str(meta.TransferSyntaxUID),
        data_set=path.read_bytes()[start:],
    )


# Encoding


def _item(item_type: int, value: bytes) -> bytes:
    return struct.pack(">BxH", item_type, len(value)) + value


def _element(element: int, value: bytes) -> bytes:
    """Encode a command element of group 0000, padded to even length (PS3.7 §6.3.1)."""
    value += b"\0" * (len(value) % 2)
    return struct.pack("<HHI", 0, element, len(value)) + value


def encode_associate_rq(called_ae_title: str, contexts: Sequence[Context]) -> bytes:
    """Encode an A-ASSOCIATE-RQ that proposes each context under the next odd id (PS3.8 §9.3.2)."""
    body = struct.pack(
        ">HH16s16s32x", 1, 0, called_ae_title.encode().ljust(16), CALLING_AE_TITLE.encode().ljust(16)
    )
    body += _item(0x10, APPLICATION_CONTEXT)
    for index, (abstract_syntax, transfer_syntax) in enumerate(contexts):
        syntaxes = _item(0x30, abstract_syntax.encode()) + _item(0x40, transfer_syntax.encode())
        body += _item(0x20, bytes([2 * index + 1, 0, 0, 0]) + syntaxes)
    body += _item(0x50, _item(0x51, struct.pack(">I", RESPONSE_MAX)) + _item(0x52, IMPLEMENTATION_CLASS_UID))
    return struct.pack(">BxI", 1, len(body)) + body


def encode_command(context_id: int, message_id: int, sop_class_uid: str, sop_instance_uid: str) -> bytes:
    """Encode a C-STORE-RQ command set as one P-DATA-TF PDU (PS3.7 §9.3.1.1)."""
    command = _element(0x0002, sop_class_uid.encode())
    command += _element(0x0100, struct.pack("<H", 0x0001))
    command += _element(0x0110, struct.pack("<H", message_id))
    command += _element(0x0700, struct.pack("<H", 0))
    command += _element(0x0800, struct.pack("<H", 0x0001))
    command += _element(0x1000, sop_instance_uid.encode())
    command = _element(0x0000, struct.pack("<I", len(command))) + command
    return p_data_header(context_id, len(command), flags=3) + command


def p_data_header(context_id: int, length: int, flags: int) -> bytes:
    """Encode the head of a P-DATA-TF PDU that holds one PDV of `length` bytes (PS3.8 §9.3.5, Annex E)."""
    return struct.pack(">BxIIBB", 4, length + 6, length + 2, context_id, flags)


def encode_c_store(instance: Instance, context_id: int, message_id: int, max_pdu_length: int) -> bytes:
    """Encode all PDUs of a C-STORE request, none longer than the peer takes."""
    step = (max_pdu_length - 6) & ~1
    data_set = memoryview(instance.data_set)
    pieces: list[bytes | memoryview] = [
        encode_command(context_id, message_id, instance.sop_class_uid, instance.sop_instance_uid)
    ]
    for start in range(0, len(data_set), step):
        fragment = data_set[start : start + step]
        is_last = start + step >= len(data_set)
        pieces += [p_data_header(context_id, len(fragment), flags=2 if is_last else 0), fragment]
    return b"".join(pieces)


# One association


class Association:
    """An established association with a storage provider on the loopback interface."""

    def __init__(self, port: int, called_ae_title: str, contexts: Sequence[Context]) -> None:
        self._socket = socket.create_connection((HOST, port), timeout=ASSOCIATION_SECONDS_MAX)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._socket.sendall(encode_associate_rq(called_ae_title, contexts))
            self._read_associate_ac(*self._receive_pdu(), contexts)
            self._socket.settimeout(ANSWER_SECONDS_MAX)
        except BaseException:
            self._socket.close()
            raise

    def _read_associate_ac(self, pdu_type: int, body: bytes, contexts: Sequence[Context]) -> None:
        if pdu_type != 2:
            raise PeerFailed(f"no association: PDU type {pdu_type}, {body.hex()}")
        self.max_pdu_length = UNLIMITED_PDU_LENGTH
        self.context_ids: dict[Context, int] = {}
        for item_type, value in _items(body[68:]):
            if item_type == 0x21 and value[2] == 0:
                self.context_ids[contexts[value[0] // 2]] = value[0]
            elif item_type == 0x50:
                for sub_type, sub_value in _items(value):
                    if sub_type == 0x51:
                        self.max_pdu_length = struct.unpack(">I", sub_value)[0] or UNLIMITED_PDU_LENGTH

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send encoded PDUs."""
        self._socket.sendall(data)

    def receive_status(self) -> int:
        """Wait for the next response and return its status."""
        pdu_type, body = self._receive_pdu()
        if pdu_type != 4:
            raise PeerFailed(f"PDU type {pdu_type} where a response was due")
        at = 6
        while at + 8 <= len(body):
            element, length = struct.unpack_from("<2xHI", body, at)
            if element == 0x0900:
                status: int = struct.unpack_from("<H", body, at + 8)[0]
                return status
            at += 8 + length
        raise PeerFailed("a response without status")

    def release(self) -> None:
        """Release the association and close the connection."""
        with self._socket:
            self._socket.sendall(struct.pack(">BxI4x", 5, 4))
            self._receive_pdu()

    def close(self) -> None:
        """Close the connection without a word."""
        self._socket.close()

    def _receive_pdu(self) -> tuple[int, bytes]:
        data = self._socket.recv(RESPONSE_MAX)
        while len(data) < 6 or len(data) < 6 + struct.unpack_from(">I", data, 2)[0]:
            more = self._socket.recv(RESPONSE_MAX)
            if not more:
                raise PeerFailed("the connection was closed where an answer was due")
            data += more
        return data[0], data[6:]


def _items(data: bytes) -> list[tuple[int, bytes]]:
    found = []
    at = 0
    while at + 4 <= len(data):
        item_type, length = struct.unpack_from(">BxH", data, at)
        found.append((item_type, data[at + 4 : at + 4 + length]))
        at += 4 + length
    return found


# A whole run


def negotiate(port: int, called_ae_title: str, contexts: Sequence[Context]) -> tuple[dict[Context, int], int]:
    """Ask a receiver, on an association of its own, which contexts and which PDU length it accepts."""
    association = Association(port, called_ae_title, contexts)
    association.release()
    refused = [context for context in contexts if context not in association.context_ids]
    if refused:
        raise PeerFailed(f"the receiver does not accept {refused}")
    return association.context_ids, association.max_pdu_length


def contexts_of(instances: Sequence[Instance]) -> list[Context]:
    """Return the presentation contexts that a list of instances needs."""
    return sorted({instance.context for instance in instances})


def encode_requests(
    instances: Sequence[Instance], context_ids: dict[Context, int], max_pdu_length: int
) -> list[bytes]:
    """Encode one request for each instance."""
    return [
        encode_c_store(instance, context_ids[instance.context], index % 0xFFFF + 1, max_pdu_length)
        for index, instance in enumerate(instances)
    ]


def run_load(
    port: int,
    called_ae_title: str,
    instances: Sequence[Instance],
    requests: Sequence[bytes],
    associations: int,
) -> Load:
    """Send encoded requests over a number of associations, each in turn on its own, and measure it."""
    contexts = contexts_of(instances)

    def send_share(index: int) -> tuple[list[float], Counter[int]]:
        latencies: list[float] = []
        statuses: Counter[int] = Counter()
        association = Association(port, called_ae_title, contexts)
        try:
            for request in requests[index::associations]:
                start = time.perf_counter()
                association.send(request)
                statuses[association.receive_status()] += 1
                latencies.append(time.perf_counter() - start)
            association.release()
        finally:
            association.close()
        return latencies, statuses

    with ThreadPoolExecutor(associations) as threads:
        cpu_before, start = time.process_time(), time.perf_counter()
        shares = list(threads.map(send_share, range(associations)))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_before
    return Load(
        instances=len(requests),
        data_set_bytes=sum(len(instance.data_set) for instance in instances),
        seconds=seconds,
        latencies=tuple(sorted(latency for latencies, _ in shares for latency in latencies)),
        statuses=sum((statuses for _, statuses in shares), Counter()),
        client_cpu_seconds=cpu,
    )


def main() -> None:
    """Run one load from the command line and print what it measured."""
    parser = argparse.ArgumentParser(description="Load a C-STORE provider on the loopback interface.")
    parser.add_argument("port", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-c", "--associations", type=int, default=1)
    parser.add_argument("-n", "--instances", type=int, default=0, help="send the first N files only")
    parser.add_argument(
        "-p", "--pdu-length", type=int, default=0, help="send no longer PDUs, whatever the peer takes"
    )
    parser.add_argument("-a", "--called-ae-title", default="ANY-SCP")
    options = parser.parse_args()
    instances = read_instances(options.folder, options.instances)
    context_ids, max_pdu_length = negotiate(options.port, options.called_ae_title, contexts_of(instances))
    max_pdu_length = min(max_pdu_length, options.pdu_length or max_pdu_length)
    requests = encode_requests(instances, context_ids, max_pdu_length)
    load = run_load(options.port, options.called_ae_title, instances, requests, options.associations)
    print(
        f"{load.instances} instances, {load.data_set_bytes / 1e6:.0f} MB in {load.seconds:.2f} s, "
        f"PDUs of {max_pdu_length}, {options.associations} associations: "
        f"{load.instances_a_second:.0f} instances/s, {load.megabytes_a_second:.0f} MB/s, "
        f"p50 {load.latency_ms(0.5):.2f} ms, p99 {load.latency_ms(0.99):.2f} ms, "
        f"client CPU {load.client_cpu_seconds:.2f} s, not Success: {load.refused}"
    )


if __name__ == "__main__":
    main()
