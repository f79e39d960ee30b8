"""The doctor looks at who is told of events: folders, programs, and the files that their settings name."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stowkeeper.app.doctor.finding import Finding, Level
from stowkeeper.app.doctor.outlets import check_outlets
from stowkeeper.app.settings import load_settings

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")


@contextmanager
def nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that anybody may enter, with an archive of nobody in it."""
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder:
        Path(folder).chmod(0o755)
        (Path(folder) / "archive").mkdir()
        os.chown(Path(folder) / "archive", NOBODY, NOBODY)
        yield Path(folder)


def found(place: Path, table: str, *, as_root: bool = False) -> list[Finding]:
    (place / "archive" / "stowkeeper.toml").write_text(table)
    settings = load_settings(None, {"archive": str(place / "archive")}, {})
    if as_root:
        return list(check_outlets(settings))
    with nobody():
        return list(check_outlets(settings))


def export(folder: Path) -> str:
    return f'[[export_folders]]\nname = "station"\nfolder = "{folder}"\n'


def target(line: str) -> str:
    return f'[[event_targets]]\nname = "router"\nevents = ["study.quiet"]\n{line}\n'


def test_a_folder_is_there_and_can_be_written(place: Path) -> None:
    folder = place / "incoming"
    (missing,) = found(place, export(folder))
    assert missing.level is Level.WARNING
    assert missing.words.startswith(f'export folder "station": {folder}: No such file or directory. ')
    assert missing.mend.startswith(f"sudo install -d -o nobody {folder}")
    folder.mkdir(mode=0o755)
    (shut,) = found(place, export(folder))
    assert "nobody (user 65534) cannot write in " in shut.words
    assert "owner root" in shut.words
    os.chown(folder, NOBODY, NOBODY)
    assert [one.level for one in found(place, export(folder))] == [Level.OK]
    assert list(folder.iterdir()) == [], "whoever watches it sees nothing of this"
    folder.rmdir()
    folder.write_text("")
    (file,) = found(place, target(f'folder = "{folder}"'))
    assert file.words == f'target "router": {folder} is no folder'


def test_a_program_and_a_secret_can_be_used(place: Path) -> None:
    program = place / "route"
    (missing,) = found(place, target(f'command = ["{program}", "{{study_instance_uid}}"]'))
    assert missing.words.startswith(f'target "router": there is no program {program} that ')
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (fine,) = found(place, target(f'command = ["{program}"]'))
    assert fine.level is Level.OK
    secret = place / "secret"
    secret.write_text("s")
    secret.chmod(0o600)
    posts = target(f'url = "https://viewer.example/"\nsecret_file = "{secret}"')
    (shut,) = found(place, posts)
    assert f"cannot read {secret} (owner root" in shut.words
    secret.chmod(0o644)
    assert [one.level for one in found(place, posts)] == [Level.OK]


def test_nobody_to_tell_and_root_are_no_findings(place: Path) -> None:
    assert found(place, "") == []
    (said,) = found(place, export(place), as_root=True)
    assert said.mend.startswith("sudo -u nobody stowkeeper doctor ")
