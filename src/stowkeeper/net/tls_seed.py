"""Seed files of OpenSSL's random generator, for those who keep such files.

The system seeds the generator by itself; what a file adds is stirred in, and never counted on.
"""

import os
import ssl
import stat

from stowkeeper.net.limits import TLS_SEED_BYTES, TLS_SEED_FILE_BYTES_MAX
from stowkeeper.net.tls_errors import TLSFault, TLSSetupError


def seed_from_file(path: str) -> None:
    """Stir the contents of a file into the random generator. Raises TLSSetupError when it cannot be read."""
    try:
        with open(path, "rb") as stream:
            data = stream.read(TLS_SEED_FILE_BYTES_MAX)
    except OSError as error:
        raise TLSSetupError(
            TLSFault.SEED, path, f"the random seed {path} cannot be read: {error.strerror}."
        ) from None
    ssl.RAND_add(data, 0.0)


def write_seed_file(path: str) -> None:
    """Write a new seed to a file, which is made if there is none, for its owner alone. Raises TLSSetupError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as stream:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                words = f"the random seed {path} is not written: it is no regular file."
                raise TLSSetupError(TLSFault.SEED, path, words)
            stream.truncate(0)
            stream.write(ssl.RAND_bytes(TLS_SEED_BYTES))
    except OSError as error:
        raise TLSSetupError(
            TLSFault.SEED, path, f"the random seed {path} cannot be written: {error.strerror}."
        ) from None
