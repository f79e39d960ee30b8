"""From the retention rules of the settings to those that the services know, and to the jobs of a server."""

import json
from collections.abc import Callable

import structlog

from stowkeeper.app.settings import Settings
from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import DatabaseUnavailable
from stowkeeper.services.retention.clock_watch import ClockWatch
from stowkeeper.services.retention.retention_job import RetentionJob, is_looked_after, keep_retaining
from stowkeeper.services.retention.rules import RetentionRule, Unit
from stowkeeper.services.retention.sparing import RetentionSparing

log = structlog.get_logger("stowkeeper.app")


def retention_rules(settings: Settings) -> tuple[RetentionRule, ...]:
    """Return the rules of the settings, in their order."""
    return tuple(
        RetentionRule(
            name=entry.name,
            conditions=entry.conditions(),
            after_days=entry.after_days,
            by=Unit(entry.by),
            only_forwarded_to=entry.only_forwarded_to,
            definition=json.dumps(entry.model_dump(mode="json"), sort_keys=True),
        )
        for entry in settings.retention_rules
    )


class RetentionInForce:
    """The retention rules of a server, its jobs for them, and new rules when the settings are read anew."""

    def __init__(self, archive: ArchiveReader, settings: Settings, wake: Callable[[], None]) -> None:
        self._database = archive.database
        self._rules = retention_rules(settings)
        self._wake = wake
        self.sparing = RetentionSparing(self.rules)
        self.job = RetentionJob(archive, self.rules, ClockWatch(), wake)

    def rules(self) -> tuple[RetentionRule, ...]:
        """Return the rules that are in force now."""
        return self._rules

    def take_settings(self, settings: Settings) -> None:
        """Put other rules in force. What a rule asked for that is not among them is not removed any more."""
        self._rules = retention_rules(settings)

    def keep_looking(self) -> None:
        """Make sure that somebody looks what is old enough, where there are rules. Blocks."""
        if not self._rules:
            return
        try:
            with self._database.read() as connection:
                if is_looked_after(connection):
                    return
            with self._database.write() as transaction:
                keep_retaining(transaction, created_by="settings")
        except DatabaseUnavailable as error:
            log.error(
                "error",
                what="nothing is removed by retention rules until the settings are read anew",
                reason=str(error),
            )
        else:
            self._wake()
