"""The corpora of the header and Part 10 fuzzers, replayed, and a short walk around each."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples

FUZZ = Path(__file__).parents[2] / "fuzz"
NAMES = ("header", "part10")


def load_target(name):
    specification = importlib.util.spec_from_file_location(f"fuzz_{name}", FUZZ / f"fuzz_{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.target


TARGETS = {name: load_target(name) for name in NAMES}
CORPUS = [path for name in NAMES for path in sorted((FUZZ / "corpus" / name).iterdir())]


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_corpus_holds(path):
    TARGETS[path.parent.name](path.read_bytes())


def test_the_corpora_are_there():
    for name in NAMES:
        assert len([path for path in CORPUS if path.parent.name == name]) >= 20


@pytest.mark.slow
@settings(max_examples=examples(150), deadline=None)
@given(st.sampled_from(CORPUS), st.data())
def test_damaged_inputs_hold(path, data):
    content = bytearray(path.read_bytes()[:2000])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    TARGETS[path.parent.name](bytes(content))
