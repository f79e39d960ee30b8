"""Put command lines to DCMTK's program and to ours in private networks, and observe what both do."""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from support.differential_observation import LOG_FILE, Observation, observe
from support.differential_steps import NOTHING, Scenario, as_json
from support.peers import program_path
from support.private_network import run_in_private_network

PLAYER = Path(__file__).with_name("differential_player.py")
PORT = "PORT"
"""Stands in a command line for the port; one that does not name it gets it as its last argument."""
OUTPUT = "out"
"""The output directory, below the folder that a program is started in; a command line may name another."""
WORKERS = 2
SECONDS_MAX = 300.0
_FIRST_PORT = 12000


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A command line to try: a tool, its options as in a shell, what is sent, and what it finds.

    `given` are files below the folder it is started in, None for a directory. `only_ours` adds to the environment of
    ours, where it has switches of its own.
    """

    tool: str
    options: str
    scenario: Scenario = NOTHING
    given: Mapping[str, bytes | None] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    only_ours: Mapping[str, str] = field(default_factory=dict)
    is_whole: bool = False
    """Whether the options are all there is: no port and no output directory are added."""

    def arguments(self, port: int) -> list[str]:
        """Return the arguments for a port."""
        words = shlex.split(self.options)
        if not self.is_whole:
            words += [] if "-od" in words or "--output-directory" in words else ["-od", OUTPUT]
            words += [] if PORT in words or self.is_inetd else [PORT]
        return [str(port) if word == PORT else word for word in words]

    @property
    def is_inetd(self) -> bool:
        """Tell whether it gets its connection from a super server."""
        return bool({"-id", "--inetd"} & set(shlex.split(self.options)))

    @property
    def events_are_in_order(self) -> bool:
        """Tell whether commands run one after the other, so that the order of what they write counts."""
        return bool({"-xs", "--exec-sync"} & set(shlex.split(self.options)))


def dcmtk_program(tool: str) -> list[str]:
    """Return the words that start DCMTK's program."""
    return [program_path(tool)]


def our_program(tool: str) -> list[str]:
    """Return the words that start ours."""
    return [sys.executable, "-m", "stowkeeper", tool]


def observe_both(
    trials: Sequence[Trial],
    folder: Path,
    *,
    theirs: Any = dcmtk_program,
    ours: Any = our_program,
    common: Mapping[str, bytes] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Iterator[tuple[Observation, Observation]]:
    """Run every trial with both programs, in one private network each time, and give what DCMTK's and ours did.

    `common` are files that every trial finds in the folder it is started in; `environment` is for every trial.
    """
    runs = []
    given_names = []
    for number, trial in enumerate(trials):
        for who, program in enumerate((theirs, ours)):
            place = folder / f"{number}-{who}"
            given = {OUTPUT: None, **(common or {}), **trial.given}
            _prepare(place, given)
            given_names.append({OUTPUT, *(common or {}), *(name for name in trial.given)})
            port = _FIRST_PORT + 2 * number + who
            runs.append(
                {
                    "argv": [*program(trial.tool), *trial.arguments(port)],
                    "folder": os.fspath(place),
                    "port": port,
                    "is_inetd": trial.is_inetd,
                    "environment": _environment(
                        {**(environment or {}), **trial.environment, **(trial.only_ours if who else {})}
                    ),
                    "steps": [as_json(step) for step in trial.scenario.steps],
                }
            )
    job = {"runs": runs, "workers": WORKERS}
    outcomes = run_in_private_network(PLAYER, job, seconds=SECONDS_MAX)["runs"]
    for number, trial in enumerate(trials):
        one, other = (
            observe(
                outcomes[at],
                Path(runs[at]["folder"]),
                given=_untouched(
                    Path(runs[at]["folder"]), given_names[at], {**(common or {}), **trial.given}
                ),
                events_in_order=trial.events_are_in_order,
            )
            for at in (2 * number, 2 * number + 1)
        )
        yield one, other
    shutil.rmtree(folder, ignore_errors=True)


def _untouched(place: Path, names: set[str], contents: Mapping[str, bytes | None]) -> Iterator[str]:
    """Give the names of what was there before and still is as it was."""
    for name in names:
        content = contents.get(name)
        path = place / name
        if content is None or (path.is_file() and path.read_bytes() == content):
            yield name
    yield LOG_FILE


def _prepare(place: Path, given: Mapping[str, bytes | None]) -> None:
    place.mkdir(parents=True)
    for name, content in given.items():
        path = place / name
        if content is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a program: no Nagle, no language, and nothing of the person's own."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {**kept, "LC_ALL": "C", "TCP_NODELAY": "1", **more}
