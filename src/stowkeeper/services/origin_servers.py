"""Origin servers (PS3.18 §3.7): DICOMweb servers that instances of the archive are stored to, as the settings define them."""

from dataclasses import dataclass

from stowkeeper.net.tls_errors import TLSFault, TLSSetupError
from stowkeeper.services.limits import ORIGIN_SERVER_PARALLEL, ORIGIN_SERVER_SECONDS
from stowkeeper.services.stow_client.address import StoreAddress
from stowkeeper.services.stow_client.credentials import (
    Credential,
    CredentialError,
    basic,
    bearer,
    read_secret,
)
from stowkeeper.services.stow_client.limits import BATCH_BYTES, BATCH_INSTANCES
from stowkeeper.services.stow_client.options import Destination
from stowkeeper.services.stow_client.trust import client_context


class OriginServerError(Exception):
    """An origin server cannot be called as it is defined; the text says why, and holds no credential."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginServer:
    """Where to post, as whom, whom to trust, and how.

    The credential is in files, `token_file` or `password_file` with `user`, which are read anew for each run of a job: tokens
    are renewed. `instances` and `bytes_max` bound a request, `parallel` their number at once; `seconds` is how long the server
    may stand still. `certificate` is ours, for a server that asks for one, its private key in `key` or the same
    file. Without TLS a credential goes to another machine only where `is_exposure_allowed`.
    """

    name: str
    address: StoreAddress
    token_file: str = ""
    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    certificate: str = ""
    key: str = ""
    is_exposure_allowed: bool = False
    instances: int = BATCH_INSTANCES
    bytes_max: int = BATCH_BYTES
    parallel: int = ORIGIN_SERVER_PARALLEL
    seconds: float = ORIGIN_SERVER_SECONDS

    @property
    def lane(self) -> str:
        """The lane in which everything that calls the server waits for its turn."""
        return f"web:{self.name}"


def open_destination(server: OriginServer) -> Destination:
    """Read the files that an origin server needs, and return where to post. Blocks. Raises OriginServerError."""
    credential = _credential_of(server)
    if credential is not None and not (server.address.keeps_secrets or server.is_exposure_allowed):
        raise OriginServerError(
            f"{server.address.url} is called without TLS, so the {credential.kind} could be read on the way"
        )
    context = None
    if server.address.scheme == "https":
        try:
            context = client_context(server.ca_file or None, certificate=server.certificate, key=server.key)
        except TLSSetupError as error:
            raise OriginServerError(f"{_key_of(server, error)}: {str(error).removesuffix('.')}") from error
    return Destination(
        address=server.address,
        credential=credential,
        context=context,
        credential_hint="give token_file, or user and password_file, in its [[origin_servers]] table",
    )


def _key_of(server: OriginServer, error: TLSSetupError) -> str:
    """Return the setting that named what cannot be used."""
    if error.fault is TLSFault.TRUST:
        return "ca_file"
    return "certificate" if error.fault is TLSFault.CERTIFICATE or not server.key else "key"


def _credential_of(server: OriginServer) -> Credential | None:
    path = server.token_file or server.password_file
    if not path:
        return None
    key = "token_file" if server.token_file else "password_file"
    try:
        secret = read_secret(path)
        return bearer(secret) if server.token_file else basic(server.user, secret)
    except OSError as error:
        words = error.strerror or type(error).__name__
        raise OriginServerError(f"{key}: {path} cannot be read: {words}") from error
    except CredentialError as error:
        raise OriginServerError(f"{key}: {path} cannot be used: {error}") from None
