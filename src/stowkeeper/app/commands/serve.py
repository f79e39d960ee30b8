"""`stowkeeper serve`: receive and keep, in the foreground, until Ctrl-C or SIGTERM."""

import asyncio
import gc
import os
import socket
import sys
import time

import click
import structlog

from stowkeeper import __version__
from stowkeeper.app.beside import Beside
from stowkeeper.app.commands.archive_folder import check_archive_folder, check_archive_is_there
from stowkeeper.app.commands.event_loop import event_loop
from stowkeeper.app.commands.held_signals import HeldSignals
from stowkeeper.app.commands.options import SettingsArguments, settings_options
from stowkeeper.app.doctor.at_start import findings_at_start, missing_right
from stowkeeper.app.exit_codes import ExitCode
from stowkeeper.app.http_place import check_http_place
from stowkeeper.app.limits import TAKE_OVER_GRACE_SECONDS, TAKE_OVER_LOOK_SECONDS
from stowkeeper.app.liveness import what_is_broken
from stowkeeper.app.logs import Logs, log_loop_exception, start_logs
from stowkeeper.app.negotiation_profiles import NegotiationProfiles, negotiation_profiles
from stowkeeper.app.open_files import open_files_needed, raise_open_files_limit
from stowkeeper.app.running import RunRecord
from stowkeeper.app.service.plan import listening_of
from stowkeeper.app.service.rights import RightMissingError, check_may_listen
from stowkeeper.app.setting_problems import SettingsError
from stowkeeper.app.settings import Settings, warnings_of
from stowkeeper.app.settings_of_tls import tls_context
from stowkeeper.app.socket_activation import inherited_sockets
from stowkeeper.app.supervision import ServiceManager
from stowkeeper.app.wiring import archive_options, server_options, storage_rules
from stowkeeper.archive.archive import Archive
from stowkeeper.archive.arrival import DuplicatePolicy
from stowkeeper.database.errors import DatabaseInUse
from stowkeeper.durable.server_lock import ArchiveInUseError
from stowkeeper.net.server import AssociationServer
from stowkeeper.net.tls_context import TLSContext
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

    Prints one line to standard output when it accepts: stowkeeper ready dicom=HOST:PORT aet=AET http=HOST:PORT
    archive=DIR. Then it runs until Ctrl-C or SIGTERM: it stops accepting, answers what is in flight, and ends. SIGHUP
    reads access rules, peers, negotiation profiles, keys and certificates, and the log level anew.
    """
    with HeldSignals() as signals:
        # One that takes rights from the owner would lock the server out of its own files.
        os.umask(os.umask(0o077) & 0o077)
        manager = ServiceManager.from_environment(os.environ)
        sockets = inherited_sockets(os.environ)
        settings = sockets.in_settings(settings_arguments.load())
        check_archive_is_there(settings)
        check_archive_folder(settings)
        if words := missing_right(settings):
            raise RightMissingError(words)
        places = listening_of(settings)
        check_may_listen({name: place for name, place in places.items() if not getattr(sockets, name)})
        asyncio.run(check_http_place(settings, is_bound=bool(sockets.http)))
        tls = tls_context(settings)
        profiles = negotiation_profiles(settings)
        sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
        too_few_files = raise_open_files_limit(open_files_needed(settings))
        with start_logs(settings.log, settings.log_directory, settings.storage.modes) as logs:
            if too_few_files:
                log.warning("start", what=too_few_files)
            for finding in findings_at_start(settings):
                log.warning("start", what=finding.words, advice=finding.mend)
            archive = _open_archive(settings, manager, signals, follows_another=bool(sockets))
            if archive is None:
                log.info("stop", what="told to stop before it was ready")
                return ExitCode.OK
            record = RunRecord(archive.root)
            try:
                beside = Beside(archive, settings, sockets.http)
                try:
                    with event_loop() as runner:
                        serving = _Serving(
                            archive,
                            beside,
                            settings,
                            profiles,
                            settings_arguments,
                            logs,
                            signals,
                            record,
                            manager,
                        )
                        runner.run(serving.run(tls, sockets.dicom))
                finally:
                    beside.close()
            finally:
                archive.close()
                record.close()
                log.info("stop", what="stopped")
    return ExitCode.OK


class _Serving:
    """One run of the server, from ready to drained."""

    def __init__(
        self,
        archive: Archive,
        beside: Beside,
        settings: Settings,
        profiles: NegotiationProfiles,
        settings_arguments: SettingsArguments,
        logs: Logs,
        signals: HeldSignals,
        record: RunRecord,
        manager: ServiceManager,
    ) -> None:
        self._manager = manager
        self._record = record
        self._archive = archive
        self._beside = beside
        self._settings = settings
        self._profiles = profiles
        self._arguments = settings_arguments
        self._logs = logs
        self._signals = signals
        self._service = StorageService(
            archive, storage_rules(settings, profiles, beside.peers.matching), requests=beside.commitment
        )
        self._stop = asyncio.Event()
        self._server: AssociationServer | None = None
        self._place = ""

    async def run(self, tls: TLSContext | None, listener: socket.socket | None) -> None:
        asyncio.get_running_loop().set_exception_handler(log_loop_exception)
        if self._signals.say_stop:
            log.info("stop", what="told to stop before it was ready")
            return
        settings = self._settings
        self._server = server = AssociationServer(self._service, server_options(settings), tls)
        host, port = await server.start(settings.dicom.host, settings.dicom.port, listener)
        self._place = _shown(host, port)
        try:
            http = await self._beside.start(server, self._service, (host, port))
            _leave_the_start_uncollected()
            with self._signals.heard(stop=self._stop.set, reload=self._reload):
                self._record.announce(
                    self._archive, settings, (host, port), http, is_tls=server.tls is not None
                )
                self._announce(host, port, http)
                self._archive.look_after_the_dead(self._duplicates_of)
                await self._until_drained(server)
        finally:
            await server.stop()
            await self._beside.stop()

    async def _until_drained(self, server: AssociationServer) -> None:
        """Serve until the server is told to stop, and then until what is in flight is answered."""
        manager = self._manager
        manager.tell_ready(self._status())
        alive = asyncio.create_task(manager.keep_telling_alive(self._what_is_broken, self._status))
        try:
            await self._stop.wait()
            open_associations = server.associations
            log.info("stop", what="stopping", associations=open_associations)
            manager.tell_stopping(self._status())
            await asyncio.gather(server.stop(), self._beside.stop())
        finally:
            alive.cancel()

    def _status(self) -> str:
        """Say for the service manager what the server does now."""
        open_associations = 0 if self._server is None else self._server.associations
        counted = "1 association" if open_associations == 1 else f"{open_associations} associations"
        if self._stop.is_set():
            return f"Stopping: {counted} to end"
        return f"Receiving on {self._place} as {self._settings.dicom.ae_title}, {counted}"

    def _what_is_broken(self) -> str:
        return what_is_broken(self._archive, self._server, is_stopping=self._stop.is_set())

    def _duplicates_of(self, calling_ae_title: str, address: str) -> DuplicatePolicy:
        """Return the policy by the rules in force at this moment; called on the archive's own thread."""
        return self._service.rules.duplicates_of(calling_ae_title, address)

    def _announce(self, host: str, port: int, http: tuple[str, int] | None) -> None:
        settings = self._settings
        tls = None if self._server is None else self._server.tls
        log.info(
            "start",
            what="ready",
            version=__version__,
            host=host,
            port=port,
            ae_title=settings.dicom.ae_title,
            http="off" if http is None else _shown(*http),
            archive=self._archive.root,
            sync=settings.sync,
            tls=str(tls.profile) if tls is not None else "off",
        )
        for warning in (
            *warnings_of(settings),
            *_warnings_of_tls(tls),
            *self._profiles.warnings,
            *self._archive.storage.warnings,
        ):
            log.warning("start", what=warning)
        places = f"dicom={_shown(host, port)} aet={settings.dicom.ae_title}"
        if http is not None:
            places += f" http={_shown(*http)}"
        print(f"stowkeeper ready {places} archive={self._archive.root}", flush=True)

    def _reload(self) -> None:
        """Put new access rules, profiles, keys and the log's settings in force; what needs a restart is named."""
        self._manager.tell_reloading()
        try:
            self._take_settings()
        finally:
            self._manager.tell_ready(self._status())

    def _take_settings(self) -> None:
        try:
            reload = self._arguments.reload(self._settings)
            tls = tls_context(reload.settings)
            profiles = negotiation_profiles(reload.settings)
        except SettingsError as error:
            log.error("error", what="the settings were not read anew, the old ones stay", reason=str(error))
            return
        self._settings = reload.settings
        self._beside.take_settings(reload.settings)
        self._service.rules = storage_rules(reload.settings, profiles, self._beside.peers.matching)
        if self._server is not None:
            self._server.tls = tls
            self._server.proxies = reload.settings.dicom.proxy_protocol_from
        self._logs.apply(reload.settings.log, reload.settings.log_directory)
        log.info(
            "start",
            what="settings read anew",
            changed=[change.key for change in reload.applied],
            needs_restart=[change.key for change in reload.needs_restart],
        )
        for warning in (*_warnings_of_tls(tls), *profiles.warnings):
            log.warning("start", what=warning)


def _open_archive(
    settings: Settings, manager: ServiceManager, signals: HeldSignals, *, follows_another: bool
) -> Archive | None:
    """Open the archive; where this server follows another on its sockets, as soon as that one has ended.

    Returns None when told to stop meanwhile. Raises what Archive raises.
    """
    deadline = time.monotonic() + settings.dicom.drain_seconds + TAKE_OVER_GRACE_SECONDS
    manager.tell_status("Opening the archive")
    has_told = False
    while True:
        try:
            return Archive(settings.archive, archive_options(settings))
        except (ArchiveInUseError, DatabaseInUse):  # the latter of a shared archive whose schema is older
            if not follows_another or time.monotonic() > deadline:
                raise
        if signals.say_stop:
            return None
        if not has_told:
            has_told = True
            manager.tell_status("Waiting for the server before this one to end")
            log.info("start", what="waiting for the server before this one to end")
        time.sleep(TAKE_OVER_LOOK_SECONDS)


def _shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _warnings_of_tls(tls: TLSContext | None) -> tuple[str, ...]:
    return () if tls is None else tls.warnings


def _leave_the_start_uncollected() -> None:
    """Take the objects of the start, which live as long as the process, out of every later collection."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECTION_THRESHOLDS)
