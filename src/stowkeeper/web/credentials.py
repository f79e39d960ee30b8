"""Credentials: who may use HTTP, by a bearer token or by name and password, in rows of the archive's database.

A secret is kept as a salted scrypt hash (RFC 7914) and shown once, when it is made. A token carries the name of its
credential, so that one hash is computed and not one for each row:

    stowkeeper.NAME.SECRET

It is sent as `Authorization: Bearer TOKEN`; a password with its name as basic authentication (RFC 7617).
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Connection, RowMapping, delete, insert, select

from stowkeeper.archive import audit
from stowkeeper.database import schema
from stowkeeper.database.engine import Database, Transaction
from stowkeeper.web.limits import (
    CREDENTIAL_NAME_LETTERS_MAX,
    CREDENTIALS_FRESH_SECONDS,
    CREDENTIALS_MAX,
    DIGEST_BYTES,
    PASSWORD_BYTES_MAX,
    PASSWORD_LETTERS_MIN,
    SALT_BYTES,
    SCRYPT_BLOCK_SIZE,
    SCRYPT_COST,
    SCRYPT_MEMORY_MAX,
    SCRYPT_PARALLELIZATION,
    SECRET_BYTES,
    VERIFIED_MAX,
    VERIFIED_SECONDS,
)
from stowkeeper.web.roles import Role

TOKEN_PREFIX = "stowkeeper"  # noqa: S105 - it is what every token begins with, and no secret

NAME_PATTERN = rf"^[A-Za-z0-9_-]{{1,{CREDENTIAL_NAME_LETTERS_MAX}}}$"
"""What a credential may be called: it stands in tokens, addresses and log lines."""

_NAME = re.compile(NAME_PATTERN.removesuffix("$") + r"\Z", re.ASCII)
_rows = schema.credentials


class CredentialKind(StrEnum):
    """How a credential is presented."""

    TOKEN = "token"  # noqa: S105 - the name of a kind
    PASSWORD = "password"  # noqa: S105 - the name of a kind


class CredentialError(ValueError):
    """A credential cannot be added or removed as asked; the text says why and what to do."""


class CredentialExistsError(CredentialError):
    """There is a credential of this name already."""


class CredentialsFullError(CredentialError):
    """There are as many credentials as there may be."""


class CredentialNotFoundError(CredentialError):
    """There is no credential of this name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A row of the table, without its secret. `may_store`: by HTTP, whatever the role. `created_at` is UTC in ISO 8601."""

    name: str
    kind: CredentialKind
    role: Role
    may_store: bool
    secret_hash: str
    created_at: str
    created_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Presented:
    """What a request presents: the name of a credential, and its secret."""

    kind: CredentialKind
    name: str
    secret: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCredential:
    """A credential that is to be added. `secret` is shown once, to whoever asked for it: a token, or the password given."""

    name: str
    kind: CredentialKind
    role: Role
    may_store: bool
    secret_hash: str
    secret: str


def make_credential(
    name: str, role: Role, *, may_store: bool | None = None, password: str | None = None
) -> NewCredential:
    """Make a credential: a token, unless there is a password. Takes some 50 ms, so not within a transaction.

    `may_store` None: as the role has it by default. Raises CredentialError where name or password do not fit.
    """
    if not _NAME.match(name):
        raise CredentialError(
            f"a credential is named by up to {CREDENTIAL_NAME_LETTERS_MAX} letters, digits, - and _: choose another name"
        )
    stores = role.stores_by_default if may_store is None else may_store
    if password is not None:
        return NewCredential(
            name=name,
            kind=CredentialKind.PASSWORD,
            role=role,
            may_store=stores,
            secret_hash=hash_secret(_checked_password(password)),
            secret=password,
        )
    secret = secrets.token_urlsafe(SECRET_BYTES)
    return NewCredential(
        name=name,
        kind=CredentialKind.TOKEN,
        role=role,
        may_store=stores,
        secret_hash=hash_secret(secret),
        secret=f"{TOKEN_PREFIX}.{name}.{secret}",
    )


def add_credential(transaction: Transaction, new: NewCredential, *, who: str) -> None:
    """Add a credential and write it to the audit trail. Raises CredentialError where the name is taken, or there are too many."""
    if find_credential(transaction.connection, new.name) is not None:
        raise CredentialExistsError(
            f"there is a credential {new.name!r} already: remove it first, or take another name"
        )
    if len(list_credentials(transaction.connection)) >= CREDENTIALS_MAX:
        raise CredentialsFullError(
            f"there are {CREDENTIALS_MAX} credentials, and no room for more: remove some"
        )
    transaction.execute(
        insert(_rows),
        {
            "name": new.name,
            "kind": new.kind,
            "role": new.role,
            "may_store": int(new.may_store),
            "secret_hash": new.secret_hash,
            "created_at": transaction.at,
            "created_by": who,
        },
    )
    stores = "may store" if new.may_store else "may not store"
    audit.note(transaction, who, "credential added", new.name, f"{new.kind}, role {new.role}, {stores}")


def remove_credential(transaction: Transaction, name: str, *, who: str) -> None:
    """Remove a credential and write it to the audit trail. Raises CredentialNotFoundError."""
    if find_credential(transaction.connection, name) is None:
        raise CredentialNotFoundError(f"there is no credential {name!r}")
    transaction.execute(delete(_rows).where(_rows.c.name == name))
    audit.note(transaction, who, "credential removed", name, "")


def list_credentials(connection: Connection) -> list[Credential]:
    """Return all credentials, by name."""
    return [_credential(row) for row in connection.execute(select(_rows).order_by(_rows.c.name)).mappings()]


def find_credential(connection: Connection, name: str) -> Credential | None:
    """Return the credential of a name."""
    row = connection.execute(select(_rows).where(_rows.c.name == name)).mappings().first()
    return None if row is None else _credential(row)


def credentials_exist(connection: Connection) -> bool:
    """Tell whether there is any credential: then every request needs one."""
    return connection.execute(select(_rows.c.credential_key).limit(1)).first() is not None


def _credential(values: RowMapping) -> Credential:
    return Credential(
        name=values["name"],
        kind=CredentialKind(values["kind"]),
        role=Role(values["role"]),
        may_store=bool(values["may_store"]),
        secret_hash=values["secret_hash"],
        created_at=values["created_at"],
        created_by=values["created_by"],
    )


def _checked_password(password: str) -> str:
    if len(password) < PASSWORD_LETTERS_MIN or len(password.encode()) > PASSWORD_BYTES_MAX:
        raise CredentialError(
            f"a password has {PASSWORD_LETTERS_MIN} letters at least and {PASSWORD_BYTES_MAX} bytes at most"
        )
    return password


# Hashes


def hash_secret(secret: str) -> str:
    """Return the salted hash of a secret, with all that is needed to check it: scrypt$N$r$p$salt$hash."""
    salt = secrets.token_bytes(SALT_BYTES)
    return _written(salt, _scrypt(secret, salt, SCRYPT_COST, SCRYPT_BLOCK_SIZE, SCRYPT_PARALLELIZATION))


def hash_of_nothing() -> str:
    """Return what takes as long to check as any hash and is that of no secret: random bytes.

    A real one would take 16 MB at every start, the most that an idle server ever had.
    """
    return _written(secrets.token_bytes(SALT_BYTES), secrets.token_bytes(DIGEST_BYTES))


def _written(salt: bytes, digest: bytes) -> str:
    return "$".join(
        (
            "scrypt",
            str(SCRYPT_COST),
            str(SCRYPT_BLOCK_SIZE),
            str(SCRYPT_PARALLELIZATION),
            base64.b64encode(salt).decode(),
            base64.b64encode(digest).decode(),
        )
    )


def matches(secret: str, secret_hash: str) -> bool:
    """Tell whether a secret is the one of a hash. Takes some 50 ms, and as long where it is not."""
    try:
        name, cost, block_size, parallelization, salt, digest = secret_hash.split("$")
        computed = _scrypt(
            secret,
            base64.b64decode(salt, validate=True),
            int(cost),
            int(block_size),
            int(parallelization),
        )
        return name == "scrypt" and hmac.compare_digest(computed, base64.b64decode(digest, validate=True))
    except ValueError:  # a row that somebody wrote by hand
        return False


def _scrypt(secret: str, salt: bytes, cost: int, block_size: int, parallelization: int) -> bytes:
    return hashlib.scrypt(
        secret.encode("utf-8", "surrogatepass"),
        salt=salt,
        n=cost,
        r=block_size,
        p=parallelization,
        maxmem=SCRYPT_MEMORY_MAX,
        dklen=DIGEST_BYTES,
    )


# What a request presents


def presented(authorization: str) -> Presented | None:
    """Read a field Authorization (RFC 6750 §2.1, RFC 7617 §2); None where it is neither form."""
    scheme, _, rest = authorization.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        prefix, _, named = rest.partition(".")
        name, _, secret = named.rpartition(".")
        if prefix != TOKEN_PREFIX or not name or not secret:
            return None
        return Presented(kind=CredentialKind.TOKEN, name=name, secret=secret)
    if scheme.lower() == "basic":
        try:
            decoded = base64.b64decode(rest, validate=True).decode()
        except (binascii.Error, ValueError):
            return None
        name, colon, secret = decoded.partition(":")
        if not colon or not name:
            return None
        return Presented(kind=CredentialKind.PASSWORD, name=name, secret=secret)
    return None


class CredentialBook:
    """The credentials as of a second ago at most, and the secrets that were verified a moment ago. Thread-safe.

    Verified secrets are remembered as hashes with a key of this process, each for the very row it was verified against:
    a changed or removed row is asked anew.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._credentials: dict[str, Credential] = {}
        self._read_at: float | None = None
        self._changes = 0
        self._key = secrets.token_bytes(32)
        self._verified: OrderedDict[bytes, float] = OrderedDict()
        self._stand_in = hash_of_nothing()

    def is_fresh(self) -> bool:
        """Tell whether the credentials can be asked for without reading the database."""
        return self._read_at is not None and self._clock() - self._read_at < CREDENTIALS_FRESH_SECONDS

    def all(self, *, anew: bool = False) -> dict[str, Credential]:
        """Return the credentials by name. May read the database, with `anew` it does; raises DatabaseUnavailable."""
        if not anew and self.is_fresh():
            return self._credentials
        while True:
            changes, now = self._changes, self._clock()
            with self._database.read() as connection:
                found = {credential.name: credential for credential in list_credentials(connection)}
            with self._lock:
                if changes == self._changes:  # else what was read may be older than the change
                    self._credentials, self._read_at = found, now
                    return found

    def last_known(self) -> dict[str, Credential] | None:
        """Return the credentials as they were read last, however long ago; None where they never were."""
        return None if self._read_at is None else self._credentials

    def forget(self) -> None:
        """Read the credentials anew at the next request, and in one that reads them now: they were changed here."""
        with self._lock:
            self._changes += 1
            self._read_at = None

    def remembered(self, given: Presented) -> Credential | None:
        """Return the credential whose secret was verified a moment ago, of those that `all` gave last; never waits."""
        credential = self._credential_for(given)
        if credential is None:
            return None
        with self._lock:
            until = self._verified.get(self._mark(given, credential))
        return credential if until is not None and self._clock() < until else None

    def verify(self, given: Presented) -> Credential | None:
        """Return the credential that a request presents, None where the secret is wrong. Takes some 50 ms, always."""
        credential = self._credential_for(given)
        if not matches(given.secret, credential.secret_hash if credential else self._stand_in):
            return None
        if credential is None:
            return None
        with self._lock:
            self._verified[self._mark(given, credential)] = self._clock() + VERIFIED_SECONDS
            while len(self._verified) > VERIFIED_MAX:
                self._verified.popitem(last=False)
        return credential

    def _credential_for(self, given: Presented) -> Credential | None:
        credential = self._credentials.get(given.name)
        return credential if credential is not None and credential.kind is given.kind else None

    def _mark(self, given: Presented, credential: Credential) -> bytes:
        """Return the keyed hash of a secret and of the row that it belongs to.

        How long it takes to find one tells nothing: who does not know the key cannot choose what begins alike.
        """
        said = "\0".join((given.name, credential.secret_hash, credential.role, given.secret))
        return hmac.digest(self._key, said.encode("utf-8", "surrogatepass"), "sha256")
