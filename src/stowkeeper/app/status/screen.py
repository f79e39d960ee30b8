"""The status as one screen for people."""

import datetime as dt
from collections.abc import Iterator

from stowkeeper.app.commands.byte_progress import human_size
from stowkeeper.app.status.reckoning import duration
from stowkeeper.app.status.state import ArchiveState, DiskState, JobsState, ServerState

_WIDTH = 15
_UNKNOWN = "not known"


def lines(state: ArchiveState) -> Iterator[str]:
    """Yield the lines, without patient data: UIDs, AE titles and addresses are all that is said of what was received."""
    count = len(state.servers)
    if not count:
        yield f"No server runs on {state.archive}."
    else:
        servers = "A server runs" if count == 1 else f"{count} servers run"
        yield f"{servers} on {state.archive}."
    for one in state.servers:
        yield from _server(state, one)
    yield ""
    yield _line("last received", _last_received(state))
    yield _line("kept", _kept(state))
    yield _line("in the depot", _counted(state.waiting_in_depot, "kept and not in the catalog yet"))
    yield _line("quarantine", _counted(state.in_quarantine, "damaged or suspect"))
    yield from _disk(state.disk)
    yield _line("jobs", _jobs(state.jobs))
    yield from _oldest_job(state)
    yield _line("commitments", _commitments(state))
    yield from _forwards(state)
    yield _line("version", f"Stowkeeper {state.version}")
    yield ""
    if not state.to_do:
        yield "Nothing to act on."
        return
    yield "To act on:"
    for to_do in state.to_do:
        yield f"  - {to_do.words}"
        yield f"    → {to_do.mend}"


def _line(name: str, words: str) -> str:
    return f"  {name:<{_WIDTH}}{words}"


def _server(state: ArchiveState, one: ServerState) -> Iterator[str]:
    server = one.server
    running = duration(_age(server.started_at, state.at))
    yield ""
    yield _line("running since", f"{_moment(server.started_at)}, for {running}")
    yield _line("process", f"{server.pid} on {server.host_name}, version {server.version}")
    tls = "with TLS" if server.tls else "without TLS"
    yield _line("DICOM", f"{server.ae_title} on {_place(server.dicom_host, server.dicom_port)}, {tls}")
    is_on = server.http_host is not None and server.http_port is not None
    place = _place(server.http_host or "", server.http_port or 0)
    yield _line("HTTP", (f"{place}, with TLS" if server.http_tls else place) if is_on else "off")
    yield _line("associations", _UNKNOWN if one.associations is None else f"{one.associations} open now")
    yield _line("log", server.log_file or "to standard error alone")


def _last_received(state: ArchiveState) -> str:
    if state.kept is None:
        return _UNKNOWN
    last = state.last_received
    if last is None:
        return "nothing yet"
    sender = last.calling_ae_title or "nobody by name"
    address = f" at {last.peer_address}" if last.peer_address else ""
    when = f"{_moment(last.received_at)}, {duration(_age(last.received_at, state.at))} ago"
    return f"{when}, from {sender}{address} by {last.received_by}: {last.sop_instance_uid}"


def _kept(state: ArchiveState) -> str:
    kept = state.kept
    if kept is None:
        return _UNKNOWN
    instances = f"{kept.instances} {'instance' if kept.instances == 1 else 'instances'}"
    studies = f"{kept.studies} {'study' if kept.studies == 1 else 'studies'}"
    return f"{instances} of {studies}, {human_size(kept.bytes)}"


def _counted(number: int | None, what: str) -> str:
    return f"{_UNKNOWN}: this user may not look" if number is None else f"{number} {what}"


def _disk(disk: DiskState | None) -> Iterator[str]:
    if disk is None:
        yield _line("disk", _UNKNOWN)
        return
    inodes = "inodes are not counted" if disk.free_inodes is None else f"{disk.free_inodes} inodes free"
    yield _line("disk", f"{human_size(disk.free_bytes)} of {human_size(disk.total_bytes)} free, {inodes}")
    if disk.marks_reached:
        yield _line("", f"below {', '.join(disk.marks_reached)}")
    yield _line("disk full", disk.full.words)


def _jobs(jobs: JobsState | None) -> str:
    if jobs is None:
        return _UNKNOWN
    counts = {
        "failed": jobs.failed,
        "tried again": jobs.retrying,
        "waiting": jobs.waiting,
        "running": jobs.running,
        "paused": jobs.paused,
        "due later": jobs.later,
    }
    return ", ".join(f"{number} {word}" for word, number in counts.items() if number) or "none"


def _oldest_job(state: ArchiveState) -> Iterator[str]:
    job = None if state.jobs is None else state.jobs.oldest
    if job is None:
        return
    peer = f" with {job.peer}" if job.peer else ""
    said = f": {job.error}" if job.error else ""
    yield _line("oldest of them", f"{job.kind}{peer}, {job.state}, of {_moment(job.created_at)}{said}")


def _commitments(state: ArchiveState) -> str:
    commitments = state.commitments
    if commitments is None:
        return _UNKNOWN
    words = f"{commitments.unreported} to be reported, {commitments.undelivered} could not be delivered"
    if commitments.oldest_unreported_at is not None:
        words += f"; the oldest is of {_moment(commitments.oldest_unreported_at)}"
    return words


def _forwards(state: ArchiveState) -> Iterator[str]:
    if state.forwards is None:
        yield _line("forwards", _UNKNOWN)
        return
    if not state.forwards:
        yield _line("forwards", "nothing waits")
    title = "forwards"
    for one in state.forwards:
        counts = {"waiting": one.waiting, "in a job": one.queued, "failed": one.failed}
        words = ", ".join(f"{number} {word}" for word, number in counts.items() if number)
        yield _line(title, f"to {one.destination}: {words}")
        title = ""


def _moment(at: str) -> str:
    return f"{at[:19].replace('T', ' ')} UTC"


def _place(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _age(earlier: str, later: str) -> float:
    return (dt.datetime.fromisoformat(later) - dt.datetime.fromisoformat(earlier)).total_seconds()
