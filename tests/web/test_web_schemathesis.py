"""Schemathesis over the OpenAPI document: whatever fits it, and whatever just does not, is answered as it says."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stowkeeper.jobs.job import JobRequest
from stowkeeper.jobs.rows import submit
from stowkeeper.services.peers import Peer
from stowkeeper.web.roles import Role
from stowkeeper.web.services import WebOptions
from support.orthanc_rig import OrthancRig, orthanc_rig
from support.quiet_log import quiet_log

RUN_SECONDS_MAX = 500
EXAMPLES = 6
STORE_EXAMPLES = 60
SEED = 4
PEERS = (
    Peer(name="away", ae_title="AWAY", host="127.0.0.1", port=1, connect_seconds=1),
    Peer(name="nowhere", ae_title="NOWHERE"),
)

TESTS = Path(__file__).parents[1]
HOOKS = TESTS / "support" / "store_hooks.py"
STUDIES = "/dicom-web/studies"
STORE_CALLS_MIN = 50

CONFIGURATION = """
hooks = {hooks}

[generation]
max-examples = {examples}
database = "none"

[phases.stateful]
enabled = true
max-steps = 4

[checks]
# A request that fits the document may break a rule that goes over several of its parts, such as that a peer with a
# host has a port: 422 says which. Others meet what is not there, what is in a state for something else, or a peer that
# does not answer to an echo: 502 says so.
not_a_server_error.expected-statuses = ["2xx", "4xx", "502"]
positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "422", "502"]

[[operations]]
include-path-regex = "^/dicom-web/studies"
generation.max-examples = {store_examples}
# The document knows nothing of what is within a body: any bytes fit it, and what is no DICOM or no multipart is 400, or
# 415 where no part is said to be DICOM. So no body of bytes is one that has to be refused, either.
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "409", "415"]

[dictionaries]
{dictionaries}

[parameters]
{parameters}
"""


def fill(rig: OrthancRig) -> dict[str, list[Any]]:
    """Put something of everything in; return what it is called, by the parameter that names it."""
    rig.keep(1, 2, 3)
    rig.keep(1, content=1)
    rig.settle()
    with rig.database.write() as transaction:
        jobs = [
            submit(transaction, JobRequest(kind="test", arguments={}, items=["1.2", "1.3"])) for _ in range(4)
        ]
    keys = [
        rig.client.post("/api/commitments", json={"peer": "away", "uids": [uid]}).json()["commitment_key"]
        for uid in ("1.2.3.1", "1.2.3.2")
    ]
    receipts = [one["receipt_id"] for one in rig.get("/api/receipts")["items"]]
    return {
        "study": ["1.2.10", "1.2.11"],
        "uid": ["1.2.10", "1.2.10.1", "1.2.3.1", "1.2.3.2", "1.2.3.3"],
        "job_id": [job.job_id for job in jobs],
        "commitment_key": keys,
        "receipt_id": receipts,
        "name": [*(peer.name for peer in PEERS), "spare"],
    }


@pytest.mark.slow
@pytest.mark.timeout(RUN_SECONDS_MAX + 60)
def test_the_native_interface_is_what_it_says(tmp_path: Path) -> None:
    program = shutil.which("schemathesis", path=str(Path(sys.executable).parent))
    assert program is not None
    options = WebOptions(requests_burst=1e9, failed_authentications_burst=1e9)
    with quiet_log(), orthanc_rig(tmp_path / "archive", *PEERS, runs_jobs=False, options=options) as rig:
        names = fill(rig)
        token = rig.token("schemathesis", Role.ADMIN)["Authorization"]
        rig.token("spare", Role.READ)
        configuration = tmp_path / "schemathesis.toml"
        configuration.write_text(
            CONFIGURATION.format(
                hooks=json.dumps(str(HOOKS)),
                examples=EXAMPLES,
                store_examples=STORE_EXAMPLES,
                dictionaries="\n".join(
                    f"{name} = {{ values = {json.dumps(values)} }}" for name, values in names.items()
                ),
                parameters="\n".join(
                    f'"path.{name}" = {{ dictionary = "{name}", probability = 0.7 }}' for name in names
                ),
            )
        )
        run = run_it(program, configuration, rig, token, tmp_path / "calls")
        # Whatever was asked of it, it lives, and the credential that it was asked with is in force.
        assert rig.client.get("/api/statistics", headers={"Authorization": token}).status_code == 200
    assert run.returncode == 0, run.stdout[-12_000:]
    assert "Tested: " in run.stdout
    check_store_calls([json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()])


def check_store_calls(calls: list[Any]) -> None:
    """See that storing was really tried: at both addresses, with every type of body, with all ends that a body can have."""
    for path in (STUDIES, f"{STUDIES}/{{study}}"):
        posted = [call for call in calls if call[1:3] == [path, "POST"]]
        assert len(posted) >= STORE_CALLS_MIN, (path, len(posted))
        types = {sent.partition("; boundary")[0] for _, _, _, sent, _, _ in posted}
        for name in ("application/dicom", "application/dicom+json", "application/dicom+xml"):
            assert f'multipart/related; type="{name}"' in types
        assert "application/dicom" in types
        assert {200, 400, 409, 415} <= {status for _, _, _, _, status, _ in posted}
        answered = {given for _, _, _, _, status, given in posted if status in (200, 202, 409)}
        assert "application/dicom+json" in answered
    assert 202 in {status for _, path, _, _, status, _ in calls if path.startswith(STUDIES)}
    for path in ("/dicom-web", STUDIES):
        assert [call for call in calls if call[:3] == ["options", path, "OPTIONS"] and call[4] == 200]


def run_it(
    program: str, configuration: Path, rig: OrthancRig, token: str, calls: Path
) -> "subprocess.CompletedProcess[str]":
    """Run Schemathesis against a server until it ends."""
    arguments: list[Any] = [
        program,
        "--config-file",
        configuration,
        "run",
        f"{str(rig.client.base_url).rstrip('/')}/api/openapi.json",
        "--header",
        f"Authorization: {token}",
        "--continue-on-failure",
        "--seed",
        SEED,
        "--request-timeout",
        30,
        "--no-color",
        # It removes what the others are about: its own credential and the archive's one study.
        "--exclude-operation-id",
        "delete_study",
    ]
    return subprocess.run(
        list(map(str, arguments)),
        cwd=configuration.parent,
        env={**os.environ, "PYTHONPATH": str(TESTS), "STORE_CALLS": str(calls)},
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS_MAX,
        check=False,
    )
