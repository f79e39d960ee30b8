"""The corpus of the PDU fuzzer, replayed, and a short walk of its own around it."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples

FUZZ = Path(__file__).parents[2] / "fuzz"
CORPUS = sorted((FUZZ / "corpus" / "pdu").iterdir())


def load():
    specification = importlib.util.spec_from_file_location("fuzz_pdu", FUZZ / "fuzz_pdu.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


fuzz_pdu = load()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus_holds(path):
    fuzz_pdu.target(path.read_bytes())


def test_the_corpus_is_there_for_every_situation():
    assert len(CORPUS) >= 30
    assert {path.read_bytes()[0] for path in CORPUS} >= set(range(len(fuzz_pdu.SITUATIONS)))


@settings(max_examples=examples(100))
@given(st.sampled_from(CORPUS), st.data())
def test_damaged_streams_hold(path, data):
    stream = bytearray(path.read_bytes()[:400])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(stream)))
        stream[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    fuzz_pdu.target(bytes(stream))
