"""The limit on open files: a server raises its own, and says so where it may not have enough."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from stowkeeper.app.limits import OPEN_FILES_BESIDE
from stowkeeper.app.open_files import open_files_needed, raise_open_files_limit
from stowkeeper.app.settings import Settings
from stowkeeper.durable.limits import OPEN_SLOTS
from support.command_line import environment, program
from support.processes import running

LIMITED = """
import json, resource, sys
soft, hard, needed = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
from stowkeeper.app.open_files import raise_open_files_limit
words = raise_open_files_limit(needed)
print(json.dumps([words, resource.getrlimit(resource.RLIMIT_NOFILE)[0]]))
"""
"""A process with limits of its own: a hard one, once lowered, stays so."""


def raised(soft: int, hard: int, needed: int) -> tuple[str, int]:
    """Return what is said, and the limit then."""
    argv = [sys.executable, "-c", LIMITED, str(soft), str(hard), str(needed)]
    ended = subprocess.run(argv, capture_output=True, text=True, env=environment(), check=True)
    words, limit = json.loads(ended.stdout)
    return words, limit


@pytest.fixture
def _low_soft_limit() -> Iterator[None]:
    """Lower the limit of this process, which what it starts inherits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 512), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_is_needed_counts_two_for_each_connection(tmp_path: Path) -> None:
    settings = Settings.model_validate({"archive": str(tmp_path)})
    shipped = open_files_needed(settings)
    assert shipped == 2 * (500 + 256) + OPEN_SLOTS + 16 + OPEN_FILES_BESIDE == 1784
    more = settings.model_copy(update={"dicom": settings.dicom.model_copy(update={"associations_max": 1000})})
    assert open_files_needed(more) == shipped + 2 * 500


@pytest.mark.slow
def test_the_limit_is_raised_as_far_as_it_may() -> None:
    assert raised(100, 400, 300) == ("", 400)
    assert raised(400, 400, 300) == ("", 400)


@pytest.mark.slow
def test_a_hard_limit_that_is_too_low_is_told_with_the_number_needed() -> None:
    words, limit = raised(100, 200, 300)
    assert limit == 200
    assert words.startswith("200 files may be open, and these settings can need 300: ")
    assert "LimitNOFILE=" in words
    assert "to 300" in words


@pytest.mark.parametrize("refusal", [ValueError, OSError])
def test_where_the_system_refuses_what_we_have_is_judged(
    monkeypatch: pytest.MonkeyPatch, refusal: type[Exception]
) -> None:
    def refuse(_which: int, _limits: tuple[int, int]) -> None:
        raise refusal

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_open_files_limit(200) == ""
    assert raise_open_files_limit(300).startswith("256 files may be open")


def test_an_unlimited_hard_limit_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert raise_open_files_limit(300) == ""
    assert asked == [(300, resource.RLIM_INFINITY)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    assert raise_open_files_limit(300) == ""
    assert len(asked) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("_low_soft_limit")
@pytest.mark.skipif(
    not Path("/proc/self/limits").exists(), reason="Linux tells the limits of a process there"
)
def test_a_server_raises_its_own_and_warns_where_it_cannot_have_enough(tmp_path: Path) -> None:
    chosen = {**environment(), "STOWKEEPER_DICOM__ASSOCIATIONS_MAX": "100000"}
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    argv = program("serve", "--archive", tmp_path / "archive", "--port", "0")
    with running("stowkeeper", argv, log=tmp_path / "serve.log", environment=chosen) as server:
        server.wait_until(lambda: "stowkeeper ready" in server.log_text(), "before it was ready")
        limits = Path(f"/proc/{server.pid}/limits").read_text(encoding="ascii")
        (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
        assert int(line.split()[3]) == hard
        warned = "these settings can need 200784" in server.log_text()
        assert warned == (hard < 200_784)
