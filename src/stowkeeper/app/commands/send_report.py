"""What `stowkeeper send` shows: progress on a terminal, a table of failures and a summary, or JSON lines."""

import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from stowkeeper.app.limits import FAILURES_SHOWN_MAX
from stowkeeper.app.log_lines import printable
from stowkeeper.dicom.sop_classes import SOP_CLASSES
from stowkeeper.dicom.transfer_syntaxes import TRANSFER_SYNTAXES
from stowkeeper.services.send_plan import PlannedAssociation, SendableFile, SendPlan
from stowkeeper.services.sending import Outcome, Result

PLAIN_WIDTH = 4096
"""Letters of a line that does not go to a terminal: no path is folded. Tables are as wide as they have to be."""

WORDS_WIDTH_MAX = 60
"""Letters of a line of the column that says why."""


class SendReport:
    """Takes the outcomes; implements `SendObserver`."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._counts: Counter[str] = Counter()
        self._failures = Cases()
        self._warnings = Cases()
        self._uncommitted = Cases()
        self._commitments: Counter[str] | None = None
        self._accepted_bytes = 0
        self._plan = SendPlan()
        self._began = time.monotonic()
        self._ended: float | None = None
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    @property
    def has_failures(self) -> bool:
        """Whether any instance was not accepted."""
        return self._counts["failed"] > 0

    def begin(self, plan: SendPlan) -> None:
        """Take what was planned; the files that cannot be sent are failures."""
        self._plan = plan
        self._began = time.monotonic()
        for file in plan.unsendable:
            self._counts["failed"] += 1
            self._failures.add("", file.reason, file.path)
            self._print_line({"path": file.path, "outcome": "failed", "status": None, "reason": file.reason})
        for path in plan.directories:
            self._print_line(
                {"path": path, "outcome": "left out", "status": None, "reason": "it is a DICOMDIR"}
            )

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None = None) -> Iterator[None]:
        """Show progress for the length of a block, on a terminal alone: bytes of `total`, or files looked at."""
        if self._as_json or not sys.stderr.isatty():
            yield
            return
        columns = (
            (
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
            )
            if total is not None
            else (TextColumn("{task.completed:.0f}"),)
        )
        with Progress(
            SpinnerColumn(), TextColumn(what), *columns, console=Console(stderr=True), transient=True
        ) as shown:
            self._progress, self._task = shown, shown.add_task(what, total=total, note="")
            try:
                yield
            finally:
                self._progress = self._task = None

    def looked_at(self) -> None:
        """Count a file that was looked at."""
        self._advance(1)

    # SendObserver.

    def sent(self, count: int) -> None:
        """Advance the bar."""
        self._advance(count)

    def decided(self, outcome: Outcome) -> None:
        """Take the outcome of a file."""
        file = outcome.file
        self._counts[outcome.result.value] += 1
        status = None if outcome.status is None else f"{outcome.status:04X}H"
        if outcome.result is Result.FAILED:
            self._failures.add(status or "", outcome.words, file.path)
        else:
            self._accepted_bytes += file.data_set_length
        if outcome.result is Result.WARNING:
            self._warnings.add(status or "", outcome.words, file.path)
        if self._as_json:
            self._print_line(
                {
                    "path": file.path,
                    "sop_class_uid": file.sop_class_uid,
                    "sop_instance_uid": file.sop_instance_uid,
                    "transfer_syntax_uid": file.transfer_syntax_uid,
                    "sent_as": outcome.sent_as or None,
                    "outcome": outcome.result.value,
                    "status": status,
                    "reason": outcome.words or None,
                    "attempts": outcome.attempts,
                }
            )
        if self._progress is not None and self._task is not None:
            failed = self._counts["failed"]
            self._progress.update(self._task, note=f"{failed} failed" if failed else "")

    def notice(self, words: str) -> None:
        """Show an event on standard error, beside the bar."""
        if self._progress is not None:
            self._progress.console.print(printable(words), markup=False, highlight=False)
        else:
            click.echo(printable(words), err=True)

    def sending_ended(self) -> None:
        """Know that what comes from here on takes no part in the rate."""
        self._ended = time.monotonic()

    def _elapsed(self) -> float:
        return (time.monotonic() if self._ended is None else self._ended) - self._began

    def commitment(self, file: SendableFile, what: str, reason: str | None, words: str) -> None:
        """Take what the peer said of a file that it was asked to commit: committed, not committed, or unknown."""
        self._commitments = Counter() if self._commitments is None else self._commitments
        self._commitments[what] += 1
        if what != "committed":
            self._uncommitted.add(reason or "", words, file.path)
        self._print_line(
            {
                "path": file.path,
                "sop_instance_uid": file.sop_instance_uid,
                "commitment": what,
                "reason": reason,
                "words": words or None,
            }
        )

    # The end.

    def print_end(self) -> None:
        """Print the tables and the summary."""
        if self._as_json:
            self._print_line({"summary": self._summary()})
            return
        console = plain_console()
        self._warnings.print(console, "Accepted with a warning")
        self._failures.print(console, "Not accepted")
        self._uncommitted.print(console, "Accepted, and not known to be committed")
        click.echo(self._sentence())

    def print_for_scripts(self) -> None:
        """Print what there is to say when no file was sent: for scripts the same, for people nothing."""
        if self._as_json:
            self.print_end()

    def _summary(self) -> dict[str, object]:
        accepted, warned, failed = (self._counts[result.value] for result in Result)
        committed = self._commitments
        return {
            "accepted": accepted + warned,
            "warnings": warned,
            "failed": failed,
            **({} if committed is None else {"committed": committed["committed"]}),
            "not_dicom": self._plan.other_files,
            "dicomdirs": len(self._plan.directories),
            "bytes": self._accepted_bytes,
            "seconds": round(self._elapsed(), 3),
        }

    def _sentence(self) -> str:
        summary = self._summary()
        total = len(self._plan.files) + len(self._plan.unsendable)
        seconds = max(self._elapsed(), 0.001)
        text = f"{summary['accepted']} of {total} instances accepted"
        if summary["warnings"]:
            text += f", {summary['warnings']} of them with a warning"
        megabytes = self._accepted_bytes / 1e6
        text += f": {megabytes:.1f} MB in {seconds:.1f} s, {megabytes / seconds:.1f} MB/s."
        if self._commitments is not None:
            text += f" {self._commitments['committed']} committed."
        return text + left_out(self._plan)

    def _print_line(self, line: dict[str, object]) -> None:
        if self._as_json:
            click.echo(json.dumps(line))

    def _advance(self, count: int) -> None:
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, count)


def left_out(plan: SendPlan) -> str:
    """Say in a sentence what was found and not meant."""
    parts = []
    if plan.other_files:
        parts.append(
            "1 file that is not DICOM"
            if plan.other_files == 1
            else f"{plan.other_files} files that are not DICOM"
        )
    if plan.directories:
        count = len(plan.directories)
        parts.append(
            "1 DICOMDIR, which only lists other files"
            if count == 1
            else f"{count} DICOMDIRs, which only list other files"
        )
    return f" Left out: {' and '.join(parts)}." if parts else ""


def plain_console() -> Console:
    """Return where tables go: as wide as the terminal, or as wide as they have to be."""
    return Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH, highlight=False)


class Cases:
    """Files of which something has to be said, by what that is. Of very many only the first are shown."""

    def __init__(self) -> None:
        self._count = 0
        self._paths: dict[tuple[str, str], list[str]] = {}

    def add(self, status: str, words: str, path: str) -> None:
        """Take a file with the peer's status, if there is one, and the words on it."""
        self._count += 1
        if self._count <= FAILURES_SHOWN_MAX:
            self._paths.setdefault((status, words), []).append(path)

    def print(self, console: Console, title: str) -> None:
        """Print a table, unless there is nothing to say."""
        if not self._count:
            return
        table = Table(title=f"{title}: {self._count}", title_justify="left", show_lines=True)
        table.add_column("Status", no_wrap=True)
        table.add_column("Why", overflow="fold", max_width=WORDS_WIDTH_MAX)
        table.add_column("Files", overflow="fold")
        for (status, words), paths in self._paths.items():
            table.add_row(status, plain_text(words), "\n".join(map(plain_text, paths)))
        console.print(table)
        if self._count > FAILURES_SHOWN_MAX:
            click.echo(f"… and {self._count - FAILURES_SHOWN_MAX} more; --json lists all.")


def plain_text(text: str) -> str:
    """Show what a peer or a file name holds as it is: no control characters, no markup."""
    return printable(text).replace("[", "\\[")


def print_plan(plan: SendPlan, associations: Sequence[PlannedAssociation], *, as_json: bool) -> None:
    """Show what would be sent, and the presentation contexts that would be proposed."""
    if as_json:
        for line in _plan_lines(plan, associations):
            click.echo(json.dumps(line))
        return
    console = plain_console()
    for number, planned in enumerate(associations, 1):
        files = Counter((file.sop_class_uid, file.transfer_syntax_uid) for file in planned.files)
        size = sum(file.size for file in planned.files) / 1e6
        number_of_files = "1 file" if len(planned.files) == 1 else f"{len(planned.files)} files"
        title = f"Association {number}: {number_of_files}, {size:.1f} MB"
        table = Table(title=title, title_justify="left")
        for column in ("Context", "SOP class", "Transfer syntax"):
            table.add_column(column, overflow="fold")
        table.add_column("Files", justify="right")
        for context in planned.contexts:
            syntax = context.transfer_syntaxes[0]
            count = files[context.abstract_syntax, syntax]
            table.add_row(
                str(context.context_id),
                plain_text(_name_of_class(context.abstract_syntax)),
                plain_text(_name_of_syntax(syntax)),
                str(count) if count else "if converted",
            )
        console.print(table)
    unsendable = Cases()
    for file in plan.unsendable:
        unsendable.add("", file.reason, file.path)
    unsendable.print(console, "Cannot be sent")
    files_word = "1 file" if len(plan.files) == 1 else f"{len(plan.files)} files"
    click.echo(f"{files_word} would be sent, {plan.size / 1e6:.1f} MB.{left_out(plan)}")


def _plan_lines(plan: SendPlan, associations: Sequence[PlannedAssociation]) -> Iterator[dict[str, object]]:
    for number, planned in enumerate(associations, 1):
        contexts = [
            {
                "id": context.context_id,
                "sop_class_uid": context.abstract_syntax,
                "transfer_syntax_uid": context.transfer_syntaxes[0],
            }
            for context in planned.contexts
        ]
        yield {"association": number, "files": len(planned.files), "contexts": contexts}
        for file in planned.files:
            yield {
                "path": file.path,
                "sop_class_uid": file.sop_class_uid,
                "sop_instance_uid": file.sop_instance_uid,
                "transfer_syntax_uid": file.transfer_syntax_uid,
                "bytes": file.data_set_length,
                "outcome": "planned",
                "association": number,
            }
    for unsendable in plan.unsendable:
        yield {"path": unsendable.path, "outcome": "failed", "reason": unsendable.reason}
    yield {
        "summary": {
            "planned": len(plan.files),
            "failed": len(plan.unsendable),
            "not_dicom": plan.other_files,
            "dicomdirs": len(plan.directories),
        }
    }


def _name_of_class(uid: str) -> str:
    known = SOP_CLASSES.get(uid)
    return known.name if known else uid


def _name_of_syntax(uid: str) -> str:
    known = TRANSFER_SYNTAXES.get(uid)
    return known.name if known else uid
