"""Ask for pages of a long list: how long does one of 100 receipts out of a million take?

    python bench/pages.py [--instances 1000000] [--rounds 200] [--folder DIR] [--json]

The catalog is made first (some minutes; `--folder` keeps it for the next time). Pages are read as the HTTP interface
reads them: from both ends, from cursors anywhere in the list, of a calling AE title, of a day, of a study. The last line
says whether the bar is met: a page of 100 receipts in less than 50 ms, in the median.
"""

import argparse
import json
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from catalog_growth import Source
from stowkeeper.archive import catalog, ledger, pages
from stowkeeper.archive.pages import ListingFilter, Order, Page, PageRequest
from stowkeeper.database.engine import Database

BAR_SECONDS = 0.05
LIMIT = 100
BATCH = 5000


def make(folder: Path, instances: int) -> Database:
    """Return a catalog of so many receipts; one that is there is used."""
    path = folder / "catalog.sqlite"
    database = Database.open(str(path), lock_path=str(folder / "catalog.lock"), sync=False)
    with database.read() as connection:
        count = connection.exec_driver_sql("SELECT count(*) FROM receipts").scalar()
    if count == instances:
        return database
    if count:
        sys.exit(f"{path} holds {count} receipts: name another folder")
    source = Source(ordered=False)
    begin = time.perf_counter()
    for done in range(0, instances, BATCH):
        entries, requests = source.batch(min(BATCH, instances - done))
        with database.write() as transaction:
            catalog.insert(transaction, entries)
            ledger.record_requests(transaction, requests)
    print(f"{instances} receipts made in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    return database


def main() -> None:
    parser = argparse.ArgumentParser(description="Ask for pages of a list of a million receipts.")
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="where the catalog is made, and left")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="pages-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with make(folder, arguments.instances) as database:
            measured = measure(database, arguments.rounds)
    finally:
        if not arguments.folder:
            shutil.rmtree(folder)
    medians = {name: statistics.median(seconds) for name, seconds in measured.items()}
    met = all(seconds < BAR_SECONDS for name, seconds in medians.items() if name.startswith("receipts"))
    if arguments.json:
        print(json.dumps({"instances": arguments.instances, "medians": medians, "met": met}))
        return
    print(f"{'a page of 100':<40} {'median':>9} {'p95':>9} {'worst':>9}")
    for name, seconds in measured.items():
        ordered = sorted(seconds)
        p95 = ordered[int(len(ordered) * 0.95)]
        print(f"{name:<40} {medians[name] * 1e3:>6.1f} ms {p95 * 1e3:>6.1f} ms {ordered[-1] * 1e3:>6.1f} ms")
    print(f"bar of {BAR_SECONDS * 1e3:.0f} ms for receipts: {'met' if met else 'MISSED'}")


def measure(database: Database, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each page, by what was asked for."""
    chance = random.Random(1)
    with database.read() as connection:
        keys = [
            tuple(row)
            for row in connection.exec_driver_sql(
                "SELECT received_at, receipt_key FROM receipts WHERE receipt_key % 997 = 0"
            )
        ]
        uids = [
            row[0]
            for row in connection.exec_driver_sql(
                "SELECT study_instance_uid FROM studies WHERE study_key % 7 = 0"
            )
        ]

    def anywhere() -> str | None:
        """Return a cursor in the middle of the list of receipts."""
        before = ListingFilter(received_before=chance.choice(keys)[0])
        with database.read() as connection:
            return pages.receipts(connection, PageRequest(limit=1), before).next_cursor

    cursors = [anywhere() for _ in range(50)]

    first = keys[len(keys) // 2][0]
    asked: dict[str, Callable[[], Callable[..., Page]]] = {
        "receipts, newest": lambda: lambda c: pages.receipts(c, PageRequest(limit=LIMIT)),
        "receipts, oldest": lambda: lambda c: pages.receipts(c, PageRequest(limit=LIMIT, order=Order.OLDEST)),
        "receipts, from anywhere": lambda: (
            lambda c: pages.receipts(c, PageRequest(limit=LIMIT, cursor=chance.choice(cursors)))
        ),
        "receipts of a calling AE title": lambda: (
            lambda c: pages.receipts(
                c,
                PageRequest(limit=LIMIT, cursor=chance.choice(cursors)),
                ListingFilter(calling_ae_title="SCANNER"),
            )
        ),
        "receipts of a time": lambda: (
            lambda c: pages.receipts(
                c, PageRequest(limit=LIMIT), ListingFilter(received_from=first, received_before=keys[-9][0])
            )
        ),
        "receipts of a study": lambda: (
            lambda c: pages.receipts(c, PageRequest(limit=LIMIT), ListingFilter(uid=chance.choice(uids)))
        ),
        "receipts of a title that sent none": lambda: (
            lambda c: pages.receipts(c, PageRequest(limit=LIMIT), ListingFilter(calling_ae_title="NOBODY"))
        ),
        "instances, newest": lambda: lambda c: pages.instances(c, PageRequest(limit=LIMIT)),
        "instances of a study": lambda: (
            lambda c: pages.instances(c, PageRequest(limit=LIMIT), ListingFilter(uid=chance.choice(uids)))
        ),
        "studies, newest": lambda: lambda c: pages.studies(c, PageRequest(limit=LIMIT)),
        "series, newest": lambda: lambda c: pages.series(c, PageRequest(limit=LIMIT)),
        "requests, newest": lambda: lambda c: pages.requests(c, PageRequest(limit=LIMIT)),
        "changes since anywhere": lambda: lambda c: pages.changes(c, chance.choice(keys)[1], LIMIT),
    }
    measured: dict[str, list[float]] = {}
    for name, make_question in asked.items():
        seconds = []
        for _ in range(rounds if not name.startswith(("studies", "series")) else min(rounds, 20)):
            question = make_question()
            begin = time.perf_counter()
            with database.read() as connection:
                page = question(connection)
            seconds.append(time.perf_counter() - begin)
            assert page.rows or page.next_cursor
        measured[name] = seconds
    return measured


if __name__ == "__main__":
    main()
