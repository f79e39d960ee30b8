"""The corpus of the metadata fuzzer, replayed, and a short walk of its own around it."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples

FUZZ = Path(__file__).parents[2] / "fuzz"
CORPUS = sorted((FUZZ / "corpus" / "metadata").iterdir())


def load():
    specification = importlib.util.spec_from_file_location("fuzz_metadata", FUZZ / "fuzz_metadata.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


fuzz_metadata = load()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus_holds(path):
    fuzz_metadata.target(path.read_bytes())


def test_the_corpus_has_instances_of_both_models_and_errors():
    told = {}
    for path in CORPUS:
        try:
            told[path.name] = len(list(fuzz_metadata.read(path.read_bytes())))
        except fuzz_metadata.MetadataError:
            told[path.name] = 0
    assert told["small.json"] == told["small.xml"] == told["rtplan.json"] == told["rtplan.xml"] == 1
    assert told["two.json"] == 2
    assert told["deep.json"] == told["doctype.xml"] == told["cut.xml"] == 0


@settings(max_examples=examples(100), deadline=None)
@given(st.sampled_from([path for path in CORPUS if path.stat().st_size < 5000]), st.data())
def test_damaged_metadata_hold(path, data):
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    fuzz_metadata.target(bytes(content))
