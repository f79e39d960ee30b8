"""The ledger's lines of associations: what is known of one when it opens and when it ends, small and bounded.

A line may wait long while the catalog cannot be written, and an association request may be a megabyte in memory: so
a line is made at once, and holds nothing of the request but what it tells.
"""

from stowkeeper.archive.ledger import AssociationRecord, encode_contexts
from stowkeeper.archive.receipt import timestamp
from stowkeeper.dicom.sop_classes import SOP_CLASSES
from stowkeeper.dicom.uid import UID_LENGTH_MAX
from stowkeeper.net.handlers import AssociationFacts
from stowkeeper.services.limits import (
    CONTEXTS_PER_ASSOCIATION_MAX,
    LEDGER_WORDS_LETTERS_MAX,
    REFUSED_SYNTAXES_LOGGED_MAX,
    USER_NAME_LETTERS_MAX,
    VERSION_NAME_LETTERS_MAX,
)
from stowkeeper.upperlayer.items import ContextResult, UserIdentity, UserInformation
from stowkeeper.upperlayer.pdu import AssociateRQ

_NOTHING_SAID = UserInformation()


def bounded_uid(uid: str | None) -> str:
    """Cut what a peer calls a UID, which may be as long as a PDU, to what a line of the ledger holds."""
    return (uid or "")[:UID_LENGTH_MAX]


def opened_line(facts: AssociationFacts, receiver: str) -> AssociationRecord:
    """Return the line of an association that was accepted just now, with its presentation contexts."""
    return _line(facts, receiver, contexts=_contexts(facts.request, facts.results))


def closed_line(facts: AssociationFacts, receiver: str) -> AssociationRecord:
    """Return the line of an association that ended; the ledger has its contexts from the beginning."""
    return _line(facts, receiver, contexts="")


def closing_values(facts: AssociationFacts) -> dict[str, object]:
    """Return what the log says of an association that ended: who, from where, what was proposed and what came of it.

    Of a connection in which none was asked for it is where it came from and how it ended.
    """
    ending: dict[str, object] = {
        "messages": facts.messages,
        "bytes": facts.bytes_received,
        "why": facts.words,
    }
    if facts.request is None:
        return {"address": facts.peer_address, **ending}
    nanoseconds = facts.closed_at_nanoseconds - facts.opened_at_nanoseconds
    return {
        "calling": facts.calling_ae_title,
        "called": facts.called_ae_title,
        "address": facts.peer_address,
        "proposed": len(facts.request.presentation_contexts),
        "accepted": facts.contexts_accepted,
        "refused": _refused(facts),
        "instances": facts.stores.kept,
        "instances_refused": facts.stores.refused,
        # A clock that was set back in between tells nothing.
        "seconds": round(max(nanoseconds, 0) / 1e9, 3),
        **ending,
    }


def _refused(facts: AssociationFacts) -> tuple[str, ...]:
    """Name the abstract syntaxes of refused contexts, each once with why, and at the end how many more there are."""
    proposed = _proposed(facts.request)
    refused = dict.fromkeys(
        f"{_syntax_name(proposed.get(result.context_id))} ({result.words})"
        for result in facts.results
        if not result.is_accepted
    )
    names = tuple(refused)
    if len(names) <= REFUSED_SYNTAXES_LOGGED_MAX:
        return names
    shown = names[:REFUSED_SYNTAXES_LOGGED_MAX]
    return (*shown, f"{len(names) - REFUSED_SYNTAXES_LOGGED_MAX} more")


def _syntax_name(uid: str | None) -> str:
    known = SOP_CLASSES.get(uid or "")
    return known.keyword if known is not None and known.keyword else _legible(bounded_uid(uid))


def _line(facts: AssociationFacts, receiver: str, *, contexts: str) -> AssociationRecord:
    information = facts.request.user_information if facts.request is not None else _NOTHING_SAID
    identity = information.user_identity
    received = identity if isinstance(identity, UserIdentity) else None
    return AssociationRecord(
        association_id=facts.association_id,
        opened_at=timestamp(facts.opened_at_nanoseconds),
        closed_at=timestamp(facts.closed_at_nanoseconds) if facts.closed_at_nanoseconds else None,
        receiver=receiver,
        calling_ae_title=facts.calling_ae_title,
        called_ae_title=facts.called_ae_title,
        peer_address=facts.peer_address,
        implementation_class_uid=bounded_uid(information.implementation_class_uid),
        implementation_version_name=(information.implementation_version_name or "")[
            :VERSION_NAME_LETTERS_MAX
        ],
        user_identity_type=received.type if received else None,
        user_identity_name=_user_name(received),
        rejection=facts.rejection,
        contexts_accepted=facts.contexts_accepted,
        contexts_refused=facts.contexts_refused,
        contexts=contexts,
        messages=facts.messages,
        bytes_received=facts.bytes_received,
        ended=facts.end,
        words=facts.words[:LEDGER_WORDS_LETTERS_MAX],
    )


def _user_name(identity: UserIdentity | None) -> str | None:
    """Return the name that a peer calls on behalf of; None for types whose primary field is itself the secret."""
    if identity is None or identity.primary_name is None:
        return None
    return identity.primary_name[:USER_NAME_LETTERS_MAX]


def _legible(uid: str) -> str:
    """Return what a peer calls a UID so that no letter of it takes more than two in JSON."""
    return "".join(letter if " " <= letter <= "~" else "?" for letter in uid)


def _proposed(request: AssociateRQ | None) -> dict[int, str]:
    proposed: dict[int, str] = {}
    for context in request.presentation_contexts if request is not None else ():
        proposed.setdefault(
            context.context_id, context.abstract_syntax
        )  # of an id proposed twice the first counts
    return proposed


def _contexts(request: AssociateRQ | None, results: tuple[ContextResult, ...]) -> str:
    proposed = _proposed(request)
    return encode_contexts(
        (
            result.context_id,
            _legible(bounded_uid(proposed.get(result.context_id))),
            result.result,
            bounded_uid(result.transfer_syntax) if result.is_accepted else "",
        )
        for result in results[:CONTEXTS_PER_ASSOCIATION_MAX]
    )
