"""Values of the variable items of A-ASSOCIATE-RQ and -AC: presentation contexts and user information.

PS3.8 §9.3.2 and §9.3.3, PS3.7 §D.3.3. UIDs are text without padding. What a peer sent is kept as it came, however
odd; what to think of it is decided in `negotiation`.

Secrets: of a received user identity only the type, a user name, lengths and the wish for a response exist here.
Passcode, Kerberos ticket, SAML assertion and JSON web token are dropped where they are decoded.
"""

from dataclasses import dataclass
from enum import IntEnum

from stowkeeper.dicom.transfer_syntaxes import IMPLICIT_VR_LITTLE_ENDIAN
from stowkeeper.upperlayer.reasons import PresentationResult, words


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedContext:
    """One presentation context of an A-ASSOCIATE-RQ (PS3.8 §9.3.2.2).

    The id should be odd; even ones are met and are echoed. `abstract_syntax` is empty and `transfer_syntaxes`
    may be empty when the peer left them out.
    """

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextResult:
    """The answer to one proposed context in an A-ASSOCIATE-AC (PS3.8 §9.3.3.2).

    `result` is a `PresentationResult`, or what else the peer sent. The transfer syntax means nothing unless the
    context is accepted, but the item has to hold one.
    """

    context_id: int
    result: int
    transfer_syntax: str = IMPLICIT_VR_LITTLE_ENDIAN

    @property
    def is_accepted(self) -> bool:
        """Whether messages may be sent in this context."""
        return self.result == PresentationResult.ACCEPTANCE

    @property
    def words(self) -> str:
        """The result in words."""
        return words(PresentationResult, self.result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """Which roles a side takes in a context."""

    scu: bool
    scp: bool


REQUESTOR_ROLES_DEFAULT = Roles(scu=True, scp=False)
"""What the association requestor is when nobody says otherwise (PS3.7 §D.3.3.4)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleSelection:
    """The roles of the association *requestor* for one SOP class: proposed in the RQ, allowed in the AC.

    PS3.7 §D.3.3.4.
    """

    sop_class_uid: str
    scu_role: bool
    scp_role: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AsynchronousOperationsWindow:
    """How many operations the requestor has outstanding at one time; 0 is no limit (PS3.7 §D.3.3.3).

    Both numbers keep the requestor's view in the answer too: `invoked` are those that the requestor invokes.
    """

    invoked: int
    performed: int


SYNCHRONOUS = AsynchronousOperationsWindow(invoked=1, performed=1)
"""What holds when no window was agreed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SOPClassExtendedNegotiation:
    """Service class application information for one SOP class (PS3.7 §D.3.3.5); its meaning is the class's own."""

    sop_class_uid: str
    application_information: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SOPClassCommonExtendedNegotiation:
    """Service class and general classes of a SOP class (PS3.7 §D.3.3.6). Proposed only; it has no answer."""

    sop_class_uid: str
    service_class_uid: str
    related_general_sop_class_uids: tuple[str, ...] = ()
    version: int = 0


class UserIdentityType(IntEnum):
    """How a requestor says on whose behalf it calls (PS3.7 §D.3.3.7)."""

    USERNAME = 1
    USERNAME_AND_PASSCODE = 2
    KERBEROS = 3
    SAML = 4
    JWT = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class UserIdentity:
    """A user identity as received, without its secrets (PS3.7 §D.3.3.7.1).

    `primary_name` is the user name of types 1 and 2, None for all others, whose primary field is itself the
    secret. The lengths in bytes tell a log reader what came.
    """

    type: int
    primary_name: str | None
    response_requested: bool
    primary_length: int
    secondary_length: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class OutgoingUserIdentity:
    """A user identity to send with our own request. Its `repr` shows neither field."""

    type: UserIdentityType
    primary: bytes
    secondary: bytes = b""
    response_requested: bool = False

    def __repr__(self) -> str:
        return (
            f"OutgoingUserIdentity(type={self.type!r}, primary=<{len(self.primary)} bytes>,"
            f" secondary=<{len(self.secondary)} bytes>, response_requested={self.response_requested})"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UserIdentityResponse:
    """The acceptor took the user identity (PS3.7 §D.3.3.7.2).

    A ticket or assertion in it is a secret and is dropped; only its length in bytes is known. Ours is empty.
    """

    server_response_length: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UserInformation:
    """The user information item of an A-ASSOCIATE-RQ or -AC (PS3.8 §9.3.2.3, PS3.7 §D.3.3).

    None or an empty tuple stands for a sub-item that is not there. `maximum_length` is the sender's, in bytes:
    the longest P-DATA-TF it takes, 0 for no limit.
    """

    maximum_length: int | None = None
    implementation_class_uid: str | None = None
    implementation_version_name: str | None = None
    operations_window: AsynchronousOperationsWindow | None = None
    role_selections: tuple[RoleSelection, ...] = ()
    extended_negotiations: tuple[SOPClassExtendedNegotiation, ...] = ()
    common_extended_negotiations: tuple[SOPClassCommonExtendedNegotiation, ...] = ()
    user_identity: UserIdentity | OutgoingUserIdentity | None = None
    user_identity_response: UserIdentityResponse | None = None
