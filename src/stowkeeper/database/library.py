"""Which SQLite is at work: for people who look for what is wrong."""

import sqlite3


def sqlite_version() -> str:
    """Return the version of the SQLite that Python uses here, such as "3.46.1"."""
    return sqlite3.sqlite_version
