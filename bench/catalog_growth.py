"""Put synthetic instances into a catalog and watch the insert rate, then how fast the archive opens.

    python bench/catalog_growth.py [--instances 1000000] [--batch 200] [--folder DIR] [--ordered] [--json]

Each instance brings its request row, as in the finisher, and each batch is one durable transaction. SOP
Instance UIDs are random (`2.25.<uuid>`), the hard case for an index; with --ordered they count upwards, as
most devices number them. The writer then ends without closing, as if killed: the time to open includes
reading the write-ahead log back.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stowkeeper.archive import catalog, ledger
from stowkeeper.archive.catalog import CatalogEntry
from stowkeeper.archive.ledger import RequestRecord
from stowkeeper.archive.receipt import Receipt, ReceiptIds, timestamp
from stowkeeper.database.engine import Database
from stowkeeper.dicom.attributes import InstanceAttributes

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
INSTANCES_PER_SERIES = 200
SERIES_PER_STUDY = 4
STUDIES_PER_PATIENT = 2
FIRST_SECOND = 1_700_000_000

OPEN = """
import sys, time
begin = time.perf_counter()
from stowkeeper.archive import catalog
from stowkeeper.database.engine import Database
imported = time.perf_counter()
with Database.open(sys.argv[1], lock_path=sys.argv[2]) as database, database.read() as connection:
    catalog.archive_id(connection)
    print(imported - begin, time.perf_counter() - imported)
"""


class Source:
    """Makes instances that look like CT series of several patients."""

    def __init__(self, *, ordered: bool) -> None:
        self._random = random.Random(2)
        self._ids = ReceiptIds()
        self._ordered = ordered
        self._number = 0

    def batch(self, size: int) -> tuple[list[CatalogEntry], list[RequestRecord]]:
        """Return the next instances and their requests."""
        made = [self._next() for _ in range(size)]
        return [entry for entry, _ in made], [request for _, request in made]

    def _next(self) -> tuple[CatalogEntry, RequestRecord]:
        number = self._number
        self._number += 1
        series = number // INSTANCES_PER_SERIES
        study = series // SERIES_PER_STUDY
        sop_instance_uid = (
            f"1.2.826.0.1.3680043.10.1000.{study}.{series}.{number}"
            if self._ordered
            else f"2.25.{self._random.getrandbits(128)}"
        )
        study_uid = f"1.2.826.0.1.3680043.10.1000.1.{study * 7919 % 999983:06d}.{study}"
        series_uid = f"1.2.826.0.1.3680043.10.1000.2.{series * 104729 % 999983:06d}.{series}"
        received_at = (FIRST_SECOND * 1000 + number) * 1_000_000
        receipt = Receipt(
            receipt_id=self._ids.next(received_at),
            digest=f"{self._random.getrandbits(256):064x}",
            data_set_length=524_288,
            sop_class_uid=CT_IMAGE_STORAGE,
            sop_instance_uid=sop_instance_uid,
            transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
            received_at=timestamp(received_at),
            received_by="C-STORE",
            calling_ae_title="SCANNER",
            called_ae_title="STOWKEEPER",
            peer_address="192.0.2.17",
            association_id=f"{study:032x}",
        )
        attributes = describe(number, sop_instance_uid, study_uid, series_uid)
        entry = CatalogEntry(
            receipt=receipt,
            path=f"objects/{study_uid}/{series_uid}/{sop_instance_uid}_{receipt.digest[:32]}.dcm",
            file_size=526_000,
            attributes=attributes,
            verdicts=(),
            answer_known=True,
        )
        return entry, request_of(receipt, number % INSTANCES_PER_SERIES + 1)


def describe(number: int, sop_instance_uid: str, study_uid: str, series_uid: str) -> InstanceAttributes:
    """Return what the header of a CT image would tell."""
    series = number // INSTANCES_PER_SERIES
    study = series // SERIES_PER_STUDY
    patient = study // STUDIES_PER_PATIENT
    return InstanceAttributes(
        sop_class_uid=CT_IMAGE_STORAGE,
        sop_instance_uid=sop_instance_uid,
        study_instance_uid=study_uid,
        series_instance_uid=series_uid,
        patient_id=f"P{patient:07d}",
        patient_name=f"Synthetic^{patient}",
        patient_birth_date="19700101",
        patient_sex="O",
        study_date="20260102",
        study_time="101500",
        study_id=str(study),
        accession_number=f"A{study:08d}",
        modality="CT",
        series_number=series % SERIES_PER_STUDY,
        series_description="Axial 1.0",
        image_type="ORIGINAL\\PRIMARY\\AXIAL",
        specific_character_set="ISO_IR 100",
        instance_creation_date="20260102",
        instance_creation_time="101500.123",
        content_date="20260102",
        content_time="101500.123",
        acquisition_date="20260102",
        acquisition_time="101459",
        acquisition_number=1,
        instance_number=number % INSTANCES_PER_SERIES + 1,
        rows=512,
        columns=512,
        bits_allocated=16,
    )


def request_of(receipt: Receipt, message_id: int) -> RequestRecord:
    """Return the ledger's line for an instance that was kept."""
    return RequestRecord(
        association_id=receipt.association_id,
        message_id=message_id,
        sop_class_uid=CT_IMAGE_STORAGE,
        sop_instance_uid=receipt.sop_instance_uid,
        transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN,
        requested_at=receipt.received_at,
        status=0,
        data_set_length=receipt.data_set_length,
        digest=receipt.digest,
        outcome="kept",
        receipt_id=receipt.receipt_id,
        seconds_network=0.0011,
        seconds_disk=0.0008,
        seconds_total=0.0021,
    )


def grow(arguments: argparse.Namespace, path: str, lock_path: str) -> None:
    """Insert; print one line of JSON for each tenth: instances, seconds, processor seconds."""
    source = Source(ordered=arguments.ordered)
    database = Database.open(path, lock_path=lock_path)
    with database.write() as transaction:
        catalog.set_archive_id(transaction, "00000000-0000-4000-8000-000000000000")
    tenth = max(arguments.instances // 10, arguments.batch)
    done = 0
    while done < arguments.instances:
        count, seconds, processor = 0, 0.0, 0.0
        while count < tenth and done < arguments.instances:
            entries, requests = source.batch(min(arguments.batch, arguments.instances - done))
            begin, begin_processor = time.perf_counter(), time.thread_time()
            with database.write() as transaction:
                catalog.insert(transaction, entries)
                ledger.record_requests(transaction, requests)
            seconds += time.perf_counter() - begin
            processor += time.thread_time() - begin_processor
            count += len(entries)
            done += len(entries)
        print(
            json.dumps({"instances": done, "count": count, "seconds": seconds, "processor": processor}),
            flush=True,
        )
    os._exit(0)  # as if killed: nothing is closed, the write-ahead log stays


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Put synthetic instances into a catalog and watch the insert rate."
    )
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=200)
    parser.add_argument(
        "--folder", help="where the catalog is made, and left; a temporary folder if not given"
    )
    parser.add_argument("--ordered", action="store_true", help="SOP Instance UIDs that count upwards")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = arguments.folder or tempfile.mkdtemp(prefix="catalog-growth-")
    Path(folder).mkdir(parents=True, exist_ok=True)
    path, lock_path = os.path.join(folder, "catalog.sqlite"), os.path.join(folder, "catalog.lock")
    if arguments.child:
        grow(arguments, path, lock_path)
    try:
        measure(arguments, folder, path, lock_path)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)


def measure(arguments: argparse.Namespace, folder: str, path: str, lock_path: str) -> None:
    command = [sys.executable, __file__, "--child", "--folder", folder, "--batch", str(arguments.batch)]
    command += ["--instances", str(arguments.instances), *(["--ordered"] if arguments.ordered else [])]
    tenths = []
    if not arguments.json:
        print(f"{'instances':>10}  {'per second':>10}  {'µs each':>8}  {'of it processor':>15}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        for line in writer.stdout or ():
            tenth = json.loads(line)
            tenths.append(tenth)
            each = tenth["seconds"] / tenth["count"]
            if not arguments.json:
                processor = tenth["processor"] / tenth["count"] * 1e6
                print(f"{tenth['instances']:>10}  {1 / each:>10.0f}  {each * 1e6:>8.1f}  {processor:>15.1f}")
    if writer.returncode:
        sys.exit(writer.returncode)
    size = sum(entry.stat().st_size for entry in Path(folder).glob("catalog.sqlite*"))
    opened = [
        [
            float(part)
            for part in subprocess.check_output([sys.executable, "-c", OPEN, path, lock_path]).split()
        ]
        for _ in range(2)
    ]
    rates = [tenth["count"] / tenth["seconds"] for tenth in tenths]
    result = {
        "instances": arguments.instances,
        "batch": arguments.batch,
        "rates": rates,
        "last_of_first": rates[-1] / rates[0],
        "bytes": size,
        "seconds_imports": opened[0][0],
        "seconds_open_after_kill": opened[0][1],
        "seconds_open": opened[1][1],
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        print(f"last tenth / first tenth: {result['last_of_first']:.2f}")
        print(f"database: {size / 1e6:.0f} MB, {size / arguments.instances:.0f} bytes an instance")
        print(
            f"open after a kill {opened[0][1]:.3f} s, after a clean end {opened[1][1]:.3f} s; imports {opened[0][0]:.2f} s"
        )


if __name__ == "__main__":
    main()
