"""The corpus of the fuzzer of PROXY headers, replayed, and a short walk of its own around it."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.examples import examples

FUZZ = Path(__file__).parents[2] / "fuzz"
CORPUS = sorted((FUZZ / "corpus" / "proxy_header").iterdir())


def load():
    specification = importlib.util.spec_from_file_location("fuzz_proxy_header", FUZZ / "fuzz_proxy_header.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


fuzz_proxy_header = load()


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_the_corpus_holds(path):
    fuzz_proxy_header.target(path.read_bytes())


def test_the_corpus_has_headers_of_all_kinds_and_what_is_none():
    outcomes = [fuzz_proxy_header.read(path.read_bytes()[1:], 1 << 20) for path in CORPUS]
    headers = [outcome[0] for outcome in outcomes if outcome is not None and outcome[0] is not None]
    assert {(header.version, bool(header.source_address)) for header in headers} == {
        (1, True),
        (1, False),
        (2, True),
        (2, False),
    }
    assert any(header.is_local for header in headers)
    assert len([outcome for outcome in outcomes if outcome is None]) >= 15
    assert len([outcome for outcome in outcomes if outcome is not None and outcome[0] is None]) >= 2


@pytest.mark.slow
@settings(max_examples=examples(200), deadline=None)
@given(st.sampled_from(CORPUS), st.data())
def test_damaged_headers_hold(path, data):
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    fuzz_proxy_header.target(bytes(content))
