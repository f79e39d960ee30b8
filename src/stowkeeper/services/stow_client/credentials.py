"""The credential of a request: a bearer token (RFC 6750) or a user with a password (RFC 7617). Neither is ever shown."""

import base64
import re
from dataclasses import dataclass, field
from typing import Final

from stowkeeper.services.stow_client.address import StoreAddress
from stowkeeper.services.stow_client.limits import CREDENTIAL_BYTES_MAX

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")


class CredentialError(Exception):
    """A credential cannot be used; the text says why without repeating it."""


class ExposedCredentialError(CredentialError):
    """A credential would go over the network in the clear."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """What the Authorization field says. `kind` is for people; `secrets` is what no line may show of it, in any form."""

    kind: str
    value: str = field(repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)

    def hidden_in(self, words: str) -> str:
        """Return words without the secrets: some servers repeat what they were asked, and with what."""
        for secret in self.secrets:
            words = words.replace(secret, "…")
        return words


def bearer(token: str) -> Credential:
    """Return the credential of a token, blanks around it left out. Raises CredentialError."""
    stripped = token.strip()
    if not stripped:
        raise CredentialError("the token is empty")
    if len(stripped) > CREDENTIAL_BYTES_MAX or not _TOKEN.fullmatch(stripped):
        raise CredentialError("that is no bearer token: it is one line of letters, digits and -._~+/=")
    return Credential(kind="bearer token", value=f"Bearer {stripped}", secrets=(stripped,))


def basic(user: str, password: str) -> Credential:
    """Return the credential of a user with a password, in UTF-8. Raises CredentialError."""
    if not user or ":" in user:
        raise CredentialError("a user has a name, and no colon in it")
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in user + password):
        raise CredentialError("a user name or a password has no control characters")
    pair = base64.b64encode(f"{user}:{password}".encode("utf-8", "surrogateescape")).decode()
    secrets = (pair, password) if password else (pair,)
    return Credential(kind="user name and password", value=f"Basic {pair}", secrets=secrets)


def read_secret(path: str) -> str:
    """Return the first line of a file. Raises CredentialError, and OSError."""
    with open(path, "rb") as stream:
        line = stream.readline(CREDENTIAL_BYTES_MAX + 1)
    if len(line) > CREDENTIAL_BYTES_MAX:
        raise CredentialError(f"the first line of {path} is longer than {CREDENTIAL_BYTES_MAX} bytes")
    return line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")


def check_exposure(credential: Credential, address: StoreAddress, *, allowed: bool) -> None:
    """Raise ExposedCredentialError where a credential would go in the clear to another machine, unless `allowed`."""
    if not address.keeps_secrets and not allowed:
        raise ExposedCredentialError(
            f"{address.url} is called without TLS, so the {credential.kind} could be read on the way: call https://, or"
            " say --insecure-http where the network is your own"
        )
