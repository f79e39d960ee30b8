"""The corpus of the multipart fuzzer, replayed, and a short walk of its own around it."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples

FUZZ = Path(__file__).parents[2] / "fuzz"
CORPUS = sorted((FUZZ / "corpus" / "multipart").iterdir())


def load():
    specification = importlib.util.spec_from_file_location("fuzz_multipart", FUZZ / "fuzz_multipart.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


fuzz_multipart = load()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus_holds(path):
    fuzz_multipart.target(path.read_bytes())


def test_the_corpus_has_bodies_that_end_and_that_do_not():
    inputs = [path.read_bytes().partition(b"\n") for path in CORPUS]
    told = [fuzz_multipart.read(body, boundary.decode(), len(body)) for boundary, _, body in inputs]

    assert len([each for each in told if not each.words]) >= 20
    assert len({each.words for each in told}) >= 5
    assert len({part.defect for each in told for part in each.parts}) >= 5


@pytest.mark.slow
@settings(max_examples=examples(200), deadline=None)
@given(st.sampled_from(CORPUS), st.data())
def test_damaged_bodies_hold(path, data):
    content = bytearray(path.read_bytes()[:2000])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    fuzz_multipart.target(bytes(content))
