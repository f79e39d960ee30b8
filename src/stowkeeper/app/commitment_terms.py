"""From settings to the terms on which peers are asked for storage commitment."""

from typing import Final

from stowkeeper.app.settings import Settings
from stowkeeper.services.commitment.asking import AskTerms

_DAY_SECONDS: Final = 86_400.0


def ask_terms(settings: Settings) -> AskTerms:
    """Return how a peer is asked, and how long its report is awaited."""
    commitment = settings.commitment
    return AskTerms(
        keep_open_seconds=commitment.keep_open_seconds,
        report_awaited_seconds=commitment.await_days * _DAY_SECONDS,
        re_ask_times=commitment.ask_again_times,
    )
