"""The job that sends instances of the archive to a peer, each until the peer answered what becomes of it.

What it does with its items `item_turn` tells. Open for now stays what the peer is out of resources for (A7xx, 0213H), and what
got no answer. When nothing is open any more the peer is asked to commit what it stored, if that is wanted, all failures aside.
"""

from collections.abc import Callable

from stowkeeper.archive.archive import ArchiveReader
from stowkeeper.database.engine import utc_now
from stowkeeper.jobs.job import Job
from stowkeeper.jobs.kind import Ending, Failed, TryAgain
from stowkeeper.jobs.run import JobRun
from stowkeeper.net.association_errors import AssociationError, PeerTimeoutError, PeerUnreachableError
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.services import store_items
from stowkeeper.services.commitment.asking import AskTerms, CannotAskError, ask
from stowkeeper.services.commitment.asking_limits import REFERENCES_PER_REQUEST_MAX
from stowkeeper.services.dialing import OwnSide, timeouts_of
from stowkeeper.services.item_outcomes import ItemOutcomes
from stowkeeper.services.item_turn import End, ItemTurn, News, StoreOptions, Trouble, reopen
from stowkeeper.services.limits import STORE_RETRIES
from stowkeeper.services.peers import Peer, PeerBook
from stowkeeper.services.sending import Destination, Outcome, Result, SendOptions, send_files
from stowkeeper.services.store_items import PlannedItem, Portion
from stowkeeper.services.store_submission import JOB_KIND, peer_in

__all__ = ["StoreJob", "StoreOptions"]


class StoreJob:
    """The job kind `store`; `store_submission.submit_store` puts such jobs in."""

    def __init__(
        self,
        archive: ArchiveReader,
        peers: PeerBook,
        own: OwnSide,
        *,
        options: StoreOptions | None = None,
        clock: Callable[[], str] = utc_now,
        outcomes: ItemOutcomes | None = None,
    ) -> None:
        """Take the archive whose instances are sent, the peers, what we are to them, and who is told of the outcomes."""
        self.archive = archive
        self.peers = peers
        self.own = own
        self.options = options or StoreOptions()
        self.clock = clock
        self.outcomes = outcomes

    @property
    def name(self) -> str:
        """The kind, as jobs are submitted with it."""
        return JOB_KIND

    @property
    def concludes_cancellation(self) -> bool:
        """A cancelled job has nothing to conclude: what was stored is stored, the rest stays open."""
        return False

    async def run(self, run: JobRun) -> Ending:
        """Send what is open."""
        peer = await run.in_thread(self._peer_of, run.job)
        if peer is None:
            return Failed(
                f"there is no peer {run.job.peer} any more: add it again and submit the job again, or cancel it"
            )
        if not peer.is_reachable:
            return Failed(
                f"nobody said where the peer {peer.name} is called: it needs ae_title, host and port"
            )
        await run.in_thread(reopen, run, self.outcomes)
        try:
            tls = await self.own.tls_for(peer)
        except AssociationError as error:
            return TryAgain(str(error))
        turn = _Turn(self, run, peer, tls)
        await turn.send()
        return await run.in_thread(turn.conclude)

    def _peer_of(self, job: Job) -> Peer | None:
        return peer_in(job.arguments) or self.peers.find(job.peer)


class _Turn(ItemTurn):
    """One run. It is its own observer of the sending."""

    def __init__(self, kind: StoreJob, run: JobRun, peer: Peer, tls: TLSContext | None) -> None:
        super().__init__(
            run, kind.archive, to=peer.name, options=kind.options, outcomes=kind.outcomes, clock=kind.clock
        )
        self._kind = kind
        self._peer = peer
        self._destination = Destination(
            ae_title=peer.ae_title or "", host=peer.host or "", port=peer.port or 0
        )
        self._send_options = SendOptions(
            calling_ae_title=kind.own.ae_title_for(peer),
            retries=STORE_RETRIES,
            back_off_seconds=kind.options.back_off_seconds,
            timeouts=timeouts_of(peer),
            tls=tls,
            waits_for_resources=False,
        )
        self._on_the_way: dict[str, PlannedItem] = {}

    async def deliver(self, portion: Portion) -> None:
        """Send a portion."""
        self._on_the_way = {planned.file.path: planned for planned in portion.planned}
        files = [planned.file for planned in portion.planned]
        error = await send_files(files, self._destination, self._send_options, self, self._stop)
        if error is not None:
            # A report would not reach such a peer either; one that answers and is out of resources may well take one.
            is_gone = isinstance(error, PeerUnreachableError | PeerTimeoutError)
            self._trouble = Trouble(words=str(error), lane_is_blocked=is_gone)

    def sent(self, count: int) -> None:
        """Do nothing: instances are counted, not bytes."""

    def decided(self, outcome: Outcome) -> None:
        """Take what became of an instance."""
        if outcome.status is not None:
            self._answered += 1
        if outcome.may_pass:
            self._words = outcome.words
            if outcome.status is not None or not outcome.attempts:
                self._stop.set()  # it is out of resources, or gone: so it would be for the next one
        self._news.append(
            News(
                planned=self._on_the_way[outcome.file.path],
                end=_end_of(outcome),
                words=outcome.words,
                code=outcome.status,
                attempts=outcome.attempts,
            )
        )
        self._has_news.set()

    def ask(self, stored: int) -> str:
        """Ask the peer to commit what it stored, if that is wanted; return why it cannot be asked."""
        return self._ask(stored) if self._run.job.arguments.get("commit") else ""

    def _ask(self, stored: int) -> str:
        """Ask the peer to commit what it stored, in as many transactions as that takes; return why it cannot be asked.

        Each is in the checkpoint in the transaction that makes it, so a run that dies in between asks for none twice.
        """
        run = self._run
        if not stored or run.job.checkpoint.get("asked_for") == stored:
            return ""
        while True:
            checkpoint = dict(run.job.checkpoint)
            after = checkpoint.pop("asked_after", None)
            with self._database.read() as connection:
                items = store_items.stored_items(
                    connection, run.job.job_key, -1 if after is None else after, REFERENCES_PER_REQUEST_MAX
                )
                references, version_keys = store_items.references_to(connection, items)
            is_last = len(items) < REFERENCES_PER_REQUEST_MAX
            uids = [] if after is None else checkpoint["transaction_uids"]
            try:
                with run.write() as transaction:
                    if references:
                        commitment = ask(
                            transaction,
                            self._peer,
                            references,
                            own_ae_title=self._kind.own.ae_title,
                            created_by=run.job.created_by,
                            version_keys=version_keys,
                            terms=AskTerms.of_job(run.job.arguments),
                        )
                        uids = [*uids, commitment.transaction_uid]
                        checkpoint |= {"transaction_uid": uids[0], "transaction_uids": uids}
                    if is_last:
                        checkpoint["asked_for"] = stored
                    else:
                        checkpoint["asked_after"] = items[-1].position
                    run.progress(transaction, checkpoint=checkpoint)
            except CannotAskError as error:
                return str(error)
            if is_last:
                return ""


def _end_of(outcome: Outcome) -> End:
    if outcome.result is not Result.FAILED:
        return End.STORED
    if outcome.may_pass:
        return End.LOST if outcome.status is None and outcome.attempts > STORE_RETRIES else End.LATER
    return End.UNREADABLE if outcome.status is None and outcome.attempts else End.FAILED
