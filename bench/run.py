"""Compare Stowkeeper with other receivers, side by side in turns, on this machine.

    make bench                                          everything, about an hour
    make bench ARGS="--quick"                           small and soon: is anything far off?
    make bench ARGS="--only ct,mr --rounds 3 --contenders stowkeeper,storescp-b --parts throughput"
    make bench ARGS="--parts commitment,check,jobs,pages,stow,events,forwarding"      programs of their own, each with its own table

Prints a table and writes it with every single measurement to bench/results/. Speeds of different runs, or of different
machines, are not to be compared; ratios within a round are.
"""

import argparse
import contextlib
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1] / "tests")
)  # receivers start as the tests' peers do

import dropin
import machine
import memory
import report
import shipped
import sustained
import throughput
from bars import READY_AGAIN_INSTANCES
from contenders import CONTENDERS, DROP_IN, SHIPPED_STORESCP, Contender
from cstore_load import contexts_of, read_instances
from make_sets import DEFAULT_FOLDER, SETS, make_set
from report import Results

HERE = Path(__file__).resolve().parent
PARTS = ("dropin", "throughput", "shipped", "memory", "sustained")
EXTRA_PARTS = ("million",)
PROGRAMS = {
    "commitment": "--references 1000 --requests 3 --transactions 100 --peers 10 --rounds 2 --instances 2000",
    "check": "--sets tiny --rounds 2",
    "jobs": "--jobs 2000 --waiting 100 --seconds 3",
    "pages": "--instances 50000 --rounds 50",
    "stow": "--sets ct,tiny --rounds 2",
    "events": "--events 5000 --rounds 2 --instances 2000",
    "forwarding": "--instances 2000 --rounds 2 --received 6000",
}
"""Parts that are programs of this folder, of the same name, with what `--quick` tells them. Their output is printed as it comes."""
SHIPPED_SETS = ("ct", "mr")
SUSTAINED_SETS = ("tiny", "mr")
SUSTAINED_ASSOCIATIONS = 4
SUSTAINED_TEMPLATES = 50
OPEN_FILES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything a run sends."""

    rounds: int
    associations: tuple[int, ...]
    instances: dict[str, int]
    """The first so many of a set; 0 for all."""
    shipped_instances: int
    sustained_instances: int
    idle_associations: int
    giant_bytes: int
    starts: int
    """Of the drop-in command and of DCMTK's, in each state."""


FULL = Scale(
    rounds=5,
    associations=(1, 4, 16),
    instances=dict.fromkeys(SETS, 0),
    shipped_instances=200,
    sustained_instances=15_000,
    idle_associations=500,
    giant_bytes=memory.GIANT_BYTES,
    starts=11,
)
QUICK = Scale(
    rounds=3,
    associations=(1, 4),
    instances={"ct": 100, "mr": 250, "tiny": 500, "big": 1},
    shipped_instances=50,
    sustained_instances=3_000,
    idle_associations=100,
    giant_bytes=10**9,
    starts=5,
)


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench/run.py", description=(__doc__ or "").split("\n", 1)[0])

    def names(allowed: Sequence[str], text: str) -> list[str]:
        chosen = text.split(",")
        unknown = [name for name in chosen if name not in allowed]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(allowed)}")
        return chosen

    parser.add_argument("--quick", action="store_true", help="fewer instances, three rounds")
    parser.add_argument(
        "--only", type=lambda text: names([*SETS], text), default=[*SETS], help="sets, as ct,mr"
    )
    parser.add_argument(
        "--contenders",
        type=lambda text: names([*CONTENDERS, *DROP_IN], text),
        default=[*CONTENDERS, *DROP_IN],
        help=f"any of {','.join([*CONTENDERS, *DROP_IN])}",
    )
    parser.add_argument(
        "--parts",
        type=lambda text: names([*PARTS, *EXTRA_PARTS, *PROGRAMS], text),
        default=[*PARTS],
        help=f"any of {','.join(PARTS)} (all of these when not given), and million, which takes long, {', '.join(PROGRAMS)}",
    )
    parser.add_argument("--rounds", type=int, help="rounds of the comparison (5, or 3 with --quick)")
    parser.add_argument(
        "--associations",
        type=lambda text: [int(part) for part in text.split(",")],
        help="numbers to try, as 1,4,16",
    )
    parser.add_argument(
        "--removals",
        type=int,
        default=0,
        help="empty files to make and remove before each turn of the throughput (0; see docs/benchmarks.md)",
    )
    parser.add_argument("--sustained-instances", type=int, help="length of the sustained run")
    parser.add_argument("--sets", type=Path, default=DEFAULT_FOLDER, help="where the instance sets are")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="where the report goes")
    parser.add_argument("--work", type=Path, help="where receivers store (a folder in RESULTS; needs 8 GB)")
    return parser.parse_args(arguments)


def say(text: str) -> None:
    """Print a line of progress."""
    print(text, flush=True)


def chosen(options: argparse.Namespace) -> list[Contender]:
    """Return the contenders that were asked for and are here, and say which are not."""
    here = []
    for name in options.contenders:
        if name not in CONTENDERS:
            continue  # of the part dropin alone
        missing = CONTENDERS[name].missing()
        if missing is None:
            here.append(CONTENDERS[name])
        else:
            say(f"without {CONTENDERS[name].title}: {missing}")
    return here


def tell_speed(turn: throughput.Turn) -> None:
    """Print one turn of a comparison of speeds."""
    outcome = turn.problem or (
        f"{turn.instances_a_second:8.1f} instances/s {turn.megabytes_a_second:7.0f} MB/s"
        f"  p99 {turn.p99_ms:.2f} ms  server CPU {turn.server_cpu_ms_an_instance:.2f} ms"
    )
    title = report.TITLES[turn.contender]
    say(f"{turn.set_name:5} round {turn.round_number}  {turn.associations:3} × {title:26} {outcome}")


def tell_shipped(turn: shipped.ShippedTurn) -> None:
    """Print what an unchanged storescu saw in one turn."""
    outcome = turn.problem or f"{turn.instances_a_second:.1f} instances/s"
    say(f"{turn.set_name:5} round {turn.round_number}  storescu as shipped into {turn.contender}: {outcome}")


def run_drop_in(options: argparse.Namespace, scale: Scale, results: Results, work: Path) -> None:
    """Compare the drop-in command with DCMTK's: speed, an unchanged sender, and how soon each listens."""
    missing = SHIPPED_STORESCP.missing() or shipped.missing()
    if missing is not None:
        say(f"without the drop-in command's comparison: {missing}")
        return

    def tell_start(start: dropin.Start) -> None:
        outcome = start.problem or f"{start.seconds:.3f} s"
        say(
            f"start, {start.state}, round {start.round_number}  {report.TITLES[start.contender]:30} {outcome}"
        )

    folder = work / "drop-in"
    rounds = options.rounds or scale.rounds
    results.starts.extend(dropin.start_rounds(rounds=scale.starts, folder=folder, report=tell_start))
    pairs = [[each for each in pair if each.name in options.contenders] for pair in dropin.SPEED]
    for set_name in options.only:
        instances = read_instances(options.sets / set_name, scale.instances[set_name])
        encoded = throughput.EncodedSet(set_name, instances)
        for pair in filter(None, pairs):
            results.drop_in.extend(
                dropin.speed_rounds(encoded, pair, rounds=rounds, folder=folder, report=tell_speed)
            )
    for set_name in SHIPPED_SETS:
        if set_name in options.only:
            files = sorted((options.sets / set_name).glob("*.dcm"))[: scale.shipped_instances]
            results.drop_in_shipped.extend(
                dropin.shipped_rounds(set_name, files, rounds=rounds, folder=folder, report=tell_shipped)
            )


def run_throughput(options: argparse.Namespace, scale: Scale, results: Results, work: Path) -> None:
    """Compare speeds over one and several associations, set by set."""
    contenders = chosen(options)
    for set_name in options.only:
        instances = read_instances(options.sets / set_name, scale.instances[set_name])
        results.turns.extend(
            throughput.rounds_of(
                throughput.EncodedSet(set_name, instances),
                contenders,
                associations=options.associations or scale.associations,
                rounds=options.rounds or scale.rounds,
                folder=work,
                removals=options.removals,
                report=tell_speed,
            )
        )


def run_shipped(options: argparse.Namespace, scale: Scale, results: Results, work: Path) -> None:
    """Let an unchanged storescu send to Stowkeeper and to an unchanged storescp."""
    missing = shipped.missing()
    if missing is not None:
        say(f"without storescu as shipped: {missing}")
        return

    ours, theirs = shipped.receivers()
    contenders = [each for each in (ours, theirs) if each is theirs or each.name in options.contenders]
    for set_name in SHIPPED_SETS:
        if set_name in options.only:
            files = sorted((options.sets / set_name).glob("*.dcm"))[: scale.shipped_instances]
            rounds = options.rounds or scale.rounds
            results.shipped.extend(
                shipped.rounds_of(
                    set_name, files, contenders, rounds=rounds, folder=work, report=tell_shipped
                )
            )


def run_memory(options: argparse.Namespace, scale: Scale, results: Results, work: Path) -> None:
    """Read the memory of the receivers, while large instances arrive and while associations are idle."""
    big = read_instances(options.sets / "big")
    ct = read_instances(options.sets / "ct", 1)
    for contender in chosen(options):
        if contender.name.startswith("sink"):
            continue
        folder = work / contender.name
        measured = []
        if contender.many_associations:
            measured.append(memory.idle(contender, contexts_of(ct), scale.idle_associations, folder))
        if contender.announces_itself:  # the marks of children that have ended, as of --fork, cannot be read
            measured.append(memory.large_together(contender, big, folder))
            measured.append(memory.giant(contender, big[0], folder, scale.giant_bytes))
        for each in measured:
            say(f"memory of {contender.title}, {each.scenario}: {each.problem or f'{each.peak:.1f} MB'}")
        results.memory.extend(measured)


def run_sustained(
    options: argparse.Namespace, results: Results, work: Path, sets: Sequence[str], instances: int
) -> None:
    """Send for longer than slots last, and wait for the catalog."""
    for contender in chosen(options):
        if not contender.announces_itself:
            continue
        for set_name in sets:
            result = sustained.sustain(
                contender,
                set_name,
                read_instances(options.sets / set_name, SUSTAINED_TEMPLATES),
                instances=instances,
                associations=SUSTAINED_ASSOCIATIONS,
                folder=work / contender.name,
            )
            outcome = result.problem or f"{result.finished_a_second:.0f} finished instances/s"
            say(f"sustained, {instances} × {set_name} into {contender.title}: {outcome}")
            results.sustained.append(result)


def run_programs(names: Sequence[str], *, is_quick: bool) -> list[str]:
    """Run the parts that are programs, one after the other; return the names of those that failed."""
    failed = []
    (HERE / "results").mkdir(exist_ok=True)
    for name in names:
        arguments = shlex.split(PROGRAMS[name]) if is_quick else []
        say(shlex.join([f"bench/{name}.py", *arguments]))
        if subprocess.run([sys.executable, str(HERE / f"{name}.py"), *arguments], check=False).returncode:
            failed.append(name)
        say("")
    return failed


def allow_open_files() -> None:
    """Raise the soft limit of open files, for the idle associations here and in the receivers."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))


def main() -> None:
    """Run what the command line asks for."""
    options = parse_arguments(sys.argv[1:])
    scale = QUICK if options.quick else FULL
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM")
    )  # what was measured is still written
    allow_open_files()
    for name, instance_set in SETS.items():
        make_set(instance_set, options.sets / name)
    programs = [part for part in options.parts if part in PROGRAMS]
    if "stow" in programs:
        for name, instance_set in SETS.items():
            make_set(instance_set, DEFAULT_FOLDER / name)  # it knows of no other place
    failed = run_programs(programs, is_quick=options.quick)
    if len(programs) < len(options.parts):
        compare(options, scale)
    if failed:
        sys.exit(f"ended by an error: {', '.join(failed)}")


def compare(options: argparse.Namespace, scale: Scale) -> None:
    """Run the parts that go into the report, and write it."""
    work = options.work or options.results / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    command = shlex.join(["bench/run.py", *sys.argv[1:]])
    results = Results(facts=machine.facts(work), command=command)
    name = time.strftime("%Y%m%d-%H%M%S")
    try:
        if "dropin" in options.parts:  # the first, since it is the most sensitive to files removed before it
            run_drop_in(options, scale, results, work)
        if "throughput" in options.parts:
            run_throughput(options, scale, results, work)
        if "shipped" in options.parts:
            run_shipped(options, scale, results, work)
        if "memory" in options.parts:
            run_memory(options, scale, results, work)
        if "sustained" in options.parts:
            length = options.sustained_instances or scale.sustained_instances
            run_sustained(
                options, results, work, [each for each in SUSTAINED_SETS if each in options.only], length
            )
        if "million" in options.parts:
            run_sustained(options, results, work, ["tiny"], READY_AGAIN_INSTANCES)
    finally:
        page = report.write(results, options.results, name)  # what was measured before an interruption, too
        shutil.rmtree(work, ignore_errors=True)
    say("")
    say(page.read_text(encoding="utf-8"))
    say(f"written to {page} and {page.with_suffix('.json')}")


if __name__ == "__main__":
    main()
