"""Two minutes of `make soak` against a real server, and that its judgement finds what it looks for."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path.append(str(BENCH))

from soak import (  # noqa: E402 - only now it is found
    DESCRIPTORS_GROWTH_MAX,
    MEMORY_GROWTH_MAX,
    MEMORY_SLOPE_MAX,
    THREADS_GROWTH_MAX,
    Verdict,
    judge_growth,
)
from soak_record import Record, Sent, digest_of  # noqa: E402 - likewise
from soak_server import Sample  # noqa: E402 - likewise
from support.command_line import environment  # noqa: E402 - the order of the whole list

SOAK_SECONDS = 120.0
INSTANCES_A_SECOND = 2.0
"""A whole test suite runs beside it: at this rate it takes a fifth of a processor."""
KILL_EVERY_SECONDS = 25.0
SEED = 6


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="what a server uses is read from /proc")
@pytest.mark.timeout(SOAK_SECONDS + 480)
def test_two_minutes_of_mixed_load_lose_nothing_and_leave_nothing_behind(tmp_path: Path) -> None:
    options = {
        "--seconds": SOAK_SECONDS,
        "--rate": INSTANCES_A_SECOND,
        "--kill-every": KILL_EVERY_SECONDS,
        "--seed": SEED,
        "--folder": tmp_path,
    }
    words = [str(word) for option in options.items() for word in option]
    run = subprocess.run(
        [sys.executable, str(BENCH / "soak.py"), *words, "--json"],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    assert run.stdout, run.stderr
    found = json.loads(run.stdout)
    assert found["faults"] == [], found
    assert run.returncode == 0
    numbers = found["numbers"]
    assert numbers["lost"] == 0
    assert numbers["kills"] >= 1
    assert numbers["verified"]["whole"] == numbers["verified"]["files"] >= numbers["listed"] > 50
    for played in ("garbage", "broken off by the peer", "sent again", "STOW-RS 200", "reloads", "queries"):
        assert numbers[played] > 0, played
    assert numbers["removed on purpose"] > 0
    assert numbers["commitments reported"] > 0
    assert numbers["copies"] >= numbers["listed"] / 2


# What it looks for


def answered(*, status: int = 0, removable: bool = False) -> tuple[Record, Sent, str]:
    record = Record()
    sent = record.new(record.new_study(), 100)
    instance = sent.instance()
    record.sending(instance)
    record.answer(sent, instance, status, removable=removable)
    return record, sent, digest_of(instance.data)


def test_what_was_answered_success_and_is_not_listed_is_lost() -> None:
    record, sent, digest = answered()
    assert record.lost([]) == {(sent.uid, digest)}
    assert record.lost([(sent.uid, digest_of(b"another version"))]) == {(sent.uid, digest)}
    assert record.lost([(sent.uid, digest)]) == set()


def test_what_was_refused_or_removed_on_purpose_is_not_lost() -> None:
    record, _, _ = answered(status=0xA700)
    assert record.lost([]) == set()
    record, sent, digest = answered(removable=True)
    assert record.lost([]) == {(sent.uid, digest)}
    assert record.take_removable(Random(1)) == sent
    assert record.lost([]) == set()


def test_each_version_that_was_answered_is_looked_for() -> None:
    record, sent, first = answered()
    assert not record.has_versions(sent.uid)
    second = sent.instance(content=1)
    record.sending(second)
    record.answer(sent, second, 0)
    assert record.lost([(sent.uid, first)]) == {(sent.uid, digest_of(second.data))}
    assert record.has_versions(sent.uid)


def test_a_file_is_known_by_the_data_set_at_its_end() -> None:
    record, sent, _ = answered()
    data = sent.instance().data
    assert record.was_sent(sent.uid, b"some head" + data)
    assert not record.was_sent(sent.uid, b"some head" + data[:-1] + b"x")
    assert not record.was_sent("1.2.3.99", data)


def faults_of(
    resident: Callable[[int], float] = lambda _: 0,
    descriptors: Callable[[int], float] = lambda _: 0,
    threads: Callable[[int], float] = lambda _: 0,
    step_seconds: float = 10.0,
) -> list[str]:
    """Judge ninety samples of a life before, which counts for nothing, and ninety of the last one."""
    verdict = Verdict()
    samples = [Sample(at=0, life=0, resident=10**12, descriptors=10**6, threads=10**6) for _ in range(90)] + [
        Sample(
            at=number * step_seconds,
            life=1,
            resident=100_000_000 + int(resident(number)),
            descriptors=90 + int(descriptors(number)),
            threads=40 + int(threads(number)),
        )
        for number in range(90)
    ]
    judge_growth(samples, 1, verdict)
    return verdict.faults


def test_growth_beyond_its_bound_is_a_fault() -> None:
    assert faults_of() == []
    assert "bytes of memory more" in faults_of(resident=lambda n: n * MEMORY_GROWTH_MAX / 40)[0]
    assert "descriptors more" in faults_of(descriptors=lambda n: n * DESCRIPTORS_GROWTH_MAX / 40)[0]
    assert "threads more" in faults_of(threads=lambda n: n * THREADS_GROWTH_MAX / 40)[0]


def test_what_grows_while_it_warms_up_is_none() -> None:
    assert faults_of(resident=lambda n: min(n, 29) * 10_000_000, descriptors=lambda n: min(n, 29) * 10) == []


def test_a_slow_leak_shows_in_a_long_soak() -> None:
    an_hour = MEMORY_SLOPE_MAX * 1.5
    assert faults_of(resident=lambda n: n * an_hour / 90, step_seconds=10) == [], "15 minutes do not tell"
    (fault,) = faults_of(resident=lambda n: n * an_hour / 90, step_seconds=40)
    assert "MB an hour" in fault
