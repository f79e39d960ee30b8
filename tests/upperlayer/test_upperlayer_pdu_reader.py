"""Framing: any split gives the same, P-DATA streams without being kept, forged lengths allocate nothing."""

import struct
import tracemalloc
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upperlayer_samples import MAX, acceptor, context, established, feed, join, p_data, pdv, request

from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.upperlayer.decode import decode_pdu
from stowkeeper.upperlayer.encode import encode_pdu
from stowkeeper.upperlayer.errors import PeerProtocolError
from stowkeeper.upperlayer.events import (
    Aborted,
    AssociateRequested,
    PDVFragment,
    ProtocolFault,
    ReleaseRequested,
)
from stowkeeper.upperlayer.items import OutgoingUserIdentity, UserIdentityType, UserInformation
from stowkeeper.upperlayer.limits import ASSOCIATE_PDU_LENGTH_MAX, FIXED_PDU_LENGTH_MAX, OTHER_PDUS_MAX
from stowkeeper.upperlayer.pdu import Abort, PDUType, ReleaseRQ
from stowkeeper.upperlayer.pdu_reader import PDU_LENGTHS_MAX, MalformedPDU, PDUReader, WholePDU
from stowkeeper.upperlayer.reasons import AbortReason, AbortSource
from stowkeeper.upperlayer.states import State
from support.examples import examples

INVALID = AbortReason.INVALID_PDU_PARAMETER_VALUE

pdvs = st.builds(
    pdv,
    st.binary(max_size=40),
    context_id=st.sampled_from([1, 3]),
    is_command=st.booleans(),
    is_last=st.booleans(),
)
p_data_pdus = st.lists(pdvs, min_size=1, max_size=4).map(lambda several: p_data(*several))


def reader(p_data_length_max=MAX, context_ids=frozenset({1, 3})):
    made = PDUReader(p_data_length_max=p_data_length_max)
    made.context_ids = context_ids
    return made


@pytest.mark.slow
@settings(max_examples=examples(80))
@given(st.lists(p_data_pdus, max_size=5), st.data())
def test_any_split_gives_what_a_whole_decode_gives(pdus, data):
    expected = [
        (whole.context_id, whole.is_command, whole.is_last, whole.data)
        for pdu in pdus
        for whole in decode_pdu(4, memoryview(pdu)[6:]).pdvs
    ]
    stream = b"".join(pdus)
    connection = established()
    events = []
    while stream:
        taken = data.draw(st.integers(1, len(stream)))
        events += feed(connection, stream[:taken])
        stream = stream[taken:]
    assert join(events) == expected
    assert not connection.is_mid_pdu


@pytest.mark.parametrize("step", [None, 1, 5, 6, 7, 11, 12, 13])
def test_a_pdv_is_delivered_in_contiguous_pieces(step):
    stream = p_data(pdv(b"command!", is_command=True, is_last=True), pdv(b"data")) + p_data(
        pdv(b"more", is_last=True)
    )
    events = feed(established(), stream, step=step)
    assert join(events) == [
        (1, True, True, b"command!"),
        (1, False, False, b"data"),
        (1, False, True, b"more"),
    ]
    if step is None:
        assert all(event.starts and event.ends for event in events)


def test_pieces_are_views_and_nothing_is_copied():
    connection = established(maximum_length=0)
    head = struct.pack(">BxIIBB", 4, 1 << 30, (1 << 30) - 4, 1, 0)  # one PDV of a gibibyte
    assert connection.receive_data(memoryview(head), 0.0) == []
    buffer = memoryview(bytearray(1 << 16))
    tracemalloc.start()
    for number in range(64):
        [fragment] = connection.receive_data(buffer, 0.0)
        assert (fragment.data.obj, len(fragment.data)) == (buffer.obj, len(buffer))
        assert (fragment.starts, fragment.ends) == (number == 0, False)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16_384
    assert connection.is_mid_pdu


@pytest.mark.parametrize("step", [None, 1])
def test_an_empty_pdv_is_one_empty_piece(step):
    events = feed(established(), p_data(pdv(b"", is_last=True)) + p_data(pdv(b""), pdv(b"A")), step=step)
    assert events[0] == PDVFragment(1, False, b"", True, True, True)
    assert join(events) == [(1, False, True, b""), (1, False, False, b""), (1, False, False, b"A")]


def test_reserved_bits_and_bytes_may_be_anything():
    data = bytearray(p_data(pdv(b"AB", is_command=True)))
    data[1] = 0xFF  # reserved byte of the PDU header
    data[11] |= 0xFC  # bits 2-7 of the message control header
    assert join(feed(established(), bytes(data))) == [(1, True, False, b"AB")]


def test_the_announced_maximum_holds_to_the_byte():
    fits = p_data(pdv(bytes(MAX - 6)))
    assert len(fits) == MAX + 6
    for step in (None, 7):
        assert join(feed(established(), fits, step=step)) == [(1, False, False, bytes(MAX - 6))]
        connection = established()
        fault, aborted = feed(connection, p_data(pdv(bytes(MAX - 5))), step=step)
        assert (fault.reason, aborted.reason, aborted.by_us) == (INVALID, INVALID, True)
        assert "4097 bytes, 4096 were announced" in fault.words
        assert connection.data_to_send() == bytes.fromhex("07 00 00000004 0000 02 06")


def test_no_maximum_means_none():
    [fragment] = feed(
        established(maximum_length=0), struct.pack(">BxIIBB", 4, 0xFFFFFFFF, 0xFFFFFFFB, 1, 0) + b"A"
    )
    assert (fragment.data, fragment.starts, fragment.ends) == (b"A", True, False)


@pytest.mark.parametrize("step", [None, 1])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(p_data(), id="no PDV"),
        pytest.param(p_data(bytes(5)), id="too short for a PDV"),
        pytest.param(p_data(struct.pack(">IBB", 0, 1, 0)), id="length 0"),
        pytest.param(p_data(struct.pack(">IBB", 1, 1, 0) + b"A"), id="length 1"),
        pytest.param(p_data(struct.pack(">IB", 1, 1)), id="length 1 in a PDU of 5"),
        pytest.param(p_data(struct.pack(">IBB", 1, 1, 0), pdv(b"ABCDEF")), id="length 1 before another"),
        pytest.param(p_data(struct.pack(">IBB", 4, 1, 0) + b"A"), id="one byte beyond the PDU"),
        pytest.param(p_data(struct.pack(">IBB", 0xFFFFFFFF, 1, 0) + b"A"), id="far beyond the PDU"),
        pytest.param(p_data(pdv(b"AB"), b"\x00\x00\x00\x02\x01"), id="the second without place"),
        pytest.param(p_data(pdv(b"AB", context_id=5)), id="context not accepted"),
        pytest.param(p_data(pdv(b""), pdv(b"AB", context_id=0)), id="second context not accepted"),
    ],
)
def test_a_pdv_that_lies_ends_the_association_and_framing_goes_on(data, step):
    connection = established()
    events = feed(connection, data + p_data(pdv(b"not delivered")) + encode_pdu(ReleaseRQ()), step=step)
    fault, aborted = events[-2:]
    assert isinstance(fault, ProtocolFault)
    assert isinstance(aborted, Aborted)
    assert fault.reason is INVALID
    assert fault.words == aborted.words
    assert join(events[:-2]) in ([], [(1, False, False, b"")])
    assert connection.state is State.STA13_AWAITING_TRANSPORT_CLOSE
    assert not connection.is_mid_pdu
    feed(
        connection, bytes.fromhex("07 00 00000004 00000000"), step=step
    )  # still read as the A-ABORT that it is
    assert connection.close_expected


@pytest.mark.parametrize("step", [None, 1])
def test_a_context_that_was_not_accepted_is_no_context(step):
    connection = established()
    fault, _aborted = feed(connection, p_data(pdv(b"AB", context_id=5)), step=step)
    assert "presentation context 5, which was not accepted" in fault.words


@pytest.mark.parametrize("step", [None, 1])
def test_after_the_end_p_data_is_skipped_and_not_looked_into(step):
    connection = established()
    connection.abort(0, 0, 0.0)
    connection.data_to_send()
    lies = p_data(pdv(bytes(MAX))) + p_data(pdv(b"A", context_id=5)) + p_data() + p_data(bytes(9))
    assert feed(connection, lies, step=step) == []
    assert connection.data_to_send() == b""
    assert not connection.is_mid_pdu


def test_every_other_pdu_has_its_bound():
    assert set(PDU_LENGTHS_MAX) == set(PDUType) - {PDUType.P_DATA_TF}
    for pdu_type, length_max in PDU_LENGTHS_MAX.items():
        assert length_max in (ASSOCIATE_PDU_LENGTH_MAX, FIXED_PDU_LENGTH_MAX)
        assert reader().read(memoryview(struct.pack(">BxI", pdu_type, length_max))) == []
        [malformed] = reader().read(memoryview(struct.pack(">BxI", pdu_type, length_max + 1)))
        assert isinstance(malformed, MalformedPDU)
        assert malformed.fault.reason is INVALID
        assert str(PDUType(pdu_type)) in malformed.fault.text


def longest_request(transfer_syntaxes):
    """Every context there can be, each with these transfer syntaxes, and a user information item without room left."""
    contexts = [context(context_id, "1.2." + "3" * 60, *transfer_syntaxes) for context_id in range(1, 256, 2)]
    bare = request(*contexts, user_identity=OutgoingUserIdentity(type=UserIdentityType.SAML, primary=b""))
    fixed = len(encode_pdu(replace(bare, user_information=UserInformation())))
    room = 0xFFFF - (len(encode_pdu(bare)) - fixed)
    identity = OutgoingUserIdentity(type=UserIdentityType.SAML, primary=bytes(room))
    return request(*contexts, user_identity=identity)


def test_the_longest_request_that_makes_sense_is_taken():
    in_force = [uid for uid, known in TRANSFER_SYNTAXES.items() if not known.retired]
    asked = longest_request(in_force)
    encoded = encode_pdu(asked)
    assert 0.8 * ASSOCIATE_PDU_LENGTH_MAX < len(encoded) - 6 < 0.9 * ASSOCIATE_PDU_LENGTH_MAX
    [event] = feed(acceptor(), encoded, step=65536)
    assert isinstance(event, AssociateRequested)
    assert event.request.presentation_contexts == asked.presentation_contexts
    assert event.request.user_information.user_identity.primary_length > 65_000


def test_a_longer_request_is_aborted_before_it_is_gathered():
    connection = acceptor()
    encoded = encode_pdu(longest_request(["1.2." + "4" * 60] * 30))
    assert len(encoded) - 6 > ASSOCIATE_PDU_LENGTH_MAX
    events = feed(connection, encoded[:6])
    assert [type(event) for event in events] == [ProtocolFault]
    assert connection.data_to_send() == encode_pdu(Abort(source=AbortSource.SERVICE_PROVIDER, reason=INVALID))


def test_a_forged_length_allocates_nothing():
    tracemalloc.start()
    made = reader()
    made.read(memoryview(struct.pack(">BxI", 1, ASSOCIATE_PDU_LENGTH_MAX)))
    made.read(memoryview(bytes(10)))
    another = reader()
    another.read(memoryview(struct.pack(">BxI", 1, 0xFFFFFFFF)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16_384


def test_an_unknown_type_is_unrecognized_and_skipped_by_its_length():
    made = reader()
    malformed, whole = made.read(memoryview(bytes.fromhex("08 00 00000003 aaaaaa 05 00 00000004 00000000")))
    assert malformed.fault.reason is AbortReason.UNRECOGNIZED_PDU
    assert whole == WholePDU(pdu_type=PDUType.A_RELEASE_RQ, body=memoryview(bytes(4)))


@pytest.mark.parametrize("step", [1, 3, 9, 100])
def test_other_pdus_are_gathered_from_any_split(step):
    events = feed(established(), p_data(pdv(b"A")) + encode_pdu(ReleaseRQ()), step=step)
    assert join(events) == [(1, False, False, b"A"), ReleaseRequested()]


def test_pdus_gathered_one_after_the_other_do_not_mix():
    made = reader()
    stream = bytes.fromhex("07 00 00000004 00000206  05 00 00000004 01020304")
    whole = [item for at in range(len(stream)) for item in made.read(memoryview(stream[at : at + 1]))]
    assert [(item.pdu_type, bytes(item.body)) for item in whole] == [
        (PDUType.A_ABORT, b"\0\0\2\6"),
        (PDUType.A_RELEASE_RQ, b"\1\2\3\4"),
    ]


def test_a_pdu_without_body_is_whole_at_once():
    [whole] = reader().read(memoryview(bytes.fromhex("07 00 00000000")))
    assert (whole.pdu_type, len(whole.body)) == (PDUType.A_ABORT, 0)


def test_a_peer_that_only_makes_work_is_not_heeded_any_more():
    made = reader()
    flood = memoryview(bytes.fromhex("09 00 00000000") * 1000)
    assert len(made.read(flood)) == OTHER_PDUS_MAX
    assert made.read(flood) == []
    assert made.read(memoryview(encode_pdu(ReleaseRQ()))) == []
    orderly = reader()
    for _ in range(OTHER_PDUS_MAX):
        assert len(orderly.read(memoryview(encode_pdu(ReleaseRQ()) + p_data(pdv(b"A"))))) == 2


@settings(max_examples=examples(150))
@given(st.binary(max_size=120), st.integers(1, 30))
def test_garbage_gives_the_same_in_any_split(data, step):
    def outline(framed):
        made = []
        for item in framed:
            if isinstance(item, PDVFragment):
                made.append(item._replace(data=bytes(item.data)))
            elif isinstance(item, WholePDU):
                made.append((item.pdu_type, bytes(item.body)))
            else:
                assert isinstance(item.fault, PeerProtocolError)
                made.append(item.fault.text)
        return join(made)

    whole, split = reader(), reader()
    at_once = outline(whole.read(memoryview(data)))
    pieces = [split.read(memoryview(data[at : at + step])) for at in range(0, len(data), step)]
    assert outline([item for framed in pieces for item in framed]) == at_once
    assert whole.is_mid_pdu == split.is_mid_pdu
