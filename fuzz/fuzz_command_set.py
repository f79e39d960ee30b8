"""Command sets from anyone: they decode and parse, or they are the peer's error; what is read can be answered.

The corpus in `corpus/command_set` holds whole command sets as peers send them, and broken ones.
"""

import sys
from collections.abc import Callable
from typing import TypeVar

from stowkeeper.dimse.assembler import MessageAssembler, MessageStarted
from stowkeeper.dimse.command_set import CommandSet, decode_command_set, encode_command_set
from stowkeeper.dimse.errors import LocalError, PeerError
from stowkeeper.dimse.fragmenter import command_pdu
from stowkeeper.dimse.messages import (
    Message,
    Request,
    Response,
    encode,
    parse_message,
    response_to_unknown,
)
from stowkeeper.upperlayer.events import PDVFragment

Given = TypeVar("Given")
Made = TypeVar("Made")


def target(data: bytes) -> None:
    """Raise only on a defect of ours."""
    by_assembler = outcome(assemble, data)
    command = outcome(decode_command_set, data)
    if isinstance(command, str):
        assert isinstance(by_assembler, str)
        return
    check_codec(command)
    message = outcome(parse_message, command)
    assert by_assembler == message
    if not isinstance(message, str):
        check_message(message)


def outcome(read: Callable[[Given], Made], given: Given) -> Made | str:
    """Return what is made of the input, or the words in which the peer is blamed for it."""
    try:
        return read(given)
    except PeerError as error:
        return str(error)


def check_codec(command: CommandSet) -> None:
    try:
        encoded = encode_command_set(command.values)
    except LocalError:
        # Padding and the group length made it longer than the bound.
        return
    again = decode_command_set(encoded).values
    assert list(again) == sorted(command.values)
    for element, value in command.values.items():
        assert again[element][: len(value)] == value
        assert len(again[element]) == len(value) + len(value) % 2


def check_message(message: Message) -> None:
    """What was read is written the same, unless it cannot be written at all; a request can always be answered."""
    try:
        encoded = encode(message)
    except LocalError:
        pass
    else:
        assert parse_message(decode_command_set(encoded)) == message
    assert message.expects_response == isinstance(message, Request)
    if isinstance(message, Request):
        answer = parse_message(decode_command_set(response_to_unknown(message)))
        assert isinstance(answer, Response)
        assert (answer.responds_to, answer.status) == (message.message_id, 0x0211)
        assert len(command_pdu(1, encode(answer), 64)) > len(encode(answer))


def assemble(data: bytes) -> Message:
    """Return what the assembler makes of the data in two PDVs of two pieces each."""
    assembler = MessageAssembler({1})
    middle = len(data) // 2
    event: object = None
    for half, is_last in ((data[:middle], False), (data[middle:], True)):
        place = len(half) // 3
        for piece, starts in ((half[:place], True), (half[place:], False)):
            event = assembler.receive(
                PDVFragment(
                    context_id=1,
                    is_command=True,
                    data=memoryview(piece),
                    starts=starts,
                    ends=not starts,
                    is_last=is_last,
                )
            )
    assert isinstance(event, MessageStarted)
    return event.message


def main() -> None:
    try:
        import atheris  # noqa: PLC0415 - the corpus is replayed without it
    except ImportError:
        sys.exit("This fuzzer needs atheris: pip install atheris")
    atheris.instrument_all()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
