"""`stowkeeper token`: who may use the HTTP interface. Works beside a server, and before there is one."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stowkeeper.app.commands.acting_user import acting_user
from stowkeeper.app.commands.archive_folder import check_archive_folder
from stowkeeper.app.commands.columns import Column, print_rows
from stowkeeper.app.commands.failures import CommandError
from stowkeeper.app.commands.options import SettingsArguments, archive_option, json_option
from stowkeeper.app.exit_codes import ExitCode

if TYPE_CHECKING:
    from stowkeeper.archive.archive import ArchiveReader

ROLES = ("none", "read", "operate", "admin")


@click.group(epilog="Exit code 0 when it was done, 1 when a name is taken or not found.")
def token() -> None:
    """Say who may use the HTTP interface.

    Without any credential HTTP serves this machine alone, and everybody on it. As soon as there is one, every request needs
    one. A running server knows a change within a second.
    """


@token.command
@archive_option
@click.option(
    "--config",
    metavar="FILE",
    help="Settings file (TOML), where the archive is to be made. Not given: STOWKEEPER_CONFIG, or stowkeeper.toml in it.",
)
@click.option(
    "--role",
    type=click.Choice(ROLES),
    required=True,
    help="none: nothing but --store. read: see everything. operate: also send, verify, remove, jobs. admin: also peers and"
    " credentials.",
)
@click.option(
    "--store/--no-store",
    "may_store",
    default=None,
    help="Whether it may store instances by HTTP, whatever its role. Not given: operate and admin may, the others not.",
)
@click.option(
    "--password",
    "with_password",
    is_flag=True,
    help="Take a password for basic authentication, asked for or read from standard input, in place of a token.",
)
@json_option
@click.argument("name")
def add(
    *,
    archive: Path,
    config: str | None,
    role: str,
    may_store: bool | None,
    with_password: bool,
    as_json: bool,
    name: str,
) -> ExitCode:
    """Add a credential, and print its token, once.

    Makes the archive where there is none yet, so that a server can start with its credential.

    Examples: stowkeeper token add monitor --role read;
    stowkeeper token add scanner --role none --store
    """
    from stowkeeper.web.credentials import CredentialError, add_credential, make_credential  # noqa: PLC0415 - needs the database
    from stowkeeper.web.roles import Role  # noqa: PLC0415 - likewise

    password = _password() if with_password else None
    try:
        new = make_credential(name, Role(role), may_store=may_store, password=password)
        with _opened_or_made(archive, config) as reader, reader.database.write() as transaction:
            add_credential(transaction, new, who=acting_user())
    except CredentialError as error:
        raise CommandError(f"{_sentence(error)}.", ExitCode.FINDINGS) from error
    shown = None if with_password else new.secret
    if as_json:
        line = {
            "name": name,
            "kind": new.kind.value,
            "role": role,
            "may_store": new.may_store,
            "token": shown,
        }
        click.echo(json.dumps(line))
    elif shown is None:
        stores = "may" if new.may_store else "may not"
        click.echo(f"{name} has the role {role} with its password, and {stores} store.", err=True)
    else:
        click.echo("This token is not shown again:", err=True)
        click.echo(shown)
    if new.role is Role.NONE and not new.may_store:
        click.echo(f"{name} may nothing: remove it, and add it with --store or with another role.", err=True)
    return ExitCode.OK


@token.command
@archive_option
@json_option
def ls(*, archive: Path, as_json: bool) -> ExitCode:
    """List the credentials, without their secrets."""
    from stowkeeper.web.credentials import list_credentials  # noqa: PLC0415 - needs the database

    with _opened(archive) as reader, reader.database.read() as connection:
        found = list_credentials(connection)
    rows = [
        {
            "name": one.name,
            "kind": one.kind.value,
            "role": one.role.value,
            "may_store": one.may_store,
            "created_at": one.created_at,
            "created_by": one.created_by,
        }
        for one in found
    ]
    nothing = "No credentials: HTTP serves this machine alone."
    print_rows(_COLUMNS, rows, as_json=as_json, nothing=nothing)
    return ExitCode.OK


@token.command
@archive_option
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
def rm(*, archive: Path, names: tuple[str, ...]) -> ExitCode:
    """Remove credentials: what they opened is closed within a second."""
    from stowkeeper.web.credentials import CredentialNotFoundError, credentials_exist, remove_credential  # noqa: PLC0415 - likewise

    missing = []
    with _opened(archive) as reader:
        for name in dict.fromkeys(names):
            try:
                with reader.database.write() as transaction:
                    remove_credential(transaction, name, who=acting_user())
            except CredentialNotFoundError as error:
                missing.append(name)
                click.echo(f"{_sentence(error)}.", err=True)
        with reader.database.read() as connection:
            are_left = credentials_exist(connection)
    if not are_left:
        click.echo("No credential is left: HTTP serves this machine alone, and everybody on it.", err=True)
    return ExitCode.FINDINGS if missing else ExitCode.OK


_COLUMNS = (
    Column(title="Name", text=lambda row: row["name"]),
    Column(title="Kind", text=lambda row: row["kind"]),
    Column(title="Role", text=lambda row: row["role"]),
    Column(title="Stores", text=lambda row: "yes" if row["may_store"] else "no"),
    Column(title="Created (UTC)", text=lambda row: row["created_at"][:19].replace("T", " "), drop=1),
    Column(title="By", text=lambda row: row["created_by"], cut_to=12, drop=2),
)


@contextmanager
def _opened(archive: Path) -> "Iterator[ArchiveReader]":
    from stowkeeper.archive.archive import ArchiveReader  # noqa: PLC0415 - needs the database

    with closing(ArchiveReader(str(archive))) as reader:
        yield reader


@contextmanager
def _opened_or_made(archive: Path, config: str | None) -> "Iterator[ArchiveReader]":
    """Open the archive, and make one where there is none, with the modes that its settings say."""
    from stowkeeper.archive.archive import ArchiveReader  # noqa: PLC0415 - needs the database
    from stowkeeper.archive.shelf_lock import OBJECTS  # noqa: PLC0415 - likewise
    from stowkeeper.durable.filesystem import FileSystem  # noqa: PLC0415 - likewise
    from stowkeeper.durable.write_once import make_folders  # noqa: PLC0415 - likewise

    objects = os.path.join(archive, OBJECTS)
    if not os.path.isdir(objects):
        settings = SettingsArguments(config_file=config, overrides={"archive": str(archive)}).load()
        check_archive_folder(settings)
        make_folders(FileSystem(), objects, mode=settings.storage.modes[1])
    with closing(ArchiveReader(str(archive), create=True)) as reader:
        yield reader


def _password() -> str:
    if sys.stdin.isatty():
        given: str = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return given
    return sys.stdin.readline().rstrip("\r\n")


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].upper() + text[1:]
