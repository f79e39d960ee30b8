"""Who asks, and what that one may: three roles, each of which may what the one before may."""

from dataclasses import dataclass
from enum import StrEnum

from starlette.types import Scope

PRINCIPAL = "stowkeeper.principal"
"""Key of a request's scope: who asks."""

WITHOUT_CREDENTIAL = "without credential"
"""Who asks where no credential was set up, for the audit trail."""


class Role(StrEnum):
    """What a credential is for."""

    READ = "read"
    """See everything: lists, receipts, instances."""

    OPERATE = "operate"
    """Change what is done and what is kept: send, verify, remove what nobody holds, jobs, commitments."""

    ADMIN = "admin"
    """Change who may what: peers, credentials, and overriding holds."""

    def includes(self, other: "Role") -> bool:
        """Tell whether this role may what another may."""
        return _ORDER.index(self) >= _ORDER.index(other)


_ORDER = tuple(Role)


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks. `name` is that of the credential, '' where none is needed."""

    name: str
    role: Role

    @property
    def who(self) -> str:
        """The name for the audit trail, for jobs and for rows that say by whom they were changed."""
        return self.name or WITHOUT_CREDENTIAL


def principal_of(scope: Scope) -> Principal | None:
    """Return who asks; None on the routes that anybody may use."""
    found: Principal | None = scope.get(PRINCIPAL)
    return found
