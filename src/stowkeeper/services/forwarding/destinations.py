"""Where forwards can go by name, the jobs that send there, and from which of these places an instance came."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from stowkeeper.jobs.job import JobRequest
from stowkeeper.services.conditions import Arrival
from stowkeeper.services.forwarding.outcomes import IS_FORWARDING
from stowkeeper.services.origin_servers import OriginServer
from stowkeeper.services.peer_definition import Address, parsed_address
from stowkeeper.services.peers import Peer, PeerBook
from stowkeeper.services.store_submission import CannotStoreError, store_request
from stowkeeper.services.stow_submission import stow_request

CREATED_BY: Final = "forwarding"
"""Who asked for the jobs that forward."""

_AE_TITLE_ALONE: Final = 2
"""The standing of a peer by whose AE title somebody calls from another address (`Peer.standing`)."""


class Destinations(Protocol):
    """What the desk has to know of the places that instances are forwarded to. Blocks."""

    def request(self, name: str, sop_instance_uids: Sequence[str], priority: int) -> JobRequest:
        """Return the job that sends instances to a destination, each an item, in this order.

        Raises CannotStoreError where nobody defines it, or nobody said where it is called; and DatabaseUnavailable.
        """
        ...

    def came_from(self, arrival: Arrival) -> frozenset[str]:
        """Return the destinations that an instance may have come from. Raises DatabaseUnavailable."""
        ...


class KnownDestinations:
    """The peers of the book, and the origin servers of the settings."""

    def __init__(self, peers: PeerBook, servers: Callable[[], Mapping[str, OriginServer]]) -> None:
        self._peers = peers
        self._servers = servers

    def request(self, name: str, sop_instance_uids: Sequence[str], priority: int) -> JobRequest:
        """Return the job of the peer or of the origin server of that name."""
        server = self._servers().get(name)
        if server is not None:
            return stow_request(
                server,
                sop_instance_uids,
                created_by=CREATED_BY,
                priority=priority,
                arguments={IS_FORWARDING: True},
            )
        peer = self._peers.find(name)
        if peer is None:
            raise CannotStoreError(f"there is neither a peer nor an origin server {name}")
        return store_request(
            peer,
            sop_instance_uids,
            created_by=CREATED_BY,
            priority=priority,
            arguments={IS_FORWARDING: True},
        )

    def came_from(self, arrival: Arrival) -> frozenset[str]:
        """Return the peers that sent an instance, as far as its receipt tells."""
        return senders(arrival, self._peers.known())


def senders(arrival: Arrival, peers: Iterable[Peer]) -> frozenset[str]:
    """Return the peers with the AE title of who called, that are called at its address, or where nobody can tell.

    A peer of that AE title that is called at another address, and has no `addresses`, is another one. Of what came by HTTP the
    receipt names no sender: whoever stands at an address may be a proxy of many.
    """
    title = arrival.calling_ae_title
    if not title:
        return frozenset()
    address = parsed_address(arrival.peer_address)
    return frozenset(peer.name for peer in peers if peer.ae_title and _is_sender(peer, title, address))


def _is_sender(peer: Peer, calling_ae_title: str, address: Address | None) -> bool:
    standing = peer.standing(calling_ae_title, address)
    return standing is not None and standing < _AE_TITLE_ALONE
