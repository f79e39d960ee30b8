"""What storage commitment costs: the answer to a large request, and a thousand transactions that wait for dead peers.

    python bench/commitment.py [--references 10000] [--requests 10] [--transactions 1000] [--peers 50] [--rounds 8]
                               [--instances 15000] [--folder DIR] [--json]

The answer is timed from the first byte of the request to the last of the response, over the loopback interface; then the
server is killed, and its database has to hold every reference. The waiting transactions belong to peers of which half refuse
connections and half take them and say nothing; each server has its turn on an archive of its own, one right after the other,
and takes small instances over one association. When a turn begins every lane is due, so each of them has its attempt in it.
Put the folder on the disk that the archive is to be on.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from sqlalchemy import delete, func, select, update

from contenders import CONTENDERS, Contender, Receiver, serving
from cstore_load import (
    Association,
    Instance,
    contexts_of,
    encode_requests,
    negotiate,
    run_load,
)
from process_memory import cpu_seconds
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.schema import commitment_instances, job_lanes, jobs
from support.instances import CT_IMAGE_STORAGE, make_instance
from support.raw_commitment import PUSH_MODEL, action_command, action_data, ask, push_model_context
from support.raw_peer import COMMAND, EXPLICIT_VR_LITTLE_ENDIAN, LAST, RawPeer, data_set_pdus, p_data

ANSWER_SECONDS_MAX = 0.5
"""Bar: the answer to a request of ten thousand instances, durable."""
COST_MAX = 0.05
"""Bar: the share of a receiver's throughput that a thousand transactions waiting for dead peers may cost."""
REFERENCES_EACH = 10
INSTANCE_BYTES = 8000
INSTANCES_A_SERIES = 100
SETTLE_SECONDS_MAX = 600.0
POLL_SECONDS = 0.05
CALLING_AE_TITLE = "BENCH"
"""What `cstore_load` calls itself."""


@contextlib.contextmanager
def dead_ports(count: int) -> Iterator[list[int]]:
    """Give ports of the loopback interface of which every second one takes connections and says nothing."""
    with contextlib.ExitStack() as stack:
        ports = []
        for number in range(count):
            bound = stack.enter_context(socket.socket())
            bound.bind(("127.0.0.1", 0))
            if number % 2:
                bound.listen(128)
            ports.append(bound.getsockname()[1])
        yield ports


def server_with(folder: Path, settings: str) -> Contender:
    """Return Stowkeeper with settings in a file."""
    config = folder / "stowkeeper.toml"
    config.write_text(settings, encoding="utf-8")
    shipped = CONTENDERS["stowkeeper"]
    return replace(
        shipped, command=lambda place, port: [*shipped.command(place, port), "--config", str(config)]
    )


def settings_for(ports: Sequence[int]) -> str:
    """Return settings with a peer for each port. All ask by one AE title, from addresses of their own."""
    peers = "".join(
        f'\n[[peers]]\nname = "dead-{number}"\nae_title = "DEAD{number}"\nhost = "127.0.0.1"\nport = {port}\n'
        for number, port in enumerate(ports)
    )
    own = f'\n[[peers]]\nname = "bench"\nae_title = "{CALLING_AE_TITLE}"\nhost = "127.0.0.1"\nport = 9\n'
    return f"[commitment]\ngrace_seconds = 0\n{peers}{own}"


def encoded_request(uid: str, references: int, context_id: int) -> bytes:
    """Return a whole N-ACTION request as PDUs."""
    named = [(CT_IMAGE_STORAGE, f"1.2.840.99999.1.1.{number}") for number in range(references)]
    command = p_data(context_id, action_command(), control=COMMAND | LAST)
    return command + data_set_pdus(context_id, action_data(uid, named))


# The answer


def time_answers(folder: Path, references: int, requests: int) -> dict[str, Any]:
    """Ask again and again, and return the seconds of each answer; check that all is durable."""
    seconds = []
    archive = folder / "answers"
    with dead_ports(0), serving(server_with(folder, settings_for(())), archive) as receiver:
        for number in range(requests):
            wait_for_checks(archive)
            context = (PUSH_MODEL, EXPLICIT_VR_LITTLE_ENDIAN)
            association = Association(receiver.port, receiver.ae_title, [context])
            encoded = encoded_request(f"1.2.840.99999.{number}", references, association.context_ids[context])
            start = time.perf_counter()
            association.send(encoded)
            status = association.receive_status()
            seconds.append(time.perf_counter() - start)
            if status:
                raise SystemExit(f"a request was answered {status:04X}H")
            if number + 1 < requests:
                association.release()
        receiver.program.kill()
    with looking(archive) as reader, reader.database.read() as connection:
        kept = connection.execute(select(func.count()).select_from(commitment_instances)).scalar()
    if kept != references * requests:
        raise SystemExit(f"{kept} references are kept of {references * requests}: it was not durable")
    return {"seconds": sorted(seconds), "references": references}


@contextlib.contextmanager
def looking(archive: Path) -> Iterator[ArchiveReader]:
    """Look into an archive beside its server."""
    reader = ArchiveReader(str(archive))
    try:
        yield reader
    finally:
        reader.close()


def wait_for_checks(archive: Path) -> None:
    """Wait until no job runs, and none is due that is not in the lane of a dead peer."""
    if not (archive / "catalog.sqlite").exists():
        return
    with looking(archive) as reader:
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while True:
            with reader.database.read() as connection:
                busy = connection.execute(
                    select(func.count())
                    .select_from(jobs)
                    .where(
                        (jobs.c.lane == "disk") & jobs.c.finished_at.is_(None) & (jobs.c.kind == "commitment")
                    )
                ).scalar()
            if not busy:
                return
            if time.monotonic() > deadline:
                raise SystemExit("the checks did not come to an end")
            time.sleep(POLL_SECONDS)


# The waiting


def fill(contender: Contender, archive: Path, peers: int, transactions: int) -> None:
    """Ask for transactions in the name of dead peers, and wait until all of them wait for their reports."""
    with serving(contender, archive) as receiver:
        for number in range(transactions):
            ask_as(receiver, f"DEAD{number % peers}", f"1.2.840.88888.{number}")
        wait_for_checks(archive)
        with looking(archive) as reader, reader.database.read() as connection:
            waiting = connection.execute(
                select(func.count()).select_from(jobs).where(jobs.c.lane.startswith("peer:"))
            ).scalar()
    if waiting != transactions:
        raise SystemExit(f"{waiting} transactions wait of {transactions}")


def ask_as(receiver: Receiver, calling: str, uid: str) -> None:
    """Ask for a few instances by another AE title than `cstore_load` has."""
    named = [(CT_IMAGE_STORAGE, f"1.2.840.99999.1.1.{number}") for number in range(REFERENCES_EACH)]
    with RawPeer(receiver.port) as peer:
        peer.associate(push_model_context(), calling=calling.encode(), called=receiver.ae_title.encode())
        status = ask(peer, action_data(uid, named)).status
        peer.release()
    if status:
        raise SystemExit(f"a request was answered {status:04X}H")


def small_instances(count: int) -> list[Instance]:
    """Make instances of their own, a hundred in each series."""
    made = (
        make_instance(
            number,
            size=INSTANCE_BYTES,
            study=f"1.2.{number // INSTANCES_A_SERIES}",
            series=f"1.2.{number // INSTANCES_A_SERIES}.1",
        )
        for number in range(count)
    )
    return [
        Instance(
            sop_class_uid=each.sop_class_uid,
            sop_instance_uid=each.sop_instance_uid,
            transfer_syntax_uid=each.transfer_syntax_uid,
            data_set=each.data,
        )
        for each in made
    ]


def load(contender: Contender, archive: Path, instances: Sequence[Instance]) -> tuple[float, float]:
    """Return how many instances a second a server takes, and its processor time for each in milliseconds."""
    with serving(contender, archive) as receiver:
        context_ids, length = negotiate(receiver.port, receiver.ae_title, contexts_of(instances))
        requests = encode_requests(instances, context_ids, length)
        before = cpu_seconds(receiver.program.pid)
        measured = run_load(receiver.port, receiver.ae_title, instances, requests, 1)
        spent = cpu_seconds(receiver.program.pid) - before
    os.sync()
    if measured.refused:
        raise SystemExit(f"{measured.refused} instances were refused")
    return measured.instances_a_second, spent / measured.instances * 1e3


def make_due(archive: Path) -> None:
    """Let every waiting report be due now."""
    with looking(archive) as reader, reader.database.write() as transaction:
        transaction.execute(delete(job_lanes))
        transaction.execute(
            update(jobs).where(jobs.c.finished_at.is_(None)).values(due_at="2020-01-01T00:00:00.000000Z")
        )


def compare(
    folder: Path, instances: Sequence[Instance], *, peers: int, transactions: int, rounds: int
) -> dict[str, Any]:
    """Let a server with waiting transactions and one without take turns; return the ratio of each round."""
    with dead_ports(peers) as ports:
        contender = server_with(folder, settings_for(ports))
        template = folder / "template"
        fill(contender, template, peers, transactions)
        empty = folder / "empty"
        with serving(contender, empty):
            pass
        make_due(template)
        ratios, costs = [], []
        for number in range(rounds):
            found = {}
            for origin in (template, empty) if number % 2 else (empty, template):
                archive = folder / f"turn-{origin.name}"
                shutil.copytree(origin, archive)
                found[origin] = load(contender, archive, instances)
                shutil.rmtree(archive)
            ratios.append(found[template][0] / found[empty][0])
            costs.append(found[template][1] / found[empty][1])
    return {
        "ratios": ratios,
        "median": statistics.median(ratios),
        "processor time": statistics.median(costs),
        "transactions": transactions,
        "peers": peers,
    }


def main() -> None:
    """Measure both and say whether the bars are met."""
    parser = argparse.ArgumentParser(description="What storage commitment costs.")
    parser.add_argument("--references", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=10)
    parser.add_argument("--transactions", type=int, default=1000)
    parser.add_argument("--peers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--instances", type=int, default=15_000)
    parser.add_argument("--folder", type=Path, help="where the archives are made; a temporary one as shipped")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    instances = small_instances(options.instances)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="commitment-") as made:
        folder = Path(made)
        answers = time_answers(folder, options.references, options.requests)
        waiting = compare(
            folder, instances, peers=options.peers, transactions=options.transactions, rounds=options.rounds
        )
    slowest = answers["seconds"][-1]
    cost = 1 - waiting["median"]
    if options.json:
        print(json.dumps({"answers": answers, "waiting": waiting}))
    else:
        print(
            f"answer to {options.references} references: median {statistics.median(answers['seconds']):.3f} s,"
            f" slowest {slowest:.3f} s, bar {ANSWER_SECONDS_MAX} s: {'met' if slowest < ANSWER_SECONDS_MAX else 'MISSED'}"
        )
        shown = ", ".join(f"{ratio:.2f}" for ratio in waiting["ratios"])
        print(
            f"{options.transactions} transactions waiting for {options.peers} dead peers: {cost:+.1%} of the throughput"
            f" ({shown}), bar {COST_MAX:.0%}: {'met' if cost < COST_MAX else 'MISSED'};"
            f" processor time an instance × {waiting['processor time']:.2f}"
        )
    if slowest >= ANSWER_SECONDS_MAX or cost >= COST_MAX:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
