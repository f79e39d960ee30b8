"""Commands on an archive whose disk is mounted read-only: which file, why, and what to do; exit code 74."""

import subprocess
from pathlib import Path

import pytest

from stowkeeper.app.exit_codes import ExitCode
from support.command_line import CommandLine, keep
from support.instances import make_instance
from support.small_filesystem import small_filesystem


def test_what_has_to_write_says_so_and_what_only_reads_works(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_filesystem(tmp_path, size=8 << 20, inodes=200) as disk:
        archive = disk / "archive"
        keep(archive, make_instance(1))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        stow = CommandLine(archive, capsys)
        for command in (
            ("rm", "--reason", "test", "1.2.3.1"),
            ("verify",),
            ("rebuild",),
            ("serve", "--port", "0"),
        ):
            ended = stow(*command)
            assert ended.code == ExitCode.IO_ERROR, ended.err
            assert str(archive) in ended.err
            assert "mounted read-only" in ended.err
            assert "mount it to be written" in ended.err
        assert stow("ls").code == ExitCode.OK
        assert stow("verify", "--report-only").code == ExitCode.OK
