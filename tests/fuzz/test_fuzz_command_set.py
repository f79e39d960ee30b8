"""The corpus of the command set fuzzer, replayed, and a short walk of its own around it."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples

FUZZ = Path(__file__).parents[2] / "fuzz"
CORPUS = sorted((FUZZ / "corpus" / "command_set").iterdir())


def load_target():
    specification = importlib.util.spec_from_file_location("fuzz_command_set", FUZZ / "fuzz_command_set.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.target


target = load_target()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus_holds(path):
    target(path.read_bytes())


def test_the_corpus_is_there():
    assert len(CORPUS) >= 20


@pytest.mark.slow
@settings(max_examples=examples(200))
@given(st.sampled_from(CORPUS), st.data())
def test_damaged_commands_hold(path, data):
    command = bytearray(path.read_bytes()[:400])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(command)))
        command[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    target(bytes(command))
