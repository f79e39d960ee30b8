"""Nobody changes a schema under another process: an older version writes by the one that it knows.

Whether others have the database open SQLite knows best: each connection to a database with a write-ahead log holds a lock on
its file for as long as it lives, whatever it does, and whichever version made it. Taking the log away takes that lock alone.
"""

import os
import sqlite3
import time

from stowkeeper.database.errors import DatabaseInUse
from stowkeeper.database.limits import ALONE_POLL_SECONDS, ALONE_SECONDS, BUSY_SECONDS, HOLDERS_NAMED_MAX

_PROCESSES = "/proc"


def see_that_nobody_else_has_it(
    driver: sqlite3.Connection, path: str, *, purpose: str, seconds: float = ALONE_SECONDS
) -> None:
    """Return when this connection, under the writer lock and outside of a transaction, is the only one to the database.

    Whoever just looks is waited for, for so many seconds. Whoever opens the database to write waits for the writer lock, and sees
    then what became of it. Raises DatabaseInUse, whose words name the others where the system tells them; and sqlite3.Error.
    """
    deadline = time.monotonic() + seconds
    # SQLite would wait by itself, and for longer.
    driver.execute("PRAGMA busy_timeout = 0").close()
    try:
        while not _is_alone(driver):
            if time.monotonic() >= deadline:
                raise DatabaseInUse(_words(path, purpose))
            time.sleep(ALONE_POLL_SECONDS)
    finally:
        driver.execute(f"PRAGMA busy_timeout = {round(BUSY_SECONDS * 1000)}").close()
    driver.execute("PRAGMA journal_mode = WAL").close()


def _is_alone(driver: sqlite3.Connection) -> bool:
    try:
        (mode,) = driver.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
            return False
        raise
    return bool(mode == "delete")


def _words(path: str, purpose: str) -> str:
    found = processes_with(path)
    named = ", ".join(map(str, found[:HOLDERS_NAMED_MAX]))
    if not found:
        who, look = "another process has it open", f"`fuser {path}`, as root, names it"
    elif len(found) == 1:
        who, look = f"process {named} has it open", f"`ps -fp {named}` shows it"
    else:
        more = f" and {len(found) - HOLDERS_NAMED_MAX} more" if len(found) > HOLDERS_NAMED_MAX else ""
        who, look = f"processes {named}{more} have it open", f"`fuser -v {path}` shows them"
    return (
        f"{path} {purpose}, and {who}, perhaps a server of an older version: stop every server and command on this archive"
        f" ({look}), then run this again; nothing was changed"
    )


def processes_with(path: str) -> list[int]:
    """Return the ids of the other processes that have a file open, as far as the system lets us see them.

    The file itself is not opened: closing it again would end SQLite's locks.
    """
    try:
        sought = os.stat(path)
        ids = sorted(int(name) for name in os.listdir(_PROCESSES) if name.isdecimal())
    except OSError:  # no Linux
        return []
    return [number for number in ids if number != os.getpid() and _has_open(number, sought)]


def _has_open(process: int, sought: os.stat_result) -> bool:
    folder = f"{_PROCESSES}/{process}/fd"
    try:
        names = os.listdir(folder)
    except OSError:  # it ended, or is another user's
        return False
    for name in names:
        try:
            if os.path.samestat(os.stat(f"{folder}/{name}"), sought):
                return True
        except OSError:
            continue
    return False
