"""Storage commitment with pynetdicom on the other side, ten thousand instances each way, on one association and on two."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.dicom.commitment_information import (
    ActionInformation,
    EventInformation,
    FailedReference,
    Reference,
    decode_action_information,
    decode_event_information,
    encode_action_information,
    encode_event_information,
)
from stowkeeper.dicom.limits import REFERENCES_MAX
from stowkeeper.dimse.message_types import NActionRequest, NEventReportRequest, Request, Response
from stowkeeper.net.client import ClientAssociation, association_request
from stowkeeper.upperlayer.items import ProposedContext, RoleSelection
from stowkeeper.upperlayer.negotiation import AcceptedContext
from support import pynetdicom_commitment
from support.client_calls import EXPLICIT_LITTLE, IMPLICIT_LITTLE, running_on, until
from support.commitment_messages import PUSH_MODEL, PUSH_MODEL_INSTANCE
from support.processes import Program, free_port, running
from support.server_thread import SERVED_BY, ServerThread, serving
from support.taking_handlers import Taken, TakingHandlers

pytestmark = [pytest.mark.slow, pytest.mark.peer("pynetdicom")]

SCRIPT = str(Path(pynetdicom_commitment.__file__))
COUNT = 10_000
REFERENCES = tuple(
    Reference(pynetdicom_commitment.CT_IMAGE_STORAGE, pynetdicom_commitment.instance_uid(number))
    for number in range(COUNT)
)
LAST_UID = REFERENCES[-1].sop_instance_uid


class Provider(TakingHandlers):
    """Answers a request and reports on the same association, as a storage commitment provider does."""

    def __init__(self, failed: int) -> None:
        super().__init__()
        self.failed = failed
        self.server: ServerThread | None = None
        self.requests: list[ActionInformation] = []
        self.responses: list[Response | None] = []

    def other_message(self, *arguments: Any) -> Response | None:
        response = super().other_message(*arguments)
        taken = self.taken[-1]
        assert isinstance(taken.message, NActionRequest)
        request = decode_action_information(taken.data_set, taken.context.transfer_syntax)
        self.requests.append(request)
        self.report(taken, request)
        return response

    def report(self, taken: Taken, request: ActionInformation) -> None:
        assert self.server is not None
        kept = request.references[self.failed :]
        refused = tuple(FailedReference(reference, 0x0112) for reference in request.references[: self.failed])
        information = EventInformation(request.transaction_uid, kept, refused)
        self.server.server.invoke(
            taken.facts.association_id,
            PUSH_MODEL,
            event_report(2 if refused else 1),
            lambda syntax: encode_event_information(information, syntax),
            self.responses.append,
        )


def event_report(event_type: int) -> NEventReportRequest:
    return NEventReportRequest(
        message_id=0,
        affected_sop_class_uid=PUSH_MODEL,
        affected_sop_instance_uid=PUSH_MODEL_INSTANCE,
        event_type_id=event_type,
    )


@pytest.mark.parametrize(
    ("served_by", "syntax", "roles", "agreed"),
    [
        ("asyncio", "explicit", ["scu"], [True, False]),
        ("uvloop", "implicit", [], [True, False]),
        ("threads", "explicit", ["both"], [True, True]),
    ],
)
def test_pynetdicom_asks_and_is_told_on_the_same_association(
    served_by: str, syntax: str, roles: list[str], agreed: list[bool]
) -> None:
    handlers = Provider(failed=3)
    with serving(handlers, served_by) as server:
        handlers.server = server
        arguments = ["ask", "127.0.0.1", str(server.port), str(COUNT), syntax, *roles]
        run = subprocess.run(
            [sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert run.returncode == 0, run.stderr
        outcome = json.loads(run.stdout)
        assert handlers.requests == [ActionInformation("2.25.7", REFERENCES)]
        assert (outcome["status"], outcome["released"], outcome["roles"]) == (0, True, agreed)
        assert outcome["report"] == {
            "event_type": 2,
            "transaction_uid": "2.25.7",
            "committed": COUNT - 3,
            "last": LAST_UID,
            "failed": [0x0112] * 3,
        }
        server.wait_until_empty()
        (response,) = handlers.responses
        assert response is not None
        assert response.status == 0
        assert handlers.closed[0].end == "released"


# The other way round


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[tuple[Program, int]]:
    port = free_port()
    argv = [sys.executable, SCRIPT, "serve", str(port)]
    with running("pynetdicom", argv, log=tmp_path / "pynetdicom.log") as program:
        program.wait_until_listening(port)
        yield program, port


def printed(program: Program) -> list[Any]:
    return [json.loads(line) for line in program.log_text().splitlines() if line.startswith("{")]


def associate(port: int, handler: Any = None, roles: tuple[RoleSelection, ...] = ()) -> Any:
    context = ProposedContext(
        context_id=1, abstract_syntax=PUSH_MODEL, transfer_syntaxes=(EXPLICIT_LITTLE, IMPLICIT_LITTLE)
    )
    request = association_request(
        called_ae_title="PYNETDICOM", calling_ae_title="STOWKEEPER", contexts=[context], roles=roles
    )
    return ClientAssociation.open("127.0.0.1", port, request, handler=handler)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_pynetdicom_is_asked_and_tells_on_the_same_association(
    provider: tuple[Program, int], loop: str
) -> None:
    program, port = provider
    reports: list[EventInformation] = []

    async def handler(context: AcceptedContext, request: Request, data_set: bytes) -> Response:
        reports.append(decode_event_information(data_set, context.transfer_syntax))
        return request.respond(0)

    async def work() -> None:
        async with await associate(port, handler) as association:
            request = NActionRequest(
                message_id=0,
                requested_sop_class_uid=PUSH_MODEL,
                requested_sop_instance_uid=PUSH_MODEL_INSTANCE,
                action_type_id=1,
            )
            syntax = association.contexts[1].transfer_syntax
            data_set = encode_action_information(ActionInformation("2.25.8", REFERENCES), syntax)
            answer = await association.invoke(1, request, data_set)
            assert answer.response.status == 0
            await until(lambda: bool(printed(program)))

    with running_on(loop) as run:
        run(work())
    assert reports == [EventInformation("2.25.8", REFERENCES, ())]
    assert printed(program) == [{"reported": COUNT, "status": 0}]


@pytest.mark.parametrize(("scu", "scp"), [(False, True), (True, True)])
def test_pynetdicom_is_told_on_an_association_of_ours(
    provider: tuple[Program, int], scu: bool, scp: bool
) -> None:
    program, port = provider
    role = RoleSelection(sop_class_uid=PUSH_MODEL, scu_role=scu, scp_role=scp)

    async def work() -> None:
        async with await associate(port, roles=(role,)) as association:
            (context,) = association.contexts.values()
            assert (context.requestor_roles.scu, context.requestor_roles.scp) == (scu, scp)
            information = EventInformation("2.25.9", REFERENCES, ())
            data_set = encode_event_information(information, context.transfer_syntax)
            answer = await association.invoke(context.context_id, event_report(1), data_set)
            assert answer.response.status == 0

    with running_on("uvloop") as run:
        run(work())
    (report,) = printed(program)
    assert (report["event_type"], report["committed"], report["last"]) == (1, COUNT, LAST_UID)


# Ourselves on both sides


@pytest.mark.parametrize(
    ("served_by", "count"), [*((each, COUNT) for each in SERVED_BY), ("uvloop", REFERENCES_MAX)]
)
def test_our_own_requestor_is_told_on_its_association(served_by: str, count: int) -> None:
    references = tuple(
        Reference(pynetdicom_commitment.CT_IMAGE_STORAGE, pynetdicom_commitment.instance_uid(number))
        for number in range(count)
    )
    reports: list[EventInformation] = []

    async def handler(context: AcceptedContext, request: Request, data_set: bytes) -> Response:
        reports.append(decode_event_information(data_set, context.transfer_syntax))
        return request.respond(0x0112)

    handlers = Provider(failed=0)
    with serving(handlers, served_by) as server:
        handlers.server = server

        async def work() -> None:
            async with await associate(server.port, handler) as association:
                request = NActionRequest(
                    message_id=0,
                    requested_sop_class_uid=PUSH_MODEL,
                    requested_sop_instance_uid=PUSH_MODEL_INSTANCE,
                    action_type_id=1,
                )
                information = ActionInformation("2.25.8", references)
                data_set = encode_action_information(information, EXPLICIT_LITTLE)
                answer = await association.invoke(1, request, data_set)
                assert answer.response.status == 0
                await until(lambda: bool(handlers.responses))

        with running_on("uvloop") as run:
            run(work())
        assert reports == [EventInformation("2.25.8", references, ())]
        (response,) = handlers.responses
        assert response is not None
        assert response.status == 0x0112
