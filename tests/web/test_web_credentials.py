"""Credentials as rows: names, secrets, hashes, and the book that remembers what was verified."""

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from sqlalchemy import Connection

from stowkeeper.archive.audit import list_audit
from stowkeeper.database.engine import Database
from stowkeeper.web import credentials
from stowkeeper.web.credentials import (
    Credential,
    CredentialBook,
    CredentialError,
    CredentialExistsError,
    CredentialKind,
    CredentialNotFoundError,
    CredentialsFullError,
    Presented,
    add_credential,
    credentials_exist,
    find_credential,
    hash_secret,
    list_credentials,
    make_credential,
    matches,
    presented,
    remove_credential,
)
from stowkeeper.web.limits import CREDENTIALS_FRESH_SECONDS, VERIFIED_SECONDS
from stowkeeper.web.roles import Role
from support.catalog_rows import open_database

PASSWORD = "correct horse battery"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    return open_database(tmp_path, sync=False)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def add(database: Database, name: str, role: Role = Role.READ, *, password: str | None = None) -> str:
    """Add a credential; return its secret."""
    new = make_credential(name, role, password=password)
    with database.write() as transaction:
        add_credential(transaction, new, who="a test")
    return new.secret


@pytest.mark.slow
def test_a_token_is_named_random_and_kept_as_a_hash(database: Database) -> None:
    first, second = add(database, "monitor"), add(database, "other", Role.ADMIN)
    prefix, name, secret = first.split(".")
    assert (prefix, name) == ("stowkeeper", "monitor")
    assert len(base64.urlsafe_b64decode(secret + "=")) == 32
    assert secret != second.split(".")[2]
    with database.read() as connection:
        kept = list_credentials(connection)
    assert [(one.name, one.kind, one.role, one.created_by) for one in kept] == [
        ("monitor", CredentialKind.TOKEN, Role.READ, "a test"),
        ("other", CredentialKind.TOKEN, Role.ADMIN, "a test"),
    ]
    assert secret not in str(kept)
    assert kept[0].secret_hash.startswith("scrypt$16384$8$1$")
    assert secret.encode() not in Path(database.path).read_bytes()


def test_adding_and_removing_are_in_the_audit_trail_without_secrets(database: Database) -> None:
    secret = add(database, "monitor", Role.OPERATE)
    with database.write() as transaction:
        remove_credential(transaction, "monitor", who="someone")
    with database.read() as connection:
        assert not credentials_exist(connection)
        entries = list_audit(connection)
    assert [(entry.who, entry.action, entry.subject) for entry in entries] == [
        ("someone", "credential removed", "monitor"),
        ("a test", "credential added", "monitor"),
    ]
    assert entries[1].detail == "token, role operate, may store"
    assert secret.split(".")[2] not in str(entries)


@pytest.mark.slow
@pytest.mark.parametrize("password", [None, PASSWORD])
def test_to_store_is_permitted_apart_from_the_role(database: Database, password: str | None) -> None:
    by_role = {role: make_credential("x", role, password=password).may_store for role in Role}
    assert by_role == {"none": False, "read": False, "operate": True, "admin": True}
    for role in Role:
        for may_store in (False, True):
            new = make_credential(f"{role}-{may_store}", role, may_store=may_store, password=password)
            with database.write() as transaction:
                add_credential(transaction, new, who="a test")
                found = find_credential(transaction.connection, new.name)
                (noted, *_) = list_audit(transaction.connection)
            assert found is not None
            assert (found.role, found.may_store) == (role, may_store)
            assert noted.detail.endswith("may store" if may_store else "may not store")


@pytest.mark.slow
def test_a_name_is_taken_once(database: Database) -> None:
    add(database, "monitor")
    with pytest.raises(CredentialExistsError, match="monitor"):
        add(database, "monitor", Role.ADMIN)
    with database.read() as connection:
        found = find_credential(connection, "monitor")
    assert found is not None
    assert found.role is Role.READ
    with pytest.raises(CredentialNotFoundError), database.write() as transaction:
        remove_credential(transaction, "nobody", who="a test")


@pytest.mark.slow
def test_there_is_a_bound_on_their_number(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "CREDENTIALS_MAX", 2)
    add(database, "a")
    add(database, "b")
    with pytest.raises(CredentialsFullError):
        add(database, "c")


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a:b", "ä", "x" * 65, "a\n", "١"])
def test_names_that_would_not_fit_are_refused(name: str) -> None:
    with pytest.raises(CredentialError):
        make_credential(name, Role.READ)
    assert make_credential("x" * 64, Role.READ).name


@pytest.mark.parametrize("password", ["", "short", "x" * 11, "x" * 257, "ä" * 200])
def test_passwords_have_bounds(password: str) -> None:
    with pytest.raises(CredentialError):
        make_credential("joe", Role.READ, password=password)


@pytest.mark.slow
def test_hashes_fit_their_secret_alone() -> None:
    one, two = hash_secret(PASSWORD), hash_secret(PASSWORD)
    assert one != two
    assert matches(PASSWORD, one)
    assert matches(PASSWORD, two)
    assert not matches(PASSWORD + "x", one)
    assert not matches("", one)


@pytest.mark.parametrize(
    "kept",
    [
        "",
        "plain",
        "scrypt$16384$8$1$!!$!!",
        "scrypt$3$8$1$AAAA$AAAA",
        "scrypt$x$8$1$AAAA$AAAA",
        "scrypt$1048576$1024$16$AAAA$AAAA",
        "argon2$16384$8$1$AAAA$AAAA",
    ],
)
def test_a_hash_that_somebody_wrote_fits_nothing(kept: str) -> None:
    assert not matches(PASSWORD, kept)


def test_what_is_presented_is_read() -> None:
    token = Presented(kind=CredentialKind.TOKEN, name="a-b_c", secret="xyz")
    assert presented("Bearer stowkeeper.a-b_c.xyz") == token
    assert presented("bearer   stowkeeper.a-b_c.xyz ") == token
    joe = base64.b64encode(b"joe:a:b c").decode()
    assert presented(f"BASIC {joe}") == Presented(kind=CredentialKind.PASSWORD, name="joe", secret="a:b c")
    umlaut = base64.b64encode("joe:ä".encode()).decode()
    assert presented(f"Basic {umlaut}") == Presented(kind=CredentialKind.PASSWORD, name="joe", secret="ä")
    for wrong in (
        "",
        "Bearer",
        "Bearer other.a.b",
        "Bearer stowkeeper.a",
        "Basic",
        "Basic =",
        "Basic Ojpq",
        "Basic am9l",
    ):
        assert presented(wrong) is None, wrong


# The book


@pytest.mark.slow
def test_the_book_reads_the_rows_once_a_second(database: Database) -> None:
    clock = Clock()
    book = CredentialBook(database, clock=clock)
    assert not book.is_fresh()
    assert book.all() == {}
    add(database, "monitor")
    assert book.is_fresh()
    assert book.all() == {}
    clock.now += CREDENTIALS_FRESH_SECONDS
    assert not book.is_fresh()
    assert set(book.all()) == {"monitor"}
    add(database, "other")
    book.forget()
    assert set(book.all()) == {"monitor", "other"}


def test_what_was_read_before_a_change_is_not_taken_for_what_is_there_after_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, "monitor")
    book = CredentialBook(database)
    reads = []

    def read_early(connection: Connection) -> list[Credential]:
        found = list_credentials(connection)
        if not reads:
            with database.write() as transaction:
                remove_credential(transaction, "monitor", who="a test")
            book.forget()
        reads.append(found)
        return found

    monkeypatch.setattr(credentials, "list_credentials", read_early)
    assert book.all() == {}
    assert [len(found) for found in reads] == [1, 0]


@pytest.mark.slow
def test_a_look_that_takes_longer_than_its_answer_is_fresh_is_taken_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(database, "monitor")
    clock = Clock()
    book = CredentialBook(database, clock=clock)
    looks = []

    def look_slowly(connection: Connection) -> list[Credential]:
        looks.append(clock.now)
        assert len(looks) == 1
        clock.now += 2 * CREDENTIALS_FRESH_SECONDS
        return list_credentials(connection)

    monkeypatch.setattr(credentials, "list_credentials", look_slowly)
    assert set(book.all()) == {"monitor"}
    assert not book.is_fresh()


def test_what_was_verified_is_remembered_for_a_while(database: Database) -> None:
    clock = Clock()
    given = presented(f"Bearer {add(database, 'monitor')}")
    assert given is not None
    book = CredentialBook(database, clock=clock)
    book.all()
    assert book.remembered(given) is None
    verified = book.verify(given)
    assert verified is not None
    assert verified.name == "monitor"
    assert book.remembered(given) == verified
    wrong = Presented(kind=given.kind, name=given.name, secret=given.secret + "x")
    assert book.remembered(wrong) is None
    assert book.verify(wrong) is None
    assert book.remembered(wrong) is None
    clock.now += VERIFIED_SECONDS
    assert book.remembered(given) is None


@pytest.mark.slow
def test_a_changed_row_is_verified_anew(database: Database) -> None:
    given = presented(f"Bearer {add(database, 'monitor')}")
    assert given is not None
    book = CredentialBook(database)
    book.all()
    assert book.verify(given) is not None
    with database.write() as transaction:
        remove_credential(transaction, "monitor", who="a test")
    book.forget()
    book.all()
    assert book.remembered(given) is None
    assert book.verify(given) is None
    add(database, "monitor", Role.ADMIN)
    book.forget()
    book.all()
    assert book.remembered(given) is None
    assert book.verify(given) is None


def test_a_name_that_is_unknown_takes_as_long(database: Database) -> None:
    book = CredentialBook(database)
    book.all()
    given = Presented(kind=CredentialKind.PASSWORD, name="nobody", secret=PASSWORD)
    with patch.object(hashlib, "scrypt", wraps=hashlib.scrypt) as scrypt:
        assert book.verify(given) is None
    assert scrypt.call_count == 1


@pytest.mark.slow
def test_what_is_remembered_is_bounded_and_holds_no_secret(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credentials, "VERIFIED_MAX", 2)
    book = CredentialBook(database)
    given = [presented(f"Bearer {add(database, name)}") for name in ("a", "b", "c")]
    book.all()
    for one in given:
        assert one is not None
        assert book.verify(one) is not None
    assert [book.remembered(one) is not None for one in given if one] == [False, True, True]
    kept = repr(book._verified)
    assert not any(one.secret in kept for one in given if one)
