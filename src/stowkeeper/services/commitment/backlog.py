"""How much of what a peer asked for is still to be worked on: the bound on what it can put into the database."""

from sqlalchemy import Connection, func, select

from stowkeeper.database.schema import commitments
from stowkeeper.dicom.commitment_information import ActionInformation
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.commitment_values import CommitmentRole, CommitmentState
from stowkeeper.services.commitment.limits import UNREPORTED_REFERENCES_MAX

_TO_BE_WORKED_ON = (CommitmentState.RECEIVED, CommitmentState.CHECKED)


class Backlog:
    """The references of peers whose results are to be told still, as far as one transaction of the database looks."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._open: dict[str, int] = {}

    def has_room(self, peer: str, information: ActionInformation) -> bool:
        """Tell whether a request of a peer can be taken, and count it then. What repeats another adds nothing."""
        if peer not in self._open:
            self._open[peer] = unreported_references(self._connection, peer)
        count = len(information.references)
        if self._open[peer] + count <= UNREPORTED_REFERENCES_MAX:
            self._open[peer] += count
            return True
        content = rows.content_of(information.references)
        uid = information.transaction_uid
        found = rows.find_unreported(self._connection, CommitmentRole.PROVIDER, uid, peer, content)
        return found is not None


def unreported_references(connection: Connection, peer: str) -> int:
    """Return how many references a peer asked for whose result it is still to be told; those given up do not count."""
    # The concatenation keeps SQLite from walking through all that a peer ever asked: few are open.
    query = select(func.coalesce(func.sum(commitments.c.instances), 0)).where(
        commitments.c.role == CommitmentRole.PROVIDER,
        commitments.c.reported_at.is_(None),
        commitments.c.state.in_(_TO_BE_WORKED_ON),
        commitments.c.peer.concat("") == peer,
    )
    return int(connection.execute(query).scalar_one())
