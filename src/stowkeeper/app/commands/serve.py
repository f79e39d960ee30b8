"""`stowkeeper serve`: receive and keep, in the foreground, until Ctrl-C or SIGTERM."""

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import Callable

import click
import structlog

from stowkeeper import __version__
from stowkeeper.app.commands.event_loop import event_loop
from stowkeeper.app.commands.options import SettingsArguments, settings_options
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.logs import Logs, log_loop_exception, start_logs
from stowkeeper.app.setting_problems import SettingsError
from stowkeeper.app.settings import Settings, warnings_of
from stowkeeper.app.wiring import archive_options, server_options, storage_rules
from stowkeeper.archive.archive import Archive
from stowkeeper.net.server import AssociationServer
from stowkeeper.services.storage import StorageService

log = structlog.get_logger("stowkeeper.app")

COLLECTION_THRESHOLDS = (20_000, 50, 100)
"""When Python looks for cycles of dead objects. The receive path makes none, and each full look held every answer up
for milliseconds: with these and the objects of the start left out, the slowest percent of 131 kB instances fell from
3.7 ms to 1.7 ms."""

SWITCH_INTERVAL_SECONDS = 0.0005
"""How long one thread may keep the interpreter while another waits. The finisher's Python would hold up answers
for Python's default of 5 ms."""


@click.command(epilog="Exit code 0 after Ctrl-C or SIGTERM. docs/settings.md lists every setting.")
@settings_options
def serve(*, settings_arguments: SettingsArguments) -> ExitCode:
    """Receive instances over DICOM and keep them.

    Prints one line to standard output when it accepts: stowkeeper ready dicom=HOST:PORT aet=AET archive=DIR. Then it
    runs until Ctrl-C or SIGTERM: it stops accepting, answers what is in flight, and ends. SIGHUP reads access rules
    and the log level anew.
    """
    settings = settings_arguments.load()
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    with start_logs(settings.log, settings.log_directory) as logs:
        archive = Archive(settings.archive, archive_options(settings))
        try:
            with event_loop() as runner:
                runner.run(_Serving(archive, settings, settings_arguments, logs).run())
        finally:
            archive.close()
            log.info("start", what="stopped")
    return ExitCode.OK


class _Serving:
    """One run of the server, from ready to drained."""

    def __init__(
        self, archive: Archive, settings: Settings, settings_arguments: SettingsArguments, logs: Logs
    ) -> None:
        self._archive = archive
        self._settings = settings
        self._arguments = settings_arguments
        self._logs = logs
        self._service = StorageService(archive, storage_rules(settings))
        self._stop = asyncio.Event()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(log_loop_exception)
        settings = self._settings
        server = AssociationServer(self._service, server_options(settings))
        host, port = await server.start(settings.dicom.host, settings.dicom.port)
        self._handle_signals(loop)
        _leave_the_start_uncollected()
        self._announce(host, port)
        self._archive.look_after_the_dead()
        try:
            await self._stop.wait()
        finally:
            log.info("start", what="stopping", associations=server.associations)
            await server.stop()

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for name, handler in (
            ("SIGINT", self._stop.set),
            ("SIGTERM", self._stop.set),
            ("SIGHUP", self._reload),
        ):
            number = getattr(signal, name, None)
            if number is not None:
                _add_signal_handler(loop, number, handler)

    def _announce(self, host: str, port: int) -> None:
        settings = self._settings
        log.info(
            "start",
            what="ready",
            version=__version__,
            host=host,
            port=port,
            ae_title=settings.dicom.ae_title,
            archive=self._archive.root,
            sync=settings.sync,
        )
        for warning in (*warnings_of(settings), *self._archive.storage.warnings):
            log.warning("start", what=warning)
        shown = f"[{host}]" if ":" in host else host
        print(
            f"stowkeeper ready dicom={shown}:{port} aet={settings.dicom.ae_title} archive={self._archive.root}",
            flush=True,
        )

    def _reload(self) -> None:
        """Put new access rules and the log's settings in force; what needs a restart is named."""
        try:
            reload = self._arguments.reload(self._settings)
        except SettingsError as error:
            log.error("error", what="the settings were not read anew, the old ones stay", reason=str(error))
            return
        self._settings = reload.settings
        self._service.rules = storage_rules(reload.settings)
        self._logs.apply(reload.settings.log, reload.settings.log_directory)
        log.info(
            "start",
            what="settings read anew",
            changed=[change.key for change in reload.applied],
            needs_restart=[change.key for change in reload.needs_restart],
        )


def _leave_the_start_uncollected() -> None:
    """Take the objects of the start, which live as long as the process, out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTION_THRESHOLDS)


def _add_signal_handler(loop: asyncio.AbstractEventLoop, number: int, handler: Callable[[], None]) -> None:
    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C arrives as KeyboardInterrupt there
        loop.add_signal_handler(number, handler)
