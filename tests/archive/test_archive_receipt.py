"""The receipt in a file: its bytes, its fixed place, and that it covers every byte of the file."""

import io
import json
import random
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.archive.examine import Finding, examine
from stowkeeper.archive.receipt import (
    EMPTY_RECEIPT,
    RECEIPT_LENGTH,
    Receipt,
    ReceiptIds,
    ReceiptTooLongError,
    ReceiptUnreadableError,
    checksum_holds,
    encode_head,
    seal_head,
    timestamp,
)
from stowkeeper.dicom.part10 import read_file_meta
from stowkeeper.dicom.uid import RECEIPT_CREATOR_UID
from support.archive_rig import model_rig
from support.instances import make_instance
from support.machine_with_catalog import damage
from support.model_filesystem import ModelFileSystem

A_RECEIPT = Receipt(
    receipt_id="0" * 32,
    digest="d" * 64,
    data_set_length=1234,
    sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    sop_instance_uid="1.2.3.4",
    transfer_syntax_uid="1.2.840.10008.1.2.1",
    received_at="2026-01-02T03:04:05.678901Z",
    received_by="C-STORE",
    calling_ae_title="SCANNER",
    called_ae_title="STOWKEEPER",
    peer_address="192.0.2.17",
    association_id="a-1",
)
UIDS = st.from_regex(r"[0-9.]{1,64}", fullmatch=True)
AE_TITLES = st.text(st.characters(max_codepoint=255), max_size=16)


def a_head(**titles: str) -> bytes:
    return encode_head(
        sop_class_uid=A_RECEIPT.sop_class_uid,
        sop_instance_uid=A_RECEIPT.sop_instance_uid,
        transfer_syntax_uid=A_RECEIPT.transfer_syntax_uid,
        **titles,
    )


@pytest.mark.slow
@given(UIDS, UIDS, UIDS, AE_TITLES, AE_TITLES, st.integers(0, 2**63))
def test_any_receipt_fits_its_place_and_comes_back(
    sop_class: str, sop_instance: str, transfer_syntax: str, calling: str, called: str, length: int
) -> None:
    receipt = replace(
        A_RECEIPT,
        sop_class_uid=sop_class,
        sop_instance_uid=sop_instance,
        transfer_syntax_uid=transfer_syntax,
        calling_ae_title=calling,
        called_ae_title=called,
        data_set_length=length,
        peer_address="2001:0db8:ffff:ffff:ffff:ffff:255.255.255.255",
    )
    payload = receipt.encode()
    assert len(payload) == RECEIPT_LENGTH
    assert Receipt.decode(payload) == receipt


def test_a_receipt_longer_than_its_place_is_refused() -> None:
    with pytest.raises(ReceiptTooLongError, match=r"1\.2\.3\.4"):
        replace(A_RECEIPT, calling_ae_title="\xff" * 100).encode()


def test_zeros_are_no_receipt_yet() -> None:
    assert len(EMPTY_RECEIPT) == RECEIPT_LENGTH
    assert Receipt.decode(EMPTY_RECEIPT) is None


def altered(**fields: object) -> bytes:
    return json.dumps({"checksum": "0" * 32, "version": 1, **asdict(A_RECEIPT), **fields}).encode()


@pytest.mark.parametrize(
    "payload",
    [
        b"\0" * 1023 + b"x",
        b"{}",
        b"[]",
        b"null",
        b"\xff" * RECEIPT_LENGTH,
        altered(version=2),
        altered(more="than there is"),
        altered(data_set_length="1234"),
        altered(data_set_length=True),
        altered(digest=None),
        altered().replace(b'"digest"', b'"digestion"'),
        b"[" * RECEIPT_LENGTH,
    ],
)
def test_what_is_neither_zeros_nor_a_receipt_is_said_to_be_unreadable(payload: bytes) -> None:
    with pytest.raises(ReceiptUnreadableError):
        Receipt.decode(payload)


def test_the_head_is_file_meta_information_that_others_read() -> None:
    titles = {"writing_ae_title": "KEEP", "sending_ae_title": "SCAN\xe9", "receiving_ae_title": "STORE"}
    sealed = seal_head(a_head(**titles), A_RECEIPT)
    instance = make_instance(1)
    read = pydicom.dcmread(io.BytesIO(sealed + instance.data))
    meta = read.file_meta
    assert read.SOPInstanceUID == "1.2.3.1"
    assert meta.MediaStorageSOPClassUID == A_RECEIPT.sop_class_uid
    assert meta.MediaStorageSOPInstanceUID == "1.2.3.4"
    assert meta.TransferSyntaxUID == A_RECEIPT.transfer_syntax_uid
    assert meta[0x00020016].value == "KEEP"
    assert meta[0x00020018].value == "STORE"
    assert meta[0x00020100].value == RECEIPT_CREATOR_UID
    assert Receipt.decode(meta[0x00020102].value) == A_RECEIPT
    ours = read_file_meta(sealed)
    assert ours.length == len(sealed)
    assert sealed.endswith(bytes(ours.private_information))
    assert len(sealed) == meta.FileMetaInformationGroupLength + 132 + 12


def test_an_empty_title_leaves_its_element_out() -> None:
    elements = {tag for tag, _, _ in read_file_meta(a_head()).elements}
    assert elements.isdisjoint({0x00020016, 0x00020017, 0x00020018})


def test_the_checksum_covers_every_bit_of_the_head() -> None:
    sealed = seal_head(a_head(), A_RECEIPT)
    assert checksum_holds(sealed)
    for place in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[place] ^= 1 << bit
            assert not checksum_holds(bytes(changed)), place


@pytest.mark.slow
def test_a_file_with_one_bit_turned_is_suspect_and_never_mistaken_for_an_unfinished_one(
    tmp_path: Path,
) -> None:
    """An unfinished file is removed. An answered one that went bad must not be taken for one: it is evidence."""
    instance = make_instance(1, size=40)
    model = ModelFileSystem()
    rig = model_rig(tmp_path, model)
    rig.keep(instance)
    path = rig.path(*rig.depot())
    size = model.status(path).size
    assert model.content(path).endswith(instance.data)
    assert examine(model, path).finding is Finding.WHOLE
    source = random.Random(1)
    for place in range(size):
        # All bits where lengths and tags of the head stand, one of each byte elsewhere.
        bits = range(8) if 132 <= place < 160 else [source.randrange(8)]
        for bit in bits:
            damage(model, path, place, bit)
            found = examine(model, path)
            assert found.finding is Finding.SUSPECT, (place, bit, found)
            damage(model, path, place, bit)
    assert examine(model, path).finding is Finding.WHOLE


def test_a_receipt_holds_no_patient_data(tmp_path: Path) -> None:
    rig = model_rig(tmp_path)
    payload = rig.keep(make_instance(1)).encode()
    assert b"Patient" not in payload
    assert b"P1" not in payload
    assert set(json.loads(payload)) == {"checksum", "version", *asdict(A_RECEIPT)}


def test_receipt_ids_are_unique_and_in_the_order_of_time() -> None:
    ids = ReceiptIds()
    made = [ids.next(1_700_000_000_000_000_000 + number // 3) for number in range(1000)]
    assert sorted(set(made)) == made
    assert all(len(one) == 32 and int(one, 16) for one in made)
    assert ReceiptIds().next(1)[16:24] != ReceiptIds().next(1)[16:24]


@given(st.integers(0, 4_000_000_000_000_000_000))
def test_a_timestamp_comes_back_to_the_microsecond(nanoseconds: int) -> None:
    read = datetime.strptime(timestamp(nanoseconds), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    assert round(read.timestamp() * 1_000_000) == nanoseconds // 1000
    assert len(timestamp(nanoseconds)) == 27
