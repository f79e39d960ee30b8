"""Send data sets as they are, byte for byte, to a DCMTK receiver that nobody else can reach.

DCMTK's receivers listen on all addresses of the machine. `exchange` runs one in a network namespace of its own, where
there is nothing but a loopback interface, and sends from within it; where namespaces are not permitted it runs as any
other program. This file is also the script that runs in there.
"""

import contextlib
import fcntl
import json
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.processes import free_port, running
from support.raw_peer import Context, PeerClosed, RawPeer

SECONDS_MAX = 100.0
_PIECE = 16_000
_CONTEXTS_MAX = 128
_CONFIGURATION = "receiver.cfg"
_PROFILE = "All"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A data set to send in one C-STORE, under the names that its command gives."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    data_set: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What became of one: the status, None where the association ended instead, and the file, None where there is none."""

    status: int | None
    file: bytes | None


def exchange(
    program: str,
    options: Sequence[str],
    instances: Sequence[Outgoing],
    folder: Path,
    environment: Mapping[str, str] | None = None,
) -> list[Delivered]:
    """Send instances to a receiver started with options, which has an empty folder below `folder`.

    Every SOP class and transfer syntax that occurs is accepted. Each instance needs a SOP Instance UID of its own, since
    that is how files are told apart.
    """
    stored = folder / "stored"
    stored.mkdir(parents=True)
    configuration = folder / _CONFIGURATION
    configuration.write_text(_configuration_text(instances), encoding="ascii")
    names = [f"{number}.raw" for number, _ in enumerate(instances)]
    for name, instance in zip(names, instances, strict=True):
        (folder / name).write_bytes(instance.data_set)
    plan = {
        "argv": [program, *options, "-xf", str(configuration), _PROFILE, "-od", str(stored)],
        "log": str(folder / "receiver.log"),
        "environment": dict(environment or {}),
        "in_namespace": bool(_namespace()),
        "instances": [
            {**asdict(instance), "data_set": str(folder / name)}
            for name, instance in zip(names, instances, strict=True)
        ],
    }
    (folder / "plan.json").write_text(json.dumps(plan), encoding="ascii")
    run = subprocess.run(
        [*_namespace(), sys.executable, __file__, str(folder / "plan.json")],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    if run.returncode:
        raise AssertionError(f"the sender failed:\n{run.stderr}")
    statuses = json.loads(run.stdout)
    files = {path.name.partition(".")[2]: path for path in stored.iterdir()}
    return [
        Delivered(status=status, file=path.read_bytes() if path else None)
        for status, path in (
            (status, files.get(instance.sop_instance_uid))
            for status, instance in zip(statuses, instances, strict=True)
        )
    ]


def _configuration_text(instances: Sequence[Outgoing]) -> str:
    """Return an association negotiation profile that accepts what the instances need."""
    syntaxes = sorted({instance.transfer_syntax_uid for instance in instances})
    classes = sorted({instance.sop_class_uid for instance in instances})
    lines = ["[[TransferSyntaxes]]", "[Any]"]
    lines += [f"TransferSyntax{number} = {uid}" for number, uid in enumerate(syntaxes, 1)]
    lines += ["[[PresentationContexts]]", "[Any]"]
    lines += [f"PresentationContext{number} = {uid}\\Any" for number, uid in enumerate(classes, 1)]
    lines += ["[[Profiles]]", f"[{_PROFILE}]", "PresentationContexts = Any"]
    return "\n".join(lines) + "\n"


@cache
def _namespace() -> tuple[str, ...]:
    """Return the words before a command that give it a network of its own, none where that is not permitted."""
    unshare = shutil.which("unshare")
    for words in ((unshare, "--net"), (unshare, "--map-root-user", "--net")):
        if (
            unshare
            and subprocess.run([*map(str, words), "true"], capture_output=True, check=False).returncode == 0
        ):
            return tuple(map(str, words))
    return ()


# In the namespace


def main() -> None:
    """Run a receiver, send it what the plan names, and print the statuses as JSON."""
    plan = json.loads(Path(sys.argv[1]).read_text(encoding="ascii"))
    if plan["in_namespace"]:
        _raise_loopback()
    port = free_port()
    environment = {"TCP_NODELAY": "1", **plan["environment"]}
    with running(
        "receiver", [*plan["argv"], str(port)], log=Path(plan["log"]), environment=environment
    ) as program:
        program.wait_until_listening(port)
        print(json.dumps(list(_statuses(port, plan["instances"]))))


def _raise_loopback() -> None:
    """Bring the loopback interface up, which a new namespace has down."""
    with socket.socket() as any_socket:
        flags = struct.pack("16sH14x", b"lo", 1)  # IFF_UP
        fcntl.ioctl(any_socket, 0x8914, flags)  # SIOCSIFFLAGS


def _statuses(port: int, instances: list[dict[str, str]]) -> Iterator[int | None]:
    """Send one instance after the other; where a receiver ends the association, the next one gets a new one."""
    wanted = sorted({(each["sop_class_uid"], each["transfer_syntax_uid"]) for each in instances})
    if len(wanted) > _CONTEXTS_MAX:
        raise ValueError("more presentation contexts are needed than an association has")
    contexts = [
        Context(context_id=2 * number + 1, abstract_syntax=sop_class, transfer_syntaxes=(syntax,))
        for number, (sop_class, syntax) in enumerate(wanted)
    ]
    peer: RawPeer | None = None
    for each in instances:
        if peer is None:
            peer = RawPeer(port)
            peer.associate(*contexts)
        context_id = 2 * wanted.index((each["sop_class_uid"], each["transfer_syntax_uid"])) + 1
        if context_id not in peer.accepted:
            raise ValueError(f"the receiver does not accept {each['transfer_syntax_uid']}")
        data_set = Path(each["data_set"]).read_bytes()
        try:
            answer = peer.store(
                each["sop_instance_uid"],
                data_set,
                context_id=context_id,
                sop_class_uid=each["sop_class_uid"],
                piece=_PIECE,
            )
        except (PeerClosed, AssertionError):  # an A-ABORT in place of an answer is an AssertionError there
            peer.close()
            peer = None
            yield None
        else:
            yield answer.status
    if peer is not None:
        with contextlib.suppress(PeerClosed):
            peer.release()
        peer.close()


if __name__ == "__main__":
    main()
