"""What `stowkeeper stow` shows: as `send` does it, with what is not known as an outcome of its own."""

import json
from collections.abc import Iterator, Sequence

import click
from rich.table import Table

from stowkeeper.app.commands.send_report import Cases, SendReport, left_out, plain_console
from stowkeeper.app.log_lines import printable
from stowkeeper.services.send_plan import SendableFile, SendPlan
from stowkeeper.services.stow_client.answers import Result
from stowkeeper.services.stow_client.batches import BatchQueue
from stowkeeper.services.stow_client.options import Outcome


class StowReport(SendReport):
    """Takes the outcomes; implements `StowObserver`. `url` is the resource that is posted to."""

    def __init__(self, url: str, *, as_json: bool) -> None:
        super().__init__(as_json=as_json)
        self._url = url
        self._unknown = Cases()
        self._already_stored = 0

    @property
    def is_for_scripts(self) -> bool:
        """Whether it is JSON."""
        return self._as_json

    @property
    def has_failures(self) -> bool:
        """Whether any instance was not stored, or is not known to be."""
        return self._counts["failed"] + self._counts["unknown"] > 0

    def already_stored(self, files: Sequence[SendableFile]) -> None:
        """Take the files that an earlier run stored."""
        self._already_stored = len(files)
        for file in files:
            self._print_line({**_described(file), "outcome": "already stored"})

    def settled(self, outcome: Outcome) -> None:
        """Take the outcome of a file."""
        file, result = outcome.file, outcome.result
        self._counts[result.value] += 1
        code = None if outcome.reason is None else f"{outcome.reason:04X}H"
        status = code or ("" if outcome.status is None else f"HTTP {outcome.status}")
        if result is Result.FAILED:
            self._failures.add(status, outcome.words, file.path)
        elif result is Result.UNKNOWN:
            self._unknown.add(status, outcome.words, file.path)
        else:
            self._accepted_bytes += file.size
        if result is Result.WARNING:
            self._warnings.add(status, outcome.words, file.path)
        self._print_line(
            {
                **_described(file),
                "outcome": result.value,
                "status": code,
                "reason": outcome.words or None,
                "http_status": outcome.status,
                "attempts": outcome.attempts,
            }
        )
        if self._progress is not None and self._task is not None:
            counts = (f"{self._counts[name]} {name}" for name in ("failed", "unknown") if self._counts[name])
            self._progress.update(self._task, note=", ".join(counts))

    def print_end(self) -> None:
        """Print the tables and the summary."""
        if not self._as_json:
            console = plain_console()
            self._warnings.print(console, "Stored with a warning")
            self._failures.print(console, "Not stored")
            self._unknown.print(console, "Not known to be stored")
            click.echo(self._sentence())
        else:
            self._print_line({"summary": self._summary()})

    def _summary(self) -> dict[str, object]:
        stored, warned, failed, unknown = (self._counts[result.value] for result in Result)
        return {
            "url": self._url,
            "stored": stored + warned,
            "warnings": warned,
            "failed": failed,
            "unknown": unknown,
            "already_stored": self._already_stored,
            "not_dicom": self._plan.other_files,
            "dicomdirs": len(self._plan.directories),
            "bytes": self._accepted_bytes,
            "seconds": round(self._elapsed(), 3),
        }

    def _sentence(self) -> str:
        summary = self._summary()
        total = len(self._plan.files) + len(self._plan.unsendable)
        if not total and self._already_stored:
            return (
                f"Nothing is left to send: {self._already_stored} were stored before.{left_out(self._plan)}"
            )
        seconds = max(self._elapsed(), 0.001)
        megabytes = self._accepted_bytes / 1e6
        text = f"{summary['stored']} of {total} instances stored"
        if summary["warnings"]:
            text += f", {summary['warnings']} of them with a warning"
        text += f": {megabytes:.1f} MB in {seconds:.1f} s, {megabytes / seconds:.1f} MB/s."
        if self._counts["unknown"]:
            text += f" Of {self._counts['unknown']} it is not known; sending them again is safe."
        if self._already_stored:
            text += f" {self._already_stored} more were stored before."
        return text + left_out(self._plan)


def print_stow_plan(
    plan: SendPlan, queue: BatchQueue, url: str, already_stored: Sequence[SendableFile], *, as_json: bool
) -> None:
    """Show what would be sent in which requests."""
    batches = list(iter(queue.take, ()))
    if as_json:
        for line in _plan_lines(plan, [[queued.file for queued in batch] for batch in batches]):
            click.echo(json.dumps(line))
        summary = {
            "url": url,
            "planned": len(plan.files),
            "requests": len(batches),
            "failed": len(plan.unsendable),
            "already_stored": len(already_stored),
            "not_dicom": plan.other_files,
            "dicomdirs": len(plan.directories),
        }
        click.echo(json.dumps({"summary": summary}))
        return
    console = plain_console()
    table = Table()
    for column in ("Files of a request", "Requests", "MB"):
        table.add_column(column, justify="right")
    by_count: dict[int, list[int]] = {}
    for batch in batches:
        by_count.setdefault(len(batch), []).append(sum(queued.file.size for queued in batch))
    for count, sizes in by_count.items():
        table.add_row(str(count), str(len(sizes)), f"{sum(sizes) / 1e6:.1f}")
    console.print(table)
    unsendable = Cases()
    for file in plan.unsendable:
        unsendable.add("", file.reason, file.path)
    unsendable.print(console, "Cannot be sent")
    files_word = "1 file" if len(plan.files) == 1 else f"{len(plan.files)} files"
    before = f" {len(already_stored)} more were stored before." if already_stored else ""
    click.echo(
        f"{files_word} would be sent to {printable(url)}, {plan.size / 1e6:.1f} MB.{before}{left_out(plan)}"
    )


def _plan_lines(plan: SendPlan, batches: Sequence[Sequence[SendableFile]]) -> Iterator[dict[str, object]]:
    for number, files in enumerate(batches, 1):
        for file in files:
            yield {**_described(file), "bytes": file.size, "outcome": "planned", "request": number}
    for unsendable in plan.unsendable:
        yield {"path": unsendable.path, "outcome": "failed", "status": None, "reason": unsendable.reason}


def _described(file: SendableFile) -> dict[str, object]:
    return {
        "path": file.path,
        "sop_class_uid": file.sop_class_uid,
        "sop_instance_uid": file.sop_instance_uid,
        "transfer_syntax_uid": file.transfer_syntax_uid,
    }
