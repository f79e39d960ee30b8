"""What is shown of associations and messages, alone and beside DCMTK's own receivers."""

import struct

import pytest

from stowkeeper.dcmtk.association_dump import (
    Direction,
    acceptance_lines,
    message_lines,
    rejection_line,
    request_lines,
)
from stowkeeper.dcmtk.negotiation import (
    DcmrecvRules,
    StorescpRules,
    negotiate_dcmrecv,
    negotiate_storescp,
)
from stowkeeper.dcmtk.profile_file import load_profiles
from stowkeeper.dimse.command_set import decode_command_set
from stowkeeper.dimse.message_types import (
    CCancelRequest,
    CEchoRequest,
    CStoreRequest,
    CStoreResponse,
    NActionRequest,
    Priority,
    UnknownRequest,
)
from stowkeeper.dimse.messages import parse_message
from stowkeeper.upperlayer.decode import decode_pdu
from stowkeeper.upperlayer.items import (
    OutgoingUserIdentity,
    ProposedContext,
    RoleSelection,
    SOPClassExtendedNegotiation,
    UserIdentity,
    UserIdentityType,
    UserInformation,
)
from stowkeeper.upperlayer.pdu import REJECTED_NO_REASON, AssociateRQ
from support.log_of_receiver import Conversation, logs_of
from support.peers import program_path
from support.raw_peer import (
    CT_IMAGE_STORAGE,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    RELEASE_REQUEST,
    VERIFICATION,
    Context,
    associate_rq,
    command_set,
    data_set_pdus,
    echo_command,
    item,
    p_data,
)

MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
US_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.6.1"
PRIVATE_CLASS, PRIVATE_SYNTAX = "1.2.3.4.5.6.7", "1.2.3.4.5.6.8"


def request(**more):
    context = ProposedContext(
        context_id=1, abstract_syntax=CT_IMAGE_STORAGE, transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,)
    )
    values = {
        "called_ae_title": "CALLED",
        "calling_ae_title": "CALLING",
        "presentation_contexts": (context,),
        "user_information": UserInformation(maximum_length=16384),
    }
    return AssociateRQ(**{**values, **more})


# --- associations


def test_a_request_is_shown_before_it_is_answered():
    lines = request_lines(request(), 4096)
    assert lines[0] == "====================== BEGIN A-ASSOCIATE-RQ ====================="
    assert lines[-1] == "======================= END A-ASSOCIATE-RQ ======================"
    assert "Calling Application Name:    CALLING" in lines
    assert "Responding Application Name: " in lines
    assert "Our Max PDU Receive Size:    4096" in lines
    assert "Their Max PDU Receive Size:  16384" in lines
    assert "  Context ID:        1 (Proposed)" in lines
    assert "    Abstract Syntax: =CTImageStorage" in lines
    assert lines[lines.index("    Proposed Transfer Syntax(es):") + 1] == "      =LittleEndianImplicit"
    assert "Requested Extended Negotiation: none" in lines


def test_an_acceptance_shows_what_became_of_each_context():
    refused = ProposedContext(context_id=3, abstract_syntax="1.2.3", transfer_syntaxes=("1.2.4",))
    unusable = ProposedContext(context_id=5, abstract_syntax=VERIFICATION, transfer_syntaxes=("1.2.4",))
    contexts = (*request().presentation_contexts, refused, unusable)
    asked = request(presentation_contexts=contexts)
    lines = acceptance_lines(asked, negotiate_storescp(asked, StorescpRules()).response)
    assert [line for line in lines if "Context ID:" in line] == [
        "  Context ID:        1 (Accepted)",
        "  Context ID:        3 (Abstract Syntax Not Supported)",
        "  Context ID:        5 (Transfer Syntaxes Not Supported)",
    ]
    assert lines.count("    Accepted Transfer Syntax: =LittleEndianImplicit") == 1
    assert "Responding Application Name: CALLED" in lines


def test_roles_and_extended_negotiation_are_shown():
    information = UserInformation(
        role_selections=(
            RoleSelection(sop_class_uid=CT_IMAGE_STORAGE, scu_role=True, scp_role=True),
            RoleSelection(sop_class_uid=CT_IMAGE_STORAGE, scu_role=False, scp_role=True),
        ),
        extended_negotiations=(
            SOPClassExtendedNegotiation(sop_class_uid=CT_IMAGE_STORAGE, application_information=b"\2\xff"),
            SOPClassExtendedNegotiation(sop_class_uid="1.2.3", application_information=b""),
        ),
    )
    lines = request_lines(request(user_information=information), 4096)
    assert "    Proposed SCP/SCU Role: SCP/SCU" in lines
    start = lines.index("Requested Extended Negotiation:")
    assert lines[start + 1 : start + 5] == [
        "  =CTImageStorage (1.2.840.10008.5.1.4.1.1.2)",
        "    [0x02, 0xff]",
        "  =Unknown-UID (1.2.3)",
        "    []",
    ]


@pytest.mark.parametrize(
    ("scu", "scp", "words"), [(True, False, "SCU"), (False, True, "SCP"), (False, False, "SCP/SCU")]
)
def test_a_role_is_shown_by_its_short_name(scu, scp, words):
    selection = RoleSelection(sop_class_uid=CT_IMAGE_STORAGE, scu_role=scu, scp_role=scp)
    lines = request_lines(request(user_information=UserInformation(role_selections=(selection,))), 4096)
    assert f"    Proposed SCP/SCU Role: {words}" in lines


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (1, "  Authentication mode 1: Username"),
        (2, "  Authentication mode 2: Username/Password"),
        (3, "  Authentication mode 3: Kerberos"),
        (4, "  Authentication mode 4: SAML"),
        (5, "  Authentication mode 5: JWT"),
        (9, "  Authentication mode: Unknown"),
    ],
)
def test_of_a_user_identity_only_its_kind_is_shown(kind, words):
    identity = UserIdentity(
        type=kind, primary_name="grete", response_requested=True, primary_length=5, secondary_length=0
    )
    lines = request_lines(request(user_information=UserInformation(user_identity=identity)), 4096)
    start = lines.index("Requested User Identity Negotiation:")
    assert lines[start + 1 : start + 3] == [words, "  Positive Response requested: Yes"]
    assert "grete" not in "\n".join(lines)


def test_secrets_of_an_identity_are_not_shown():
    identity = OutgoingUserIdentity(
        type=UserIdentityType.USERNAME_AND_PASSCODE, primary=b"grete", secondary=b"secret"
    )
    text = "\n".join(request_lines(request(user_information=UserInformation(user_identity=identity)), 4096))
    assert "grete" not in text
    assert "secret" not in text


def test_a_peer_cannot_make_lines_of_its_own():
    context = ProposedContext(context_id=1, abstract_syntax="1.2\nX", transfer_syntaxes=("1.2\rX",))
    hostile = request(
        called_ae_title="A\nB",
        calling_ae_title="\x1b[2J",
        application_context="1\n2",
        presentation_contexts=(context,),
        user_information=UserInformation(
            implementation_class_uid="1\n2",
            implementation_version_name="V\x00\nW",
            extended_negotiations=(
                SOPClassExtendedNegotiation(sop_class_uid="1\n3", application_information=b""),
            ),
        ),
    )
    shown = (
        request_lines(hostile, 4096)
        + acceptance_lines(hostile, negotiate_storescp(request(), StorescpRules()).response)
        + message_lines(
            CStoreRequest(
                message_id=1,
                has_data_set=True,
                affected_sop_class_uid="1\n2",
                affected_sop_instance_uid="1\x07",
                move_originator_ae_title="A\nB",
            ),
            Direction.INCOMING,
            1,
        )
    )
    assert all(line.isprintable() for line in shown)
    assert "Called Application Name:     A\\nB" in shown


def test_a_rejection_is_one_line_with_its_numbers():
    assert rejection_line(REJECTED_NO_REASON).startswith("Association rejected (1,1,1)")


# --- messages


def store_request(**more):
    values = {
        "message_id": 7,
        "has_data_set": True,
        "affected_sop_class_uid": CT_IMAGE_STORAGE,
        "affected_sop_instance_uid": "1.2.3",
    }
    return CStoreRequest(**{**values, **more})


def test_a_store_request_is_shown():
    message = store_request(
        priority=Priority.HIGH, move_originator_ae_title="MOVER", move_originator_message_id=9
    )
    assert message_lines(message, Direction.INCOMING, 3) == [
        "===================== INCOMING DIMSE MESSAGE ====================",
        "Message Type                  : C-STORE RQ",
        "Presentation Context ID       : 3",
        "Message ID                    : 7",
        "Affected SOP Class UID        : CTImageStorage",
        "Affected SOP Instance UID     : 1.2.3",
        "Data Set                      : present",
        "Priority                      : high",
        "Move Originator AE Title      : MOVER",
        "Move Originator ID            : 9",
        "======================= END DIMSE MESSAGE =======================",
    ]


def test_a_priority_that_nobody_defined_is_shown_as_a_number():
    lines = message_lines(store_request(priority=17), Direction.INCOMING, 3)
    assert "Priority                      : 17" in lines


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0x0000, "0x0000: Success"),
        (0xA700, "0xa700: Refused: Out of resources"),
        (0xA701, "0xa701: Refused: Out of resources"),
        (0xA900, "0xa900: Error: Data Set does not match SOP Class"),
        (0xC000, "0xc000: Error: Cannot understand"),
        (0xC123, "0xc123: Error: Cannot understand"),
        (0x0110, "0x0110: Failure"),
        (0x0118, "0x0118: Invalid SOP Class"),
        (0x0122, "0x0122: Refused: SOP Class not supported"),
        (0x0124, "0x0124: Refused: Not authorized"),
        (0x0210, "0x0210: Duplicate invocation"),
        (0x0211, "0x0211: Unrecognized operation"),
        (0x0212, "0x0212: Mistyped argument"),
        (0xB000, "0xb000: Warning: Coercion of Data Elements"),
        (0xB006, "0xb006: Warning: Elements discarded"),
        (0xB007, "0xb007: Warning: Data Set does not match SOP Class"),
        (0xB001, "0xb001: Warning"),
    ],
)
def test_a_store_response_is_shown_with_its_status(status, words):
    message = store_request().respond(status)
    lines = message_lines(message, Direction.OUTGOING, 3)
    assert lines[0] == "===================== OUTGOING DIMSE MESSAGE ===================="
    assert f"DIMSE Status                  : {words}" in lines
    assert "Message ID Being Responded To : 7" in lines


def test_identifiers_that_a_response_lacks_are_none():
    lines = message_lines(CStoreResponse(responds_to=7, status=0), Direction.OUTGOING, 3)
    assert "Affected SOP Class UID        : none" in lines
    assert "Affected SOP Instance UID     : none" in lines


def test_an_echo_is_shown():
    echo = CEchoRequest(message_id=7, affected_sop_class_uid=VERIFICATION)
    assert message_lines(echo, Direction.INCOMING, 3)[1:-1] == [
        "Message Type                  : C-ECHO RQ",
        "Presentation Context ID       : 3",
        "Message ID                    : 7",
        "Data Set                      : none",
    ]
    assert message_lines(echo.respond(0), Direction.OUTGOING, 3)[3:-1] == [
        "Message ID Being Responded To : 7",
        "Affected SOP Class UID        : VerificationSOPClass",
        "Data Set                      : none",
        "DIMSE Status                  : 0x0000: Success",
    ]


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (CCancelRequest(responds_to=1), "C-CANCEL RQ"),
        (UnknownRequest(command_field=0x0020, message_id=1), "C-FIND RQ"),
        (
            NActionRequest(
                message_id=1,
                requested_sop_class_uid="1.2",
                requested_sop_instance_uid="1.3",
                action_type_id=1,
            ),
            "N-ACTION RQ",
        ),
    ],
)
def test_other_messages_are_named(message, kind):
    lines = message_lines(message, Direction.INCOMING, 3)
    assert f"Message Type                  : {kind}" in lines
    assert "Data Set                      : none" in lines


# --- beside DCMTK

PROFILE = f"""\
[[TransferSyntaxes]]
[Little]
TransferSyntax1 = {EXPLICIT_VR_LITTLE_ENDIAN}
TransferSyntax2 = {IMPLICIT_VR_LITTLE_ENDIAN}
[[PresentationContexts]]
[All]
PresentationContext1 = {CT_IMAGE_STORAGE}\\Little
PresentationContext2 = {MR_IMAGE_STORAGE}\\Little
PresentationContext3 = {VERIFICATION}\\Little
PresentationContext4 = {US_IMAGE_STORAGE}\\Little
[[SCPSCURoleSelection]]
[Roles]
Role1 = {CT_IMAGE_STORAGE}\\BOTH
Role2 = {MR_IMAGE_STORAGE}\\SCU
Role3 = {US_IMAGE_STORAGE}\\SCP
[[ExtendedNegotiation]]
[Extended]
ExtendedNegotiation1 = {CT_IMAGE_STORAGE}\\0200ff
[[Profiles]]
[Plain]
PresentationContexts = All
[Rich]
PresentationContexts = All
SCPSCURoleSelection = Roles
ExtendedNegotiation = Extended
"""


def uid_item(uid, rest):
    return struct.pack(">H", len(uid)) + uid.encode() + rest


REQUESTS = {
    "plain": associate_rq(
        (
            Context(
                context_id=1,
                abstract_syntax=CT_IMAGE_STORAGE,
                transfer_syntaxes=(PRIVATE_SYNTAX, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN),
            ),
            Context(context_id=3, abstract_syntax=PRIVATE_CLASS),
            Context(
                context_id=5, abstract_syntax=MR_IMAGE_STORAGE, transfer_syntaxes=("1.2.840.10008.1.2.4.91",)
            ),
            Context(context_id=7, abstract_syntax=VERIFICATION),
        ),
        maximum_length=None,
    ),
    "rich": associate_rq(
        (
            Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE),
            Context(context_id=5, abstract_syntax=MR_IMAGE_STORAGE),
            Context(context_id=7, abstract_syntax=VERIFICATION),
            Context(context_id=11, abstract_syntax=US_IMAGE_STORAGE),
        ),
        window=(4, 4),
        user_items=item(0x54, uid_item(CT_IMAGE_STORAGE, b"\1\1"))
        + item(0x54, uid_item(MR_IMAGE_STORAGE, b"\1\0"))
        + item(0x54, uid_item(VERIFICATION, b"\0\0"))
        + item(0x54, uid_item(US_IMAGE_STORAGE, b"\0\1"))
        + item(0x56, uid_item(CT_IMAGE_STORAGE, b"\2\0\1"))
        + item(0x58, b"\1\1" + struct.pack(">H5sH", 5, b"grete", 0)),
    ),
}

COMMANDS = [
    (
        1,
        command_set(
            {
                0x0002: CT_IMAGE_STORAGE,
                0x0100: 1,
                0x0110: 7,
                0x0700: 2,
                0x0800: 1,
                0x1000: "1.2.3",
                0x1030: b"MOVER ",
                0x1031: 9,
            }
        ),
    ),
    (7, echo_command(8)),
]
DATA_SET = b"".join(
    struct.pack("<HH2sH", 0x0008, element, b"UI", len(value)) + value
    for element, value in ((0x0016, CT_IMAGE_STORAGE.encode() + b"\0"), (0x0018, b"1.2.3\0"))
)


def spoken(texts):
    """Leave out what has to differ: who we are, and names that DCMTK shows and we never do."""
    return [text for text in texts if not text.startswith(("Our Implementation ", "  Username: "))]


@pytest.mark.slow
@pytest.mark.peer("storescp")
@pytest.mark.peer("dcmrecv")
@pytest.mark.parametrize("tool", ["storescp", "dcmrecv"])
@pytest.mark.parametrize("kind", REQUESTS)
def test_dcmtk_shows_the_same(tool, kind, tmp_path):
    profile_path = tmp_path / "profiles.cfg"
    profile_path.write_text(PROFILE, encoding="ascii")
    profile = load_profiles(PROFILE.encode(), "profiles.cfg").profiles[kind.upper()]
    sent = [
        (REQUESTS[kind], True),
        (p_data(1, COMMANDS[0][1], control=3) + data_set_pdus(1, DATA_SET), True),
        (p_data(7, COMMANDS[1][1], control=3), True),
        (RELEASE_REQUEST, True),
    ]
    until = {"storescp": "Association Release", "dcmrecv": "Received Association Release Request"}[tool]
    argv = [
        program_path(tool),
        "-xf",
        str(profile_path),
        kind.capitalize(),
        "-od",
        str(tmp_path),
        "-pdu",
        "8192",
    ]
    (log,) = logs_of(argv, "DEBUG", [Conversation(sent=sent, until=until)], tmp_path)

    request = decode_pdu(1, memoryview(REQUESTS[kind])[6:])
    if tool == "storescp":
        decision = negotiate_storescp(request, StorescpRules(profile=profile, maximum_length=8192))
    else:
        decision = negotiate_dcmrecv(request, DcmrecvRules(profile=profile, maximum_length=8192))
    store, echo = (
        (context_id, parse_message(decode_command_set(command))) for context_id, command in COMMANDS
    )
    ours = [
        *request_lines(request, 8192),
        *acceptance_lines(request, decision.response),
        *message_lines(store[1], Direction.INCOMING, store[0]),
    ]
    if tool == "dcmrecv":
        ours += message_lines(store[1].respond(0), Direction.OUTGOING, store[0])
    ours += message_lines(echo[1], Direction.INCOMING, echo[0])

    theirs, is_shown = [], False
    for _, _, text in log:
        is_shown = (
            is_shown or "BEGIN A-ASSOCIATE" in text or "COMING DIMSE" in text or "OUTGOING DIMSE" in text
        )
        if is_shown:
            theirs.append(text)
        if "= END " in text:
            is_shown = False
    assert spoken(ours) == spoken(theirs)
