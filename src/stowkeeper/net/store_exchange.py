"""A C-STORE between its command and its answer, as the association sees it."""

from stowkeeper.dimse.message_types import CStoreRequest, CStoreResponse
from stowkeeper.net.handlers import StoreAnswer, StoreOperation


class StoreExchange:
    """One C-STORE between its command and its answer."""

    __slots__ = ("context_id", "operation", "request")

    def __init__(self, context_id: int, request: CStoreRequest) -> None:
        self.context_id = context_id
        self.request = request
        self.operation: StoreOperation | None = None

    def response(self, answer: StoreAnswer) -> CStoreResponse:
        """Return the C-STORE-RSP that says an answer."""
        return self.request.respond(
            answer.status,
            error_comment=answer.error_comment or None,
            offending_elements=answer.offending_elements,
        )

    def operation_abort(self, words: str) -> None:
        """Tell the operation that its answer will not be sent."""
        operation, self.operation = self.operation, None
        if operation is not None:
            operation.abort(words)
