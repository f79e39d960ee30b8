"""One memory of compiled statements for all databases of the test process; in the product each database has its own.

Nearly every test has databases of its own, all of one schema, and a third of its processor time went into the compiling of
the same statements.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.util import LRUCache

_STATEMENTS_MAX = 2000
_statements: LRUCache[Any, Any] = LRUCache(_STATEMENTS_MAX)


def share_compiled_statements() -> None:
    """Let what one engine compiled serve every engine that is made from now on.

    A statement is found again by itself and by its dialect, so dialects of one class are made equal: the product makes
    all of them alike.
    """
    SQLiteDialect_pysqlite.__hash__ = _hash_of_class  # type: ignore[method-assign]  # see above
    SQLiteDialect_pysqlite.__eq__ = _is_of_same_class  # type: ignore[method-assign]  # see above
    make: Callable[..., None] = Engine.__init__

    def make_sharing(engine: Engine, *values: Any, **options: Any) -> None:
        make(engine, *values, **options)
        engine._compiled_cache = _statements

    Engine.__init__ = make_sharing  # type: ignore[method-assign]  # see above


def _hash_of_class(dialect: object) -> int:
    return hash(type(dialect))


def _is_of_same_class(dialect: object, other: object) -> bool:
    return type(dialect) is type(other)
