"""Who asks, and what that one may.

There are roles, each of which may what the one before may. To store by HTTP is permitted apart from them: what sends instances
has no need to see those of others, and who looks at them has none to send any.
"""

from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from starlette.types import Scope

PRINCIPAL = "stowkeeper.principal"
"""Key of a request's scope: who asks."""

WITHOUT_CREDENTIAL = "without credential"
"""Who asks where no credential was set up, for the audit trail."""


class Role(StrEnum):
    """What a credential is for."""

    NONE = "none"
    """Nothing but what is permitted apart. No route asks for it alone."""

    READ = "read"
    """See everything: lists, receipts, instances."""

    OPERATE = "operate"
    """Change what is done and what is kept: send to peers, verify, remove what nobody holds, jobs, commitments."""

    ADMIN = "admin"
    """Change who may what: peers, credentials, and overriding holds."""

    def includes(self, other: "Role") -> bool:
        """Tell whether this role may what another may."""
        return _ORDER.index(self) >= _ORDER.index(other)

    @property
    def stores_by_default(self) -> bool:
        """Tell whether a new credential of this role may store by HTTP, where nobody says."""
        return self.includes(Role.OPERATE)


_ORDER = tuple(Role)


class Audience(Enum):
    """Whom a route serves without asking who it is."""

    EVERYBODY = "everybody"


EVERYBODY: Final = Audience.EVERYBODY
"""Whoever asks, without a credential: written out, so that no route serves everybody for lack of a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks. `name` is that of the credential, '' where none is needed. `may_store`: by HTTP, whatever the role."""

    name: str
    role: Role
    may_store: bool

    @property
    def who(self) -> str:
        """The name for the audit trail, for jobs and for rows that say by whom they were changed."""
        return self.name or WITHOUT_CREDENTIAL


def principal_of(scope: Scope) -> Principal | None:
    """Return who asks; None on the routes that anybody may use."""
    found: Principal | None = scope.get(PRINCIPAL)
    return found
