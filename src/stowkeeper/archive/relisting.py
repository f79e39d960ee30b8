"""Relisting: let the catalog say of whole files on the shelf what their receipts say.

For `rebuild`, and for its sister that works beside servers. What a file says goes before what a row says of it; what only
rows know stays. Of a version that is held the row says what was promised to somebody: a file that says otherwise is no
reason to change that, and is named as a discrepancy.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import text, update

from stowkeeper.archive import catalog, patient_tree, versions
from stowkeeper.archive.agreement import Discrepancy, Fault, receipts_at
from stowkeeper.archive.arrival import content_of
from stowkeeper.archive.catalog_values import CatalogEntry, InsertResult, Version, VersionState, portions
from stowkeeper.archive.examine import Examination, read_receipt
from stowkeeper.archive.judging import STANDING
from stowkeeper.archive.receipt import Receipt
from stowkeeper.archive.recovery import RecoveryCounts
from stowkeeper.database import schema
from stowkeeper.database.engine import Transaction
from stowkeeper.dicom.attributes import extract
from stowkeeper.durable.filesystem import FileSystem

RELISTED = "listed from its file"
"""The detail of the change of a receipt that a catalog has from a file: holds and forwards that there were are not known any more."""


@dataclass(slots=True, kw_only=True)
class RebuildCounts:
    """What a rebuild did, in numbers of files. `size` is in bytes read.

    `listed` were new to the database, `known` in it already. `restored` had been removed or damaged by the
    rows, and are there and whole. `moved` stand at another place than the rows said, `corrected` differed in
    other ways. `quarantined` is the number of files in quarantine, which are not listed.
    """

    files: int = 0
    size: int = 0
    listed: int = 0
    known: int = 0
    restored: int = 0
    moved: int = 0
    corrected: int = 0
    quarantined: int = 0
    recovered: RecoveryCounts = field(default_factory=RecoveryCounts)


class Relisting:
    """Puts whole files into a catalog and counts what became of them in `counts`.

    Whoever calls it sees to it that nobody changes the shelf meanwhile, and that a file which is on its way to the catalog
    is not among them.
    """

    def __init__(self, files: FileSystem, root: str, counts: RebuildCounts) -> None:
        self._files = files
        self._root = root
        self._found: list[Discrepancy] = []
        self.counts = counts

    def relist(
        self, transaction: Transaction, entries: Sequence[CatalogEntry], *, is_new: bool = False
    ) -> list[Discrepancy]:
        """Put whole files into the catalog; where it knows them, see that it says the same. Return what is wrong.

        With `is_new` nothing else is in the catalog. Raises OSError.
        """
        self._found = []
        entries = sorted(entries, key=lambda entry: entry.order)
        if not is_new:
            self._clear_places(transaction, entries)
        results = catalog.insert(transaction, entries)
        known = [(entry, result) for entry, result in zip(entries, results, strict=True) if not result.new]
        self.counts.listed += len(entries) - len(known)
        _note_relisted(transaction, results)
        if known:
            uids = sorted({entry.receipt.sop_instance_uid for entry, _ in known})
            found = catalog.find_versions(transaction.connection, uids, tuple(VersionState))
            versions_of = {version.receipt_id: version for some in found.values() for version in some}
            for entry, result in known:
                self._compare(transaction, entry, result, versions_of.get(entry.receipt.receipt_id))
        return self._found

    def _clear_places(self, transaction: Transaction, entries: Sequence[CatalogEntry]) -> None:
        """Free the places of files from rows of others: where one file stands, no other can."""
        stated = receipts_at(transaction.connection, [entry.path for entry in entries])
        for entry in entries:
            if stated.get(entry.path, entry.receipt.receipt_id) == entry.receipt.receipt_id:
                continue
            version = catalog.find_version_by_path(transaction.connection, entry.path)
            if version is not None and version.state is VersionState.REMOVING:
                catalog.mark_removed(transaction, [version.version_key])
            else:
                catalog.mark_damaged(transaction, entry.path, "another file stood in its place")

    def _compare(
        self, transaction: Transaction, entry: CatalogEntry, result: InsertResult, version: Version | None
    ) -> None:
        """See that the catalog says of a file what its receipt says; `version` is what it knows by that."""
        if version is None:  # no version of this instance has it
            version = catalog.find_version_by_receipt(transaction.connection, entry.receipt.receipt_id)
        if version is None or version.receipt_id != entry.receipt.receipt_id:
            words = f"its receipt is listed as {result.outcome} to another file: remove it by hand if both are whole"
            self._found.append(discrepancy_of(Fault.UNLISTED, entry.path, words, entry.receipt))
        elif version.state in STANDING and version.path != entry.path and self._has_file(version):
            words = f"it is a second copy or name of {version.path}: remove it by hand"
            self._found.append(discrepancy_of(Fault.UNLISTED, entry.path, words, entry.receipt))
        elif version.sop_instance_uid != entry.receipt.sop_instance_uid:
            words = (
                f"the catalog has it as instance {version.sop_instance_uid}: restore an older catalog.sqlite"
            )
            self._found.append(discrepancy_of(Fault.DIFFERENT, entry.path, words, entry.receipt))
        elif version.state is VersionState.REMOVING:
            self.counts.known += 1  # whoever removes it goes on
        elif version.is_held and version.content != content_of(entry.receipt):
            words = (
                "its bytes, class or syntax are not those that were promised to those who hold it, and its row was left as"
                " it is: restore the file from a copy, or release the holds and rebuild again"
            )
            self._found.append(discrepancy_of(Fault.DIFFERENT, entry.path, words, entry.receipt))
        elif version.state not in STANDING:
            _restore(transaction, version, entry)
            self.counts.restored += 1
        elif version.path != entry.path:
            _correct(transaction, version, entry)
            self.counts.moved += 1
        elif version.content != content_of(entry.receipt) or version.file_size != entry.file_size:
            _correct(transaction, version, entry)
            self.counts.corrected += 1
        else:
            self.counts.known += 1

    def _has_file(self, version: Version) -> bool:
        """Tell whether the file of a version stands where its row says."""
        try:
            receipt = read_receipt(self._files, os.path.join(self._root, version.path))
        except FileNotFoundError:
            return False
        return receipt is None or receipt.receipt_id == version.receipt_id


def _note_relisted(transaction: Transaction, results: Sequence[InsertResult]) -> None:
    """Let the changes of what is new tell that it came from a file. A version's key is that of its receipt."""
    keys = [result.version_key for result in results if result.new and result.version_key is not None]
    for portion in portions(keys):
        transaction.execute(
            update(schema.changes)
            # In these words, so that the partial index of the changes is used.
            .where(schema.changes.c.receipt_key.in_(portion), text("changes.kind = 'received'"))
            .values(detail=RELISTED)
        )


def entry_of(path: str, examination: Examination, receipt: Receipt) -> CatalogEntry:
    """Return the entry of a file that was examined and scanned; what its sender was answered nobody knows any more."""
    attributes, verdicts = extract(examination.values, examination.little_endian)
    return CatalogEntry(
        receipt=receipt,
        path=path,
        file_size=examination.size,
        attributes=attributes,
        verdicts=(*examination.remarks, *verdicts),
        answer_known=False,
    )


def discrepancy_of(fault: Fault, path: str, words: str, receipt: Receipt | None = None) -> Discrepancy:
    """Name something that is wrong with a file, with what its receipt says where there is one."""
    return Discrepancy(
        fault=fault,
        path=path,
        sop_instance_uid=receipt.sop_instance_uid if receipt is not None else "",
        receipt_id=receipt.receipt_id if receipt is not None else "",
        words=words,
    )


def _restore(transaction: Transaction, version: Version, entry: CatalogEntry) -> None:
    """Let a version be kept again whose row says that it went, since its file is there and whole."""
    kept = {"state": VersionState.KEPT, "state_since": transaction.at, "removal_due_at": None}
    _correct(transaction, version, entry, **kept)
    patient_tree.place(transaction, [entry])


def _correct(transaction: Transaction, version: Version, entry: CatalogEntry, **more: str | None) -> None:
    """Let the rows of a version say what its file says."""
    receipt = entry.receipt
    transaction.execute(
        update(schema.versions)
        .where(schema.versions.c.version_key == version.version_key)
        .values(
            path=entry.path,
            file_size=entry.file_size,
            sop_class_uid=receipt.sop_class_uid,
            transfer_syntax_uid=receipt.transfer_syntax_uid,
            **more,
        )
    )
    transaction.execute(
        update(schema.receipts)
        .where(schema.receipts.c.receipt_id == receipt.receipt_id)
        .values(
            digest=receipt.digest, data_set_length=receipt.data_set_length, received_at=receipt.received_at
        )
    )
    versions.settle(transaction, [version.instance_key])
