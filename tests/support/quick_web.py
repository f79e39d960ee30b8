"""What makes a web server for one test quick to put together; it answers as any other.

Each test has a server of its own, and most of its processor time was spent on what is the same for all of them.
"""

import contextlib
import ssl
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import fastapi._compat.v2 as fields
from pydantic import TypeAdapter

from stowkeeper.web import credentials

PLAIN_HTTP = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""For clients of servers without TLS: else httpx reads all certificates of the system for each of them."""
_QUICK_SCRYPT_COST = 16
_adapters: dict[str, TypeAdapter[Any]] = {}
_kept: list[object] = []
"""What is named by its address in a key of the adapters: while it is here, nothing else gets that address."""


@contextlib.contextmanager
def quick_secrets() -> Iterator[None]:
    """Make hashes of secrets that are checked like all others, and soon: each tells its own cost."""
    with patch.object(credentials, "SCRYPT_COST", _QUICK_SCRYPT_COST):
        yield


@contextlib.contextmanager
def quick_routes() -> Iterator[None]:
    """Add routes with one validator for parameters of the same type and terms, rather than one for each.

    A class that a function makes has the name of the one it made before: what such a class is part of is no part of this.
    """
    with patch.object(fields, "TypeAdapter", _adapter):
        yield


def _adapter(described: Any, *, config: Any = None) -> TypeAdapter[Any]:
    key = f"{described!r} {config!r}"
    if "<locals>" in key:
        return TypeAdapter(described, config=config)
    if key not in _adapters:
        _kept.append(described)
        _adapters[key] = TypeAdapter(described, config=config)
    return _adapters[key]
