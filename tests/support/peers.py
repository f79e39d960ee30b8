"""Real peers for tests: which there are, how to get the others, and fixtures that start and end them.

A pytest plugin. `@pytest.mark.peer("storescp")` skips a test where that program or module is absent, and the summary
at the end of the run says which peers were missed, by how many tests, and how to get them.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from support.processes import LOOPBACK, Program, ProgramFailed, free_port, running

RUN_SECONDS_MAX = 60.0
"""How long a sending program may take before it counts as hanging."""
MISSING_PEER = "missing_peer"
_HERE = Path(__file__).parent
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
"""Where executables are looked for: Orthanc lives among the system's own, which a person's path may leave out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A program or module that tests talk to, and how a person gets it.

    `others` are other names that it goes by. `says` is what `program --version` begins with, of one whose release matters.
    """

    name: str
    obtain: str
    module: str | None = None
    file: str | None = None
    others: tuple[str, ...] = ()
    program: str | None = None
    says: str = ""

    def is_present(self) -> bool:
        """Tell whether it can be started here."""
        if self.program is not None:
            return _version(self.program).startswith(self.says)
        if self.module is not None:
            return importlib.util.find_spec(self.module) is not None
        if self.file is not None:
            return os.path.exists(self.file)
        return self.path() is not None

    def path(self) -> str | None:
        """Return the path of the executable, None where there is none."""
        found = (shutil.which(name, path=SEARCH_PATH) for name in (self.name, *self.others))
        return next((path for path in found if path is not None), None)


@cache
def _version(program: str) -> str:
    """Return what a program says of its version; nothing where it is not here."""
    path = shutil.which(program, path=SEARCH_PATH)
    if path is None:
        return ""
    return subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout


_FETCHED = _HERE.parents[1] / "build" / "peers"
"""Where scripts/peers.sh puts what is of no system's packages."""
PYTHON_CLIENTS = _FETCHED / "python"
"""Python's dicomweb-client and what it needs, beside the virtual environment: its image library would take the place of the
decoders that the tests are about."""
JAVASCRIPT_CLIENT = _FETCHED / "npm" / "node_modules" / "dicomweb-client" / "build" / "dicomweb-client.js"
"""The dicomweb-client of web viewers, as a script for a page."""
ORTHANC_DICOMWEB = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
"""Orthanc's DICOMweb plug-in, where Debian puts it."""
DCMTK_COMPARED = "DCMTK 3.6.7"
"""The release with which ours is compared line by line; docs/dcmtk.md lists in what it differs."""
_DCMTK = "apt-get install dcmtk, or brew install dcmtk"
PEERS: Mapping[str, Peer] = {
    peer.name: peer
    for peer in (
        *(
            Peer(name=name, obtain=_DCMTK)
            for name in (
                "storescp",
                "storescu",
                "dcmsend",
                "dcmrecv",
                "echoscu",
                "dcmdump",
                "dcmconv",
                "dcmftest",
                "dcmdjpeg",
                "dcmdjpls",
            )
        ),
        Peer(
            name=DCMTK_COMPARED,
            program="storescp",
            says="$dcmtk: storescp v3.6.7 ",
            obtain="apt-get install dcmtk on Debian 12; other releases differ here and there from the one that docs/dcmtk.md compares",
        ),
        Peer(name="dciodvfy", obtain="apt-get install dicom3tools"),
        Peer(name="ffmpeg", obtain="apt-get install ffmpeg, or brew install ffmpeg"),
        Peer(name="opj_compress", obtain="apt-get install libopenjp2-tools, or brew install openjpeg"),
        Peer(name="ojph_compress", obtain="apt-get install openjph-tools, or brew install openjph"),
        Peer(name="cjxl", obtain="apt-get install libjxl-tools, or brew install jpeg-xl"),
        Peer(name="curl", obtain="apt-get install curl, or brew install curl"),
        Peer(name="openssl", obtain="apt-get install openssl, or brew install openssl"),
        Peer(name="Orthanc", obtain="apt-get install orthanc"),
        Peer(name="orthanc-dicomweb", file=ORTHANC_DICOMWEB, obtain="apt-get install orthanc-dicomweb"),
        Peer(name="pynetdicom", module="pynetdicom", obtain="make test (it is one of the development tools)"),
        Peer(name="nginx", obtain="apt-get install nginx-light"),
        Peer(name="caddy", obtain="apt-get install caddy"),
        Peer(name="haproxy", obtain="apt-get install haproxy"),
        Peer(
            name="chromium",
            others=("chromium-headless-shell", "google-chrome", "chrome"),
            obtain="apt-get install chromium, or chromium-headless-shell",
        ),
        Peer(
            name="dicomweb-client for Python",
            file=str(PYTHON_CLIENTS / "dicomweb_client" / "web.py"),
            obtain="PEERS=1 make test",
        ),
        Peer(
            name="dicomweb-client for browsers",
            file=str(JAVASCRIPT_CLIENT),
            obtain="PEERS=1 make test, where npm is",
        ),
    )
}


def program_path(name: str) -> str:
    """Return the path of a peer's executable; raise FileNotFoundError with the way to get it."""
    path = PEERS[name].path()
    if path is None:
        raise FileNotFoundError(f"{name} is not on this machine: {PEERS[name].obtain}")
    return path


# The marker and the summary


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test one of whose peers is absent, and note on its report which."""
    needed = [name for mark in item.iter_markers("peer") for name in mark.args]
    unknown = [name for name in needed if name not in PEERS]
    if unknown:
        pytest.fail(
            f"peer({unknown[0]!r}) is not in tests/support/peers.py, which knows {', '.join(PEERS)}",
            pytrace=False,
        )
    missing = [name for name in needed if not PEERS[name].is_present()]
    if missing:
        item.user_properties.extend((MISSING_PEER, name) for name in missing)
        ways = "; ".join(f"{name}: {PEERS[name].obtain}" for name in missing)
        pytest.skip(f"needs {ways}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end of the run what was not tried for want of a peer."""
    skipped = Counter(
        name
        for report in terminalreporter.stats.get("skipped", [])
        for key, name in getattr(report, "user_properties", [])
        if key == MISSING_PEER
    )
    if not skipped:
        return
    terminalreporter.section("peers that are not on this machine")
    for name, count in sorted(skipped.items()):
        tests = "1 test" if count == 1 else f"{count} tests"
        terminalreporter.line(f"{name}: {tests} skipped. To get it: {PEERS[name].obtain}")


# Peers that receive, and Orthanc, which does both


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivingPeer:
    """A running storage provider on the loopback interface, and the folder it stores into."""

    port: int
    ae_title: str
    folder: Path
    program: Program
    host: str = LOOPBACK

    @property
    def address(self) -> str:
        """Return it as `AET@HOST:PORT`, the form of `stowkeeper send` and `stowkeeper echo`."""
        return f"{self.ae_title}@{self.host}:{self.port}"

    def stored_files(self) -> list[Path]:
        """Return the files it has stored, by name."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())


@pytest.fixture
def start_storescp(tmp_path: Path) -> Iterator[Callable[..., ReceivingPeer]]:
    """Give a function that starts DCMTK's storescp with more options of its own; all are ended after the test."""
    with ExitStack() as stack:

        def start(*options: str, environment: Mapping[str, str] | None = None) -> ReceivingPeer:
            port = free_port()
            folder = tmp_path / f"storescp-{port}"
            folder.mkdir()
            argv = [program_path("storescp"), *options, "-od", str(folder), str(port)]
            log = tmp_path / f"storescp-{port}.log"
            program = stack.enter_context(running("storescp", argv, log=log, environment=environment))
            program.wait_until_listening(port)
            return ReceivingPeer(port=port, ae_title="ANY-SCP", folder=folder, program=program)

        yield start


@pytest.fixture
def storescp(start_storescp: Callable[..., ReceivingPeer]) -> ReceivingPeer:
    """Start DCMTK's storescp, which keeps bytes as received and accepts every transfer syntax it knows."""
    return start_storescp("+B", "+xa", environment={"TCP_NODELAY": "1"})


@pytest.fixture
def pynetdicom_receiver(tmp_path: Path) -> Iterator[ReceivingPeer]:
    """Start pynetdicom as a storage provider that accepts every storage class and transfer syntax it knows."""
    port = free_port()
    folder = tmp_path / "pynetdicom"
    folder.mkdir()
    argv = [sys.executable, str(_HERE / "pynetdicom_receiver.py"), str(port), str(folder)]
    with running("pynetdicom", argv, log=tmp_path / "pynetdicom.log") as program:
        program.wait_until_listening(port)
        yield ReceivingPeer(port=port, ae_title="PYNETDICOM", folder=folder, program=program)


@dataclass(frozen=True, slots=True, kw_only=True)
class Orthanc(ReceivingPeer):
    """A running Orthanc, spoken to by REST: it stores what it is given, and sends what it holds."""

    http_port: int

    def request(self, method: str, path: str, body: bytes | Mapping[str, Any] | None = None) -> Any:
        """Make one REST request and return the decoded JSON of its answer; raise urllib.error.HTTPError."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        url = f"http://{self.host}:{self.http_port}{path}"
        request = urllib.request.Request(url, data=data, method=method)
        with urllib.request.urlopen(request, timeout=RUN_SECONDS_MAX) as response:
            text = response.read()
        return json.loads(text) if text else None

    def upload(self, part10: bytes) -> str:
        """Put a Part 10 file into it over REST; return its own id of the instance."""
        return str(self.request("POST", "/instances", part10)["ID"])

    def add_modality(self, name: str, *, ae_title: str, host: str, port: int) -> None:
        """Teach it a storage provider to send to."""
        self.request("PUT", f"/modalities/{name}", {"AET": ae_title, "Host": host, "Port": port})

    def send(self, modality: str, instance_ids: Sequence[str]) -> Mapping[str, Any]:
        """Send instances over C-STORE and wait for the end; return its report with its `FailedInstancesCount`."""
        body = {"Resources": list(instance_ids), "Synchronous": True}
        report: Mapping[str, Any] = self.request("POST", f"/modalities/{modality}/store", body)
        return report


def orthanc_configuration(*, folder: Path, dicom_port: int, http_port: int) -> dict[str, Any]:
    """Return the smallest configuration that makes Orthanc stay on loopback ports and in one folder."""
    return {
        "Name": "peer",
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomPort": dicom_port,
        "HttpPort": http_port,
        "HttpBindAddresses": [LOOPBACK],
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": "ORTHANC",
        "Plugins": [],
    }


@pytest.fixture
def orthanc(tmp_path: Path) -> Iterator[Orthanc]:
    """Start Orthanc with an empty store of its own, on free ports."""
    folder = tmp_path / "orthanc"
    folder.mkdir()
    dicom_port, http_port = free_port(), free_port()
    configuration = tmp_path / "orthanc.json"
    configuration.write_text(
        json.dumps(orthanc_configuration(folder=folder, dicom_port=dicom_port, http_port=http_port)),
        encoding="utf-8",
    )
    argv = [program_path("Orthanc"), str(configuration)]
    with running("Orthanc", argv, log=tmp_path / "orthanc.log") as program:
        program.wait_until_listening(http_port)
        program.wait_until_listening(dicom_port)
        yield Orthanc(
            port=dicom_port, ae_title="ORTHANC", folder=folder, program=program, http_port=http_port
        )


# Peers that send


def run_peer(
    name: str, *arguments: str, seconds: float = RUN_SECONDS_MAX
) -> subprocess.CompletedProcess[str]:
    """Run one of DCMTK's programs to its end, with no-delay on as every current sender has it.

    Raises subprocess.TimeoutExpired when it hangs; it is dead by then.
    """
    return subprocess.run(
        [program_path(name), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "TCP_NODELAY": "1"},
        text=True,
        errors="replace",
        timeout=seconds,
        check=False,
    )


def send_by_pynetdicom(
    files: Sequence[Path], *, port: int, called_ae_title: str = "ANY-SCP", host: str = LOOPBACK
) -> list[int | None]:
    """Send Part 10 files with pynetdicom on one association; return a status for each, None where none came."""
    script = str(_HERE / "pynetdicom_sender.py")
    run = subprocess.run(
        [sys.executable, script, host, str(port), called_ae_title, *map(str, files)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )
    if run.returncode != 0:
        raise ProgramFailed(f"pynetdicom ended with {run.returncode}:\n{run.stderr}")
    statuses: list[int | None] = json.loads(run.stdout)
    return statuses


@pytest.fixture
def pynetdicom_sender() -> Callable[..., list[int | None]]:
    """Give `send_by_pynetdicom`; ask for it under `@pytest.mark.peer("pynetdicom")`."""
    return send_by_pynetdicom
