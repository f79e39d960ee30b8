"""The tests leave neither folders nor open files behind."""

import os
import tempfile
from pathlib import Path

import pytest

from support.catalog_rows import _template, closing_databases, open_database


def test_the_template_of_a_catalog_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert _template.__wrapped__().startswith(b"SQLite format 3\0")
    assert os.listdir(tmp_path) == []


def test_a_database_that_a_test_does_not_close_is_closed_after_it(tmp_path: Path) -> None:
    with closing_databases():
        left, closed = open_database(tmp_path), open_database(tmp_path)
        closed.close()
    with pytest.raises(RuntimeError, match="was closed"), left.read():
        pass
