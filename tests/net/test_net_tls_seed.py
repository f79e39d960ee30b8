"""Seed files of the random generator: stirred in, written anew, for their owner alone."""

import os
import ssl
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from stowkeeper.net.limits import TLS_SEED_BYTES, TLS_SEED_FILE_BYTES_MAX
from stowkeeper.net.tls_errors import TLSFault, TLSSetupError
from stowkeeper.net.tls_seed import seed_from_file, write_seed_file


def fault_of(act: Callable[[str], None], path: Path) -> str:
    with pytest.raises(TLSSetupError) as caught:
        act(str(path))
    assert (caught.value.fault, caught.value.subject) == (TLSFault.SEED, str(path))
    return str(caught.value)


def test_what_a_file_holds_is_stirred_in_and_counted_as_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added: list[tuple[bytes, float]] = []
    monkeypatch.setattr(ssl, "RAND_add", lambda data, entropy: added.append((data, entropy)))
    (tmp_path / "seed").write_bytes(b"some bytes")
    seed_from_file(str(tmp_path / "seed"))
    (tmp_path / "seed").write_bytes(bytes(TLS_SEED_FILE_BYTES_MAX + 1))
    seed_from_file(str(tmp_path / "seed"))
    assert added == [(b"some bytes", 0.0), (bytes(TLS_SEED_FILE_BYTES_MAX), 0.0)]


def test_a_written_seed_can_be_read_and_is_another_each_time(tmp_path: Path) -> None:
    path = tmp_path / "seed"
    write_seed_file(str(path))
    first = path.read_bytes()
    assert len(first) == TLS_SEED_BYTES
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    seed_from_file(str(path))
    path.write_bytes(first * 3)
    write_seed_file(str(path))
    assert len(path.read_bytes()) == TLS_SEED_BYTES, "a longer file is cut"
    assert path.read_bytes() != first
    assert ssl.RAND_status()


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    none = tmp_path / "none" / "seed"
    assert (
        fault_of(seed_from_file, none) == f"the random seed {none} cannot be read: No such file or directory."
    )
    assert (
        fault_of(write_seed_file, none)
        == f"the random seed {none} cannot be written: No such file or directory."
    )
    assert "cannot be written: Is a directory" in fault_of(write_seed_file, tmp_path)


def test_a_seed_goes_into_no_device(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert fault_of(write_seed_file, path).endswith("is not written: it is no regular file.")
    finally:
        os.close(reader)
