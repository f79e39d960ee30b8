"""Authorities and certificates that the tests of TLS share, made once in a test process. A pytest plugin."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from support.tls_files import Authority, Identity, Keys


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSFiles:
    """An authority that is trusted, one that is not, and a certificate of each kind that most tests need."""

    folder: Path
    keys: Keys
    authority: Authority
    foreign_authority: Authority
    server: Identity
    client: Identity
    foreign: Identity
    expired: Identity


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TLSFiles:
    """Make the certificates; ask for it under `@pytest.mark.peer("openssl")`."""
    folder = tmp_path_factory.mktemp("tls")
    keys = Keys(folder)
    authority = Authority(folder / "authority", keys, key="rsa")
    foreign_authority = Authority(folder / "foreign", keys, "Foreign")
    return TLSFiles(
        folder=folder,
        keys=keys,
        authority=authority,
        foreign_authority=foreign_authority,
        server=authority.issue("server", key="rsa"),
        client=authority.issue("client", key="rsa"),
        foreign=foreign_authority.issue("foreign", key="rsa"),
        expired=authority.expired(),
    )
