"""Who asks for a storage commitment, as choosing and holding need it: which receipts of its AE title are its own."""

from stowkeeper.archive.choosing import Asker, Origin
from stowkeeper.services.commitment.commitment_values import WAY_WEB, Commitment
from stowkeeper.services.peer_definition import parsed_address
from stowkeeper.services.peers import PeerBook


def asker_of(commitment: Commitment, peers: PeerBook) -> Asker:
    """Return for whom the versions of a transaction are chosen and held.

    A client by HTTP has words for an AE title that are longer than one can be, so they are nobody else's.
    """
    if commitment.way == WAY_WEB:
        named = f": {commitment.peer}" if commitment.peer else " without a credential"
        return Asker(ae_title=f"a client by HTTP{named}")

    def origin_of(address: str) -> Origin:
        return _origin(commitment, address, peers)

    return Asker(ae_title=commitment.peer_ae_title, peer=commitment.peer, origin_of=origin_of)


def _origin(commitment: Commitment, address: str, peers: PeerBook) -> Origin:
    """Tell whose a receipt with the AE title of a request is, by the address that it came from.

    By the peers as they are now. What came from where the request came from is of who asks. Elsewhere a peer that is called
    at a name, or at one address while `addresses` says nothing, is known by its AE title alone, which anybody can take.
    """
    if address == commitment.peer_address:
        return Origin.OWN
    ae_title = commitment.peer_ae_title
    peer = peers.matching(ae_title, address)
    if peer is None or peer.name != commitment.peer:
        return Origin.OTHER
    if peer.addresses or peer.standing(ae_title, parsed_address(address)) == 0:
        return Origin.OWN
    return Origin.UNCERTAIN
