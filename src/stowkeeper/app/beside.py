"""What runs beside the receiver of `serve`: peers, storage commitment, events, the job engine, and HTTP."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from stowkeeper.app.background import Background
from stowkeeper.app.commands.event_loop import new_event_loop
from stowkeeper.app.event_targets import event_targets
from stowkeeper.app.forwarding_rules import forwarding_rules
from stowkeeper.app.http_place import cannot_listen
from stowkeeper.app.origin_servers import origin_servers
from stowkeeper.app.peer_book import configured_peers
from stowkeeper.app.retention_rules import RetentionInForce
from stowkeeper.app.setting_problems import SettingsError
from stowkeeper.app.settings import Settings
from stowkeeper.app.settings_of_services import OFF
from stowkeeper.app.settings_of_tls import calling_tls_context
from stowkeeper.app.tracing import tracing_desk
from stowkeeper.app.wiring import commitment_options
from stowkeeper.archive.archive import Archive
from stowkeeper.archive.folder import JOBS
from stowkeeper.database.engine import DatabaseUnavailable, utc_now
from stowkeeper.jobs.engine import JobEngine, JobOptions
from stowkeeper.net.server import AssociationServer
from stowkeeper.services.archive_jobs import archive_job_kinds
from stowkeeper.services.commitment.checking_step import CheckTools
from stowkeeper.services.commitment.external_policies import policy_named
from stowkeeper.services.commitment.provider_job import CommitmentJob, classes_taken_by
from stowkeeper.services.commitment.reporting import Reporter
from stowkeeper.services.commitment.request_job import CommitmentRequestJob
from stowkeeper.services.commitment.requests import CommitmentService
from stowkeeper.services.dialing import OwnSide
from stowkeeper.services.events.delivery_job import DELIVER, REPLAY, DeliveryJob
from stowkeeper.services.events.desk import EventDesk
from stowkeeper.services.events.study_watch import StudyWatch
from stowkeeper.services.forwarding.desk import ForwardingDesk
from stowkeeper.services.forwarding.destinations import KnownDestinations
from stowkeeper.services.forwarding.outcomes import ForwardOutcomes
from stowkeeper.services.peers import PeerBook
from stowkeeper.services.resting import Rests
from stowkeeper.services.scrubbing import keep_scrubbing
from stowkeeper.services.storage import StorageService
from stowkeeper.services.store_job import StoreJob
from stowkeeper.services.stow_job import StowJob

if TYPE_CHECKING:  # FastAPI takes 0.3 s, which a server without HTTP need not pay
    from stowkeeper.web.server import WebServer

log = structlog.get_logger("stowkeeper.app")

JOBS_STOP_SECONDS: Final = 5.0
"""How long running jobs get to give way when the server stops; their rows wait for the next server in any case."""


class Beside:
    """Everything that is not the receiver: made before it, started when it listens, stopped with it.

    `http_sockets` listen already, and HTTP is served on them.
    Raises PolicyUnknownError for a commitment policy that there is not, SettingsError for an event target that cannot be
    used, and DatabaseUnavailable.
    """

    def __init__(
        self, archive: Archive, settings: Settings, http_sockets: Sequence[socket.socket] = ()
    ) -> None:
        self._archive = archive
        self._http_sockets = http_sockets
        self._settings = settings
        self._options = commitment_options(settings)
        self._policy = policy_named(
            self._options.policy, self._options.policy_seconds, archive.files, archive.root, archive.database
        )
        self._background = Background(new_event_loop)
        self._engine: JobEngine | None = None
        self._running: asyncio.Task[None] | None = None
        self._asking: CommitmentRequestJob | None = None
        self._web: WebServer | None = None
        self.peers = PeerBook(configured_peers(settings), archive.database)
        self._origin_servers = origin_servers(settings)
        self.commitment = CommitmentService(
            archive.database,
            self.peers,
            refusal=archive.admission.association_refusal,
            are_jobs_run=self.are_jobs_run,
            wake=self.wake_jobs,
        )
        self._event_targets = event_targets(settings, archive)
        self._rests = Rests(archive.finisher.submitted)
        watch = StudyWatch(archive.database, settings.events.study_quiet_seconds)
        self._events = EventDesk(archive.database, watch, lambda: self._event_targets, self.wake_jobs)
        self._events.begin()
        self._telling: asyncio.Task[None] | None = None
        self._forwarding_rules = forwarding_rules(settings)
        places = KnownDestinations(self.peers, lambda: self._origin_servers)
        self._forwarding = ForwardingDesk(
            archive.database, lambda: self._forwarding_rules, places, self.wake_jobs, rests=self._rests
        )
        self._forwarding.begin()
        self._forwarding_task: asyncio.Task[None] | None = None
        self._retention = RetentionInForce(archive, settings, self.wake_jobs)
        self._tracing = tracing_desk(archive, settings)
        self._tracing_task: asyncio.Task[None] | None = None

    @property
    def settings(self) -> Settings:
        """The settings in force."""
        return self._settings

    def traced(self) -> Mapping[str, int]:
        """Return how many spans of traces were sent, and how many dropped; nothing where there are none."""
        return {} if self._tracing is None else self._tracing.counts()

    def are_jobs_run(self) -> bool:
        """Tell whether what is put in now will be worked on; so it is before the engine's start, and when it was stopped."""
        return self._engine is None or self._engine.is_working

    def wake_jobs(self) -> None:
        """Have jobs looked for that were submitted just now; from any thread."""
        if self._engine is not None:
            self._engine.wake()

    async def start(
        self, server: AssociationServer, service: StorageService, dicom: tuple[str, int]
    ) -> tuple[str, int] | None:
        """Start HTTP and jobs, and return where HTTP is served; None where it is off. `dicom` is where the server listens.

        HTTP comes first: a start that is refused has run no job.
        Raises OSError when the address cannot be had, ExposureError, ServerTLSError.
        """
        self._background.start()
        self.peers.start()
        self.commitment.start()
        self._engine = engine = self._make_engine(server, service)
        http = None
        if self._settings.http.port != OFF:
            http = await self._background.run(self._start_http(server, service, dicom))
        await asyncio.get_running_loop().run_in_executor(None, self._keep_scrubbing)
        await asyncio.get_running_loop().run_in_executor(None, self._retention.keep_looking)
        await self._background.run(self._start_jobs(engine))
        return http

    async def stop(self) -> None:
        """Stop HTTP and jobs. What waits of storage commitment requests is still written and answered."""
        await self._background.run(self._stop())
        await asyncio.get_running_loop().run_in_executor(None, self.commitment.stop)

    def close(self) -> None:
        """End the threads. Twice is fine."""
        self.peers.close()
        self._background.close()
        if self._tracing is not None:  # last: it tells of what came until the end
            self._tracing.stop()
            self._tracing = None

    def take_settings(self, settings: Settings) -> None:
        """Put in force what can be without a restart: peers, origin servers, the TLS of calls to peers, and that of HTTPS."""
        self._settings = settings
        self.peers.replace_configured(configured_peers(settings))
        self._origin_servers = origin_servers(settings)
        self._forwarding_rules = forwarding_rules(settings)
        self._forwarding.wake()
        try:
            self._event_targets = event_targets(settings, self._archive)
        except (SettingsError, DatabaseUnavailable) as error:
            log.error(
                "error",
                what="the event targets were not read anew, the old ones stay",
                reason=str(error),
            )
        self._retention.take_settings(settings)
        self._background.begin(asyncio.to_thread(self._retention.keep_looking))
        if self._web is not None:
            self._background.begin(self._renew_https(self._web, settings))

    # On the background's event loop.

    def _make_engine(self, server: AssociationServer, service: StorageService) -> JobEngine:
        archive, database = self._archive, self._archive.database
        own = OwnSide(ae_title=self._settings.dicom.ae_title, tls=lambda: calling_tls_context(self._settings))

        tools = CheckTools(
            archive=archive,
            peers=self.peers,
            policy=self._policy,
            options=self._options,
            accepts_class=classes_taken_by(lambda: service.rules),
            open_associations=server.open_associations,
        )
        reporter = Reporter(
            database=database,
            peers=self.peers,
            own=own,
            options=self._options,
            invoke=server.invoke,
            open_associations=server.open_associations,
        )
        self._asking = CommitmentRequestJob(database, self.peers, own)
        jobs = self._settings.jobs
        outcomes = ForwardOutcomes(self._forwarding.wake)
        return JobEngine(
            database,
            [
                CommitmentJob(tools=tools, reporter=reporter),
                self._asking,
                StoreJob(archive, self.peers, own, outcomes=outcomes),
                StowJob(archive, lambda: self._origin_servers, outcomes=outcomes),
                *(
                    DeliveryJob(kind, database, lambda: self._event_targets, self._rests)
                    for kind in (DELIVER, REPLAY)
                ),
                *archive_job_kinds(archive, scrub_days=jobs.scrub_days, retained=self._retention.sparing),
                self._retention.job,
            ],
            owner=archive.receiver,
            lock_folder=os.path.join(archive.root, JOBS),
            options=JobOptions(
                disk_lanes=jobs.disk_max, running_max=jobs.running_max, retention_days=jobs.retention_days
            ),
        )

    def _keep_scrubbing(self) -> None:
        if self._settings.jobs.scrub_days:
            with self._archive.database.write() as transaction:
                keep_scrubbing(transaction, created_by="settings")

    async def _start_jobs(self, engine: JobEngine) -> None:
        loop = asyncio.get_running_loop()
        self._running = loop.create_task(self._run_jobs(engine), name="jobs")
        self._telling = loop.create_task(self._events.run(), name="events")
        self._forwarding_task = loop.create_task(self._forwarding.run(), name="forwarding")
        if self._tracing is not None:
            self._tracing_task = loop.create_task(self._tracing.run(), name="tracing")

    async def _run_jobs(self, engine: JobEngine) -> None:
        try:
            await engine.run()
        except OSError as error:
            log.error("error", what="jobs cannot run here", reason=str(error))
        except Exception:
            log.exception("error", what="jobs do not run any more: restart the server")

    async def _start_http(
        self, server: AssociationServer, service: StorageService, dicom: tuple[str, int]
    ) -> tuple[str, int]:
        from stowkeeper.app.http_wiring import web_server  # noqa: PLC0415 - see above

        make = asyncio.to_thread(
            web_server,
            self._archive,
            self._settings,
            self,
            server,
            service,
            dicom,
            started_at=utc_now(),
            listeners=self._http_sockets,
        )
        self._web = await make
        try:
            return await self._web.start()
        except OSError as error:
            raise cannot_listen(self._settings, error) from error

    async def _renew_https(self, server: "WebServer", settings: Settings) -> None:
        from stowkeeper.app.http_wiring import renew_https  # noqa: PLC0415 - see above

        await asyncio.to_thread(renew_https, server, settings)

    async def _stop(self) -> None:
        if self._web is not None:
            await self._web.stop()
        if self._telling is not None:
            self._telling.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._telling
        if self._forwarding_task is not None:
            self._forwarding_task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._forwarding_task
        if self._engine is not None:
            await self._engine.stop(JOBS_STOP_SECONDS)
        if self._running is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
        if self._asking is not None:
            await self._asking.close()
