"""The corpus of the storage commitment fuzzer, replayed, and a short walk of its own around it."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples

FUZZ = Path(__file__).parents[2] / "fuzz"
CORPUS = sorted((FUZZ / "corpus" / "commitment").iterdir())


def load():
    specification = importlib.util.spec_from_file_location("fuzz_commitment", FUZZ / "fuzz_commitment.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


fuzz_commitment = load()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus_holds(path):
    fuzz_commitment.target(path.read_bytes())


def test_the_corpus_has_what_is_taken_and_what_is_not():
    decode, encode = fuzz_commitment.decode_event_information, fuzz_commitment.encode_event_information
    syntaxes = fuzz_commitment.COMMITMENT_TRANSFER_SYNTAXES
    read = [
        fuzz_commitment.check(data[1:], syntaxes[data[0]], decode, encode)
        for data in (path.read_bytes() for path in CORPUS)
    ]
    assert len([report for report in read if report is not None]) >= 10
    assert read.count(None) >= 8


@pytest.mark.slow
@settings(max_examples=examples(200), deadline=None)
@given(st.sampled_from(CORPUS), st.data())
def test_damaged_requests_hold(path, data):
    content = bytearray(path.read_bytes()[:2000])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    fuzz_commitment.target(bytes(content))
