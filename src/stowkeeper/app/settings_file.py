"""Changing a settings file: one value at a time with everything else as it stands, and a whole file durably in place of another.

A file is never seen half written: the new one is made under a hidden name, synced, and renamed. What it takes the place of is
kept as FILE.1, the one before as FILE.2, and so on. Who writes holds a lock on the folder, and writes only where the
file is still as it was read: so of two at once neither loses the other's change.
"""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import tomllib
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, cast

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import AoT

from stowkeeper.app.limits import SETTINGS_LOCK_SECONDS, SETTINGS_VERSIONS_MAX
from stowkeeper.app.setting_sources import parse, text_of

_NEW_MODE: Final = 0o640
_LOOK_SECONDS: Final = 0.05
_BYTE_ORDER_MARK: Final = "\ufeff".encode()
_NO_LOCKS: Final = frozenset({errno.EBADF, errno.ENOLCK, errno.ENOTSUP, errno.EINVAL})
"""What a file system says that has no locks for folders, as NFS has none. Then the comparison alone has to do."""


class SettingsFileError(Exception):
    """A settings file could not be changed; the text says why, in a sentence."""


class SettingsFileBusyError(SettingsFileError):
    """Somebody else is changing it, or did so meanwhile; the same may work later."""


class SettingsFileOwnerError(SettingsFileError):
    """A new file could not belong to whom the old one belongs to."""


# The text.


def with_value(content: bytes, path: tuple[str, ...], value: object) -> bytes:
    """Return a settings file with a value at a key; `path` is its table, if it is in one, and its name.

    Comments, order and blank lines stay. Raises ValueError where the file is no TOML.
    """
    document = _document(content)
    table: MutableMapping[str, Any] = document
    for name in path[:-1]:
        if name not in table:
            table[name] = tomlkit.table()
        table = cast("MutableMapping[str, Any]", table[name])
    table[path[-1]] = value  # the comment behind the one before stays
    return _checked(document, content, lambda plain: _set_plain(plain, path, value))


def without_value(content: bytes, path: tuple[str, ...]) -> bytes:
    """Return a settings file without a key; the same where it has none. Raises ValueError where the file is no TOML."""
    document = _document(content)
    table: Any = document
    for name in path[:-1]:
        table = table.get(name, {})
    if path[-1] not in table:
        return content
    del table[path[-1]]
    return _checked(document, content, lambda plain: _unset_plain(plain, path))


def with_entry_value(content: bytes, table: str, name: str, key: str, value: object) -> bytes:
    """Return a settings file with a value in the entry of a list of tables that has a name; None takes the value away.

    Raises KeyError where there is no such entry, ValueError where the file is no TOML.
    """
    document = _document(content)
    found = document.get(table)
    entries = cast("list[MutableMapping[str, Any]]", found) if isinstance(found, AoT | list) else []
    numbers = [number for number, entry in enumerate(entries) if entry.get("name") == name]
    if not numbers:
        raise KeyError(name)
    number = numbers[0]
    if value is not None:
        entries[number][key] = value
    elif key in entries[number]:
        del entries[number][key]

    def change(plain: dict[str, Any]) -> None:
        if value is None:
            plain[table][number].pop(key, None)
        else:
            plain[table][number][key] = value

    return _checked(document, content, change)


def _document(content: bytes) -> tomlkit.TOMLDocument:
    text = text_of(content)
    parse(text)  # its errors name line and column as those of all readers do
    try:
        return tomlkit.parse(text)
    except TOMLKitError as error:
        raise ValueError(f"it cannot be changed piece by piece: {error}") from None


def _checked(document: tomlkit.TOMLDocument, content: bytes, change: Any) -> bytes:  # noqa: ANN401 - a function on a mapping
    """Return the text of a document, once it says what the file said with that change alone."""
    text = document.as_string()
    expected = tomllib.loads(text_of(content))
    change(expected)
    if _without_empty(tomllib.loads(text)) != _without_empty(expected):
        raise ValueError("it cannot be changed piece by piece: it is written in an unusual way")
    mark = _BYTE_ORDER_MARK if content.startswith(_BYTE_ORDER_MARK) else b""
    return mark + text.encode()


def _set_plain(plain: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        plain = plain.setdefault(name, {})
    plain[path[-1]] = value


def _unset_plain(plain: dict[str, Any], path: tuple[str, ...]) -> None:
    for name in path[:-1]:
        plain = plain[name]
    del plain[path[-1]]


def _without_empty(plain: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in plain.items() if value != {}}


# The file.


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep others from changing a file for the length of a block. Raises SettingsFileBusyError, OSError."""
    folder = os.open(_led_to(path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        deadline = monotonic() + SETTINGS_LOCK_SECONDS
        while not _lock(folder):
            if monotonic() > deadline:
                raise SettingsFileBusyError(
                    f"{path}: somebody else has been changing it for {SETTINGS_LOCK_SECONDS:g} seconds: try again later"
                )
            sleep(_LOOK_SECONDS)
        yield
    finally:
        os.close(folder)


def _lock(folder: int) -> bool:
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def check_folder(path: Path) -> None:
    """Raise PermissionError where we may make no file in the folder of a settings file, as every change does."""
    folder = _led_to(path).parent
    by_effective_user = os.access in os.supports_effective_ids
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=by_effective_user):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


def _led_to(path: Path) -> Path:
    """Return the file that a name leads to; links in a circle lead nowhere, and are found by whoever opens it."""
    return Path(os.path.realpath(path))


def content_of(path: Path) -> bytes | None:
    """Return what a file holds, None where there is none. Raises OSError."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def replace_file(path: Path, content: bytes, before: bytes | None) -> Path | None:
    """Put content in place of a file that held `before`, None where there was none; return where that is kept now.

    Owner, mode and extended attributes stay; where a name is a link, the file that it leads to is replaced. Call it within
    `held`. Raises SettingsFileBusyError where the file holds something else by now, SettingsFileOwnerError, OSError.
    """
    target = _led_to(path)
    if content_of(target) != before:
        raise SettingsFileBusyError(
            f"{path}: somebody else has changed it meanwhile: look at it, and try again"
        )
    hidden = target.with_name(f".{target.name}.{secrets.token_hex(4)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(hidden, flags, 0o600)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            _take_over(target if before is not None else None, descriptor, target)
            os.fsync(descriptor)
        kept = None if before is None else _keep_versions(target)
        os.rename(hidden, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(hidden)
        if isinstance(error, OSError) and error.filename is None:  # as of a write to a full disk
            error.filename = str(path)
        raise
    _sync_folder(target.parent)
    return kept


def _take_over(old: Path | None, descriptor: int, target: Path) -> None:
    """Give a new file owner, mode and attributes of the old one; without one those of the folder it lies in."""
    like = os.stat(target.parent if old is None else old)
    now = os.fstat(descriptor)
    if (like.st_uid, like.st_gid) != (now.st_uid, now.st_gid):
        try:
            os.fchown(descriptor, like.st_uid, like.st_gid)
        except PermissionError:
            if old is not None:
                raise SettingsFileOwnerError(
                    f"{target}: it belongs to user {like.st_uid} and group {like.st_gid}, and a new one in its place would not"
                ) from None
    os.fchmod(descriptor, _NEW_MODE if old is None else like.st_mode & 0o7777)
    if old is None or not hasattr(os, "listxattr"):
        return
    with contextlib.suppress(
        OSError
    ):  # a file system without them, or those of a security module that sets its own
        for name in os.listxattr(old):
            os.setxattr(descriptor, name, os.getxattr(old, name))


def _keep_versions(target: Path) -> Path:
    """Keep a file under the first of its numbered names, and move those along that are there."""
    names = [target.with_name(f"{target.name}.{number}") for number in range(1, SETTINGS_VERSIONS_MAX + 1)]
    for older, newer in zip(reversed(names), reversed(names[:-1]), strict=False):
        with contextlib.suppress(FileNotFoundError):
            os.rename(newer, older)
    try:
        os.link(target, names[0])
    except OSError:  # a file system without links
        shutil.copy2(target, names[0])
    return names[0]


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
