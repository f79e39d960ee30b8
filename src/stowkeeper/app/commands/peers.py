"""`stowkeeper peers`: the systems that are known, with a running server and without."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import wraps
from typing import Any, TypeVar

import click

from stowkeeper.app.commands.acting_user import acting_user
from stowkeeper.app.commands.columns import Column, Row, print_rows
from stowkeeper.app.commands.event_loop import event_loop
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import SettingsArguments, json_option, place_options
from stowkeeper.app.commands.peer_address import PeerAddress, parse_peer_address
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.log_lines import printable
from stowkeeper.app.peer_book import configured_peers, own_side
from stowkeeper.app.settings import Settings
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import Database
from stowkeeper.net.association_errors import AssociationError
from stowkeeper.services.dialing import EchoResult
from stowkeeper.services.limits import PEER_ANSWER_SECONDS, PEER_CONNECT_SECONDS
from stowkeeper.services.peer_definition import DUPLICATES, REPORT_ON
from stowkeeper.services.peer_health import PeerHealth, echo_of, health_of
from stowkeeper.services.peers import (
    Peer,
    PeerBook,
    PeerBookError,
    PeerDefinitionError,
    PeerExistsError,
)

R = TypeVar("R")

PERMISSIONS = ("echo", "store", "request-commitment", "report-commitment")
"""What a peer may do here unless it is told otherwise, as --may-not takes it."""


@click.group(
    epilog="A running server knows of a change within a second or two. docs/commands.md tells more.",
)
def peers() -> None:
    """List, add, remove and ask peers.

    Peers are the systems that call here, and that are called. They stand in the settings file, where alone they can be
    changed, or in the archive's database, which is what this command changes. Where both match who calls, the settings
    hold.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBook:
    """The peers of an archive and of its settings, for the length of a command."""

    book: PeerBook
    settings: Settings
    database: Database


def _book_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a command --archive and --config. It gets `arguments`, to open the book with."""

    @place_options
    @wraps(command)
    def with_book(*, archive: str | None, config: str | None, **options: Any) -> R:  # noqa: ANN401 - they are the command's own
        arguments = SettingsArguments(config_file=config, overrides={"archive": archive})
        return command(arguments=arguments, **options)

    return with_book


@contextmanager
def _opened(arguments: SettingsArguments, *, to_read: bool) -> Iterator[OpenBook]:
    """Open the archive and read its settings. What the book says is told as a sentence."""
    settings = arguments.as_served().load()
    with closing(ArchiveReader(str(settings.archive_path), to_read=to_read)) as reader:
        try:
            book = PeerBook(configured_peers(settings), reader.database)
            yield OpenBook(book=book, settings=settings, database=reader.database)
        except PeerBookError as error:
            words = str(error)
            raise CommandError(f"{words[0].upper()}{words[1:]}.", ExitCode.NO_INPUT) from error


# ls


def _calls_from(row: Row) -> str:
    return ", ".join(row["addresses"]) or "any address"


def _may_not(row: Row) -> str:
    return ", ".join(name for name in PERMISSIONS if not row[f"may_{name.replace('-', '_')}"])


def _where(row: Row) -> str:
    if row["host"] is None:
        return ""
    host = f"[{row['host']}]" if ":" in row["host"] else row["host"]
    return f"{host}:{row['port']}{' (TLS)' if row['tls'] else ''}"


def _moment(key: str) -> Callable[[Row], str]:
    return lambda row: (row["health"][key] or "")[:19].replace("T", " ")


_COLUMNS = (
    Column(title="Name", text=lambda row: row["name"], cut_to=12),
    Column(title="AE Title", text=lambda row: row["ae_title"] or "any"),
    Column(title="Called at", text=_where),
    Column(title="Calls from", text=_calls_from, cut_to=14, drop=2),
    Column(title="May not", text=_may_not, cut_to=12),
    Column(title="Duplicates", text=lambda row: row["duplicates"] or "", drop=1),
    Column(title="Stands in", text=lambda row: row["stands_in"], drop=3),
    Column(title="Echoed (UTC)", text=_moment("last_echo_at"), drop=6),
    Column(title="Called here (UTC)", text=_moment("last_association_at"), drop=4),
    Column(title="Took a report (UTC)", text=_moment("last_report_at"), drop=5),
    Column(title="Failed (UTC)", text=_moment("last_failure_at"), drop=7),
    Column(title="Last failure", text=lambda row: row["health"]["last_failure"], cut_to=12, drop=8),
)


def _as_row(peer: Peer) -> dict[str, Any]:
    return {**peer.to_json(), "stands_in": "settings" if peer.is_read_only else "database"}


@peers.command("ls", epilog="Example: stowkeeper peers ls --json")
@_book_options
@json_option
def ls(*, arguments: SettingsArguments, as_json: bool) -> None:
    """List all peers, those of the settings first, and how it goes with each.

    That is when it answered an echo last, opened an association, took a report of storage commitment, and when one of
    these calls of ours, or a job about it, failed last.
    """
    with _opened(arguments, to_read=True) as opened:
        known = opened.book.all()
        with opened.database.read() as connection:
            health: dict[str, PeerHealth] = health_of(
                connection, [peer.name for peer in known], opened.book.matching
            )
        found = [{**_as_row(peer), "health": asdict(health[peer.name])} for peer in known]
    print_rows(_COLUMNS, found, as_json=as_json, nothing="There are no peers.")


# add and rm


def _where_called(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> PeerAddress | None:
    return None if value is None else parse_peer_address(value)


@peers.command(
    "add",
    epilog="Example: stowkeeper peers add 'CT 1' CT1@192.0.2.17:104 --address 192.0.2.17 --may-not report-commitment",
)
@_book_options
@click.argument("name")
@click.argument("where", metavar="[AET@HOST:PORT]", required=False, callback=_where_called)
@click.option("--ae-title", metavar="AET", help="AE title of a peer that is never called.")
@click.option(
    "--address",
    "addresses",
    metavar="NET",
    multiple=True,
    help="Address or network that it calls from; may be given several times. Not given: any.",
)
@click.option(
    "--own-ae-title",
    metavar="AET",
    default="",
    help="What we call ourselves when we call it.  [default: dicom.ae_title]",
)
@click.option("--tls", is_flag=True, help="Call it over TLS, by the settings of [tls].")
@click.option(
    "--may-not",
    "forbidden",
    type=click.Choice(PERMISSIONS),
    multiple=True,
    help="What it may not do here; may be given several times. All of it may be done otherwise.",
)
@click.option(
    "--report-on",
    type=click.Choice(REPORT_ON),
    default="new",
    show_default=True,
    help="Association for reports of storage commitment: a new one, or first the one that it asked on.",
)
@click.option(
    "--duplicates", type=click.Choice(DUPLICATES), help="Its own policy, in place of storage.duplicates."
)
@click.option(
    "--connect-seconds",
    type=float,
    default=PEER_CONNECT_SECONDS,
    show_default=True,
    help="Time for the connection to it, and again for the association.",
)
@click.option(
    "--answer-seconds",
    type=float,
    default=PEER_ANSWER_SECONDS,
    show_default=True,
    help="How long it may stand still in an association.",
)
@click.option("--manufacturer", metavar="TEXT", default="", help="Whose it is, for people.")
@click.option(
    "--replace", is_flag=True, help="Put this in the place of the peer of that name, if there is one."
)
@json_option
def add(
    *,
    arguments: SettingsArguments,
    name: str,
    where: PeerAddress | None,
    ae_title: str | None,
    forbidden: tuple[str, ...],
    replace: bool,
    as_json: bool,
    **more: Any,  # noqa: ANN401 - the options that are keys of a definition
) -> None:
    """Add a peer to the archive's database.

    AET@HOST:PORT is where it is called, to send to it and to report to it; its AE title is also the one that it calls by. A
    peer that only calls has --ae-title, --address, or both.
    """
    if where is not None and ae_title is not None:
        raise click.UsageError("AET@HOST:PORT holds its AE title: leave --ae-title out.")
    definition = {
        "name": name,
        "ae_title": where.ae_title if where is not None else ae_title,
        "host": where.host if where is not None else None,
        "port": where.port if where is not None else None,
        **{f"may_{one.replace('-', '_')}": False for one in forbidden},
        **{key: list(value) if isinstance(value, tuple) else value for key, value in more.items()},
    }
    try:
        peer = Peer.from_json(definition)
    except PeerDefinitionError as error:
        said = "; ".join(f"{_option_of(key)}: {words}" if key else words for key, words in error.problems)
        raise click.UsageError(f"{said}.") from error
    with _opened(arguments, to_read=False) as opened:
        try:
            is_new = opened.book.save(peer, acting_user(), may_replace=replace)
        except PeerExistsError as error:
            words = f"There is a peer {name!r} already: --replace puts this one in its place."
            raise CommandError(words, ExitCode.FINDINGS) from error
    if as_json:
        click.echo(json.dumps(_as_row(peer)))
    else:
        at = f", called as {peer.where}" if peer.where else ""
        click.echo(printable(f"{peer.name}: {'added' if is_new else 'changed'}{at}"))


def _option_of(key: str) -> str:
    """Name a key of a definition as the command line has it."""
    if key in {"host", "port"}:
        return "AET@HOST:PORT"
    return {"name": "NAME", "addresses": "--address"}.get(key, f"--{key.replace('_', '-')}")


@peers.command(
    "rm", epilog="Exit code 0 when all were removed, 1 when one is not there or stands in the settings."
)
@_book_options
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def rm(*, arguments: SettingsArguments, names: tuple[str, ...]) -> ExitCode:
    """Remove peers from the archive's database. What was received from them, and their jobs, stay."""
    code = ExitCode.OK
    with _opened(arguments, to_read=False) as opened:
        for name in dict.fromkeys(names):
            try:
                opened.book.discard(name, acting_user())
            except PeerBookError as error:
                click.echo(printable(str(error)), err=True)
                code = ExitCode.FINDINGS
            else:
                click.echo(printable(f"{name}: removed"))
    return code


# echo


@peers.command(
    "echo", epilog="Exit code 0 when the peer answers Success, 69 when it does not answer or rejects us."
)
@_book_options
@click.argument("name")
@json_option
def echo(*, arguments: SettingsArguments, name: str, as_json: bool) -> None:
    """Ask a peer whether it answers, as a server with these settings would ask it.

    `stowkeeper echo AET@HOST:PORT` asks any other.
    """
    with _opened(arguments, to_read=True) as opened:
        peer = opened.book.find(name)
        if peer is None:
            raise CommandError(
                f"There is no peer {name!r}: `stowkeeper peers ls` lists them.", ExitCode.NO_INPUT
            )
        own = own_side(opened.settings)
        try:
            with event_loop() as runner:
                result = runner.run(echo_of(peer, own, opened.database))
        except AssociationError as error:
            raise CommandError(str(error), ExitCode.UNAVAILABLE) from error
    if as_json:
        click.echo(json.dumps(_as_line(peer, result)))
    elif result.is_success:
        over = f" over {result.tls}" if result.tls else ""
        click.echo(
            printable(
                f"{peer.name} ({peer.where}) answered in {result.echo_seconds * 1000:.1f} ms{over}, after"
                f" {result.association_seconds * 1000:.1f} ms for the association."
            )
        )
    if not result.is_success:
        raise CommandError(f"{peer.name} ({peer.where}) answered {result.words}.", ExitCode.UNAVAILABLE)


def _as_line(peer: Peer, result: EchoResult) -> dict[str, Any]:
    return {
        "name": peer.name,
        "peer": peer.where,
        "status": f"{result.status:04X}H",
        "association_milliseconds": round(result.association_seconds * 1000, 3),
        "echo_milliseconds": round(result.echo_seconds * 1000, 3),
        "tls": result.tls or None,
    }
