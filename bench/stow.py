"""Store by HTTP in batches, beside Orthanc's DICOMweb plug-in, and beside our own C-STORE.

    python bench/stow.py [--sets ct,mr,tiny,big] [--rounds 5] [--batch 20] [--json]
    python bench/stow.py --memory       one part of 4 GB, one of 5 GB, and 10 000 parts in one body

In each round every receiver has its turn, one connection or association, on an empty folder. The client sends bodies that are
ready in memory. Bars: five times Orthanc on CT, six on MR and tiny, two and a half on 210 MB; 0.8 of our C-STORE in bytes a second
on CT and 210 MB; less than 150 MB of memory at any time.
"""

import argparse
import json
import os
import re
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from urllib.request import urlopen

import pydicom

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
sys.path.insert(0, str(HERE))

from contenders import CONTENDERS, wait_for_rest  # noqa: E402 - after the path
from cstore_load import read_instances  # noqa: E402 - likewise
from process_memory import footprint  # noqa: E402 - likewise
from support.peers import orthanc_configuration, program_path  # noqa: E402 - likewise
from support.processes import Program, free_port, running  # noqa: E402 - likewise
from throughput import EncodedSet, take_turn  # noqa: E402 - likewise

BOUNDARY = b"5f1d2c3b4a59687766554433221100ff"
"""As long as those that libraries make of a UUID: a text is looked for the faster the longer it is."""
CLOSE = b"\r\n--" + BOUNDARY + b"--\r\n"
PIXEL_DATA = b"\xe0\x7f\x10\x00"
EXPLICIT_LITTLE_ENDIAN, RLE_LOSSLESS = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.5\0"
FRAGMENT_BYTES = 64 << 20
SENT_AT_ONCE = 1 << 20
"""Bytes that are put together before a turn begins: to do it meanwhile took the client a tenth of the time of small instances."""
PARTS = 10_000
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
AGAINST_ORTHANC = {"ct": 5.0, "mr": 6.0, "tiny": 6.0, "big": 2.5}
AGAINST_C_STORE = {"ct": 0.8, "big": 0.8}
MEGABYTES_MAX = 150.0
_HTTP = re.compile(r"http=(\S+):(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """A receiver that serves HTTP."""

    port: int
    program: Program


@contextmanager
def stowkeeper(folder: Path) -> Iterator[Web]:
    """Run our server."""
    argv = [sys.executable, "-m", "stowkeeper", "serve", "--archive", str(folder / "archive"), "--port", "0"]
    with running("Stowkeeper", [*argv, "--http-port", "0"], log=folder / "log") as program:
        program.wait_until(lambda: _HTTP.search(program.log_text()) is not None, "before its ready line")
        found = _HTTP.search(program.log_text())
        yield Web(port=int(found[2]) if found else 0, program=program)


@contextmanager
def orthanc(folder: Path) -> Iterator[Web]:
    """Run Orthanc with its plug-in."""
    port = free_port()
    settings = orthanc_configuration(folder=folder, dicom_port=free_port(), http_port=port)
    settings |= {"Plugins": [PLUGIN], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"}}
    configuration = folder / "orthanc.json"
    configuration.write_text(json.dumps(settings), encoding="utf-8")
    with running("Orthanc", [program_path("Orthanc"), str(configuration)], log=folder / "log") as program:
        program.wait_until_listening(port)
        yield Web(port=port, program=program)


WEBS = {"stowkeeper": stowkeeper, "orthanc": orthanc}


def delimiter() -> bytes:
    """Return what stands before each part."""
    return b"\r\n--" + BOUNDARY + b"\r\nContent-Type: application/dicom\r\n\r\n"


def batches(files: Sequence[bytes], count: int) -> list[list[bytes]]:
    """Return bodies, each as the pieces that it is sent in."""
    bodies = []
    for start in range(0, len(files), count):
        pieces = [piece for file in files[start : start + count] for piece in (delimiter(), file)]
        bodies.append(list(joined(iter([*pieces, CLOSE]))))
    return bodies


def joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Give pieces of a megabyte and more as they are, and those between them together."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        if len(piece) < SENT_AT_ONCE:
            waiting.append(piece)
            size += len(piece)
        if waiting and (size >= SENT_AT_ONCE or len(piece) >= SENT_AT_ONCE):
            yield b"".join(waiting)
            waiting, size = [], 0
        if len(piece) >= SENT_AT_ONCE:
            yield piece
    if waiting:
        yield b"".join(waiting)


class Client:
    """One connection that stores."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 600)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._port = port

    def post(self, pieces: Sequence[bytes]) -> int:
        """Send a body; return how many instances the answer names as stored."""
        return self.post_stream(iter(pieces), sum(map(len, pieces)))

    def post_stream(self, pieces: Iterator[bytes], length: int) -> int:
        """Send a body of a length that is made on the way."""
        head = (
            f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\n"
            f'Content-Type: multipart/related; type="application/dicom"; boundary={BOUNDARY.decode()}\r\n'
            f"Content-Length: {length}\r\nAccept: application/dicom+json\r\n\r\n"
        )
        self._socket.sendall(head.encode())
        for piece in pieces:
            self._socket.sendall(piece)
        return self._stored()

    def _stored(self) -> int:
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._receive()
        head, _, body = answer.partition(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        length = int(found[1]) if found else 0
        pieces = [body]
        left = length - len(body)
        while left > 0:
            pieces.append(self._receive())
            left -= len(pieces[-1])
        answered = json.loads(b"".join(pieces))
        stored: list[object] = answered.get("00081199", {}).get("Value", [])
        return len(stored)

    def _receive(self) -> bytes:
        piece = self._socket.recv(1 << 18)
        if not piece:
            raise ConnectionError("the server closed the connection")
        return piece

    def close(self) -> None:
        """Close it."""
        self._socket.close()


def web_turn(name: str, bodies: Sequence[Sequence[bytes]], files: int, folder: Path) -> float:
    """Return the seconds in which a receiver stored everything."""
    folder.mkdir(parents=True)
    with WEBS[name](folder) as web:
        wait_for_rest(web.program.pid)  # and killed in the end: see `started_apart`
        client = Client(web.port)
        began = time.perf_counter()
        stored = sum(client.post(body) for body in bodies)
        seconds = time.perf_counter() - began
        client.close()
        web.program.kill()
    if stored != files:
        raise SystemExit(f"{name} stored {stored} of {files}")
    for path in folder.rglob("*"):
        if path.is_file():
            os.truncate(path, 0)
    os.sync()
    return seconds


def measure(name: str, rounds: int, batch: int, folder: Path) -> dict[str, list[float]]:
    """Return the megabytes a second of each receiver in each round."""
    source = HERE / "sets" / name
    files = [path.read_bytes() for path in sorted(source.glob("*.dcm"))]
    size = sum(map(len, files))
    bodies = batches(files, batch)
    instances = read_instances(source)
    encoded = EncodedSet(name, instances)
    rates: dict[str, list[float]] = {"stowkeeper": [], "orthanc": [], "c-store": []}
    for number in range(rounds):
        for receiver in ("stowkeeper", "c-store", "orthanc"):
            place = folder / f"{name}-{number}-{receiver}"
            if receiver == "c-store":
                turn = take_turn(
                    CONTENDERS["stowkeeper"],
                    encoded,
                    associations=1,
                    round_number=number,
                    folder=place,
                )
                if turn.problem:
                    raise SystemExit(turn.problem)
                rates[receiver].append(turn.megabytes_a_second)
            else:
                rates[receiver].append(size / web_turn(receiver, bodies, len(files), place) / 1e6)
    return rates


def long_element(like: bytes, size: int) -> Iterator[bytes]:
    """Give a body of one part whose pixel data are one element of `size` bytes, up to 4 GB (PS3.5 §7.1)."""
    yield delimiter()
    yield like[: like.rindex(PIXEL_DATA) + 8] + size.to_bytes(4, "little")
    block = bytes(1 << 20)
    for _ in range(size >> 20):
        yield block
    yield CLOSE


def many_fragments(like: bytes, size: int) -> Iterator[bytes]:
    """Give a body of one part whose pixel data are of undefined length, in fragments of 64 MB (PS3.5 §A.4)."""
    yield delimiter()
    head = like[: like.rindex(PIXEL_DATA)].replace(EXPLICIT_LITTLE_ENDIAN, RLE_LOSSLESS, 1)
    yield head + PIXEL_DATA + b"OB\0\0\xff\xff\xff\xff" + _item(0)
    block = bytes(1 << 20)
    for _ in range(size // FRAGMENT_BYTES):
        yield _item(FRAGMENT_BYTES)
        for _ in range(FRAGMENT_BYTES >> 20):
            yield block
    yield b"\xfe\xff\xdd\xe0\0\0\0\0" + CLOSE


def _item(length: int) -> bytes:
    return b"\xfe\xff\x00\xe0" + length.to_bytes(4, "little")


GIANTS: dict[str, tuple[Callable[[bytes, int], Iterator[bytes]], int]] = {
    "4 GB in one element": (long_element, 4000 << 20),
    "5 GB in fragments": (many_fragments, 80 * FRAGMENT_BYTES),
}


def distinct(files: Sequence[bytes], count: int) -> list[bytes]:
    """Return as many instances as wanted, each with a UID of its own: of the same bytes again little would be kept."""
    found = []
    for number in range(count):
        file = files[number % len(files)]
        uid = pydicom.dcmread(BytesIO(file), stop_before_pixels=True).SOPInstanceUID.encode()
        found.append(file.replace(uid, uid[:-2] + b"%02d" % (number // len(files))))
    return found


def memory(folder: Path) -> dict[str, float]:
    """Return the highest resident memory in megabytes for one part of 4 GB, one of 5 GB, and for 10 000 parts."""
    big = next(iter(sorted((HERE / "sets" / "big").glob("*.dcm")))).read_bytes()
    found = {}
    for name, (give, size) in GIANTS.items():
        length = sum(map(len, give(big, 0)))
        length += size + (size // FRAGMENT_BYTES * 8 if give is many_fragments else 0)
        pieces = joined(give(big, size))
        found[name] = _peak(folder / name, partial(Client.post_stream, pieces=pieces, length=length), 1)
    tiny = [path.read_bytes() for path in sorted((HERE / "sets" / "tiny").glob("*.dcm"))]
    (body,) = batches(distinct(tiny, PARTS), PARTS)
    found[f"{PARTS} parts"] = _peak(folder / "many", lambda client: client.post(body), PARTS)
    return found


def _peak(place: Path, send: Callable[[Client], int], expected: int) -> float:
    """Return the highest mark of a server, from its start on an empty folder to the last line of what is sent."""
    place.mkdir(parents=True)
    with stowkeeper(place) as web:
        client = Client(web.port)
        stored = send(client)
        client.close()
        web.program.wait_until(lambda: _is_recorded(web.port), "before the ledger had every part", 120)
        peak = footprint(web.program.pid).peak_resident / 1e6
    if stored != expected:
        raise SystemExit(f"{place.name}: {stored} of {expected} stored")
    shutil.rmtree(place)
    return peak


def _is_recorded(port: int) -> bool:
    """Tell whether the last line of a request is in the ledger: until then its parts are in memory."""
    with urlopen(f"http://127.0.0.1:{port}/api/associations") as answer:
        return bool(json.load(answer)["items"])


def main() -> None:
    """Run what the command line says, and print it."""
    parser = argparse.ArgumentParser(description="Store by HTTP, beside Orthanc's DICOMweb plug-in.")
    parser.add_argument("--sets", default="ct,mr,tiny,big")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--memory", action="store_true", help="measure memory alone")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="stow-", dir=HERE / "results"))
    try:
        if arguments.memory:
            found = memory(folder)
            print(json.dumps(found))
            print("bar of 150 MB:", "met" if max(found.values()) < MEGABYTES_MAX else "MISSED")
            return
        results = {
            name: measure(name, arguments.rounds, arguments.batch, folder)
            for name in arguments.sets.split(",")
        }
    finally:
        shutil.rmtree(folder)
    if arguments.json:
        print(json.dumps(results))
        return
    print(f"{'set':<6}{'STOW MB/s':>11}{'C-STORE':>9}{'Orthanc':>9}{'x Orthanc':>11}{'x C-STORE':>11}")
    for name, rates in results.items():
        ours = rates["stowkeeper"]
        ratios = [
            statistics.median(a / b for a, b in zip(ours, rates[other], strict=True))
            for other in ("orthanc", "c-store")
        ]
        medians = [statistics.median(rates[other]) for other in ("stowkeeper", "c-store", "orthanc")]
        bars = [f"bar {bar[name]:g}" if name in bar else "" for bar in (AGAINST_ORTHANC, AGAINST_C_STORE)]
        print(
            f"{name:<6}{medians[0]:>11.0f}{medians[1]:>9.0f}{medians[2]:>9.0f}"
            f"{ratios[0]:>11.2f}{ratios[1]:>11.2f}   {' / '.join(filter(None, bars))}"
        )


if __name__ == "__main__":
    main()
