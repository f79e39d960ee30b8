"""Soak: hours of mixed load on a real server, with kills, and at the end nothing that was answered Success is lost.

    python bench/soak.py [--seconds 7200] [--rate 4] [--kill-every 300] [--seed N] [--folder DIR] [--json]

Several peers send by C-STORE and STOW-RS; some break off, send garbage, the same again or another version. Storage commitment is asked
for and reported, events go to an endpoint and a command, copies to a folder, instances are removed, lists and metrics looked at, the
settings read anew. In its first half the server is killed now and then and started anew; the second half is one life, whose memory,
descriptors and threads may not grow beyond the bounds below. Then everything has to be listed, verified, told, copied and reported.
Exit code 1 when anything is lost, grows, or happened that must not. The seed, which is printed, makes the same players do the same.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from soak_players import (
    Breaker,
    Committer,
    Endpoint,
    Garbler,
    Holder,
    Looker,
    Modality,
    Passing,
    Player,
    Reloader,
    Remover,
    Repeater,
    Uploader,
    Watcher,
)
from soak_record import Record, Version
from soak_server import COMMITTER, MODALITIES, Sample, SoakServer, wait_until
from support.command_line import environment
from support.commitment_user import CommitmentUser

SECONDS = 7200.0
RATE = 4.0
"""Instances a second, all peers together."""
KILL_EVERY_SECONDS = 300.0
SAMPLES_MAX = 720
SETTLE_SECONDS_MAX = 180.0
"""For so long the last events, copies and reports may take when nobody sends any more."""
WARMED_UP = 1 / 3
"""The share of the last life after which its use is the measure for the rest: by then every part has worked."""

MEMORY_GROWTH_MAX = 48_000_000
"""Bytes that the median of the last tenth may lie above that of the tenth behind the warming up. The pool of receive buffers (48 MiB)
and the caches of the database fill slowly at this pace: after ten minutes all of it stood still, at 173 MB."""
MEMORY_SLOPE_MAX = 24_000_000
"""Bytes an hour, where the measured time is long enough to tell."""
SLOPE_SECONDS_MIN = 1200.0
DESCRIPTORS_GROWTH_MAX = 40
THREADS_GROWTH_MAX = 30
"""Each of a few dozen players may hold one at the end that it did not hold before, and no more."""


@dataclass(kw_only=True)
class Verdict:
    """What came of a soak: numbers for people, and each fault in words."""

    numbers: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def expect(self, holds: bool, words: str) -> None:
        """Note a fault where something does not hold."""
        if not holds:
            self.faults.append(words)


def players(server: SoakServer, record: Record, seed: int, rate: float) -> list[Player]:
    """Return all players; together they send about `rate` instances a second."""
    scale = RATE / rate
    cast: list[tuple[type[Player], str, float]] = [
        *((Modality, name, 5.0) for name in MODALITIES),
        (Holder, "HOLDER", 2.0),
        (Passing, "PASSING", 5.0),
        (Repeater, "REPEATER", 5.0),
        (Uploader, "UPLOADER", 4.0),
        (Committer, "COMMITTER", 6.0),
        (Breaker, "BREAKER", 3.0),
        (Garbler, "GARBLER", 2.0),
        (Looker, "LOOKER", 1.0),
        (Remover, "REMOVER", 4.0),
        (Reloader, "RELOADER", 12.0),
        (Watcher, "WATCHER", 1.0),
    ]
    return [kind(server, record, seed, name, every * scale) for kind, name, every in cast]


class Soak:
    """One run."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.record = Record()
        self._endpoint = Endpoint(self.record, options.seed)
        self._committer = CommitmentUser(ae_title=COMMITTER)
        self.server = SoakServer(folder, endpoint_port=self._endpoint.port, report_port=self._committer.port)

    def close(self) -> None:
        """End everything."""
        self.server.close()
        self._committer.close()
        self._endpoint.close()

    def run(self) -> Verdict:
        """Play for the time, let everything come to rest, and hold the archive against the record."""
        self.server.start()
        self.server.take_sample()
        everyone = players(self.server, self.record, self.options.seed, self.options.rate)
        for player in everyone:
            player.start()
        self._play()
        watchers = [player for player in everyone if isinstance(player, Watcher)]
        _end([player for player in everyone if player not in watchers])
        verdict = Verdict()
        self._settle(verdict)
        self.server.take_sample()
        _end(watchers)
        verdict.expect(self.server.stop() == 0, "the server did not end in order")
        judge_growth(self.server.samples, self.server.life, verdict)
        self._judge_archive(verdict)
        self._sum_up(verdict)
        return verdict

    def _play(self) -> None:
        seconds = self.options.seconds
        begun = time.monotonic()
        kill_at = self.options.kill_every
        while (passed := time.monotonic() - begun) < seconds:
            if self.options.kill_every and kill_at <= passed and passed < seconds / 2:
                kill_at += self.options.kill_every
                self.record.count("kills")
                self.server.kill_and_start()
            self.server.check_alive()
            self.server.take_sample()
            time.sleep(max(0.5, seconds / SAMPLES_MAX))

    # At the end

    def _settle(self, verdict: Verdict) -> None:
        """Wait for what is still to be told, copied and reported."""
        record = self.record
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        kept = record.kept_uids()
        awaited: dict[str, Callable[[], set[str]]] = {
            "events to the endpoint": lambda: kept - record.told,
            "quiet studies to the endpoint": lambda: self._unsaid_studies(self._endpoint.quiet),
            "quiet studies to the command": lambda: self._unsaid_studies(
                set(self.server.told_by_command.read_text().split())
            ),
            "copies in the export folder": lambda: kept - record.exported,
            "reports on storage commitment": lambda: (
                set(record.asked) - {report.transaction_uid for report in list(self._committer.reports)}
            ),
        }
        for what, missing in awaited.items():
            wait_until(lambda missing=missing: not missing(), deadline - time.monotonic())  # type: ignore[misc]  # bound now
            verdict.expect(not missing(), f"{len(missing())} {what} did not come: {sorted(missing())[:3]}")
        is_at_rest = wait_until(lambda: not self._jobs_at_work(), deadline - time.monotonic(), 1.0)
        verdict.expect(is_at_rest, f"jobs did not come to an end: {self._jobs_at_work()}")
        verdict.numbers["jobs"] = {
            f"{row['kind']} {row['state']}": row["jobs"] for row in self._statistics()["jobs"]
        }
        for report in self._committer.reports:
            failed = [uid for _, uid in report.failed if not record.has_versions(uid)]
            verdict.expect(not failed, f"not committed, though answered Success: {failed[:3]}")

    def _unsaid_studies(self, said: set[str]) -> set[str]:
        return {study for study in self.record.studies if study not in said}

    def _jobs_at_work(self) -> list[str]:
        """Return the jobs that are not finished; what waits for another day, as the scrub does, is at rest."""
        found = self._statistics()
        at_work = {"running", "retry"} | ({"pending"} if found["oldest_waiting_job_at"] else set())
        return [
            f"{row['jobs']} {row['kind']} {row['state']}" for row in found["jobs"] if row["state"] in at_work
        ]

    def _statistics(self) -> dict[str, Any]:
        looker = Looker(self.server, self.record, 0, "statistics", 1.0)
        found: dict[str, Any] = json.loads(looker.call("GET", "/api/statistics")[1])
        return found

    def _judge_archive(self, verdict: Verdict) -> None:
        """Hold what is listed, and what `stowkeeper verify` says, against what was answered."""
        listed = {
            (row["sop_instance_uid"], row["digest"]): row
            for row in self._command("ls", "instances", "--all-versions")
        }
        lost: set[Version] = self.record.lost(listed)
        verdict.numbers["lost"] = len(lost)
        verdict.expect(
            not lost, f"{len(lost)} versions were answered Success and are not listed: {sorted(lost)[:3]}"
        )
        still = {uid for uid, _ in listed} & self.record.gone
        verdict.expect(not still, f"{len(still)} removed instances are listed: {sorted(still)[:3]}")
        strangers = {version for version in listed if version[1] not in self.record.sent.get(version[0], ())}
        verdict.expect(
            not strangers, f"{len(strangers)} versions are listed that nobody sent: {sorted(strangers)[:3]}"
        )
        run = self._run("verify", "--json")
        verdict.expect(
            run.returncode == 0, f"stowkeeper verify ended with {run.returncode}: {run.stdout[-500:]}"
        )
        verdict.numbers |= {
            "listed": len(listed),
            "verified": json.loads(run.stdout.splitlines()[-1])["summary"],
        }

    def _command(self, *words: str) -> list[dict[str, Any]]:
        run = self._run(*words, "--json")
        if run.returncode:
            raise SystemExit(f"stowkeeper {' '.join(words)} ended with {run.returncode}: {run.stderr[-500:]}")
        return [json.loads(line) for line in run.stdout.splitlines()]

    def _run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "stowkeeper", *words, "--archive", str(self.server.archive)]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment())

    def _sum_up(self, verdict: Verdict) -> None:
        record = self.record
        verdict.numbers["resident"]["peak"] = (
            self.server.peak
        )  # the highest mark of the system, between samples too
        verdict.numbers = {
            "seed": self.options.seed,
            "seconds": self.options.seconds,
            "answered Success": len(record.answered),
            "removed on purpose": len(record.removed),
            "commitments reported": len(self._committer.reports),
            "copies": len(record.exported),
            **dict(sorted(record.counts.items())),
            **verdict.numbers,
        }
        verdict.faults += [f"it must not happen: {words}" for words in record.surprises[:20]]


def _end(ending: Sequence[Player]) -> None:
    for player in ending:
        player.stop()
    for player in ending:
        player.join(60)


# Growth


def slope(samples: Sequence[Sample]) -> float:
    """Return how many bytes of memory an hour came to, by least squares; 0 for less than two samples."""
    if len(samples) < 2:
        return 0.0
    fitted = statistics.linear_regression([one.at for one in samples], [one.resident for one in samples])
    return fitted.slope * 3600


def judge_growth(samples: Sequence[Sample], life: int, verdict: Verdict) -> None:
    """Compare the end of the last life with its beginning, once it was warmed up."""
    last = [one for one in samples if one.life == life]
    measured = last[int(len(last) * WARMED_UP) :]
    part = max(1, len(measured) // 10)
    early, late = measured[:part], measured[-part:]
    seconds = measured[-1].at - measured[0].at
    for what, unit, most in (
        ("resident", " bytes of memory", MEMORY_GROWTH_MAX),
        ("descriptors", " descriptors", DESCRIPTORS_GROWTH_MAX),
        ("threads", " threads", THREADS_GROWTH_MAX),
    ):
        before, after = (statistics.median(getattr(one, what) for one in group) for group in (early, late))
        verdict.numbers[what] = {
            "start": getattr(last[0], what),
            "warm": before,
            "peak": max(getattr(one, what) for one in samples),
            "end": after,
        }
        verdict.expect(
            after - before <= most, f"{after - before:.0f}{unit} more after {seconds:.0f} s, bound {most}"
        )
    steepness = slope(measured)
    verdict.numbers["memory slope, bytes an hour"] = round(steepness)
    if seconds >= SLOPE_SECONDS_MIN:
        words = f"memory grows by {steepness / 1e6:.1f} MB an hour, bound {MEMORY_SLOPE_MAX / 1e6:g}"
        verdict.expect(steepness <= MEMORY_SLOPE_MAX, words)


def main() -> None:
    """Soak and say what came of it."""
    parser = argparse.ArgumentParser(
        description="Mixed load on a real server for hours; nothing may be lost or grow."
    )
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--rate", type=float, default=RATE, help="instances a second, all peers together")
    parser.add_argument("--kill-every", type=float, default=KILL_EVERY_SECONDS, help="seconds; 0 kills never")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--folder", type=Path, help="where the archive is made; a temporary one as shipped")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(dir=options.folder, prefix="soak-") as made,
        contextlib.closing(Soak(options, Path(made) / "soak")) as soak,
    ):
        verdict = soak.run()
    if options.json:
        print(json.dumps({"numbers": verdict.numbers, "faults": verdict.faults}))
    else:
        for what, number in verdict.numbers.items():
            print(f"{what}: {number}")
        print(
            "\n".join(f"FAULT: {words}" for words in verdict.faults) or "nothing is lost, and nothing grows"
        )
    raise SystemExit(1 if verdict.faults else 0)


if __name__ == "__main__":
    main()
