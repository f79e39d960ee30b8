"""How `verify` and `rebuild` name what is wrong."""

import json
from collections.abc import Mapping
from dataclasses import asdict

from stowkeeper.app.log_lines import printable
from stowkeeper.archive.agreement import Discrepancy, Fault
from stowkeeper.archive.rebuilding import RebuildCounts
from stowkeeper.archive.verification import VerificationCounts


def discrepancy_line(found: Discrepancy, *, as_json: bool) -> str:
    """Return the line that names one."""
    if as_json:
        return json.dumps({name: value or None for name, value in asdict(found).items()})
    instance = f" (SOP Instance {found.sop_instance_uid})" if found.sop_instance_uid else ""
    moved = f"; moved to {found.moved_to}" if found.moved_to else ""
    return printable(f"{found.fault}: {found.path}{instance}: {found.words}{moved}")


def summary_line(
    counts: VerificationCounts | RebuildCounts, faults: Mapping[Fault, int], seconds: float, **more: object
) -> str:
    """Return the last of the JSON lines: the numbers."""
    numbers = asdict(counts)
    summary = {
        "files": numbers.pop("files"),
        "bytes": numbers.pop("size"),
        **numbers,
        **{fault.value: faults.get(fault, 0) for fault in Fault},
        **more,
        "seconds": round(seconds, 3),
    }
    return json.dumps({"summary": summary})


def say_faults(faults: Mapping[Fault, int]) -> str:
    """Say how many of each there were."""
    return ", ".join(f"{faults[fault]} {fault}" for fault in Fault if faults.get(fault))
