"""The Storage service on a real archive: who may associate, what becomes of each C-STORE, and what is written of it."""

import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
from blake3 import blake3
from structlog.testing import capture_logs

from stowkeeper.archive import listing
from stowkeeper.archive.archive import Archive
from stowkeeper.archive.arrival import DuplicatePolicy
from stowkeeper.archive.ledger import RequestRecord
from stowkeeper.dimse.message_types import CStoreRequest
from stowkeeper.net.handlers import AssociationFacts, StoreAnswer
from stowkeeper.services.storage import Rules, StorageService, StoreInProgress
from stowkeeper.upperlayer.items import ContextResult, ProposedContext, UserInformation
from stowkeeper.upperlayer.negotiation import AcceptancePolicy, Accepted, AcceptedContext, Rejected
from stowkeeper.upperlayer.pdu import AssociateRQ
from support.archive_server import (
    RULES,
    data_set_of,
    depot_leftovers,
    instances,
    open_archive,
    requests,
    settle,
)
from support.instances import (
    CT_IMAGE_STORAGE,
    EXPLICIT_VR_LITTLE_ENDIAN,
    HANGING_PROTOCOL_STORAGE,
    Instance,
    encode_element,
    make_instance,
)

VERIFICATION = "1.2.840.10008.1.1"
MR_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.4"
FIND = "1.2.840.10008.5.1.4.1.2.1.1"
PATIENT = b"Confidential^Name"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    opened = open_archive(tmp_path / "archive")
    yield opened
    opened.close()


class Conversation:
    """One association with a service, spoken to as the network room does."""

    _numbers = count(1)

    def __init__(self, archive: Archive, rules: Rules = RULES, **facts: Any) -> None:
        self.archive = archive
        self.service = StorageService(archive, rules)
        said = {"calling_ae_title": "SCANNER", "called_ae_title": "STOWKEEPER", "peer_address": "192.0.2.17"}
        self.facts = AssociationFacts(
            association_id=f"a-{next(self._numbers)}", opened_at_nanoseconds=1, **(said | facts)
        )
        self.released = 0
        self.sent = b""

    def begin(self, instance: Instance, answers: "SimpleQueue[StoreAnswer]", **named: Any) -> StoreInProgress:
        """Begin a C-STORE; `named` is what the command says where it differs from the instance."""
        self.sent = instance.data
        said: dict[str, Any] = {
            "message_id": 1,
            "has_data_set": True,
            "affected_sop_class_uid": instance.sop_class_uid,
            "affected_sop_instance_uid": instance.sop_instance_uid,
        }
        context = AcceptedContext(
            context_id=1,
            abstract_syntax=instance.sop_class_uid,
            transfer_syntax=instance.transfer_syntax_uid,
        )
        return self.service.store(self.facts, context, CStoreRequest(**(said | named)), answers.put)

    def send(self, instance: Instance, *, flushes: int = 0, **named: Any) -> StoreAnswer:
        """Perform a whole C-STORE and return its answer."""
        answers: SimpleQueue[StoreAnswer] = SimpleQueue()
        operation = self.begin(instance, answers, **named)
        pieces = max(1, flushes + 1)
        step = -(-len(instance.data) // pieces) or 1
        for start in range(0, len(instance.data), step):
            operation.write(memoryview(instance.data)[start : start + step], self._release)
            if flushes:
                operation.flush()
        operation.commit()
        answer = answers.get(timeout=30)
        operation.answered(answer)
        return answer

    def _release(self) -> None:
        self.released += 1

    @property
    def requests(self) -> list[RequestRecord]:
        """Return the ledger's lines of this association."""
        return requests(self.archive, self.facts.association_id)


def with_elements(instance: Instance, *changes: tuple[int, bytes, bytes | None]) -> Instance:
    """Return an instance with some elements put in, replaced, or taken out (value None)."""
    elements = {}
    data = instance.data
    while data:
        group, element, vr = struct.unpack_from("<HH2s", data)
        head = 12 if vr in (b"OB", b"OW", b"UN") else 8
        length = struct.unpack_from("<I" if head == 12 else "<H", data, head - (4 if head == 12 else 2))[0]
        elements[group << 16 | element] = (vr, data[head : head + length])
        data = data[head + length :]
    for tag, vr, value in changes:
        elements.pop(tag, None)
        if value is not None:
            elements[tag] = (vr, value)
    encoded = b"".join(encode_element(tag, vr, value) for tag, (vr, value) in sorted(elements.items()))
    return replace(instance, data=encoded)


# What is kept


def test_an_instance_is_kept_and_every_party_is_written_down(archive: Archive) -> None:
    instance = make_instance(1)
    talk = Conversation(archive)
    assert talk.send(instance, message_id=7) == StoreAnswer(status=0)
    (row,) = instances(archive)
    assert data_set_of(archive, row) == instance.data
    assert row["sop_instance_uid"] == "1.2.3.1"
    (line,) = talk.requests
    assert (line.status, line.outcome, line.message_id, line.error_comment) == (0, "kept", 7, "")
    assert (line.sop_class_uid, line.sop_instance_uid) == (CT_IMAGE_STORAGE, "1.2.3.1")
    assert (line.transfer_syntax_uid, line.data_set_length) == (EXPLICIT_VR_LITTLE_ENDIAN, len(instance.data))
    assert (line.digest, line.receipt_id) == (row["digest"], row["receipt_id"])
    assert 0 <= line.seconds_network <= line.seconds_total
    assert 0 < line.seconds_disk <= line.seconds_total
    assert talk.released == 1


def test_a_large_instance_comes_in_many_parts_and_lets_go_of_each(archive: Archive) -> None:
    instance = make_instance(1, size=300_000)
    talk = Conversation(archive)
    assert talk.send(instance, flushes=40).status == 0
    assert talk.released == 41
    (row,) = instances(archive)
    assert data_set_of(archive, row) == instance.data


def test_instances_of_several_associations_arrive_together(archive: Archive) -> None:
    talks = [Conversation(archive) for _ in range(4)]
    sent = [[make_instance(10 * n + m, size=50_000) for m in range(5)] for n in range(4)]

    def speak(number: int) -> None:
        for instance in sent[number]:
            assert talks[number].send(instance, flushes=3).status == 0

    threads = [threading.Thread(target=speak, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = {row["sop_instance_uid"]: data_set_of(archive, row) for row in instances(archive)}
    assert kept == {each.sop_instance_uid: each.data for of_one in sent for each in of_one}


MALFORMED = ["1.02.3", "1..2", ".1.2", "1.2.", "..", ".", "0." * 31 + "00"]


@pytest.mark.parametrize("uid", MALFORMED)
def test_a_malformed_uid_is_kept_with_a_verdict(archive: Archive, uid: str) -> None:
    instance = with_elements(
        make_instance(1), (0x00080018, b"UI", uid.encode()), (0x0020000D, b"UI", uid.encode())
    )
    talk = Conversation(archive)
    assert talk.send(instance, affected_sop_instance_uid=uid).status == 0
    (row,) = instances(archive)
    assert row["sop_instance_uid"] == uid
    (receipt,) = listing.receipts(archive.database)
    assert [verdict.partition(":")[0] for verdict in receipt["verdicts"]] == [
        "SOPInstanceUID is malformed",
        "StudyInstanceUID is malformed",
    ]
    root = Path(archive.root).resolve()
    assert Path(archive.path_of(row["path"])).resolve().is_relative_to(root / "objects")


def test_a_class_without_patients_needs_no_study(archive: Archive) -> None:
    instance = make_instance(1, study="", sop_class_uid=HANGING_PROTOCOL_STORAGE)
    assert Conversation(archive).send(instance).status == 0
    (row,) = instances(archive)
    assert row["path"].startswith("objects/-/")


def test_what_a_peer_calls_itself_does_no_harm(archive: Archive) -> None:
    uid = "1." + "2" * 62
    instance = with_elements(make_instance(1), (0x00080018, b"UI", uid.encode()))
    odd: dict[str, Any] = {"calling_ae_title": '\x01\xff\\"' * 4, "called_ae_title": "\x7f" * 16}
    talk = Conversation(archive, peer_address="2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", **odd)
    assert talk.send(instance, affected_sop_instance_uid=uid).status == 0
    (row,) = instances(archive)
    assert row["sop_instance_uid"] == uid
    assert [line.status for line in talk.requests] == [0]


# What is refused


def check_refused(
    talk: Conversation, answer: StoreAnswer, status: int, offending: tuple[int, ...] = ()
) -> None:
    """Check that an answer says why, that the ledger does too, and that nothing of the instance is left."""
    assert (answer.status, answer.offending_elements) == (status, offending)
    assert answer.error_comment
    line = talk.requests[-1]
    assert (line.status, line.outcome, line.error_comment) == (status, "refused", answer.error_comment)
    assert (line.data_set_length, line.digest) == (len(talk.sent), blake3(talk.sent).hexdigest())
    assert line.receipt_id == ""
    assert 0 < line.seconds_network <= line.seconds_total
    assert 0 <= line.seconds_disk <= line.seconds_total
    assert instances(talk.archive) == []
    assert depot_leftovers(talk.archive) == []


@pytest.mark.parametrize("flushes", [0, 5])
@pytest.mark.parametrize("uid", [None, "", "1." + "2" * 63, "1.2.a", "1.2/../../3", "1.2 3", "x" * 300])
def test_an_unusable_instance_uid_is_refused(archive: Archive, uid: str | None, flushes: int) -> None:
    talk = Conversation(archive)
    answer = talk.send(make_instance(1), affected_sop_instance_uid=uid, flushes=flushes)
    check_refused(talk, answer, 0x0117, (0x00001000,))
    assert len(talk.requests[0].sop_instance_uid) <= 64
    assert talk.released == flushes + 1


@pytest.mark.parametrize("uid", [None, "", "CT", VERIFICATION, "1.2.840.10008.5.1.4.1.2.1.1"])
def test_a_class_that_is_no_storage_is_refused(archive: Archive, uid: str | None) -> None:
    talk = Conversation(archive)
    answer = talk.send(make_instance(1), affected_sop_class_uid=uid)
    check_refused(talk, answer, 0x0122, (0x00000002,))


def test_a_class_that_the_rules_leave_out_is_refused_in_any_context(archive: Archive) -> None:
    only_mr = AcceptancePolicy(accepts_abstract_syntax=lambda uid: uid == MR_IMAGE_STORAGE)
    talk = Conversation(archive, replace(RULES, acceptance=only_mr))
    check_refused(talk, talk.send(make_instance(1)), 0x0122, (0x00000002,))
    assert talk.send(make_instance(2, sop_class_uid=MR_IMAGE_STORAGE)).status == 0


def test_peers_may_have_acceptance_rules_of_their_own(archive: Archive) -> None:
    only_mr = AcceptancePolicy(accepts_abstract_syntax=lambda uid: uid == MR_IMAGE_STORAGE)

    def acceptance_of(title: str, address: str) -> AcceptancePolicy:
        return only_mr if (title, address) == ("MR1", "192.0.2.17") else RULES.acceptance

    rules = replace(RULES, acceptance_of=acceptance_of)
    asked = association_request(CT_IMAGE_STORAGE, MR_IMAGE_STORAGE)
    talk = Conversation(archive, rules)
    assert results(talk.service.negotiate(asked, talk.facts)) == [0, 0]
    talk = Conversation(archive, rules, calling_ae_title="MR1")
    assert results(talk.service.negotiate(replace(asked, calling_ae_title="MR1"), talk.facts)) == [3, 0]
    check_refused(talk, talk.send(make_instance(1)), 0x0122, (0x00000002,))
    assert talk.send(make_instance(2, sop_class_uid=MR_IMAGE_STORAGE)).status == 0


def test_an_association_goes_on_by_the_rules_that_it_began_with(archive: Archive) -> None:
    talk = Conversation(archive)
    asked = association_request(CT_IMAGE_STORAGE)
    assert results(talk.service.negotiate(asked, talk.facts)) == [0]
    only_mr = AcceptancePolicy(accepts_abstract_syntax=lambda uid: uid == MR_IMAGE_STORAGE)
    talk.service.rules = replace(RULES, acceptance=only_mr)
    assert talk.send(make_instance(1)).status == 0
    talk.service.association_closed(talk.facts)
    assert not talk.service._policies, "what is over is remembered no longer"
    other = Conversation(archive, talk.service.rules)
    assert results(other.service.negotiate(asked, other.facts)) == [3]
    assert other.send(make_instance(2)).status == 0x0122


@pytest.mark.parametrize("flushes", [0, 5])
@pytest.mark.parametrize(
    ("named", "tag"),
    [
        ({"affected_sop_instance_uid": "1.2.3.2"}, 0x00080018),
        ({"affected_sop_class_uid": MR_IMAGE_STORAGE}, 0x00080016),
    ],
)
def test_identifiers_that_differ_from_the_data_set_are_refused(
    archive: Archive, named: dict[str, str], tag: int, flushes: int
) -> None:
    talk = Conversation(archive)
    check_refused(talk, talk.send(make_instance(1, size=20_000), flushes=flushes, **named), 0xA900, (tag,))


@pytest.mark.parametrize("tag", [0x00080016, 0x00080018, 0x0020000D, 0x0020000E])
def test_missing_identifiers_are_refused(archive: Archive, tag: int) -> None:
    talk = Conversation(archive)
    answer = talk.send(with_elements(make_instance(1), (tag, b"UI", None)))
    check_refused(talk, answer, 0xC000, (tag,))
    answer = talk.send(with_elements(make_instance(1), (tag, b"UI", b"")))
    check_refused(talk, answer, 0xC000, (tag,))


@pytest.mark.parametrize("flushes", [0, 5])
def test_a_data_set_that_does_not_parse_to_its_end_is_refused(archive: Archive, flushes: int) -> None:
    instance = make_instance(1, size=20_000)
    talk = Conversation(archive)
    answer = talk.send(replace(instance, data=instance.data[:-1000]), flushes=flushes)
    check_refused(talk, answer, 0xC000, (0x7FE00010,))
    check_refused(talk, talk.send(replace(instance, data=b"")), 0xC000)
    assert talk.send(instance, flushes=flushes).status == 0, "the same, whole, is welcome"


def test_another_version_is_refused_to_peers_under_that_policy(archive: Archive) -> None:
    def duplicates_of(calling_ae_title: str, address: str) -> DuplicatePolicy:
        assert address == "192.0.2.17"
        return DuplicatePolicy.REFUSE if calling_ae_title == "STRICT" else DuplicatePolicy.KEEP

    rules = replace(RULES, duplicates_of=duplicates_of)
    assert Conversation(archive, rules).send(make_instance(1)).status == 0
    strict = Conversation(archive, rules, calling_ae_title="STRICT")
    assert strict.send(make_instance(1, content=1)).status == 0x0111
    assert strict.send(make_instance(1)).status == 0, "the same bytes are welcome"
    assert Conversation(archive, rules).send(make_instance(1, content=2)).status == 0
    assert [line.status for line in strict.requests] == [0x0111, 0]


def test_a_request_that_the_network_refused_is_in_the_ledger_too(archive: Archive) -> None:
    talk = Conversation(archive)
    request = CStoreRequest(
        message_id=4, has_data_set=False, affected_sop_class_uid=None, affected_sop_instance_uid="9" * 100
    )
    context = AcceptedContext(
        context_id=1, abstract_syntax=CT_IMAGE_STORAGE, transfer_syntax="1.2.840.10008.1.2"
    )
    with capture_logs() as logs:
        talk.service.store_refused(
            talk.facts, context, request, StoreAnswer(status=0xC000, error_comment="without a data set")
        )
    (line,) = talk.requests
    assert (line.status, line.outcome, line.message_id) == (0xC000, "refused", 4)
    assert (line.error_comment, line.sop_class_uid, line.sop_instance_uid) == (
        "without a data set",
        "",
        "9" * 64,
    )
    (entry,) = logs
    assert (entry["status"], entry["why"], entry["log_level"]) == ("C000H", "without a data set", "warning")


# What ends before its answer


def test_an_unfinished_instance_is_given_up_and_noted(archive: Archive) -> None:
    talk = Conversation(archive)
    answers: SimpleQueue[StoreAnswer] = SimpleQueue()
    operation = talk.begin(make_instance(1), answers)
    operation.write(memoryview(make_instance(1).data)[:300], None)
    operation.flush()
    operation.abort("the peer closed the connection")
    operation.abort("again")
    (line,) = talk.requests
    assert (line.status, line.outcome, line.error_comment) == (None, "lost", "the peer closed the connection")
    assert (line.data_set_length, line.receipt_id) == (300, "")
    archive.intake.stop()
    assert answers.empty()
    assert instances(archive) == []
    assert depot_leftovers(archive) == []


# Logs and ledger


def test_no_log_line_and_no_answer_tells_of_the_patient(archive: Archive) -> None:
    named = with_elements(make_instance(1), (0x00100010, b"PN", PATIENT), (0x00100020, b"LO", PATIENT))
    talk = Conversation(archive)
    with capture_logs() as logs:
        answers = [
            talk.send(named),
            talk.send(named, affected_sop_instance_uid="1.9"),
            talk.send(replace(named, data=named.data[:-100])),
            talk.send(with_elements(named, (0x0020000D, b"UI", None))),
        ]
        settle(archive)
    assert [answer.status for answer in answers] == [0, 0xA900, 0xC000, 0xC000]
    assert PATIENT.decode() not in repr(logs) + repr(answers) + repr(talk.requests)
    refused = [line for line in logs if line.get("what") == "an instance was refused"]
    assert [line["status"] for line in refused] == ["A900H", "C000H", "C000H"]
    assert {line["log_level"] for line in refused} == {"warning"}
    assert all(line["why"] and line["association"] == talk.facts.association_id for line in refused)


def association_request(*abstract_syntaxes: str, **more: Any) -> AssociateRQ:
    """Return a request for associations that proposes these."""
    said: dict[str, Any] = {
        "called_ae_title": "STOWKEEPER",
        "calling_ae_title": "SCANNER",
        "presentation_contexts": tuple(
            ProposedContext(
                context_id=2 * number + 1, abstract_syntax=uid, transfer_syntaxes=(EXPLICIT_VR_LITTLE_ENDIAN,)
            )
            for number, uid in enumerate(abstract_syntaxes)
        ),
        "user_information": UserInformation(
            maximum_length=16384, implementation_class_uid="1.2.3", implementation_version_name="TEST"
        ),
    }
    return AssociateRQ(**(said | more))


# Who may associate


def results(decision: Accepted | Rejected) -> list[int]:
    assert isinstance(decision, Accepted), decision
    contexts: tuple[ContextResult, ...] = decision.response.presentation_contexts
    return [context.result for context in contexts]


def rejection(decision: Accepted | Rejected) -> tuple[int, int, int]:
    assert isinstance(decision, Rejected)
    assert decision.words
    answer = decision.rejection
    return answer.result, answer.source, answer.reason


def test_as_shipped_everybody_may_store(archive: Archive) -> None:
    talk = Conversation(archive)
    assert results(
        talk.service.negotiate(association_request(CT_IMAGE_STORAGE, VERIFICATION), talk.facts)
    ) == [0, 0]


@pytest.mark.parametrize(
    ("address", "is_let_in"),
    [("192.0.2.17", True), ("192.0.3.1", False), ("2001:db8::5", True), ("", False), ("somewhere", False)],
)
def test_addresses_may_be_limited(archive: Archive, address: str, is_let_in: bool) -> None:
    rules = replace(RULES, networks=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")))
    talk = Conversation(archive, rules, peer_address=address)
    decision = talk.service.negotiate(association_request(CT_IMAGE_STORAGE), talk.facts)
    assert isinstance(decision, Accepted) is is_let_in
    if not is_let_in:
        assert rejection(decision) == (1, 1, 3)


def test_peers_may_have_to_be_known(archive: Archive) -> None:
    rules = replace(RULES, knows_peer=lambda title, address: (title, address) == ("SCANNER", "192.0.2.17"))
    talk = Conversation(archive, rules)
    assert results(talk.service.negotiate(association_request(CT_IMAGE_STORAGE), talk.facts)) == [0]
    stranger = association_request(CT_IMAGE_STORAGE, calling_ae_title="OTHER")
    assert rejection(talk.service.negotiate(stranger, talk.facts)) == (1, 1, 3)


def test_ae_titles_may_be_checked(archive: Archive) -> None:
    policy = replace(
        RULES.acceptance, called_ae_titles=frozenset({"STOWKEEPER"}), calling_ae_titles=frozenset({"SCANNER"})
    )
    talk = Conversation(archive, replace(RULES, acceptance=policy))
    decide = talk.service.negotiate
    assert results(decide(association_request(CT_IMAGE_STORAGE), talk.facts)) == [0]
    other = association_request(CT_IMAGE_STORAGE, called_ae_title="OTHER")
    assert rejection(decide(other, talk.facts)) == (1, 1, 7)
    other = association_request(CT_IMAGE_STORAGE, calling_ae_title="OTHER")
    assert rejection(decide(other, talk.facts)) == (1, 1, 3)


def test_rules_can_be_replaced_while_associations_go_on(archive: Archive) -> None:
    talk = Conversation(archive)
    asked = association_request(CT_IMAGE_STORAGE)
    assert results(talk.service.negotiate(asked, talk.facts)) == [0]
    talk.service.rules = replace(RULES, knows_peer=lambda _title, _address: False)
    assert rejection(talk.service.negotiate(asked, talk.facts)) == (1, 1, 3)
    assert talk.send(make_instance(1)).status == 0
