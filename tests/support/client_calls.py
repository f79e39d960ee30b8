"""Calls of the product's requestor to a scripted acceptor, on both event loops."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from stowkeeper.dicom.uid import VERIFICATION
from stowkeeper.dimse.message_types import CStoreRequest
from stowkeeper.net.client import DEFAULT_TIMEOUTS, ClientAssociation, RequestHandler, association_request
from stowkeeper.net.client_connection import ClientTimeouts
from stowkeeper.upperlayer.items import ProposedContext
from support.scripted_acceptor import Acceptor
from support.server_thread import LOOPS

CT = "1.2.840.10008.5.1.4.1.1.2"
COMMITMENT = "1.2.840.10008.1.20.1"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"
STORE_CONTEXT, ECHO_CONTEXT = 1, 3
SOON = ClientTimeouts(connect_seconds=5, association_seconds=0.3, progress_seconds=0.3, release_seconds=0.3)
WAIT_SECONDS = 30.0

Result = TypeVar("Result")
Run = Callable[[Coroutine[Any, Any, Result]], Result]


@contextlib.contextmanager
def running_on(loop: str) -> Iterator[Run[Any]]:
    """Give what runs a coroutine on an event loop, and fail when anything reached that unhandled."""
    faults: list[dict[str, Any]] = []
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.get_loop().set_exception_handler(lambda _loop, context: faults.append(context))

        def within_limit(work: Coroutine[Any, Any, Any]) -> Any:
            async def limited() -> Any:
                async with asyncio.timeout(WAIT_SECONDS):
                    return await work

            return runner.run(limited())

        yield within_limit
    assert faults == []


async def connect(
    acceptor: Acceptor,
    *,
    window: int = 1,
    timeouts: ClientTimeouts = DEFAULT_TIMEOUTS,
    handler: RequestHandler | None = None,
    abstract_syntax: str = CT,
) -> ClientAssociation:
    """Open an association that proposes one class and Verification."""
    contexts = [
        ProposedContext(
            context_id=STORE_CONTEXT, abstract_syntax=abstract_syntax, transfer_syntaxes=(EXPLICIT_LITTLE,)
        ),
        ProposedContext(
            context_id=ECHO_CONTEXT, abstract_syntax=VERIFICATION, transfer_syntaxes=(IMPLICIT_LITTLE,)
        ),
    ]
    request = association_request(
        called_ae_title="PEER", calling_ae_title="STOWKEEPER", contexts=contexts, operations_window=window
    )
    return await ClientAssociation.open("127.0.0.1", acceptor.port, request, timeouts, handler)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something holds."""
    while not condition():  # noqa: ASYNC110 - what is awaited is any state of the product, or of the acceptor's threads
        await asyncio.sleep(0.001)


def store_request(number: int = 1) -> CStoreRequest:
    """Return the request for instance 1.2.3.<number>."""
    return CStoreRequest(message_id=0, affected_sop_class_uid=CT, affected_sop_instance_uid=f"1.2.3.{number}")


async def pieces(*some: bytes) -> AsyncIterator[bytes]:
    """Give a data set in pieces."""
    for piece in some:
        yield piece
