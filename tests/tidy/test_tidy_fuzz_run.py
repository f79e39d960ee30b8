"""The runner of the fuzz targets: it finds what fails, keeps the input, and says so by its exit status."""

import importlib.util
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

RUNNER = Path(__file__).resolve().parents[2] / "fuzz" / "run.py"


def load_runner() -> Any:
    """Import the runner, which is a script beside the targets and no package."""
    specification = importlib.util.spec_from_file_location("fuzz_run", RUNNER)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


runner = load_runner()


def make_target(folder: Path, name: str, body: str) -> Path:
    (folder / "corpus" / name).mkdir(parents=True)
    (folder / "corpus" / name / "seed").write_bytes(b"abcdef")
    path = folder / f"fuzz_{name}.py"
    path.write_text(f"def target(data):\n    {body}\n")
    return path


def test_a_failing_input_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_target(tmp_path, "bad", "assert len(data) <= 6, 'too long'")
    assert not runner.run_builtin(path, tmp_path / "found", seconds=30, seed=1)
    (kept,) = (tmp_path / "found").iterdir()
    assert kept.name.startswith("bad-crash-")
    assert len(kept.read_bytes()) > 6
    assert str(kept) in capsys.readouterr().out


def test_the_same_seed_makes_the_same_inputs() -> None:
    made = [
        [runner.mutate(b"abcdef", b"ABCDEF", source) for _ in range(50)]
        for source in map(random.Random, (7, 7, 8))
    ]
    assert made[0] == made[1] != made[2]
    assert len(set(made[0])) > 25


def test_inputs_stay_short() -> None:
    source = random.Random(1)
    data = bytes(runner.INPUT_BYTES_MAX)
    assert all(len(runner.mutate(data, data, source)) <= runner.INPUT_BYTES_MAX for _ in range(50))


@pytest.mark.slow
def test_the_exit_status_tells_whether_all_held(tmp_path: Path) -> None:
    make_target(tmp_path, "good", "pass")

    def run(*names: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            str(RUNNER),
            "--builtin",
            "--seconds",
            "1",
            "--folder",
            str(tmp_path),
            *names,
        ]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    held = run()
    assert held.returncode == 0
    assert "all held" in held.stdout
    make_target(tmp_path, "bad", "raise ValueError(data)")
    failed = run()
    assert failed.returncode == 1
    assert "failed: fuzz_bad\n" in failed.stdout
    unknown = run("absent")
    assert unknown.returncode == 1
    assert "absent is none of bad, good" in unknown.stderr
