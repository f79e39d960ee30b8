"""What is kept of a part until the answer: little, since ten thousand of them wait for it."""

import tracemalloc
from secrets import token_hex

from stowkeeper.archive.outcome import Outcome
from stowkeeper.archive.receipt import Receipt
from stowkeeper.dicom.uid import generate_uid
from stowkeeper.services.incoming_file import Identity
from stowkeeper.services.store_part import StorePart

PARTS = 500
BYTES_MAX = 1000
"""Of each part: ten thousand take ten megabytes."""


def text(value: str) -> str:
    """Return a text of its own, as each that was read from a file is."""
    return value.encode().decode()


def settled(number: int, texts: dict[str, str]) -> StorePart:
    """Return a part as it is after its outcome came."""
    part = StorePart(number=number)
    part.came = part.began + number / 7
    part.length = 100_000 + number
    part.identity = Identity(
        sop_class_uid=text("1.2.840.10008.5.1.4.1.1.2"),
        sop_instance_uid=generate_uid(),
        transfer_syntax_uid=text("1.2.840.10008.1.2.1"),
    )
    receipt = Receipt(
        receipt_id=token_hex(16),
        digest=token_hex(32),
        data_set_length=99_000 + number,
        sop_class_uid=part.identity.sop_class_uid,
        sop_instance_uid=part.identity.sop_instance_uid,
        transfer_syntax_uid=part.identity.transfer_syntax_uid,
        received_at=text("2026-01-02T03:04:05.678901Z"),
        received_by="STOW-RS",
        calling_ae_title="",
        called_ae_title="",
        peer_address="127.0.0.1",
        association_id="request",
    )
    outcome = Outcome(
        refusal=None,
        receipt=receipt,
        data_set_length=receipt.data_set_length,
        digest=receipt.digest,
        disk_seconds=number / 7000,
        study_instance_uid=text("2.25.9352161290849642462228998224936693382"),
        series_instance_uid=text("2.25.9866619967281281080998332782984575998"),
    )
    part.take(outcome, lambda found: texts.setdefault(found, found))
    return part


def test_a_part_that_waits_for_the_answer_takes_less_than_a_kilobyte() -> None:
    texts: dict[str, str] = {}
    settled(0, texts)
    tracemalloc.start()
    try:
        parts = [settled(1000 + number, texts) for number in range(PARTS)]
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken / len(parts) < BYTES_MAX
    assert len(texts) == 4


def test_of_a_kept_part_the_ledger_has_all_there_is_to_say() -> None:
    part = settled(3, {})
    row = part.record("request", part.came + 1, is_answered=True)
    assert (row.outcome, row.status, row.receipt_id) == ("kept", 0, part.receipt_id)
    assert len(row.receipt_id) == 32
    assert len(row.digest) == 64
    assert row.data_set_length == 99_003
    assert row.seconds_disk == 3 / 7000
    assert row.transfer_syntax_uid == "1.2.840.10008.1.2.1"
