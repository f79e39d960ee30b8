"""What tests of storage commitment as user share: an archive with instances, a peer, and questions that were asked."""

from collections.abc import Sequence
from pathlib import Path

from stowkeeper.database.engine import Database
from stowkeeper.dicom.commitment_information import EventInformation, FailedReference, Reference
from stowkeeper.durable.filesystem import NoSyncFileSystem
from stowkeeper.services.commitment import rows
from stowkeeper.services.commitment.asking import AskTerms, ask, find_kept
from stowkeeper.services.commitment.commitment_values import Commitment, CommitmentInstance, CommitmentRole
from stowkeeper.services.peers import Peer, PeerBook
from support.archive_rig import ArchiveRig
from support.catalog_rows import CT_IMAGE_STORAGE, open_database
from support.instances import Instance, make_instance

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
PEER = Peer(name="pacs", ae_title="PACS", host="127.0.0.1", port=104)
OWN_AE_TITLE = "STOWKEEPER"


def references_to(*numbers: int, sop_class_uid: str = CT_IMAGE_STORAGE) -> list[Reference]:
    """Return references to instances `1.2.3.<number>`."""
    return [Reference(sop_class_uid, f"1.2.3.{number}") for number in numbers]


def event(
    uid: str,
    committed: Sequence[Reference] = (),
    failed: Sequence[Reference] = (),
    *,
    reason: int = 0x0112,
) -> EventInformation:
    """Return what a report says."""
    return EventInformation(uid, tuple(committed), tuple(FailedReference(one, reason) for one in failed))


def rig_of(folder: Path, database: Database) -> ArchiveRig:
    """Return an archive in a folder whose parts run step by step."""
    return ArchiveRig(NoSyncFileSystem(), database, root=str(folder))


def keep_instances(folder: Path, *kept: Instance | int) -> tuple[Database, ArchiveRig]:
    """Keep instances, one after the other, in a new archive in a folder; those given as numbers are made."""
    database = open_database(folder, sync=False)
    rig = rig_of(folder, database)
    for one in kept:
        rig.keep(make_instance(one) if isinstance(one, int) else one)
        rig.finish()
    return database, rig


def ask_for(
    database: Database,
    references: Sequence[Reference],
    *,
    peer: Peer = PEER,
    terms: AskTerms | None = None,
) -> Commitment:
    """Ask a peer for instances, with the versions that are kept now; no job engine runs, so nothing goes out."""
    with database.write() as transaction:
        kept = find_kept(transaction.connection, [one.sop_instance_uid for one in references])
        keys = {
            one.sop_instance_uid: key for one, key in zip(kept.references, kept.version_keys, strict=True)
        }
        return ask(
            transaction,
            peer,
            references,
            own_ae_title=OWN_AE_TITLE,
            created_by="a test",
            version_keys=[keys.get(one.sop_instance_uid) for one in references],
            terms=terms or AskTerms(),
        )


def book_of(database: Database, *peers: Peer) -> PeerBook:
    """Return a book with these peers as those of the settings."""
    return PeerBook(peers or (PEER,), database)


def state_of(database: Database, uid: str) -> Commitment:
    """Return a transaction of ours as it is now."""
    with database.read() as connection:
        found = rows.find(connection, CommitmentRole.USER, uid)
    assert found is not None
    return found


def instances_in(database: Database, uid: str) -> list[CommitmentInstance]:
    """Return the instances of a transaction of ours, unasked ones last."""
    with database.read() as connection:
        return rows.instances_of(connection, state_of(database, uid).commitment_key)
