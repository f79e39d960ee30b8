"""What events cost: how fast a long queue drains to one endpoint, and what reception loses with events, rules and metrics on.

    python bench/events.py [--events 100000] [--rounds 6] [--instances 8000] [--folder DIR] [--json]

The queue is made of rows, as the finisher writes them; a server then posts them to an endpoint in a process of its own, which looks
whether those of each study come in order. For the reception two servers take turns on archives of their own: one without targets,
rules and HTTP, and one that posts every instance, asks ten forwarding rules about it, and is asked for its metrics all the while. Put the folder on the disk that the archive is to be on.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from catalog_growth import Source
from commitment import load, looking, server_with, small_instances
from contenders import Contender, serving
from forwarding import RULES, rules
from stowkeeper.archive import catalog
from stowkeeper.archive.changes import newest_change
from stowkeeper.database.schema import consumers
from support.processes import free_port

EVENTS_A_SECOND_MIN = 500
"""Bar: queued events that one endpoint gets in a second, in order."""
SHARE_MIN = 0.9
"""Bar: the share of its throughput that a receiver keeps with events, rules and metrics on."""
SCRAPE_SECONDS = 5.0
"""How often metrics are asked for: a third of the time that Prometheus takes as shipped."""
BATCH = 5000
SECONDS_MAX = 1800.0

ENDPOINT = """
import asyncio, json, sys

last, count, disorder = {}, 0, 0

async def serve(reader, writer):
    global count, disorder
    while True:
        try:
            head = await reader.readuntil(b"\\r\\n\\r\\n")
        except asyncio.IncompleteReadError:
            return
        length = next(int(line.split(b":")[1]) for line in head.split(b"\\r\\n") if line.lower().startswith(b"content-length"))
        event = json.loads(await reader.readexactly(length))
        study = event["study_instance_uid"]
        disorder += event["seq"] <= last.get(study, 0)
        last[study] = event["seq"]
        count += 1
        writer.write(b"HTTP/1.1 204 No Content\\r\\n\\r\\n")

async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        print(count, disorder, flush=True)

asyncio.run(main())
"""


class Endpoint:
    """A process that takes events, and says how many there were, and how many came out of order."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", ENDPOINT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.port = int(self._read())

    def _read(self) -> str:
        if self._process.stdout is None:
            raise SystemExit("the endpoint says nothing")
        return self._process.stdout.readline()

    def counts(self) -> tuple[int, int]:
        """Return how many events came, and how many of them after a later one of their study."""
        if self._process.stdin is None:
            raise SystemExit("the endpoint hears nothing")
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        count, disorder = map(int, self._read().split())
        return count, disorder

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def endpoint() -> Iterator[Endpoint]:
    """Run an endpoint for the length of a block."""
    with contextlib.closing(Endpoint()) as running:
        yield running


def target_at(port: int) -> str:
    """Return settings that have everything received posted to a port."""
    return f'[[event_targets]]\nname = "bench"\nevents = ["instance.received"]\nurl = "http://127.0.0.1:{port}/"\n'


def drain(folder: Path, events: int) -> dict[str, Any]:
    """Queue events, and return how many a second the endpoint gets."""
    archive = folder / "queue"
    with serving(server_with(folder, ""), archive):
        pass
    source = Source(ordered=True)
    with looking(archive) as reader:
        for done in range(0, events, BATCH):
            entries, _ = source.batch(min(BATCH, events - done))
            with reader.database.write() as transaction:
                catalog.insert(transaction, entries)
        with reader.database.write() as transaction:
            newest = newest_change(transaction.connection)
            transaction.execute(consumers.delete())
            rows = [{"name": "studies", "seq": newest}, {"name": "target:bench", "seq": 0}]
            transaction.execute(consumers.insert(), rows)
    with endpoint() as running, serving(server_with(folder, target_at(running.port)), archive):
        while not (first := running.counts()[0]):
            time.sleep(0.005)
        begin = time.perf_counter()
        count, disorder = first, 0
        while count < events:
            if time.perf_counter() - begin > SECONDS_MAX:
                raise SystemExit(f"{count} events came of {events}")
            time.sleep(0.05)
            count, disorder = running.counts()
        seconds = time.perf_counter() - begin
    if disorder:
        raise SystemExit(f"{disorder} events came out of order")
    return {"events": events, "a second": (events - first) / seconds}


def with_http(contender: Contender, port: int) -> Contender:
    """Return a server that answers HTTP at a port."""
    return replace(
        contender, command=lambda place, dicom: [*contender.command(place, dicom), "--http-port", str(port)]
    )


@contextlib.contextmanager
def scraped(port: int) -> Iterator[list[int]]:
    """Ask a server for its metrics again and again, for the length of a block; the list gets the bytes of each answer."""
    ended = threading.Event()
    answers: list[int] = []

    def scrape() -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError), urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
                answers.append(len(answer.read()))
            ended.wait(SCRAPE_SECONDS if answers else 0.05)

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield answers
    finally:
        ended.set()
        thread.join()


def compare(folder: Path, instances: int, rounds: int) -> dict[str, Any]:
    """Let a server with everything on and one with nothing take turns; return the ratio of each round."""
    sent = small_instances(instances)
    ratios, costs = [], []
    with endpoint() as running:
        contenders = {"on": target_at(running.port) + rules(RULES), "off": ""}
        for number in range(rounds):
            found = {}
            for name in sorted(contenders, reverse=bool(number % 2)):
                archive = folder / f"turn-{name}-{number}"
                contender = server_with(folder, contenders[name])
                with serving(contender, archive):
                    pass  # a target is told from its first start on
                if name == "off":
                    found[name] = load(contender, archive, sent)
                    continue
                port = free_port()
                told = running.counts()[0]
                with scraped(port) as answers:
                    found[name] = load(with_http(contender, port), archive, sent)
                if running.counts()[0] == told or not answers:
                    raise SystemExit("nobody was told, or there were no metrics")
            ratios.append(found["on"][0] / found["off"][0])
            costs.append(found["on"][1] / found["off"][1])
    return {
        "ratios": ratios,
        "median": statistics.median(ratios),
        "processor time": statistics.median(costs),
    }


def main() -> None:
    """Measure both and say whether the bars are met."""
    parser = argparse.ArgumentParser(description="What events cost.")
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--instances", type=int, default=8_000)
    parser.add_argument("--folder", type=Path, help="where the archives are made; a temporary one as shipped")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="events-") as made:
        folder = Path(made)
        drained = drain(folder, options.events)
        reception = compare(folder, options.instances, options.rounds)
    if options.json:
        print(json.dumps({"drain": drained, "reception": reception}))
    else:
        verdict = "met" if drained["a second"] >= EVENTS_A_SECOND_MIN else "MISSED"
        print(
            f"{options.events} queued events: {drained['a second']:.0f} a second, bar {EVENTS_A_SECOND_MIN}: {verdict}"
        )
        shown = ", ".join(f"{ratio:.2f}" for ratio in reception["ratios"])
        verdict = "met" if reception["median"] >= SHARE_MIN else "MISSED"
        print(
            f"reception with events, rules and metrics beside without: {reception['median']:.2f} ({shown}), bar {SHARE_MIN}: {verdict};"
            f" processor time an instance × {reception['processor time']:.2f}"
        )
    if drained["a second"] < EVENTS_A_SECOND_MIN or reception["median"] < SHARE_MIN:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
