"""The request of storage commitment on the wire, as user: the presentation context, the N-ACTION, and its answer.

No role is proposed: the requestor of an association is user of the class without saying so (PS3.7 §D.3.3.4), and a report
comes from the provider, so it may come in the same association. Peers are known that answer a role item wrongly, and none
that needs it here.
"""

from collections.abc import Sequence
from typing import Final

from stowkeeper.dicom.commitment_information import (
    REQUEST_STORAGE_COMMITMENT,
    ActionInformation,
    Reference,
    encode_action_information,
)
from stowkeeper.dicom.transfer_syntaxes import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from stowkeeper.dicom.uid import STORAGE_COMMITMENT_PUSH_MODEL, STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE
from stowkeeper.dimse.message_types import NActionRequest, Response
from stowkeeper.net.association_errors import AssociationError
from stowkeeper.net.client import ClientAssociation
from stowkeeper.upperlayer.items import ProposedContext

PUSH_MODEL_CONTEXTS: Final = (
    ProposedContext(
        context_id=1,
        abstract_syntax=STORAGE_COMMITMENT_PUSH_MODEL,
        transfer_syntaxes=(EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN),
    ),
)
"""What is proposed: the peer chooses the transfer syntax."""


class ClassRefusedError(AssociationError):
    """The peer accepted the association and not the storage commitment push model."""


async def request_commitment(
    association: ClientAssociation, transaction_uid: str, references: Sequence[Reference]
) -> Response:
    """Ask for storage commitment in an association that was opened with PUSH_MODEL_CONTEXTS; return the answer.

    Raises:
        ClassRefusedError: the peer does not do storage commitment; nothing was asked.
        AssociationError: the association ended before there was an answer; what the peer took nobody knows.

    """
    accepted = association.contexts.values()
    context = next((one for one in accepted if one.abstract_syntax == STORAGE_COMMITMENT_PUSH_MODEL), None)
    if context is None:
        raise ClassRefusedError(
            f"{association.peer}: it does not accept the Storage Commitment Push Model SOP class."
        )
    information = ActionInformation(transaction_uid, tuple(references))
    request = NActionRequest(
        message_id=0,
        requested_sop_class_uid=STORAGE_COMMITMENT_PUSH_MODEL,
        requested_sop_instance_uid=STORAGE_COMMITMENT_PUSH_MODEL_INSTANCE,
        action_type_id=REQUEST_STORAGE_COMMITMENT,
    )
    data_set = encode_action_information(information, context.transfer_syntax)
    return (await association.invoke(context.context_id, request, data_set)).response
