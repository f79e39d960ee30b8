"""A small real file system for tests that fill it; they are skipped with a word on why where none can be mounted."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_filesystem(place: Path, *, size: int, inodes: int, kind: str = "tmpfs") -> Iterator[Path]:
    """Mount a file system of `size` bytes and `inodes` files in a new folder under `place`, and take it down again.

    "tmpfs" is there wherever one may mount at all; "ext4" stands in a file under `place`, and has room for less than
    its size, since its own tables are in it.
    """
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("mounting a small file system takes root on Linux")
    folder = place / f"small-{kind}"
    folder.mkdir()
    if kind == "tmpfs":
        options = f"size={size},nr_inodes={inodes + 1}"  # its root is one of them
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(folder)]
    else:
        make = shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if make is None:
            pytest.skip("no mkfs.ext4 here: install e2fsprogs")
        image = place / "image"
        image.touch()
        os.truncate(image, size)
        reserved = 12  # inodes that ext4 keeps for itself, and its root and lost+found
        subprocess.run([make, "-q", "-m", "0", "-N", str(inodes + reserved), str(image)], check=True)
        command = ["mount", "-o", "loop", str(image), str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small {kind} here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        ended = subprocess.run(["umount", str(folder)], check=False, capture_output=True)
        if ended.returncode:  # a test that failed may have left a file open
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
