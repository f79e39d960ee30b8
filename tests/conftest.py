"""What all tests share: the folder of helpers on the path, the real peers, and that each leaves the process as it was."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ("support.peers", "support.tls_fixtures")


@pytest.fixture(autouse=True)
def the_log_as_it_was() -> Iterator[None]:
    """Undo what a command that ran in this process made of the log: it stays for the process, as for a program."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(autouse=True)
def no_database_left_open() -> Iterator[None]:
    """Close the databases that a test opened: each has some seven descriptors, and a process may have 1024."""
    from support.catalog_rows import closing_databases

    with closing_databases():
        yield
