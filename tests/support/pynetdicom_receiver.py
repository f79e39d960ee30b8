"""Receive with pynetdicom in the cheapest way it offers: the encoded data set goes to a file, nothing is decoded.

`python pynetdicom_receiver.py PORT FOLDER` serves on the loopback interface until it is ended. Files are named by their
SOP Instance UID, in Part 10 form, and are not synced to disk.
"""

import sys
from pathlib import Path
from typing import cast

from pydicom.uid import AllTransferSyntaxes
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # the module makes its names at run time

ASSOCIATIONS_MAX = 600
MAXIMUM_LENGTH = 131072


def main() -> None:
    """Serve until the process is ended."""
    port, folder = int(sys.argv[1]), Path(sys.argv[2])

    def store(event: Event) -> int:
        name = str(cast("C_STORE", event.request).AffectedSOPInstanceUID)
        (folder / f"{name}.dcm").write_bytes(event.encoded_dataset())
        return 0x0000

    entity = AE(ae_title="PYNETDICOM")
    entity.maximum_pdu_size = MAXIMUM_LENGTH
    entity.maximum_associations = ASSOCIATIONS_MAX
    entity.add_supported_context(Verification)
    for context in AllStoragePresentationContexts:
        entity.add_supported_context(str(context.abstract_syntax), AllTransferSyntaxes)
    entity.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_STORE, store)])


if __name__ == "__main__":
    main()
