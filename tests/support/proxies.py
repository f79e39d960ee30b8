"""Real proxies before a server, with the configuration that docs/proxy.md prints: read from the page, with other ports."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from support.peers import program_path
from support.processes import LOOPBACK, Program, free_port, running
from support.tls_files import Identity

PAGE = Path(__file__).parents[2] / "docs" / "proxy.md"
HTTP_PART, _, DICOM_PART = PAGE.read_text("utf-8").partition("## The DICOM port")
BALANCER = "127.0.0.5"
"""Where HAProxy connects from: another address than those who look whether it listens."""
NAME = "pacs.example.org"
"""The proxy's host name on the page."""
_NGINX = """daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/answer;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{block}
}}
"""
_CADDY = """{{
    admin off
    auto_https disable_redirects
    storage file_system {folder}
}}
{block}
"""


def printed(language: str, part: str = HTTP_PART) -> str:
    """Return the one block of a part of the page that is in a language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
    return str(block)


def _replaced(block: str, *pairs: tuple[str, str]) -> str:
    for old, new in pairs:
        assert block.count(old) == 1, f"the page says {old!r} {block.count(old)} times"
        block = block.replace(old, new)
    return block


def nginx_configuration(folder: Path, server_port: int, port: int, identity: Identity) -> str:
    """Return the page's configuration of nginx inside the frame of a distribution's."""
    block = _replaced(
        printed("nginx"),
        ("server 127.0.0.1:8042;", f"server {LOOPBACK}:{server_port};"),
        ("listen 443 ssl;", f"listen {LOOPBACK}:{port} ssl;"),
        ("/etc/ssl/pacs.pem", identity.certificate),
        ("/etc/ssl/pacs.key", identity.key),
    )
    # The worker of root would be somebody who may not enter the folders of a test.
    return _NGINX.format(folder=folder, block=block, user="user root;" if os.geteuid() == 0 else "")


def caddy_configuration(folder: Path, server_port: int, port: int, identity: Identity) -> str:
    """Return the page's configuration of Caddy, with a certificate in place of one that it would ask an authority for."""
    block = _replaced(
        printed("caddyfile"),
        (
            f"{NAME} {{",
            f"https://{NAME}:{port} {{\n    bind {LOOPBACK}\n    tls {identity.certificate} {identity.key}",
        ),
        ("127.0.0.1:8042", f"{LOOPBACK}:{server_port}"),
    )
    return _CADDY.format(folder=folder, block=block)


def haproxy_configuration(server_port: int, port: int, header: str, inter: str) -> str:
    """Return the page's configuration of HAProxy, with `header` for the option that writes version 2 and an own address."""
    return _replaced(
        printed("haproxy", DICOM_PART),
        ("bind :104", f"bind {LOOPBACK}:{port}"),
        ("10.0.0.10:11112", f"{LOOPBACK}:{server_port}"),
        (" send-proxy-v2 ", f" {header} source {BALANCER} "),
        ("inter 5s", f"inter {inter}"),
    )


@contextlib.contextmanager
def balancing(
    folder: Path, server_port: int, header: str = "send-proxy-v2", inter: str = "5s"
) -> Iterator[tuple[Program, int]]:
    """Run HAProxy before a DICOM port for the length of a block; give it and its port."""
    port = free_port()
    place = folder / f"haproxy-{header}"
    place.mkdir()
    configuration = place / "configuration"
    configuration.write_text(haproxy_configuration(server_port, port, header, inter), encoding="utf-8")
    argv = [program_path("haproxy"), "-db", "-f", str(configuration)]
    with running("haproxy", argv, log=place / "log") as program:
        program.wait_until_listening(port)
        yield program, port


@contextlib.contextmanager
def proxying(name: str, folder: Path, server_port: int, identity: Identity) -> Iterator[tuple[Program, int]]:
    """Run a proxy before a server for the length of a block; give it and its port."""
    port = free_port()
    place = folder / name
    place.mkdir()
    configuration = place / "configuration"
    if name == "nginx":
        configuration.write_text(nginx_configuration(place, server_port, port, identity), encoding="utf-8")
        argv = [program_path(name), "-p", str(place), "-e", "stderr", "-c", str(configuration)]
    else:
        configuration.write_text(caddy_configuration(place, server_port, port, identity), encoding="utf-8")
        argv = [program_path(name), "run", "--adapter", "caddyfile", "--config", str(configuration)]
    environment = {"HOME": str(place), "XDG_DATA_HOME": str(place), "XDG_CONFIG_HOME": str(place)}
    with running(name, argv, log=place / "log", environment=environment) as program:
        program.wait_until_listening(port)
        yield program, port
