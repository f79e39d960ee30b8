"""How fast rules forward, beside `stowkeeper send` of the same instances to the same sink, in turns; and what rules cost reception.

    python bench/forwarding.py [--instances 10000] [--size 8000] [--rounds 6] [--received 8000] [--folder DIR] [--json]

The sink answers and throws away. The instances are taken into an archive once; for each turn a server finds them as changes that no
rule has seen, and forwards them by one rule as soon as it is told of the peer, once it is at rest after its start. Its time is that from the start of the first job to the end of the last one, so what
lies between two jobs is in it. Of `send` it is the time that its summary says: of one association, from folders of files.

For the reception a server without rules and one with ten, of which two choose every instance for a destination that nobody
defines, take turns on archives of their own: so it is the rules that are measured, and not the sending. A third, whose one rule has
everything sent on to the sink while it is received, has no bar: it does twice the work with the same processors. Put the folder on
the disk that the archive is to be on.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from sqlalchemy import delete, func, select

from commitment import load, looking, server_with, small_instances
from contenders import CONTENDERS, Receiver, serving, wait_for_rest
from stowkeeper.database.schema import consumers, forwards, jobs
from stowkeeper.services.forwarding.following import CONSUMER
from support.command_line import write_part10
from support.instances import make_instance

SHARE_MIN = 0.8
"""Bar: the rate of forwarding as a share of that of `send`."""
RECEPTION_MIN = 0.9
"""Bar: the share of its throughput that a receiver keeps with rules on."""
RULE = '[[forwarding_rules]]\nname = "all"\nto = ["sink"]\n'
RULES = 10
ALWAYS = 2
FILES_A_FOLDER = 1000
SECONDS_MAX = 1800.0
POLL_SECONDS = 0.1
OWN = (sys.executable, "-m", "stowkeeper")


def write_files(folder: Path, count: int, size: int) -> None:
    """Write instances of one study as files."""
    for number in range(count):
        instance = make_instance(number, size=size, series=f"1.2.10.{number // FILES_A_FOLDER}")
        write_part10(folder / str(number // FILES_A_FOLDER) / f"{number}.dcm", instance)


def own(*arguments: str) -> str:
    """Run a command of ours to its end, and return what it prints."""
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[1] / "src")}
    ended = subprocess.run([*OWN, *arguments], env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return ended.stdout


def send(files: Path, sink: Receiver, count: int) -> float:
    """Send the files; return instances a second."""
    printed = own("send", "--json", f"{sink.ae_title}@127.0.0.1:{sink.port}", str(files))
    summary: dict[str, Any] = json.loads(printed.splitlines()[-1])["summary"]
    if summary["accepted"] != count:
        raise SystemExit(f"{summary['accepted']} instances were sent of {count}")
    return count / float(summary["seconds"])


def peer_at(sink: Receiver) -> str:
    """Return settings that define the sink."""
    return f'[[peers]]\nname = "sink"\nae_title = "{sink.ae_title}"\nhost = "127.0.0.1"\nport = {sink.port}\n'


def forward(folder: Path, archive: Path, sink: Receiver, count: int) -> float:
    """Have a server forward everything; return instances a second."""
    with looking(archive) as reader, reader.database.write() as transaction:
        for table in (forwards, jobs):
            transaction.execute(delete(table))
        transaction.execute(delete(consumers).where(consumers.c.name == CONSUMER))
        transaction.execute(consumers.insert().values(name=CONSUMER, seq=0))
    peer, rule = peer_at(sink), RULE
    of_forwarding = jobs.c.created_by == "forwarding"
    begin = time.monotonic()
    with serving(server_with(folder, rule), archive) as server, looking(archive) as reader:
        wait_for_rest(server.program.pid)  # it makes slots for what it is to receive
        (folder / "stowkeeper.toml").write_text(peer + rule, encoding="utf-8")
        os.kill(server.program.pid, signal.SIGHUP)
        while True:
            with reader.database.read() as connection:
                sent = connection.execute(
                    select(func.count()).select_from(forwards).where(forwards.c.state == "sent")
                ).scalar_one()
                first, last, left = connection.execute(
                    select(
                        func.min(jobs.c.started_at),
                        func.max(jobs.c.finished_at),
                        func.count().filter(jobs.c.finished_at.is_(None)),
                    ).where(of_forwarding)
                ).one()
            if sent == count and not left:
                break
            if time.monotonic() - begin > SECONDS_MAX:
                raise SystemExit(f"{sent} instances were forwarded of {count}")
            time.sleep(POLL_SECONDS)
    seconds = (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds()
    return count / seconds


def compare(folder: Path, count: int, size: int, rounds: int) -> dict[str, Any]:
    """Let both take turns; return the rates of each round."""
    files, archive, place = folder / "files", folder / "archive", folder / "sink"
    write_files(files, count, size)
    own("import", "--archive", str(archive), str(files))
    place.mkdir()
    sent, forwarded = [], []
    with serving(CONTENDERS["sink"], place) as sink:
        for number in range(rounds):
            turns = [
                lambda: sent.append(send(files, sink, count)),
                lambda: forwarded.append(forward(folder, archive, sink, count)),
            ]
            for turn in turns[:: -1 if number % 2 else 1]:
                turn()
    ratios = [one / other for one, other in zip(forwarded, sent, strict=True)]
    return {"sent": sent, "forwarded": forwarded, "ratios": ratios, "median": statistics.median(ratios)}


def rules(count: int) -> str:
    """Return settings with rules of which the first two choose all that comes, for a destination that there is not."""
    return "".join(
        f'[[forwarding_rules]]\nname = "rule {number}"\nto = ["nowhere {number % 2}"]\nmodalities = ["CT", "MR"]\n'
        f'attributes = {{PatientID = ["{"*" if number < ALWAYS else "X*"}"]}}\n'
        for number in range(count)
    )


def receive(folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Let a server with rules, one that sends on and one without take turns; return the ratios of each round."""
    sent = small_instances(count)
    found: dict[str, list[tuple[float, float]]] = {"on": [], "off": [], "sending": []}
    shares = []
    place = folder / "sink-of-reception"
    place.mkdir()
    with serving(CONTENDERS["sink"], place) as sink:
        contenders = {"on": rules(RULES), "off": "", "sending": peer_at(sink) + RULE}
        for number in range(rounds):
            for name in sorted(contenders, reverse=bool(number % 2)):
                archive = folder / f"turn-{name}-{number}"
                found[name].append(load(server_with(folder, contenders[name]), archive, sent))
                with looking(archive) as reader, reader.database.read() as connection:
                    total, went = connection.execute(
                        select(func.count(), func.count().filter(forwards.c.state == "sent")).select_from(
                            forwards
                        )
                    ).one()
                if not total and name != "off":
                    raise SystemExit(f'the rules of the server "{name}" chose nothing')
                if name == "sending":
                    shares.append(went / count)
    ratios = [on[0] / off[0] for on, off in zip(found["on"], found["off"], strict=True)]
    costs = [on[1] / off[1] for on, off in zip(found["on"], found["off"], strict=True)]
    sending = [on[0] / off[0] for on, off in zip(found["sending"], found["off"], strict=True)]
    return {
        "ratios": ratios,
        "median": statistics.median(ratios),
        "processor time": statistics.median(costs),
        "sending": sending,
        "sent meanwhile": statistics.median(shares),
    }


def main() -> None:
    """Measure, and say whether the bar is met."""
    parser = argparse.ArgumentParser(description="How fast rules forward, beside send.")
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=8000, help="bytes of the pixels of each")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--received", type=int, default=8_000, help="instances of a turn of the reception")
    parser.add_argument("--folder", type=Path, help="where the archive is made; a temporary one as shipped")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="forwarding-") as made:
        found = compare(Path(made), options.instances, options.size, options.rounds)
        reception = receive(Path(made), options.received, options.rounds)
    if options.json:
        print(json.dumps({"forwarding": found, "reception": reception}))
    else:
        verdict = "met" if found["median"] >= SHARE_MIN else "MISSED"
        shown = ", ".join(f"{ratio:.2f}" for ratio in found["ratios"])
        print(
            f"{options.instances} instances of {options.size} bytes: sent {statistics.median(found['sent']):.0f} a second,"
            f" forwarded {statistics.median(found['forwarded']):.0f}; {found['median']:.2f} ({shown}), bar {SHARE_MIN}:"
            f" {verdict}"
        )
        verdict = "met" if reception["median"] >= RECEPTION_MIN else "MISSED"
        shown = ", ".join(f"{ratio:.2f}" for ratio in reception["ratios"])
        print(
            f"reception with rules beside without: {reception['median']:.2f} ({shown}), bar {RECEPTION_MIN}: {verdict};"
            f" processor time an instance × {reception['processor time']:.2f}"
        )
        shown = ", ".join(f"{ratio:.2f}" for ratio in reception["sending"])
        print(
            f"reception while everything is sent on: {statistics.median(reception['sending']):.2f} ({shown});"
            f" {reception['sent meanwhile']:.0%} had gone when the last one was answered"
        )
    if found["median"] < SHARE_MIN or reception["median"] < RECEPTION_MIN:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
