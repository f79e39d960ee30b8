"""The setting archive_must_exist: where the disk of an archive is away, nobody begins an empty archive in its place."""

from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from stowkeeper.app.commands import run
from stowkeeper.app.exit_codes import ExitCode

CT = str(get_testdata_file("CT_small.dcm"))


@pytest.mark.parametrize("command", [["serve"], ["service", "start", "--daemon"], ["import", CT]])
def test_where_there_is_no_archive_none_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    config, archive = tmp_path / "site.toml", tmp_path / "disk" / "archive"
    config.write_text(f'archive = "{archive}"\narchive_must_exist = true\n')
    (tmp_path / "disk").mkdir()
    for _ in ("the mount point is empty", "the folder is there, and empty"):
        assert run([*command, "--config", str(config)]) == ExitCode.NO_INPUT
        shown = capsys.readouterr()
        assert shown.out == ""
        assert f"there is no archive in {archive}, and archive_must_exist says" in shown.err
        assert f"findmnt --target {archive}" in shown.err
        assert not archive.exists() or not list(archive.iterdir())
        archive.mkdir(exist_ok=True)


@pytest.mark.slow
def test_an_archive_that_is_there_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, archive = tmp_path / "site.toml", tmp_path / "archive"
    config.write_text(f'archive = "{archive}"\narchive_must_exist = true\n')
    with monkeypatch.context() as patch:
        patch.setenv("STOWKEEPER_ARCHIVE_MUST_EXIST", "false")  # as the message advises for the first time
        assert run(["import", CT, "--config", str(config)]) == ExitCode.OK
    (archive / "catalog.sqlite").unlink()  # a lost catalog is no lost archive
    assert run(["rebuild", "--archive", str(archive)]) == ExitCode.OK
    assert run(["import", CT, "--config", str(config)]) == ExitCode.OK
