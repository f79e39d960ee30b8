"""Send Part 10 files with pynetdicom; a process of its own, since the library leaves threads and sockets behind.

`python pynetdicom_sender.py HOST PORT AET FILE…` prints a JSON list with one status for each file, null where none came.
Data sets leave as they stand in the file, chunk by chunk, in the file's own transfer syntax.
"""

import json
import sys

from pydicom.filereader import read_file_meta_info
from pynetdicom import AE, _config

SECONDS_MAX = 30.0


def send(host: str, port: int, called_ae_title: str, files: list[str]) -> list[int | None]:
    """Send files on one association; return the statuses."""
    metas = [read_file_meta_info(path) for path in files]
    entity = AE(ae_title="PYNETDICOM")
    entity.network_timeout = entity.acse_timeout = entity.dimse_timeout = SECONDS_MAX
    for pair in sorted({(str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)) for meta in metas}):
        entity.add_requested_context(*pair)
    _config.STORE_SEND_CHUNKED_DATASET = True
    association = entity.associate(host, port, ae_title=called_ae_title)
    if not association.is_established:
        return [None for _ in files]
    statuses = [getattr(association.send_c_store(path), "Status", None) for path in files]
    association.release()
    return statuses


if __name__ == "__main__":
    print(json.dumps(send(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:])))
