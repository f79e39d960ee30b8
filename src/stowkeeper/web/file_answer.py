"""The answer with an instance's file."""

from collections.abc import Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from stowkeeper.web.exchange import HEAD
from stowkeeper.web.native_file import InstanceFile


class FileAnswer(StreamingResponse):
    """Sends a file, and closes it when the answer has ended, also where the client went away. Of a HEAD it reads nothing."""

    def __init__(self, file: InstanceFile, *, name: str, disposition: str, media_type: str) -> None:
        headers: Mapping[str, str] = {
            "Content-Length": str(file.length),
            "Content-Disposition": f'{disposition}filename="{name}"',
        }
        super().__init__(file, headers=headers, media_type=media_type)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        try:
            if scope.get(HEAD):
                start = {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
                await send(start)
                await send({"type": "http.response.body", "body": b"", "more_body": False})
                return
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()
