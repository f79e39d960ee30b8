"""Run the fuzz targets one after the other: `python fuzz/run.py [--seconds N] [--seed N] [NAME…]`.

A target is a file `fuzz_NAME.py` beside this one, with a function `target(data)` that raises only on a defect, and its
corpus in `corpus/NAME`. With atheris each target runs in its own process, guided by coverage. Without it (`--builtin`,
or a Python that atheris has no wheel for) a seeded loop mutates and joins what the corpus holds.

An input that fails is kept in build/fuzz, and the exit status is 1. Add it to the corpus with the repair.
"""

import argparse
import hashlib
import importlib.util
import random
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT_FOUND = HERE.parent / "build" / "fuzz"
INPUT_BYTES_MAX = 1 << 16
"""Longer inputs teach nothing that shorter ones do not, and make every try slower."""
SPARE_SECONDS = 60
"""What a target may take beyond its time before it counts as hanging."""
INTERESTING = (
    b"\0",
    b"\xff",
    b"\0\0",
    b"\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
)


def target_files(names: Sequence[str], folder: Path) -> list[Path]:
    """Return the named targets, or all; raise SystemExit for a name that is none."""
    files = {path.stem.removeprefix("fuzz_"): path for path in sorted(folder.glob("fuzz_*.py"))}
    for name in names:
        if name not in files:
            sys.exit(f"{name} is none of {', '.join(files)}")
    return [path for name, path in files.items() if not names or name in names]


def run_atheris(path: Path, found: Path, seconds: int, seed: int) -> bool:
    """Fuzz one target by coverage in a process of its own; tell whether it held."""
    name = path.stem.removeprefix("fuzz_")
    learned = found / "corpus" / name
    learned.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-artifact_prefix={found}/{name}-",
        f"-max_len={INPUT_BYTES_MAX}",
    ]
    command = [
        sys.executable,
        str(path),
        str(learned),
        str(path.parent / "corpus" / name),
        *options,
        f"-seed={seed}",
    ]
    try:
        return subprocess.run(command, check=False, timeout=seconds + SPARE_SECONDS).returncode == 0
    except subprocess.TimeoutExpired:
        print(f"{name}: still running {SPARE_SECONDS} s after its time", flush=True)
        return False


def load_target(path: Path) -> Callable[[bytes], object]:
    """Import a target's file and return its function."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None:
        raise ImportError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    target: Callable[[bytes], object] = module.target
    return target


def mutate(data: bytes, other: bytes, source: random.Random) -> bytes:
    """Return a neighbour of an input: some places of it changed, cut, repeated, or taken from another input."""
    changed = bytearray(data)
    for _ in range(1 << source.randrange(4)):
        at = source.randrange(len(changed) + 1)
        end = min(len(changed), at + source.choice((1, 1, 2, 4, 8, 64)))
        match source.randrange(6):
            case 0:
                changed[at:end] = source.randbytes(end - at)
            case 1:
                del changed[at:end]
            case 2:
                changed[at:at] = changed[at:end] * source.choice((1, 2, 16))
            case 3:
                changed[at:end] = source.choice(INTERESTING)
            case 4:
                start = source.randrange(len(other) + 1)
                changed[at:end] = other[start : start + source.choice((1, 4, 16, 256))]
            case _:
                if at < end:
                    changed[at] ^= 1 << source.randrange(8)
    return bytes(changed[:INPUT_BYTES_MAX])


def run_builtin(path: Path, found: Path, seconds: int, seed: int) -> bool:
    """Fuzz one target by a seeded loop in this process; tell whether it held."""
    name = path.stem.removeprefix("fuzz_")
    target = load_target(path)
    corpus = [
        each.read_bytes() for each in sorted((path.parent / "corpus" / name).glob("*")) if each.is_file()
    ]
    corpus = corpus or [b""]
    source = random.Random(seed)
    deadline = time.monotonic() + seconds
    tries = 0
    while time.monotonic() < deadline:
        tries += 1
        data = mutate(source.choice(corpus), source.choice(corpus), source)
        try:
            target(data)
        except Exception:  # noqa: BLE001 - whatever escapes is what is looked for
            traceback.print_exc()
            found.mkdir(parents=True, exist_ok=True)
            kept = found / f"{name}-crash-{hashlib.sha1(data, usedforsecurity=False).hexdigest()}"
            kept.write_bytes(data)
            print(f"{name}: failed at try {tries} with seed {seed}; the input is {kept}", flush=True)
            return False
    print(f"{name}: {tries} tries in {seconds} s held", flush=True)
    return True


def main() -> int:
    """Fuzz the targets named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description="Run the fuzz targets one after the other.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="pdu for fuzz_pdu.py; all of them when none is given"
    )
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, help="repeat a run; chosen from the clock otherwise")
    parser.add_argument("--builtin", action="store_true", help="use the built-in loop even where atheris is")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the targets are")
    parser.add_argument("--found", type=Path, default=DEFAULT_FOUND, help="where failing inputs go")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else time.time_ns() % (1 << 31) + 1
    guided = not options.builtin and importlib.util.find_spec("atheris") is not None
    run = run_atheris if guided else run_builtin
    files = target_files(options.names, options.folder)
    print(
        f"{len(files)} targets, {options.seconds} s each, seed {seed}, {'atheris' if guided else 'built-in loop'}"
    )
    failed = []
    for path in files:
        print(f"--- {path.stem}", flush=True)
        if not run(path, options.found, options.seconds, seed):
            failed.append(path.stem)
    print(f"failed: {', '.join(failed)}" if failed else "all held")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
