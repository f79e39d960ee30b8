"""Whole conversations with DCMTK's own programs: what they log, said with our lines.

Levels and loggers are compared too. Of errors what stands behind the number of a condition is DCMTK's own, and not compared.
"""

import os
import re
import struct

import pytest

from stowkeeper.dcmtk.dcmrecv_lines import DcmrecvLines
from stowkeeper.dcmtk.log_lines import Condition
from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.negotiation import (
    DcmrecvRules,
    StorescpRules,
    negotiate_dcmrecv,
    negotiate_storescp,
)
from stowkeeper.dcmtk.profile_file import load_profiles
from stowkeeper.dcmtk.storescp_lines import STORESCP_LOGGER, StorescpLines
from stowkeeper.dimse.command_set import decode_command_set
from stowkeeper.dimse.messages import parse_message
from stowkeeper.upperlayer.decode import decode_pdu
from stowkeeper.upperlayer.negotiation import Rejected
from stowkeeper.upperlayer.pdu import REJECTED_PROTOCOL_VERSION
from support.log_of_receiver import Conversation, logs_of
from support.peers import program_path
from support.raw_peer import (
    ABORT_REQUEST,
    CT_IMAGE_STORAGE,
    EXPLICIT_VR_LITTLE_ENDIAN,
    RELEASE_REQUEST,
    VERIFICATION,
    Context,
    associate_rq,
    command_set,
    data_set_pdus,
    echo_command,
    p_data,
    store_command,
)

pytestmark = [pytest.mark.slow, pytest.mark.peer("storescp"), pytest.mark.peer("dcmrecv")]

STORESCP = StorescpLines(level=LogLevel.INFO)
DCMRECV = DcmrecvLines(level=LogLevel.INFO)
PROFILE = f"""\
[[TransferSyntaxes]]
[Little]
TransferSyntax1 = {EXPLICIT_VR_LITTLE_ENDIAN}
[[PresentationContexts]]
[All]
PresentationContext1 = {CT_IMAGE_STORAGE}\\Little
PresentationContext2 = {VERIFICATION}\\Little
[[Profiles]]
[All]
PresentationContexts = All
"""
UNKNOWN_CLASS = "1.2.3.4.5.6.7"
ASSOCIATE = (
    Context(context_id=1, abstract_syntax=CT_IMAGE_STORAGE),
    Context(context_id=3, abstract_syntax=VERIFICATION),
)
SENT_REQUEST = associate_rq(ASSOCIATE)
ECHO = echo_command(8)
N_ACTION = command_set(
    {0x0003: "1.2.3", 0x0100: 0x0130, 0x0110: 5, 0x0800: 0x0101, 0x1001: "1.2.3", 0x1008: 1}
)


def data_set(uid, *, elements=(0x0016, 0x0018)):
    values = {0x0016: CT_IMAGE_STORAGE, 0x0018: uid}
    padded = {element: value.encode() + b"\0" * (len(value) % 2) for element, value in values.items()}
    body = b"".join(
        struct.pack("<HH2sH", 0x0008, element, b"UI", len(value)) + value
        for element, value in padded.items()
        if element in elements
    )
    study = b"1.2.840.9\0"
    return body + struct.pack("<HH2sH", 0x0020, 0x000D, b"UI", len(study)) + study


def store(uid, **more):
    """A C-STORE as it is sent."""
    return p_data(1, store_command(uid), control=3) + data_set_pdus(1, data_set(uid, **more))


class Ours:
    """Says with our lines what DCMTK's program should have said in a conversation, at the level info."""

    def __init__(self, tool, folder, *options):
        self.tool = tool
        self.folder = folder
        self.is_storescp = tool == "storescp"
        self.lines = STORESCP if self.is_storescp else DCMRECV
        self.options = options

    def path(self, name):
        return f"{self.folder}/{name}"

    def opened(self, sent=SENT_REQUEST):
        request = decode_pdu(1, memoryview(sent)[6:])
        profile = load_profiles(PROFILE.encode(), "p").profiles["ALL"]
        if self.is_storescp:
            received = STORESCP.association_received(request, 16384)
            rules = StorescpRules(profile=profile, refuse="--refuse" in self.options)
            decision = negotiate_storescp(request, rules)
        else:
            received = DCMRECV.association_received(request, 16384, "127.0.0.1")
            decision = negotiate_dcmrecv(request, DcmrecvRules(profile=profile))
        if isinstance(decision, Rejected):
            more = {"by_option": rules.refuse} if self.is_storescp else {}
            answer = self.lines.refused(request, decision.rejection, decision.words, **more)
        else:
            answer = self.lines.acknowledged(request, decision.response)
        return (*received, *answer)

    def message(self, command):
        return parse_message(decode_command_set(command))

    def asked(self, uid):
        return self.lines.store_request(self.message(store_command(uid)), 1)

    def answered(self, uid, status):
        if self.is_storescp:
            return ()
        return DCMRECV.store_response(self.message(store_command(uid)).respond(status), 1)

    def stored(self, uid, *, again=False):
        path = self.path(f"CT.{uid}")
        warning = self.lines.overwriting(path) if again else ()
        if self.is_storescp:
            return (*self.asked(uid), *STORESCP.storing(path), *warning)
        return (*self.asked(uid), *warning, *DCMRECV.stored(path), *self.answered(uid, 0))

    def not_stored(self, uid, words):
        """Say that a directory has the name of the file."""
        path = self.path(f"CT.{uid}")
        if self.is_storescp:
            return (*self.asked(uid), *STORESCP.storing(path), *STORESCP.cannot_write(path, words))
        return (*self.asked(uid), *DCMRECV.cannot_store(path, words), *self.answered(uid, 0xA700))

    def broken_off(self, condition):
        return self.lines.store_failed(*(() if self.is_storescp else (1,)), condition)


def told(lines):
    """Return what lines look like in a log of the level info."""
    return [
        (line.level.name, line.logger, text)
        for line in lines
        if line.level >= LogLevel.INFO
        for text in line.text.splitlines()
    ]


def tokens(entries):
    """Return of errors what comes before our own words, and of contexts no number: DCMTK names none there."""
    cut = [
        (level, logger, re.sub(r"(0006:[0-9a-f]{4}) .*", r"\1", text) if level == "ERROR" else text)
        for level, logger, text in entries
    ]
    return [
        (level, logger, re.sub(r"(receive dataset on presentation context) \d", r"\1", text))
        for level, logger, text in cut
    ]


def converse(tool, folder, conversations, *options):
    """Hold conversations with DCMTK's program, and return what it logs at the level info."""
    (folder / "out").mkdir(exist_ok=True)
    profile = folder / "profiles.cfg"
    profile.write_text(PROFILE, encoding="ascii")
    argv = [program_path(tool), *options, "-dhl", "-xf", str(profile), "All", "-od", str(folder / "out")]
    return logs_of(argv, "INFO", conversations, folder)


RELEASED = {"storescp": "Association Release", "dcmrecv": "Received Association Release Request"}
ABORTED = {"storescp": "Association Aborted", "dcmrecv": "Received Association Abort Request"}
both = pytest.mark.parametrize("tool", ["storescp", "dcmrecv"])


@both
def test_objects_and_echoes(tool, tmp_path):
    ours = Ours(tool, tmp_path / "out")
    sent = [
        (SENT_REQUEST, True),
        (store("1.2.3"), True),
        (store("1.2.3"), True),
        (p_data(3, ECHO, control=3), True),
        (RELEASE_REQUEST, True),
    ]
    (log,) = converse(tool, tmp_path, [Conversation(sent=sent, until=RELEASED[tool])])
    lines = (
        *ours.opened(),
        *ours.stored("1.2.3"),
        *ours.stored("1.2.3", again=True),
        *ours.lines.echo_request(ours.message(ECHO), 3),
        *ours.lines.released(),
    )
    start = () if ours.is_storescp else (*DCMRECV.configuring(), *DCMRECV.starting())
    assert told((*start, *lines)) == log


@both
def test_ends(tool, tmp_path):
    ours = Ours(tool, tmp_path / "out")
    begun = p_data(1, store_command("1.2.3"), control=3) + p_data(1, data_set("1.2.3")[:20], control=0)
    ends = {"N-ACTION": "DIMSE Bad command type" if ours.is_storescp else "we are a Storage SCP only"}
    conversations = [
        Conversation(sent=[(SENT_REQUEST, True), (RELEASE_REQUEST, True)], until=RELEASED[tool]),
        Conversation(sent=[(SENT_REQUEST, True), (ABORT_REQUEST, False)], until=ABORTED[tool]),
        Conversation(sent=[(SENT_REQUEST, True)], until=ABORTED[tool]),
        Conversation(sent=[(SENT_REQUEST, True), (begun + ABORT_REQUEST, False)], until=ABORTED[tool]),
        Conversation(
            sent=[(SENT_REQUEST, True), (p_data(1, N_ACTION, control=3), True)], until=ends["N-ACTION"]
        ),
        Conversation(sent=[(b"GET / HTTP/1.0\r\n\r\n", False)], until="Unrecognized PDU type: 47"),
    ]
    _, aborted, lost, broken, action, strange = converse(tool, tmp_path, conversations)
    assert told((*ours.opened(), *ours.lines.peer_aborted())) == aborted
    assert told((*ours.opened(), *ours.lines.peer_aborted())) == lost
    lines = (
        *ours.opened(),
        *ours.asked("1.2.3"),
        *ours.broken_off(Condition.PEER_ABORTED),
        *ours.lines.peer_aborted(),
    )
    assert tokens(told(lines)) == tokens(broken)
    failure = ours.lines.aborting(Condition.BAD_COMMAND_TYPE) if ours.is_storescp else ()
    lines = (*ours.opened(), *ours.lines.unexpected_command(ours.message(N_ACTION), 1), *failure)
    assert tokens(told(lines)) == tokens(action)
    assert told(ours.lines.receiving_failed(Condition.UNRECOGNIZED_PDU, "47")) == strange


@both
def test_rejections(tool, tmp_path):
    ours = Ours(tool, tmp_path / "out")
    other_context = associate_rq(ASSOCIATE, application_context="1.2.3")
    nothing = associate_rq((Context(context_id=1, abstract_syntax=UNKNOWN_CLASS),))
    conversations = [
        Conversation(sent=[(SENT_REQUEST, True), (RELEASE_REQUEST, True)], until=RELEASED[tool]),
        Conversation(
            sent=[(other_context, True)],
            until="Name: 1.2.3" if ours.is_storescp else "(bad application context)",
        ),
        Conversation(
            sent=[(nothing, True)],
            until="Aborted" if ours.is_storescp else "(no acceptable presentation contexts)",
        ),
        Conversation(sent=[(associate_rq(ASSOCIATE, version=2), True)], until="in parseAssociate"),
    ]
    _, context, none, version = converse(tool, tmp_path, conversations)
    assert told(ours.opened(other_context)) == context
    end = STORESCP.peer_aborted() if ours.is_storescp else ()
    assert told((*ours.opened(nothing), *end)) == none
    refused = told(ours.lines.refused(None, REJECTED_PROTOCOL_VERSION, "x"))
    words = "DUL Unsupported peer protocol"
    ((level, logger, text),) = tokens(version)
    assert tokens(refused)[0][:2] == (level, logger)
    assert text.partition(words)[0] == tokens(refused)[0][2].partition(words)[0]


@both
def test_objects_that_cannot_be_stored(tool, tmp_path):
    ours = Ours(tool, tmp_path / "out")
    os.makedirs(tmp_path / "out" / "CT.1.2.4")
    opening = [(SENT_REQUEST, True), (RELEASE_REQUEST, True)]
    sent = [(SENT_REQUEST, True), (store("1.2.4"), True), (RELEASE_REQUEST, True)]
    conversations = [Conversation(sent=each, until=RELEASED[tool]) for each in (opening, sent)]
    _, log = converse(tool, tmp_path, conversations)
    lines = (*ours.opened(), *ours.not_stored("1.2.4", "Is a directory"), *ours.lines.released())
    assert told(lines) == log


def test_forced_refusal(tmp_path):
    ours = Ours("storescp", tmp_path / "out", "--refuse")
    until = "(forced via command line)"
    (log,) = converse(
        "storescp", tmp_path, [Conversation(sent=[(SENT_REQUEST, True)], until=until)], "--refuse"
    )
    assert told(ours.opened()) == log


def test_sorting_and_bad_files(tmp_path):
    ours = Ours("storescp", tmp_path / "out")
    sent = [
        (SENT_REQUEST, True),
        (store("1.2.3"), True),
        (store("1.2.4", elements=(0x0016,)), True),
        (RELEASE_REQUEST, True),
    ]
    folder = tmp_path / "out" / "P_1.2.840.9"
    conversations = [Conversation(sent=sent, until=RELEASED["storescp"])]
    (log,) = converse("storescp", tmp_path, conversations, "-su", "P")
    lines = (
        *ours.opened(),
        *ours.asked("1.2.3"),
        *STORESCP.subdirectory_created(str(folder)),
        *STORESCP.storing(str(folder / "CT.1.2.3")),
        *ours.asked("1.2.4"),
        *STORESCP.storing(str(folder / "CT.1.2.4")),
    )
    bad = f"bad DICOM file: {folder / 'CT.1.2.4'}"
    assert [*told(lines), ("ERROR", STORESCP_LOGGER, bad), *told(STORESCP.released())] == log
    assert STORESCP.bad_file(str(folder / "CT.1.2.4"), "why")[0].text == f"{bad}: why"


def test_dcmrecv_without_profile(tmp_path):
    argv = [program_path("dcmrecv"), "-od", str(tmp_path)]
    until = "(no acceptable presentation contexts)"
    (log,) = logs_of(argv, "INFO", [Conversation(sent=[(SENT_REQUEST, True)], until=until)], tmp_path)
    start = (*DCMRECV.configuring(), *DCMRECV.no_profile(), *DCMRECV.starting())
    assert told(start) == log[:3]


def test_a_child_process(tmp_path):
    sent = [(SENT_REQUEST, True), (RELEASE_REQUEST, True)]
    (log,) = converse("storescp", tmp_path, [Conversation(sent=sent, until=RELEASED["storescp"])], "--fork")
    request = decode_pdu(1, memoryview(SENT_REQUEST)[6:])
    pid = int(re.findall(r"\d+", log[0][2])[0])
    assert told(STORESCP.association_received(request, 16384, child_pid=pid)) == log[:1]
