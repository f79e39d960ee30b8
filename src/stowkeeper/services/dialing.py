"""Calling a peer: an association with it, within its time limits, over TLS where it wants that, or words on why not.

Everything that goes out to a peer goes by here: echo, instances, requests and reports of storage commitment. Whatever
keeps an association from being there, or ends it, is an `AssociationError` whose text names the peer.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from stowkeeper.dicom.status import Status, meaning_of
from stowkeeper.dicom.transfer_syntaxes import IMPLICIT_VR_LITTLE_ENDIAN
from stowkeeper.dicom.uid import VERIFICATION
from stowkeeper.net.association_errors import PeerTimeoutError, PeerUnreachableError, TLSRefusedError
from stowkeeper.net.client import ClientAssociation, RequestHandler, association_request
from stowkeeper.net.client_connection import ClientTimeouts
from stowkeeper.net.tls_context import TLSContext
from stowkeeper.net.tls_errors import TLSSetupError
from stowkeeper.services.limits import PEER_RELEASE_SECONDS
from stowkeeper.services.peer_definition import Peer
from stowkeeper.upperlayer.items import ProposedContext, RoleSelection


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnSide:
    """What we are when we call a peer.

    `ae_title` is our own where the peer says no other. `tls` sets up what peers with `tls` are called with; it is called in
    a thread, may be called often, and raises TLSSetupError.
    """

    ae_title: str
    tls: Callable[[], TLSContext]

    def ae_title_for(self, peer: Peer) -> str:
        """Return what we call ourselves to a peer."""
        return peer.own_ae_title or self.ae_title

    async def tls_for(self, peer: Peer) -> TLSContext | None:
        """Return the TLS for calls to a peer, None where it goes without. Raises TLSRefusedError."""
        if not peer.tls:
            return None
        try:
            return await asyncio.get_running_loop().run_in_executor(None, self.tls)
        except TLSSetupError as error:
            raise TLSRefusedError(f"{peer.where}: TLS cannot be set up here: {error}") from error


def timeouts_of(peer: Peer) -> ClientTimeouts:
    """Return how long a peer is waited for."""
    return ClientTimeouts(
        connect_seconds=peer.connect_seconds,
        association_seconds=peer.connect_seconds,
        progress_seconds=peer.answer_seconds,
        release_seconds=min(peer.answer_seconds, PEER_RELEASE_SECONDS),
    )


async def open_association(
    peer: Peer,
    contexts: Sequence[ProposedContext],
    own: OwnSide,
    *,
    own_ae_title: str = "",
    roles: Sequence[RoleSelection] = (),
    operations_window: int = 1,
    handler: RequestHandler | None = None,
) -> ClientAssociation:
    """Ask a peer for an association (PS3.8 §7.1.1); it is established when this returns, within the peer's times.

    `own_ae_title` is what we call ourselves in this one, whatever else is set. `handler` answers requests of the peer.

    Raises:
        AssociationError: nobody said where to call the peer, it cannot be reached, its name is not known, TLS was not
            agreed on, it rejected or aborted, answered what is no DICOM, or did not answer in time.

    """
    if peer.host is None or peer.port is None or peer.ae_title is None:
        raise PeerUnreachableError(
            f"{peer.name}: nobody said where to call it; it needs ae_title, host and port."
        )
    request = association_request(
        called_ae_title=peer.ae_title,
        calling_ae_title=own_ae_title or own.ae_title_for(peer),
        contexts=contexts,
        operations_window=operations_window,
        roles=roles,
    )
    tls = await own.tls_for(peer)
    return await ClientAssociation.open(
        peer.host, peer.port, request, timeouts_of(peer), handler=handler, tls=tls
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoResult:
    """What a peer answered to a C-ECHO (PS3.7 §9.1.5), over what, and how long it took, in seconds.

    `tls` is version and cipher suite, empty without TLS.
    """

    status: int
    tls: str
    association_seconds: float
    echo_seconds: float

    @property
    def is_success(self) -> bool:
        """Whether the peer answered Success."""
        return self.status == Status.SUCCESS

    @property
    def words(self) -> str:
        """The status in words."""
        return meaning_of(self.status)


async def echo(peer: Peer, own: OwnSide) -> EchoResult:
    """Ask a peer for a sign of life.

    Raises AssociationError, also when it does not accept Verification, or sends something for twice its time without
    answering.
    """
    started = time.perf_counter()
    context = ProposedContext(
        context_id=1, abstract_syntax=VERIFICATION, transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,)
    )
    async with await open_association(peer, [context], own) as association:
        established = time.perf_counter()
        try:
            async with asyncio.timeout(2 * peer.answer_seconds):
                response = await association.echo()
        except TimeoutError:
            words = f"it did not answer the echo within {2 * peer.answer_seconds:g} seconds"
            raise PeerTimeoutError(f"{association.peer}: {words}.") from None
        answered = time.perf_counter()
    return EchoResult(
        status=response.status,
        tls=association.tls,
        association_seconds=established - started,
        echo_seconds=answered - established,
    )
