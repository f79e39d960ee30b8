"""A C-STORE between its command and its answer, as the association sees it."""

from stowkeeper.dimse.message_types import CStoreRequest
from stowkeeper.dimse.messages import encode, encode_store_response
from stowkeeper.net.handlers import StoreAnswer, StoreOperation


class StoreExchange:
    """One C-STORE between its command and its answer."""

    __slots__ = ("context_id", "operation", "request")

    def __init__(self, context_id: int, request: CStoreRequest) -> None:
        self.context_id = context_id
        self.request = request
        self.operation: StoreOperation | None = None

    def encode_response(self, answer: StoreAnswer) -> bytes:
        """Return the C-STORE-RSP that says an answer, encoded."""
        if not answer.error_comment and not answer.offending_elements:
            return encode_store_response(self.request, answer.status)
        return encode(
            self.request.respond(
                answer.status,
                error_comment=answer.error_comment or None,
                offending_elements=answer.offending_elements,
            )
        )

    def operation_abort(self, words: str) -> None:
        """Tell the operation that its answer will not be sent."""
        operation, self.operation = self.operation, None
        if operation is not None:
            operation.abort(words)
