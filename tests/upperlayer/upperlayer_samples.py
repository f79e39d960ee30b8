"""Values and connections that the tests of the upper layer share, and strategies that make more of them."""

import struct

from hypothesis import strategies as st

from stowkeeper.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from stowkeeper.dicom.uid import VERIFICATION
from stowkeeper.upperlayer.connection import UpperLayerConnection
from stowkeeper.upperlayer.encode import encode_pdu
from stowkeeper.upperlayer.events import PDVFragment
from stowkeeper.upperlayer.items import (
    AsynchronousOperationsWindow,
    ContextResult,
    OutgoingUserIdentity,
    ProposedContext,
    RoleSelection,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityResponse,
    UserIdentityType,
    UserInformation,
)
from stowkeeper.upperlayer.negotiation import AcceptancePolicy, Accepted, negotiate
from stowkeeper.upperlayer.pdu import Abort, AssociateAC, AssociateRJ, AssociateRQ, ReleaseRP, ReleaseRQ
from stowkeeper.upperlayer.states import Role

CT = "1.2.840.10008.5.1.4.1.1.2"
MAX = 4096
ARTIM = 10.0


def context(context_id=1, abstract_syntax=CT, *transfer_syntaxes):
    return ProposedContext(
        context_id=context_id,
        abstract_syntax=abstract_syntax,
        transfer_syntaxes=transfer_syntaxes or (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN),
    )


def request(*contexts, called="STOWKEEPER", calling="MODALITY", maximum_length=MAX, **information):
    return AssociateRQ(
        called_ae_title=called,
        calling_ae_title=calling,
        presentation_contexts=contexts or (context(1, CT), context(3, VERIFICATION)),
        user_information=UserInformation(maximum_length=maximum_length, **information),
    )


def accept(asked, **policy):
    answer = negotiate(asked, AcceptancePolicy(**{"maximum_length": MAX} | policy))
    assert isinstance(answer, Accepted)
    return answer.response


def acceptor(maximum_length=MAX):
    connection = UpperLayerConnection(Role.ACCEPTOR, max_pdu_length_local=maximum_length, artim_seconds=ARTIM)
    connection.connection_opened(0.0)
    return connection


def requestor(asked=None, maximum_length=MAX):
    connection = UpperLayerConnection(
        Role.REQUESTOR, max_pdu_length_local=maximum_length, artim_seconds=ARTIM
    )
    connection.request(asked or request(maximum_length=maximum_length), 0.0)
    connection.connection_opened(0.0)
    return connection


def feed(connection, data, now=1.0, step=None):
    """Give bytes, in pieces of `step`; views are copied, since the next piece may reuse a buffer."""
    events = []
    for at in range(0, len(data), step or max(len(data), 1)):
        piece = bytearray(data[at : at + step] if step else data)
        given = connection.receive_data(memoryview(piece), now)
        events += [
            event._replace(data=bytes(event.data)) if isinstance(event, PDVFragment) else event
            for event in given
        ]
        piece[:] = bytes(len(piece))  # a view that is kept would show
    return events


def established(role=Role.ACCEPTOR, maximum_length=MAX, asked=None):
    asked = asked or request(maximum_length=maximum_length)
    if role is Role.ACCEPTOR:
        connection = acceptor(maximum_length)
        [event] = feed(connection, encode_pdu(asked))
        connection.accept(accept(event.request, maximum_length=maximum_length), 1.0)
    else:
        connection = requestor(asked, maximum_length)
        feed(connection, encode_pdu(accept(asked)))
    connection.data_to_send()
    return connection


def pdv(data, context_id=1, is_command=False, is_last=False):
    return struct.pack(">IBB", len(data) + 2, context_id, is_command | is_last << 1) + data


def p_data(*pdvs):
    body = b"".join(pdvs)
    return struct.pack(">BxI", 4, len(body)) + body


def join(events):
    """Put the pieces of each PDV together; an event that is none ends up as itself."""
    joined = []
    open_pieces = None
    for event in events:
        if not isinstance(event, PDVFragment):
            joined.append(event)
            continue
        if event.starts:
            assert open_pieces is None
            open_pieces = []
        open_pieces.append(bytes(event.data))
        if event.ends:
            joined.append((event.context_id, event.is_command, event.is_last, b"".join(open_pieces)))
            open_pieces = None
    if open_pieces is not None:
        joined.append(("unfinished", b"".join(open_pieces)))
    return joined


# --- strategies

uids = st.sampled_from([CT, VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN]) | st.integers(0, 10**50).map(
    "1.2.{}".format
)
ae_titles = st.sampled_from(["", "A", "SIXTEEN LETTERS_"]) | st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\"), max_size=16
)
bytes_ = st.integers(0, 0xFF)
numbers_16 = st.integers(0, 0xFFFF)
contexts = st.builds(
    ProposedContext,
    context_id=bytes_,
    abstract_syntax=uids,
    transfer_syntaxes=st.lists(uids, max_size=4).map(tuple),
)
results = st.builds(ContextResult, context_id=bytes_, result=st.integers(0, 4) | bytes_, transfer_syntax=uids)


def several(strategy):
    return st.lists(strategy, max_size=2).map(tuple)


informations = st.builds(
    UserInformation,
    maximum_length=st.none() | st.integers(0, 0xFFFFFFFF),
    implementation_class_uid=st.none() | uids,
    implementation_version_name=st.none() | st.sampled_from(["A", "SIXTEEN_LETTERS_"]),
    operations_window=st.none()
    | st.builds(AsynchronousOperationsWindow, invoked=numbers_16, performed=numbers_16),
    role_selections=several(
        st.builds(RoleSelection, sop_class_uid=uids, scu_role=st.booleans(), scp_role=st.booleans())
    ),
    extended_negotiations=several(
        st.builds(
            SOPClassExtendedNegotiation, sop_class_uid=uids, application_information=st.binary(max_size=9)
        )
    ),
    common_extended_negotiations=several(
        st.builds(
            SOPClassCommonExtendedNegotiation,
            sop_class_uid=uids,
            service_class_uid=uids,
            related_general_sop_class_uids=several(uids),
            version=bytes_,
        )
    ),
    user_identity_response=st.none() | st.just(UserIdentityResponse()),
)
identities = st.builds(
    OutgoingUserIdentity,
    type=st.sampled_from(UserIdentityType),
    primary=st.binary(max_size=20),
    secondary=st.binary(max_size=20),
    response_requested=st.booleans(),
)
requests = st.builds(
    AssociateRQ,
    called_ae_title=ae_titles,
    calling_ae_title=ae_titles,
    presentation_contexts=several(contexts),
    user_information=informations,
    application_context=uids,
    protocol_version=numbers_16,
)
responses = st.builds(
    AssociateAC,
    presentation_contexts=several(results),
    user_information=informations,
    application_context=uids,
    protocol_version=numbers_16,
    echoed_fields=st.binary(min_size=64, max_size=64),
)
small_pdus = (
    st.builds(AssociateRJ, result=bytes_, source=bytes_, reason=bytes_)
    | st.builds(Abort, source=bytes_, reason=bytes_)
    | st.just(ReleaseRQ())
    | st.just(ReleaseRP())
)
