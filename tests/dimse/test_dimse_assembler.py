"""PDV fragments to messages: any split gives the same messages, and every breach of PS3.8 Annex E is named."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stowkeeper.dimse.assembler import DataSetFragment, MessageAssembler, MessageStarted
from stowkeeper.dimse.command_set import encode_element
from stowkeeper.dimse.errors import PeerError
from stowkeeper.dimse.limits import COMMAND_SET_LENGTH_MAX
from stowkeeper.dimse.messages import CEchoRequest, CStoreRequest, UnknownRequest, encode
from stowkeeper.upperlayer.events import PDVFragment
from support.examples import examples

ECHO = CEchoRequest(message_id=1, affected_sop_class_uid="1.2.840.10008.1.1")
STORE = CStoreRequest(
    message_id=2,
    has_data_set=True,
    affected_sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
    affected_sop_instance_uid="1.2.3",
)
MOVED = dataclasses.replace(STORE, move_originator_ae_title="MOVER", move_originator_message_id=9)
FIND = UnknownRequest(command_field=0x0020, message_id=3, affected_sop_class_uid="1.2.3", has_data_set=True)


def fragment(data=b"", *, command=False, context=1, starts=True, ends=True, last=True):
    return PDVFragment(
        context_id=context, is_command=command, data=memoryview(data), starts=starts, ends=ends, is_last=last
    )


def command(message, context=1, **kind):
    return fragment(encode(message), command=True, context=context, **kind)


def assembler():
    return MessageAssembler({1, 3})


class Cutter:
    """Cuts bytes into PDVs and PDVs into pieces, as Hypothesis draws them, with empty ones between."""

    def __init__(self, draw):
        self.draw = draw

    def cut(self, data):
        places = sorted(self.draw(st.lists(st.integers(0, len(data)), max_size=4)))
        return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]

    def fragments(self, data, *, command, context):
        pdvs = self.cut(data)
        for number, pdv in enumerate(pdvs, 1):
            pieces = self.cut(pdv)
            for place, piece in enumerate(pieces, 1):
                yield fragment(
                    piece,
                    command=command,
                    context=context,
                    starts=place == 1,
                    ends=place == len(pieces),
                    last=number == len(pdvs),
                )


@pytest.mark.slow
@settings(max_examples=examples(80))
@given(
    st.lists(
        st.tuples(
            st.sampled_from([ECHO, STORE, MOVED, FIND]), st.sampled_from([1, 3]), st.binary(max_size=30)
        ),
        max_size=4,
    ),
    st.data(),
)
def test_any_split_gives_the_same_messages(sent, data):
    cutter = Cutter(data.draw)
    receiver = assembler()
    received = []
    for message, context, data_set in sent:
        pieces = list(cutter.fragments(encode(message), command=True, context=context))
        if message.has_data_set:
            pieces += cutter.fragments(data_set, command=False, context=context)
        for piece in pieces:
            match receiver.receive(piece):
                case MessageStarted() as started:
                    received.append([started.message, started.context_id, b"", not started.has_data_set])
                case DataSetFragment(view=view, is_last=is_last):
                    assert not received[-1][3]
                    received[-1][2] += bytes(view)
                    received[-1][3] = is_last
        assert receiver.is_between_messages

    assert received == [
        [message, context, data_set if message.has_data_set else b"", True]
        for message, context, data_set in sent
    ]


def test_a_message_without_a_data_set_is_complete_with_its_command():
    receiver = assembler()

    event = receiver.receive(command(ECHO))

    assert event == MessageStarted(context_id=1, message=ECHO)
    assert not event.has_data_set
    assert receiver.is_between_messages


def test_data_set_fragments_pass_as_views_of_the_very_memory_that_was_received():
    receiver = assembler()
    assert receiver.receive(command(STORE)).has_data_set
    memory = bytearray(b"abcd")

    event = receiver.receive(fragment(memory, last=False))
    memory[:] = b"wxyz"

    assert bytes(event.view) == b"wxyz"
    assert event.view.obj is memory


def test_the_last_fragment_is_the_end_of_the_last_pdv_and_no_earlier_piece_of_it():
    receiver = assembler()
    receiver.receive(command(STORE))

    events = [
        receiver.receive(fragment(b"ab", ends=True, last=False)),
        receiver.receive(fragment(b"cd", ends=False, last=True)),
        receiver.receive(fragment(b"", starts=False, ends=False, last=True)),
        receiver.receive(fragment(b"ef", starts=False, ends=True, last=True)),
    ]

    assert [event and event.is_last for event in events] == [False, False, None, True]
    assert receiver.is_between_messages


@pytest.mark.parametrize("before", [[], [b"ab"]], ids=["empty data set", "closed by an empty PDV"])
def test_an_empty_last_fragment_ends_a_data_set(before):
    receiver = assembler()
    receiver.receive(command(STORE))
    for data in before:
        receiver.receive(fragment(data, last=False))

    event = receiver.receive(fragment(b""))

    assert event == DataSetFragment(view=memoryview(b""), ends=True, is_last=True)
    assert receiver.is_between_messages


def test_a_half_received_message_is_seen():
    receiver = assembler()
    encoded = encode(STORE)
    assert receiver.is_between_messages
    receiver.receive(fragment(encoded[:10], command=True, last=False))
    assert not receiver.is_between_messages
    receiver.receive(fragment(encoded[10:], command=True))
    assert not receiver.is_between_messages
    receiver.receive(fragment(b"ab"))
    assert receiver.is_between_messages


def test_nothing_of_one_command_is_left_in_the_next():
    receiver = assembler()
    for message in (MOVED, STORE):
        encoded = encode(message)
        assert receiver.receive(fragment(encoded[:10], command=True, last=False)) is None
        assert receiver.receive(fragment(encoded[10:], command=True)).message == message
        receiver.receive(fragment(b"ab"))


def test_accepted_contexts_are_asked_at_every_command():
    accepted = set()
    receiver = MessageAssembler(accepted)
    accepted.add(5)

    assert receiver.receive(command(ECHO, context=5)) == MessageStarted(context_id=5, message=ECHO)


half_command = fragment(encode(STORE)[:10], command=True, last=False)
breaches = {
    "data set without a command": ([fragment(b"ab")], "on presentation context 1 without a command"),
    "data set after a message that said none": (
        [command(ECHO), fragment(b"ab")],
        "without a command that announces a data set",
    ),
    "second data set": (
        [command(STORE), fragment(b"ab"), fragment(b"cd")],
        "without a command that announces",
    ),
    "command within a data set": (
        [command(STORE), fragment(b"ab", last=False), command(ECHO)],
        "Command fragment on presentation context 1 before the data set on context 1 had ended",
    ),
    "command in place of a data set": ([command(STORE), command(STORE)], "before the data set on context 1"),
    "another context within a data set": (
        [command(STORE), fragment(b"ab", last=False), fragment(b"cd", context=3)],
        "Data set fragment on presentation context 3 before the data set on context 1 had ended",
    ),
    "another context within a command": (
        [half_command, fragment(encode(STORE)[10:], command=True, context=3)],
        "Command fragment on presentation context 3 before the command on context 1 had ended",
    ),
    "data set within a command": (
        [half_command, fragment(b"ab")],
        "before the command on context 1 had ended",
    ),
    "data set of another message within a command": (
        [half_command, fragment(b"ab", context=3)],
        "Data set fragment on presentation context 3 before the command",
    ),
    "command on a context not accepted": ([command(ECHO, context=7)], "context 7, which was not accepted"),
    "data set on a context not accepted": ([fragment(b"ab", context=7)], "context 7, which was not accepted"),
    "data set on context 0": ([fragment(b"ab", context=0)], "context 0, which was not accepted"),
    "empty command": ([fragment(b"", command=True)], r"without a Command Field \(0000,0100\)"),
    "truncated command": ([fragment(encode(ECHO)[:-1], command=True)], "says it has 2 bytes, 1 are left"),
    "command ends early in a later PDV": (
        [half_command, fragment(b"", command=True)],
        "says it has 4 bytes, 2 are left",
    ),
    "too long a command at once": (
        [fragment(bytes(COMMAND_SET_LENGTH_MAX + 2), command=True)],
        "has 65538 bytes and goes on, 65536 are taken",
    ),
}


@pytest.mark.parametrize(("fragments", "words"), breaches.values(), ids=breaches)
def test_a_breach_is_named_and_ends_the_assembler(fragments, words):
    receiver = assembler()
    for piece in fragments[:-1]:
        receiver.receive(piece)

    with pytest.raises(PeerError, match=words):
        receiver.receive(fragments[-1])
    for later in (command(ECHO), fragment(b"ab"), fragment(b"ab", context=0)):
        with pytest.raises(PeerError, match=words):
            receiver.receive(later)


def test_a_command_that_never_ends_is_stopped_before_memory_grows():
    receiver = assembler()
    piece = fragment(bytes(4096), command=True, ends=False, last=False)
    for _ in range(COMMAND_SET_LENGTH_MAX // 4096):
        assert receiver.receive(piece) is None

    with pytest.raises(PeerError, match="has 69632 bytes and goes on"):
        receiver.receive(piece)


def test_the_longest_command_is_taken_in_many_pieces():
    # One unknown element fills what the request leaves of the bound.
    request = encode(ECHO)
    filler = encode_element(0x7000, bytes(COMMAND_SET_LENGTH_MAX - len(request) - 8))
    encoded = request + filler
    receiver = assembler()
    events = [
        receiver.receive(
            fragment(encoded[start : start + 999], command=True, last=start + 999 >= len(encoded))
        )
        for start in range(0, len(encoded), 999)
    ]

    assert len(encoded) == COMMAND_SET_LENGTH_MAX
    assert events[:-1] == [None] * (len(events) - 1)
    assert events[-1] == MessageStarted(context_id=1, message=ECHO)
