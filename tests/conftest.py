"""What all tests share: the folder of helpers on the path, the real peers, and that each leaves the process as it was."""

import gc
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog

# Whoever sets this pays for it here: each of hundreds of programs would compile the product anew, and each worker of
# pytest all tests. What is compiled lies in __pycache__, which `make clean` removes.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Programs would be started anew where they could be forked: what a test finds is not theirs to look for (`support/forked.py`).
os.environ.pop("PYTHONPATH", None)

# A script that runs the tests in the background (`make test &`, `nohup make test`) has them ignore these, and so would all
# that they start.
for number, default in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, default)

sys.path.insert(0, str(Path(__file__).parent))

from support.quick_statements import share_compiled_statements  # noqa: E402 - only now it is found

# A machine that is busy with other things makes one example slow, and says nothing of what is tested.
hypothesis.settings.register_profile(
    "steady",
    parent=hypothesis.settings(),
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "quick", parent=hypothesis.settings.get_profile("steady"), max_examples=20
)
hypothesis.settings.load_profile("steady")  # `make check` takes "quick"

share_compiled_statements()

# As shipped it prints tracebacks with all variables in colours, which takes a tenth of a second for each.
structlog.configure(
    processors=[
        *structlog.get_config()["processors"][:-1],
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

LONGEST = ("test_soak_mixed_load.py", "test_web_schemathesis.py", "test_crash_power_cut.py")

pytest_plugins = ("support.peers", "support.tls_fixtures")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return what `-n auto` means: a worker more than processors, since many tests wait for a limit of time to pass."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without looks for dead cycles, and never look through what was collected: it stays to the end.

    There are a million objects of it, and to look at them took a third of the time of the collection.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests: the run would wait for one that begins last."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(LONGEST)))


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
