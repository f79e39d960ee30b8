"""What traces cost: what reception loses while every association is told to a collector, and while that one is away.

    python bench/tracing.py [--rounds 6] [--instances 15000] [--share 1] [--folder DIR] [--json]

A server without traces, one with a collector in a process of its own, and one whose collector is away take turns on archives of
their own. Put the folder on the disk that the archive is to be on.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from commitment import load, server_with, small_instances

SHARE_MIN = 0.9
"""Bar: the share of its throughput that a receiver keeps with traces on."""

COLLECTOR = """
import http.server, sys

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def collector() -> Iterator[int]:
    """Run a collector that throws away what it gets; give its port."""
    process = subprocess.Popen([sys.executable, "-c", COLLECTOR], stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None:
            raise SystemExit("the collector says nothing")
        yield int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def compare(folder: Path, instances: int, rounds: int, share: float) -> dict[str, Any]:
    """Let the servers take turns; return the ratios of each round to the one without traces."""
    sent = small_instances(instances)
    ratios: dict[str, list[float]] = {"on": [], "away": []}
    costs: dict[str, list[float]] = {"on": [], "away": []}
    with collector() as port:
        contenders = {
            "off": "",
            "on": f'[tracing]\nendpoint = "http://127.0.0.1:{port}"\nshare = {share}\n',
            "away": f'[tracing]\nendpoint = "http://127.0.0.1:1"\nshare = {share}\n',
        }
        names = list(contenders)
        for number in range(rounds):
            found = {}
            for name in names[number % 3 :] + names[: number % 3]:
                archive = folder / f"turn-{name}"
                found[name] = load(server_with(folder, contenders[name]), archive, sent)
                shutil.rmtree(archive)
            for name in ("on", "away"):
                ratios[name].append(found[name][0] / found["off"][0])
                costs[name].append(found[name][1] / found["off"][1])
    return {
        name: {
            "ratios": ratios[name],
            "median": statistics.median(ratios[name]),
            "processor time": statistics.median(costs[name]),
        }
        for name in ratios
    }


def main() -> None:
    """Measure, and say whether the bar is met."""
    parser = argparse.ArgumentParser(description="What traces cost.")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--instances", type=int, default=15_000)
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, help="where the archives are made; a temporary one as shipped")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="tracing-") as made:
        found = compare(Path(made), options.instances, options.rounds, options.share)
    if options.json:
        print(json.dumps(found))
    else:
        for name, words in (("on", "with a collector"), ("away", "with a collector that is away")):
            shown = ", ".join(f"{ratio:.2f}" for ratio in found[name]["ratios"])
            verdict = "met" if found[name]["median"] >= SHARE_MIN else "MISSED"
            print(
                f"reception {words} beside without traces: {found[name]['median']:.2f} ({shown}), bar {SHARE_MIN}: {verdict};"
                f" processor time an instance × {found[name]['processor time']:.2f}"
            )
    if min(each["median"] for each in found.values()) < SHARE_MIN:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
