"""How addresses in Orthanc's shape may be spelled: empty parts do not count, so `//instances` is `/instances`.

Orthanc takes an address part by part, and scripts for it join a base address that ends with a slash to a path that begins
with one. What has a shape of its own has one spelling: the native interface and DICOMweb.
"""

import re
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

_SLASHES: Final = re.compile(r"/{2,}")


class OrthancAddresses:
    """Leaves empty parts out of the path of a request, so far as `is_other` does not say that it is another's."""

    def __init__(self, app: ASGIApp, *, is_other: Callable[[str], bool]) -> None:
        self._app = app
        self._is_other = is_other

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and "//" in scope["path"]:
            path = _SLASHES.sub("/", scope["path"])
            if not self._is_other(path):
                scope["path"] = path  # in place: what the route writes into the scope is read outside
        await self._app(scope, receive, send)
