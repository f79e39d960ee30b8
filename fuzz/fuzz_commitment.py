"""Storage commitment requests and reports from anyone: read within bounds, or refused in words; what is read can be written.

Byte 0 of an input chooses the transfer syntax, the rest is the data set. The corpus in `corpus/commitment` holds requests and
reports of every encoding, and broken ones.
"""

import re
import sys
from collections.abc import Callable
from typing import TypeVar

from stowkeeper.dicom.commitment_information import (
    COMMITMENT_TRANSFER_SYNTAXES,
    ActionInformation,
    CommitmentInformationError,
    EventInformation,
    Reference,
    decode_action_information,
    decode_event_information,
    encode_action_information,
    encode_event_information,
)
from stowkeeper.dicom.limits import REFERENCES_MAX
from stowkeeper.dicom.uid import is_acceptable_uid

Information = TypeVar("Information", ActionInformation, EventInformation)

TEXT = re.compile(r"[A-Za-z0-9 (),]+")
"""What the words of a refusal are made of. It lets no control character through."""


def target(data: bytes) -> None:
    """Raise only on a defect of ours."""
    if not data:
        return
    syntax = COMMITMENT_TRANSFER_SYNTAXES[data[0] % len(COMMITMENT_TRANSFER_SYNTAXES)]
    request = check(data[1:], syntax, decode_action_information, encode_action_information)
    report = check(data[1:], syntax, decode_event_information, encode_event_information)
    if request is not None:
        check_references(request.transaction_uid, request.references)
        assert request.references
    if request is not None and report is not None:
        assert (request.transaction_uid, request.references) == (report.transaction_uid, report.committed)
    if report is not None:
        check_references(report.transaction_uid, report.committed)
        check_references(report.transaction_uid, tuple(failure.reference for failure in report.failed))
        assert all(0 <= failure.reason <= 0xFFFF for failure in report.failed)


def check(
    data: bytes,
    syntax: str,
    decode: Callable[[bytes, str], Information],
    encode: Callable[[Information, str], bytes],
) -> Information | None:
    """Return what is read; see that it is read again from what is written of it, in every encoding."""
    try:
        information = decode(data, syntax)
    except CommitmentInformationError as error:
        check_refusal(error)
        return None
    if isinstance(information, EventInformation) and not information.committed and not information.failed:
        return information
    for each in COMMITMENT_TRANSFER_SYNTAXES:
        assert decode(encode(information, each), each) == information
    return information


def check_refusal(error: CommitmentInformationError) -> None:
    assert TEXT.fullmatch(str(error)), str(error)
    assert error.element is None or 0 <= error.element <= 0xFFFFFFFF


def check_references(transaction_uid: str, references: tuple[Reference, ...]) -> None:
    assert is_acceptable_uid(transaction_uid)
    assert len(references) <= REFERENCES_MAX
    for reference in references:
        assert is_acceptable_uid(reference.sop_class_uid)
        assert is_acceptable_uid(reference.sop_instance_uid)


def main() -> None:
    try:
        import atheris  # noqa: PLC0415 - the corpus is replayed without it
    except ImportError:
        sys.exit("This fuzzer needs atheris: pip install atheris")
    atheris.instrument_all()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
