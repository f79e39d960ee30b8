"""Entries for the catalog, made from a few words each, and databases to put them into without waiting for Alembic."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from blake3 import blake3

from stowkeeper.archive.catalog_values import CatalogEntry
from stowkeeper.archive.receipt import Receipt
from stowkeeper.database.engine import Database
from stowkeeper.dicom.attributes import InstanceAttributes

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
HANGING_PROTOCOL_STORAGE = "1.2.840.10008.5.1.4.38.1"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"

_opened: list[Database] = []


@cache
def _template() -> bytes:
    """Make one empty database for all tests of a process: a migration takes 200 ms, a copy none."""
    with tempfile.TemporaryDirectory(prefix="catalog-template-") as folder:
        path = Path(folder, "catalog.sqlite")
        Database.open(str(path), lock_path=f"{path}.lock").close()
        return path.read_bytes()


def open_database(folder: Path, name: str = "catalog.sqlite", *, sync: bool = True) -> Database:
    """Open the database in a folder; a new one is a copy of the template."""
    path = folder / name
    if not path.exists():
        path.write_bytes(_template())
    database = Database.open(str(path), lock_path=f"{path}.lock", sync=sync)
    _opened.append(database)
    return database


@contextmanager
def closing_databases() -> Iterator[None]:
    """Close at the end of a block what `open_database` opened in it and is open still."""
    before = len(_opened)
    try:
        yield
    finally:
        while len(_opened) > before:
            _opened.pop().close()


def make_entry(
    instance: object,
    received: int,
    *,
    study: str | None = "1.2.1",
    series: str | None = "1.2.1.1",
    content: str = "a",
    sop_class_uid: str = CT_IMAGE_STORAGE,
    transfer_syntax_uid: str = EXPLICIT_VR_LITTLE_ENDIAN,
    calling_ae_title: str = "SCANNER",
    path: str | None = None,
    verdicts: tuple[str, ...] = (),
    answer_known: bool = True,
    **attributes: Any,
) -> CatalogEntry:
    """Return an entry for SOP instance `1.2.3.<instance>`, received in second `received` of a day in 2026.

    `content` stands for the bytes: equal words are equal digests. Its receipt id follows from all three.
    """
    uid = f"1.2.3.{instance}"
    digest = blake3(f"{instance} {content}".encode()).hexdigest()
    receipt_id = f"{received:016x}{blake3(f'{uid} {digest} {transfer_syntax_uid}'.encode()).hexdigest()[:16]}"
    folder = f"objects/{study}/{series}" if study else f"objects/-/{sop_class_uid}"
    return CatalogEntry(
        receipt=Receipt(
            receipt_id=receipt_id,
            digest=digest,
            data_set_length=1000,
            sop_class_uid=sop_class_uid,
            sop_instance_uid=uid,
            transfer_syntax_uid=transfer_syntax_uid,
            received_at=f"2026-01-02T{received // 3600:02d}:{received // 60 % 60:02d}:{received % 60:02d}.000000Z",
            received_by="C-STORE",
            calling_ae_title=calling_ae_title,
            called_ae_title="STOWKEEPER",
            peer_address="192.0.2.17",
            association_id="a" * 32,
        ),
        path=path or f"{folder}/{uid}_{receipt_id}.dcm",
        file_size=2500,
        attributes=InstanceAttributes(
            sop_class_uid=sop_class_uid,
            sop_instance_uid=uid,
            study_instance_uid=study,
            series_instance_uid=series,
            **attributes,
        ),
        verdicts=verdicts,
        answer_known=answer_known,
    )
