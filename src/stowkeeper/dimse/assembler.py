"""From PDVs to messages: the receiving half of PS3.8 Annex E, one assembler an association.

A command's fragments are collected, within a bound, and become one `MessageStarted`. Those of its data set are passed
on as they come, without a copy, until the one that ends it. The rules of PS3.8 §E.1 are kept: all fragments of a
message have the same presentation context, and messages are not interleaved. Any breach is a `PeerError`, and the
assembler is of no use after it.

Taken as legal: several messages in one P-DATA-TF, a data set closed by an empty fragment, fragments of odd length.
"""

from collections.abc import Container
from typing import NamedTuple

from stowkeeper.dimse.command_set import decode_command_set
from stowkeeper.dimse.errors import PeerError
from stowkeeper.dimse.limits import COMMAND_SET_LENGTH_MAX
from stowkeeper.dimse.message_types import CStoreRequest
from stowkeeper.dimse.messages import Message, parse_message
from stowkeeper.dimse.store_request_pattern import StoreRequestPattern
from stowkeeper.upperlayer.events import PDVFragment


class MessageStarted(NamedTuple):
    """A command set is complete. Without a data set the message is complete too."""

    context_id: int
    message: Message

    @property
    def has_data_set(self) -> bool:
        """Whether `DataSetFragment` events follow, up to one that is the last."""
        return self.message.has_data_set


class DataSetFragment(NamedTuple):
    """The next bytes of the data set of the message that started last; `view` may be empty when `is_last` is True.

    `ends` tells that they are the last of their PDV.

    `view` is the memory that was received into: use or copy it before that is reused.
    """

    view: memoryview
    ends: bool
    is_last: bool


class MessageAssembler:
    """Makes messages of the PDV fragments of one association, given in the order of their arrival.

    `accepted_contexts` holds the ids of the accepted presentation contexts and is asked at every command.
    """

    __slots__ = (
        "_accepted_contexts",
        "_command",
        "_command_context",
        "_data_set_context",
        "_failure",
        "_store_pattern",
    )

    def __init__(self, accepted_contexts: Container[int]) -> None:
        self._accepted_contexts = accepted_contexts
        self._command = bytearray()
        self._command_context: int | None = None
        self._data_set_context: int | None = None
        self._failure: str | None = None
        self._store_pattern: StoreRequestPattern | None = None

    @property
    def is_between_messages(self) -> bool:
        """Whether no message is half received, so that nothing is lost when the association ends here."""
        return self._command_context is None and self._data_set_context is None

    def receive(self, fragment: PDVFragment) -> MessageStarted | DataSetFragment | None:
        """Take the next piece of a PDV and return what it completes or carries, None when it does neither.

        Raises:
            PeerError: a breach of PS3.8 Annex E or of PS3.7 in the command set. The same error comes at every call
                after it.

        """
        if fragment.context_id != self._data_set_context or fragment.is_command:
            return self._receive_command(fragment)
        view = fragment.data
        if fragment.is_last and fragment.ends:
            self._data_set_context = None
            return DataSetFragment(view, True, True)  # noqa: FBT003 - by name it takes twice as long, for every PDV
        return DataSetFragment(view, fragment.ends, False) if view else None  # noqa: FBT003 - likewise

    def _receive_command(self, fragment: PDVFragment) -> MessageStarted | None:
        context_id = fragment.context_id
        self._require_command_allowed(fragment)
        self._command_context = context_id
        length = len(self._command) + len(fragment.data)
        if length > COMMAND_SET_LENGTH_MAX:
            raise self._fail(
                f"Command set on presentation context {context_id} has {length} bytes and goes on, "
                f"{COMMAND_SET_LENGTH_MAX} are taken"
            )
        if not (fragment.is_last and fragment.ends):
            self._command += fragment.data
            return None
        try:
            message = self._parse(fragment.data)
        except PeerError as error:
            raise self._fail(str(error)) from None
        self._command_context = None
        if message.has_data_set:
            self._data_set_context = context_id
        return MessageStarted(context_id=context_id, message=message)

    def _parse(self, last_piece: memoryview) -> Message:
        encoded = bytes(last_piece)
        if self._command:
            encoded = bytes(self._command) + encoded
            self._command = bytearray()
        pattern = self._store_pattern
        alike = None if pattern is None else pattern.read(encoded)
        if alike is not None:
            return alike
        message = parse_message(decode_command_set(encoded))
        if isinstance(message, CStoreRequest):
            self._store_pattern = StoreRequestPattern.of(encoded, message)
        return message

    def _require_command_allowed(self, fragment: PDVFragment) -> None:
        """Raise the breach that this fragment is, if it is anything but part of a command that may come now."""
        context_id = fragment.context_id
        if self._failure is not None:
            raise PeerError(self._failure)
        if self._data_set_context is not None:
            what = "Command" if fragment.is_command else "Data set"
            raise self._fail(
                f"{what} fragment on presentation context {context_id} before the data set on context "
                f"{self._data_set_context} had ended (PS3.8 §E.1)"
            )
        if self._command_context is not None and not (
            fragment.is_command and context_id == self._command_context
        ):
            what = "Command" if fragment.is_command else "Data set"
            raise self._fail(
                f"{what} fragment on presentation context {context_id} before the command on context "
                f"{self._command_context} had ended (PS3.8 §E.1)"
            )
        if context_id not in self._accepted_contexts:
            raise self._fail(
                f"Fragment on presentation context {context_id}, which was not accepted (PS3.8 §9.3.5.1)"
            )
        if not fragment.is_command:
            raise self._fail(
                f"Data set fragment on presentation context {context_id} without a command that announces a data set "
                "(PS3.7 §6.3.1)"
            )

    def _fail(self, text: str) -> PeerError:
        """Remember the breach, so that every later fragment meets it, and let go of what was collected."""
        self._failure = text
        self._command = bytearray()
        self._data_set_context = None
        self._command_context = None
        return PeerError(text)
