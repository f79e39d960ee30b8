"""The log of this room for what the drop-in commands use too: they log in their own way, and start sooner without it."""

from typing import Any


def network_log() -> Any:  # noqa: ANN401 - structlog's own type, which is not to be imported before it is needed
    """Return the logger, which is loaded with the first line that there is to write."""
    import structlog  # noqa: PLC0415 - as above

    return structlog.get_logger("stowkeeper.net")
