"""Store Part 10 files with Python's dicomweb-client, a program of its own.

    python_dicomweb_client.py FOLDER-OF-THE-CLIENT URL TOKEN CHUNK-BYTES STUDY FILE…    STUDY is '' for none

Prints {"status": …, "answer": …}: what `store_instances` returned as DICOM JSON, or what the error that it raised carried.
"""

import json
import sys

import pydicom


def main() -> None:
    # Behind what is installed: the client's own needs are the same packages.
    sys.path.append(sys.argv[1])
    url, token, chunk_bytes, study = sys.argv[2:6]
    from dicomweb_client import DICOMwebClient
    from requests import HTTPError

    client = DICOMwebClient(
        url=url, headers={"Authorization": f"Bearer {token}"}, chunk_size=int(chunk_bytes)
    )
    try:
        answer = client.store_instances(
            [pydicom.dcmread(path) for path in sys.argv[6:]], study_instance_uid=study or None
        )
        ended = {"status": 200, "answer": answer.to_json_dict()}
    except HTTPError as error:
        ended = {"status": error.response.status_code, "answer": error.response.json()}
    sys.stdout.write(json.dumps(ended))


if __name__ == "__main__":
    main()
