"""What XML of a store response, or of a request for commitment, would cost a parser: namespaces, and tags without an end."""

import time

import pytest

from stowkeeper.stow.limits_of_metadata import XML_PIECE_BYTES, XML_TAG_BYTES_MAX
from stowkeeper.stow.native_response import NAMESPACE, NativeResponseError, read_native_response

URL = {"00081190": {"vr": "UR", "Value": ["http://a/b"]}}


@pytest.mark.parametrize(
    ("prefix", "declared"),
    [
        ("", ""),
        ("", f' xmlns="{NAMESPACE}"'),
        ("n:", f' xmlns:n="{NAMESPACE}" xmlns:xsi="urn:xsi" xsi:a="1"'),
    ],
)
def test_a_prefix_means_nothing(prefix: str, declared: str) -> None:
    text = (
        f"<{prefix}NativeDicomModel{declared}><{prefix}DicomAttribute tag='00081190' vr='UR'>"
        f"<{prefix}Value>http://a/b</{prefix}Value></{prefix}DicomAttribute></{prefix}NativeDicomModel>"
    )
    assert read_native_response(text.encode()) == URL
    with pytest.raises(NativeResponseError):
        read_native_response(text.replace("NativeDicomModel", "Other").encode())


def test_a_long_namespace_is_not_written_before_every_field() -> None:
    fields = " ".join(f'x:f{number}="1"' for number in range(10_000))
    text = f'<NativeDicomModel xmlns:x="{"u" * 100_000}" {fields}/>'
    begin = time.process_time()
    assert read_native_response(text.encode()) == {}
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    "head", ["<NativeDicomModel ", "<NativeDicomModel><!-- ", "<?a ", "<NativeDicomModel x='"]
)
def test_a_tag_or_comment_without_an_end_is_refused(head: str) -> None:
    with pytest.raises(NativeResponseError, match="too long"):
        read_native_response(f"{head}{'y' * 2 * XML_TAG_BYTES_MAX}".encode())


@pytest.mark.parametrize("length", [0, 1, XML_PIECE_BYTES - 200, XML_PIECE_BYTES, 3 * XML_TAG_BYTES_MAX])
def test_a_document_is_read_over_any_number_of_pieces(length: int) -> None:
    text = (
        f"<NativeDicomModel><DicomAttribute tag='00081190' vr='UR'><Value>é{'a' * length}</Value>"
        + " " * length
    )
    found = read_native_response(f"{text}</DicomAttribute></NativeDicomModel>".encode())
    assert found == {"00081190": {"vr": "UR", "Value": ["é" + "a" * length]}}
