"""What the two programs say in their logs: each line alone, and whole conversations beside DCMTK's own programs."""

import os

import pytest

from stowkeeper.dcmtk.dcmrecv_lines import DCMRECV_LOGGER, NETWORK_LOGGER, DcmrecvLines
from stowkeeper.dcmtk.log_lines import Condition, maximum_send_pdv, shown_path
from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.negotiation import (
    REJECTED_APPLICATION_CONTEXT_FOR_NOW,
    StorescpRules,
    negotiate_storescp,
)
from stowkeeper.dcmtk.storescp_lines import STORESCP_LOGGER, StorescpLines
from stowkeeper.dimse.message_types import CStoreRequest
from stowkeeper.upperlayer.items import ProposedContext, UserInformation
from stowkeeper.upperlayer.pdu import (
    REJECTED_APPLICATION_CONTEXT,
    REJECTED_CALLED_AE_TITLE,
    REJECTED_CALLING_AE_TITLE,
    REJECTED_NO_REASON,
    REJECTED_PROTOCOL_VERSION,
    AssociateRQ,
)
from support.raw_peer import (
    CT_IMAGE_STORAGE,
    EXPLICIT_VR_LITTLE_ENDIAN,
)

STORESCP = StorescpLines(level=LogLevel.INFO)
DCMRECV = DcmrecvLines(level=LogLevel.INFO)
CONTEXT = ProposedContext(
    context_id=1, abstract_syntax=CT_IMAGE_STORAGE, transfer_syntaxes=(EXPLICIT_VR_LITTLE_ENDIAN,)
)
REQUEST = AssociateRQ(
    called_ae_title="CALLED",
    calling_ae_title="CALLING",
    presentation_contexts=(CONTEXT,),
    user_information=UserInformation(maximum_length=16384, implementation_class_uid="1.2.3"),
)
STORE = CStoreRequest(
    message_id=7,
    has_data_set=True,
    affected_sop_class_uid=CT_IMAGE_STORAGE,
    affected_sop_instance_uid="1.2.3",
)


def said(lines, level=LogLevel.INFO):
    """Return level and text of what a log of a level shows."""
    return [(line.level.name, line.text) for line in lines if line.level >= level]


# --- both programs


@pytest.mark.parametrize(
    ("announced", "longest"),
    [
        (16384, 16372),
        (16385, 16372),
        (None, 131060),
        (0, 131060),
        (4, 0),
        (128, 116),
        (131071, 131058),
        (1_000_000, 131060),
    ],
)
def test_the_longest_pdv_follows_from_what_the_peer_takes(announced, longest):
    request = AssociateRQ(
        called_ae_title="A",
        calling_ae_title="B",
        presentation_contexts=(),
        user_information=UserInformation(maximum_length=announced),
    )
    assert maximum_send_pdv(request) == longest


def test_a_condition_has_its_number():
    assert Condition.PEER_ABORTED.text() == "0006:0317 Peer aborted Association (or never connected)"
    assert Condition.RECEIVE_FAILED.text("why").endswith(": why")
    assert Condition.TLS.named("why") == "TLS error: why"


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (Condition.CONTEXTS_DIFFER, "0006:0206 DIMSE: Presentation Contexts of Command and Data Differ"),
        (Condition.NO_DATA, "0006:0207 DIMSE No data available (timeout in non-blocking mode)"),
        (Condition.OUT_OF_RESOURCES, "0006:020a DIMSE Out of resources"),
        (Condition.ILLEGAL_PDU, "0006:0307 DUL Illegal or ill-formed PDU"),
        (Condition.READ_TIMEOUT, "0006:031a DUL network read timeout"),
        (Condition.TCP_WRAPPER, "0006:0324 TCP wrapper"),
    ],
)
def test_conditions_have_the_names_that_scripts_know(condition, text):
    assert condition.text() == text


def test_no_two_conditions_have_one_number():
    assert len({condition.value[0] for condition in Condition}) == len(Condition)


@pytest.mark.parametrize("lines", [STORESCP, DCMRECV])
def test_parameters_are_shown_at_debug_or_when_asked_for(lines):
    asking = type(lines)(level=LogLevel.INFO, shows_parameters=True)
    at_debug = type(lines)(level=LogLevel.DEBUG)
    response = negotiate_storescp(REQUEST, StorescpRules()).response
    assert len(lines.acknowledged(REQUEST, response)) == 1
    for each, level in ((asking, LogLevel.INFO), (at_debug, LogLevel.DEBUG)):
        head, parameters = each.acknowledged(REQUEST, response)
        assert head.text == "Association Acknowledged (Max Send PDV: 16372)"
        assert parameters.level is level
        assert "Accepted Transfer Syntax: =LittleEndianExplicit" in parameters.text


@pytest.mark.parametrize("level", [LogLevel.INFO, LogLevel.DEBUG])
def test_what_a_request_asks_for_stands_below_a_line_that_says_so(level):
    more = {"level": level, "shows_parameters": level is LogLevel.INFO}
    storescp = StorescpLines(**more).association_received(REQUEST, 16384)
    dcmrecv = DcmrecvLines(**more).association_received(REQUEST, 16384, "host")
    for lines, head in ((storescp, "Parameters:"), (dcmrecv, "Incoming Association Request:")):
        assert lines[1].level is level
        assert lines[1].text.splitlines()[0] == head
        assert "BEGIN A-ASSOCIATE-RQ" in lines[1].text.splitlines()[1]


@pytest.mark.parametrize("lines", [STORESCP, DCMRECV])
def test_an_own_line_has_the_level_that_is_asked_for(lines):
    own = (*lines.debug("d"), *lines.warning("w"), *lines.error("e"))
    assert [(line.level, line.logger) for line in own] == [
        (LogLevel.DEBUG, lines.logger),
        (LogLevel.WARN, lines.logger),
        (LogLevel.ERROR, lines.logger),
    ]


def test_what_a_peer_did_stands_at_debug():
    assert [line.level for line in STORESCP.peer_aborted("why")] == [LogLevel.INFO, LogLevel.DEBUG]
    assert [line.level for line in DCMRECV.peer_aborted("why")] == [LogLevel.INFO, LogLevel.DEBUG]


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (STORESCP.probed(), "Association Received (the connection was closed before a request came)"),
        (
            DCMRECV.probed("host"),
            "Association Received host: (the connection was closed before a request came)",
        ),
    ],
)
def test_a_connection_without_request_is_no_error(lines, text):
    assert said(lines) == [("INFO", text)]


# --- patients' names


def test_a_patient_is_not_named_in_a_path():
    assert shown_path("/out/Doe_Jane_20260102_030405678/CT.1", "/out") == (
        "/out/<patient>_20260102_030405678/CT.1"
    )
    assert shown_path("out/Doe_20260102_030405678", "out") == "out/<patient>_20260102_030405678"
    assert shown_path("/Doe_20260102_030405678/CT.1", "/") == "/<patient>_20260102_030405678/CT.1"
    assert shown_path("/out/Doe_Jane/CT.1", "/out") == "/out/<patient>/CT.1"
    assert shown_path("/out", "/out") == "/out"
    assert shown_path("/output/x", "/out") == "/output/x"


def test_a_name_that_looks_like_a_time_is_hidden_too():
    folder = "20260102_030405678_20260102_030405678"
    assert shown_path(f"/out/{folder}/CT.1", "/out") == "/out/<patient>_20260102_030405678/CT.1"


PATH = "/out/Doe_Jane_20260102_030405678/CT.1"
FOLDER = os.path.dirname(PATH)
PATH_LINES = [
    (lambda lines: lines.storing(PATH), "INFO", f"storing DICOM file: {PATH}"),
    (lambda lines: lines.overwriting(PATH), "WARN", f"DICOM file already exists, overwriting: {PATH}"),
    (lambda lines: lines.cannot_write(PATH, "why"), "ERROR", f"cannot write DICOM file: {PATH}: why"),
    (lambda lines: lines.bad_file(PATH, "why"), "ERROR", f"bad DICOM file: {PATH}: why"),
    (
        lambda lines: lines.cannot_create(PATH, "why"),
        "ERROR",
        f"Store SCP Failed: 0006:020a DIMSE Out of resources: cannot create file: {PATH}: why",
    ),
    (
        lambda lines: lines.subdirectory_created(FOLDER),
        "INFO",
        f"created new subdirectory for study: {FOLDER}",
    ),
    (
        lambda lines: lines.subdirectory_exists(FOLDER),
        "INFO",
        f"using existing subdirectory for study: {FOLDER}",
    ),
    (
        lambda lines: lines.cannot_create_subdirectory(FOLDER, "why"),
        "ERROR",
        f"could not create subdirectory for study: {FOLDER}: why",
    ),
    (
        lambda lines: lines.cannot_rename(PATH, PATH, "why"),
        "WARN",
        f"cannot rename file '{PATH}' to '{PATH}': why",
    ),
]


@pytest.mark.parametrize(("say", "level", "text"), PATH_LINES)
def test_no_line_of_storescp_names_a_patient(say, level, text):
    assert said(say(STORESCP)) == [(level, text)]
    sorting = StorescpLines(level=LogLevel.INFO, directory="/out")
    assert said(say(sorting)) == [(level, text.replace("Doe_Jane", "<patient>"))]


# --- storescp


def test_the_first_line_of_the_version_is_said_at_debug():
    (line,) = STORESCP.started("$dcmtk: storescp $")
    assert (line.level, line.text) == (LogLevel.DEBUG, "$dcmtk: storescp $\n")


def test_storescp_says_everything_under_one_name():
    lines = (*STORESCP.started("x"), *STORESCP.released(), *STORESCP.storing("p"))
    assert {line.logger for line in lines} == {STORESCP_LOGGER}


def test_a_child_process_is_named():
    assert said(STORESCP.association_received(REQUEST, 16384, child_pid=5)) == [
        ("INFO", "Association Received in child process (pid: 5)")
    ]


def test_a_store_request_is_short_unless_debugging():
    assert said(STORESCP.store_request(STORE, 1)) == [("INFO", "Received Store Request (MsgID 7, CT)")]
    head, message = StorescpLines(level=LogLevel.DEBUG).store_request(STORE, 1)
    assert (head.level, head.text) == (LogLevel.INFO, "Received Store Request")
    assert message.level is LogLevel.DEBUG
    assert "C-STORE RQ" in message.text


def test_an_unknown_class_is_ot():
    unknown = CStoreRequest(
        message_id=1, has_data_set=True, affected_sop_class_uid=None, affected_sop_instance_uid=None
    )
    assert said(STORESCP.store_request(unknown, 1)) == [("INFO", "Received Store Request (MsgID 1, OT)")]


WITHOUT_CLASS = AssociateRQ(
    called_ae_title="A",
    calling_ae_title="B",
    presentation_contexts=(CONTEXT,),
    user_information=UserInformation(),
)


@pytest.mark.parametrize(
    ("request_", "rejection", "by_option", "line"),
    [
        (REQUEST, REJECTED_NO_REASON, True, "Refusing Association (forced via command line)"),
        (WITHOUT_CLASS, REJECTED_NO_REASON, True, "Refusing Association (forced via command line)"),
        (
            REQUEST,
            REJECTED_APPLICATION_CONTEXT,
            False,
            "Association Rejected: Bad Application Context Name: 1.2.840.10008.3.1.1.1",
        ),
        (
            WITHOUT_CLASS,
            REJECTED_NO_REASON,
            False,
            "Association Rejected: No Implementation Class UID provided",
        ),
        (REQUEST, REJECTED_NO_REASON, False, "Refusing Association (why)"),
        (WITHOUT_CLASS, REJECTED_CALLED_AE_TITLE, False, "Refusing Association (why)"),
    ],
)
def test_storescp_says_why_it_rejects(request_, rejection, by_option, line):
    lines = STORESCP.refused(request_, rejection, "why", by_option=by_option)
    assert said(lines) == [("INFO", line)]


@pytest.mark.parametrize("lines", [STORESCP, DCMRECV])
def test_what_the_upper_layer_rejects_was_not_received(lines):
    for request in (None, REQUEST):
        ((level, text),) = said(lines.refused(request, REJECTED_PROTOCOL_VERSION, "why"))
        assert level == "ERROR"
        assert text.endswith("DUL Unsupported peer protocol: why")


def test_events_that_do_not_run_are_said_without_their_command():
    assert said(STORESCP.cannot_execute("no shell")) == [("ERROR", "cannot execute command: no shell")]
    assert said(STORESCP.cannot_rename("a", "b", "gone")) == [("WARN", "cannot rename file 'a' to 'b': gone")]


def test_storescp_says_what_hinders_its_start():
    assert said(STORESCP.cannot_listen("in use")) == [
        ("ERROR", "cannot create network: 0006:031c TCP Initialization Error: in use")
    ]
    assert said(STORESCP.port_not_needed()) == [("WARN", "Parameter port not required in inetd mode")]


def test_what_options_abort_is_said():
    assert said(STORESCP.aborting_by_option()) == [("INFO", "ABORT initiated (due to command line options)")]


# --- dcmrecv


def test_dcmrecv_speaks_of_associations_as_the_network_library():
    own = (*DCMRECV.started("x"), *DCMRECV.configuring(), *DCMRECV.no_profile(), *DCMRECV.starting())
    own += (
        *DCMRECV.wrong_profile("x"),
        *DCMRECV.wrong_directory("x"),
        *DCMRECV.cannot_listen(104, "x"),
        *DCMRECV.cannot_start_tls("x"),
    )
    assert {line.logger for line in own} == {DCMRECV_LOGGER}
    others = (*DCMRECV.released(), *DCMRECV.stored("p"), *DCMRECV.store_request(STORE, 1))
    assert {line.logger for line in others} == {NETWORK_LOGGER}


def test_dcmrecv_says_what_hinders_its_start():
    lines = (*DCMRECV.wrong_profile("p"), *DCMRECV.wrong_directory("d"), *DCMRECV.cannot_listen(104, "x"))
    assert said(lines) == [
        ("FATAL", "cannot load association configuration: p"),
        ("FATAL", "cannot specify output directory: d"),
        ("FATAL", "cannot start SCP and listen on port 104: TCP Initialization Error: x"),
    ]


@pytest.mark.parametrize(
    ("rejection", "reason"),
    [
        (REJECTED_APPLICATION_CONTEXT_FOR_NOW, "bad application context"),
        (REJECTED_CALLED_AE_TITLE, "called AE title not recognized"),
        (REJECTED_CALLING_AE_TITLE, "calling AE title not recognized"),
        (REJECTED_NO_REASON, "no acceptable presentation contexts"),
    ],
)
def test_dcmrecv_says_why_it_rejects(rejection, reason):
    *_, last = said(DCMRECV.refused(REQUEST, rejection, "why"))
    assert last == ("INFO", f"Refusing Association ({reason})")


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0x0000, "Success"),
        (0xA700, "Refused: OutOfResources"),
        (0xA900, "Error: DataSetDoesNotMatchSOPClass"),
        (0xC000, "Error: CannotUnderstand"),
        (0x0110, "Unknown Status: 0x110"),
    ],
)
def test_a_response_is_said_with_its_status(status, words):
    lines = DCMRECV.store_response(STORE.respond(status), 1)
    assert said(lines) == [("INFO", f"Sending C-STORE Response ({words})")]


def test_a_response_is_shown_when_debugging():
    head, message = DcmrecvLines(level=LogLevel.DEBUG).store_response(STORE.respond(0), 1)
    assert head.text == "Sending C-STORE Response"
    assert "OUTGOING" in message.text


def test_dcmrecv_says_why_it_aborts_and_what_it_cannot_do():
    lines = (
        *DCMRECV.aborting(Condition.BAD_CONTEXT_ID),
        *DCMRECV.cannot_create_directory("d", "why"),
        *DCMRECV.cannot_name("why"),
    )
    assert said(lines) == [
        ("ERROR", "Aborting Association: 0006:0101 ASC Bad presentation context ID"),
        ("ERROR", "cannot create directory for received object: d: why"),
        ("ERROR", "cannot generate directory or file name for received object: why"),
    ]


def test_hosts_and_titles_stay_on_their_line():
    hostile = AssociateRQ(
        called_ae_title="A\nB",
        calling_ae_title="C\rD",
        presentation_contexts=(),
        user_information=UserInformation(),
    )
    ((_, text),) = said(DCMRECV.association_received(hostile, 16384, "h\nost"))
    assert text == "Association Received h\\nost: C\\rD -> A\\nB"
