"""What the crash tests share: no log lines of the thousands of recoveries they run."""

from collections.abc import Iterator

import pytest

from support.quiet_log import quiet_log


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with quiet_log():
        yield
