"""A real browser without a window: a page of another origin that runs by itself and tells how it went, or a page as it is shown."""

import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from support.peers import program_path
from support.processes import LOOPBACK, running

PAGE_SECONDS_MAX = 60.0
_CONSOLE = re.compile(r":CONSOLE[:(][^\]]*\] (.*)")
Content = tuple[str, bytes]
"""A media type, and the bytes."""


def browser_command(profile: Path, *options: str) -> list[str]:
    """Return the command line of the browser, whose profile is a folder of the test; it tells its console on standard error."""
    return [
        program_path("chromium"),
        "--headless",
        # Its own sandbox is not to be had as root; what it loads is ours alone.
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
        f"--user-data-dir={profile}",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-extensions",
        "--disable-background-networking",
        "--disable-component-update",
        "--no-first-run",
        "--enable-logging=stderr",
        *options,
    ]


def shown(url: str, folder: Path) -> tuple[str, list[str]]:
    """Load a page; return its document as it stands then, and the lines of the console."""
    run = subprocess.run(
        browser_command(folder / "profile", "--dump-dom", url),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=PAGE_SECONDS_MAX,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout, _CONSOLE.findall(run.stderr)


class Site:
    """A site of its own whose page tells something to it: `told` is that, once it has."""

    def __init__(self, contents: Mapping[str, Content]) -> None:
        self.told: Any = None
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                kind, content = contents.get(self.path, ("", b""))
                self.send_response(200 if kind else 404)
                self.send_header("Content-Type", kind or "text/plain")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                site.told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def origin(self) -> str:
        """Return its origin: a site of its own, in the eyes of a browser, beside what is served by address."""
        return f"http://viewer.localhost:{self._server.server_port}"

    def close(self) -> None:
        """End it."""
        self._server.shutdown()
        self._thread.join(30)
        self._server.server_close()

    def visited(self, folder: Path) -> tuple[Any, list[str]]:
        """Let the browser load `/`; return what the page told, and the lines of the console until then."""
        # Without a port for a debugger it would end as soon as the page is loaded.
        argv = browser_command(folder / "profile", "--remote-debugging-port=0", f"{self.origin}/")
        with running("chromium", argv, log=folder / "chromium.log") as program:
            program.wait_until(lambda: self.told is not None, "before the page told", PAGE_SECONDS_MAX)
            return self.told, _CONSOLE.findall(program.log_text())


@contextlib.contextmanager
def site(contents: Mapping[str, Content]) -> Iterator[Site]:
    """Serve a site for the length of a block, on a free port."""
    made = Site(contents)
    try:
        yield made
    finally:
        made.close()
