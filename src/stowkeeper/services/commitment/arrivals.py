"""What has arrived and is not listed yet, and what may still come: asked before an instance counts as unknown.

An instance that was answered Success stands in the depot, in the folder of whichever process received it, until its
rows are durable. So who looks through the depot first and asks the catalog after that misses none.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator

from sqlalchemy import Connection, func, or_, select

from stowkeeper.archive.archive import Archive, ArchiveReader
from stowkeeper.archive.catalog_values import portions
from stowkeeper.archive.examine import read_receipt
from stowkeeper.database.schema import associations, requests
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.durable.process_folder import DEPOT
from stowkeeper.net.handlers import AssociationFacts
from stowkeeper.services.commitment.limits import LEDGER_REQUESTS_LOOKED_AT
from stowkeeper.upperlayer.negotiation import is_storage
from stowkeeper.upperlayer.reasons import PresentationResult

OpenAssociations = Callable[[], Iterable[AssociationFacts]]
"""Gives the associations that are open in this process."""

_OUT_OF_RESOURCES_FIRST, _OUT_OF_RESOURCES_LAST = 0xA700, 0xA7FF


def unlisted_instances(archive: ArchiveReader) -> frozenset[str]:
    """Return the SOP Instance UIDs of all that is kept and not listed yet, of living and of dead processes.

    What this process received its finisher knows; the folders of all others are read. Raises OSError where one cannot be:
    then nobody knows.
    """
    found: set[str] = set()
    own = ""
    if isinstance(archive, Archive):
        own = archive.receiver
        found.update(archive.finisher.on_their_way())
    depot = os.path.join(archive.root, DEPOT)
    try:
        entries = archive.files.list_directory(depot)
        folders = [entry.name for entry in entries if entry.is_directory and entry.name != own]
    except FileNotFoundError:
        return frozenset(found)
    for name in folders:
        found.update(_whole_in(archive.files, os.path.join(depot, name)))
    return frozenset(found)


def _whole_in(files: FileSystem, folder: str) -> Iterator[str]:
    """Yield the SOP Instance UIDs of the files in a folder of the depot that have their receipt."""
    try:
        entries = [entry.name for entry in files.list_directory(folder) if not entry.is_directory]
    except FileNotFoundError:  # its process ended just now, and left nothing
        return
    for entry in entries:
        path = os.path.join(folder, entry)
        try:
            receipt = read_receipt(files, path) if files.status(path).size else None
        except FileNotFoundError:  # listed, and its rows are there by now
            continue
        if receipt is not None:
            yield receipt.sop_instance_uid


def may_still_come(
    connection: Connection, ae_title: str, address: str, ours: OpenAssociations | None = None
) -> bool:
    """Tell whether a peer has an association open in which it could store: by its AE title, or by its address.

    `ours` are asked beside the ledger, which knows of the associations of other processes and lists those that were
    opened just now a little later.
    """
    if ours is not None and any(
        ae_title == facts.calling_ae_title or address == facts.peer_address
        for facts in ours()
        if _could_store(facts)
    ):
        return True
    table = associations
    query = select(table.c.contexts).where(
        table.c.closed_at.is_(None),
        table.c.receiver != "",
        or_(table.c.calling_ae_title == ae_title, table.c.peer_address == address),
    )
    return any(_has_storage(contexts) for contexts in connection.execute(query).scalars())


def _could_store(facts: AssociationFacts) -> bool:
    if facts.request is None or facts.end:
        return False
    accepted = {result.context_id for result in facts.results if result.is_accepted}
    return any(
        context.context_id in accepted and is_storage(context.abstract_syntax)
        for context in facts.request.presentation_contexts
    )


def _has_storage(contexts: str | None) -> bool:
    """Tell whether an association can store by what its line says; one whose contexts are not known might."""
    if contexts is None:
        return True
    return any(
        result == PresentationResult.ACCEPTANCE and is_storage(abstract_syntax)
        for _, abstract_syntax, result, _ in json.loads(contexts)
    )


def refused_for_room(connection: Connection, sop_instance_uids: Collection[str]) -> frozenset[str]:
    """Return those of some instances whose latest C-STORE was answered A7xxH, out of resources, not long ago."""
    wanted = frozenset(sop_instance_uids)
    last = connection.execute(select(func.max(requests.c.request_key))).scalar() or 0
    found: dict[str, tuple[int, int | None]] = {}
    for portion in portions(sorted(wanted)):
        query = select(requests.c.request_key, requests.c.sop_instance_uid, requests.c.status).where(
            requests.c.request_key > last - LEDGER_REQUESTS_LOOKED_AT,
            requests.c.sop_instance_uid.in_(portion),
        )
        for key, uid, status in connection.execute(query):
            found[uid] = max(found.get(uid, (0, None)), (key, status), key=lambda entry: entry[0])
    return frozenset(
        uid
        for uid, (_, status) in found.items()
        if status is not None and _OUT_OF_RESOURCES_FIRST <= status <= _OUT_OF_RESOURCES_LAST
    )
