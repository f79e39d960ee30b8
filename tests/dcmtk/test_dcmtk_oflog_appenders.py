"""Where messages go: streams, files that are put away, and a thread of its own."""

import contextlib
import io
import json
import logging
import os
import subprocess
import sys
import threading
import time

import pytest

from stowkeeper.dcmtk.log_options import LogLevel
from stowkeeper.dcmtk.oflog.appenders import Appender, ConsoleAppender, LockFile, NullAppender
from stowkeeper.dcmtk.oflog.async_appender import AsyncAppender
from stowkeeper.dcmtk.oflog.complaints import Complaints, write_to
from stowkeeper.dcmtk.oflog.file_appenders import (
    ROLLING_BYTES_MIN,
    DailyRollingFileAppender,
    FileAppender,
    FileOptions,
    RollingFileAppender,
)
from stowkeeper.dcmtk.oflog.levels import NUMBERS
from stowkeeper.dcmtk.oflog.times import Schedule


def record(message="hello", level=LogLevel.INFO, created=None):
    made = logging.LogRecord("dcmtk", NUMBERS[level], "/src/a.py", 1, message, (), None)
    if created is not None:
        made.created = created
    return made


@pytest.fixture
def err():
    return io.StringIO()


@pytest.fixture
def complaints(err):
    return Complaints(err)


@pytest.fixture
def opened():
    with contextlib.ExitStack() as stack:
        yield lambda appender: stack.enter_context(contextlib.closing(appender))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- what is said about the log itself


def test_complaints_begin_as_dcmtks_do_and_end_when_it_is_quiet(err, complaints):
    complaints.warn("a")
    complaints.error("b")
    complaints.is_quiet = True
    complaints.warn("c")
    complaints.error("d")
    assert err.getvalue() == "log4cplus:WARN a\nlog4cplus:ERROR b\n"


# --- streams


def test_a_message_is_on_the_console_at_once(complaints):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8")
    ConsoleAppender("c", complaints, stream).handle(record())
    assert raw.getvalue() == b"INFO - hello\n"


def test_what_a_stream_cannot_hold_is_written_as_escapes():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    write_to(stream, "a\u20ac\udcff\n")
    assert raw.getvalue() == b"a\\u20ac\\udcff\n"


def test_a_reader_that_is_gone_disturbs_nobody(complaints, err):
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8", closefd=False) as stream:
        ConsoleAppender("c", complaints, stream).handle(record())
        with contextlib.suppress(BrokenPipeError):
            stream.close()
    ConsoleAppender("c", complaints, stream).handle(record())  # closed
    os.close(writing)
    assert err.getvalue() == ""


def test_an_error_in_an_appender_is_reported_once_and_not_raised(complaints, err):
    class Broken(Appender):
        def append(self, record):
            raise RuntimeError("no more ink")

    broken = Broken("my.appender", complaints)
    for _ in range(3):
        broken.handle(record())
    assert err.getvalue() == "log4cplus:ERROR my.appender: a message could not be written: no more ink\n"


def test_a_closed_appender_drops_messages(complaints, tmp_path, err):
    stream = io.StringIO()
    console = ConsoleAppender("c", complaints, stream)
    file = FileAppender("f", complaints, FileOptions(path=str(tmp_path / "x.log")))
    for appender in (console, file):
        appender.close()
        appender.close()
        appender.handle(record())
    assert stream.getvalue() == err.getvalue() == ""
    assert (tmp_path / "x.log").read_bytes() == b""


# --- files


def file_appender(folder, complaints, **options):
    return FileAppender("f", complaints, FileOptions(path=str(folder / "x.log"), **options))


def test_a_file_is_appended_to_or_begun_anew(tmp_path, complaints, opened):
    path = tmp_path / "x.log"
    path.write_text("before\n")
    opened(file_appender(tmp_path, complaints)).handle(record())
    assert path.read_text() == "before\nINFO - hello\n"
    opened(file_appender(tmp_path, complaints, starts_anew=True)).handle(record("again"))
    assert path.read_text() == "INFO - again\n"


def test_what_is_held_back_is_written_when_there_is_enough_or_at_the_end(tmp_path, complaints):
    path = tmp_path / "x.log"
    appender = file_appender(tmp_path, complaints, flushes=False, buffer_bytes=100)
    appender.handle(record("a" * 50))
    assert path.read_bytes() == b""
    appender.handle(record("b" * 50))
    assert path.stat().st_size > 0
    appender.handle(record("c"))
    assert not path.read_text().endswith("INFO - c\n")
    appender.flush()
    assert path.read_text().endswith("INFO - c\n")
    appender.handle(record("d"))
    appender.close()
    assert path.read_text().endswith("INFO - d\n")


def test_bytes_of_names_that_are_no_text_stay_as_they_are(tmp_path, complaints, opened):
    appender = opened(file_appender(tmp_path, complaints))
    appender.handle(record("\u20ac \udcff"))
    appender.handle(record("\ud800"))
    assert (tmp_path / "x.log").read_bytes() == b"INFO - \xe2\x82\xac \xff\nINFO - \\ud800\n"


def test_a_file_that_cannot_be_opened_is_tried_again(tmp_path, complaints, err, opened):
    folder = tmp_path / "absent"
    appender = opened(file_appender(folder, complaints, reopen_seconds=0))
    for _ in range(3):
        appender.handle(record("lost"))
    assert (
        err.getvalue() == f"log4cplus:ERROR f: '{folder}/x.log' cannot be opened: No such file or directory\n"
    )
    folder.mkdir()
    appender.handle(record())
    assert (folder / "x.log").read_text() == "INFO - hello\n"


def test_a_file_is_not_tried_again_before_its_time(tmp_path, complaints, opened):
    folder = tmp_path / "absent"
    appender = opened(file_appender(folder, complaints, reopen_seconds=1000))
    folder.mkdir()
    appender.handle(record("lost"))
    assert names(folder) == []


def test_a_full_disk_is_reported_once(tmp_path, complaints, err, opened):
    path = tmp_path / "x.log"
    path.symlink_to("/dev/full")
    appender = opened(file_appender(tmp_path, complaints, reopen_seconds=0))
    appender.handle(record("lost"))
    appender.handle(record("lost"))
    assert err.getvalue() == f"log4cplus:ERROR f: '{path}' cannot be written: No space left on device\n"
    path.unlink()
    appender.handle(record())
    assert path.read_text() == "INFO - hello\n"


def test_what_fails_again_is_reported_again(tmp_path, complaints, err, opened):
    path = tmp_path / "x.log"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    appender = opened(file_appender(tmp_path, complaints, reopen_seconds=0))
    for times in (1, 2):
        appender.handle(record())
        assert os.read(reader, 100) == b"INFO - hello\n"
        os.close(reader)
        appender.handle(record("lost"))
        assert err.getvalue() == f"log4cplus:ERROR f: '{path}' cannot be written: Broken pipe\n" * times
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    os.close(reader)


def test_a_file_that_was_filled_before_is_not_lost_when_it_is_opened_anew(tmp_path, complaints, opened):
    path = tmp_path / "x.log"
    path.mkdir()
    appender = opened(file_appender(tmp_path, complaints, starts_anew=True, reopen_seconds=0))
    path.rmdir()
    path.write_text("of others\n")
    appender.handle(record())
    assert path.read_text() == "of others\nINFO - hello\n"


# --- lock files


def test_a_lock_file_keeps_other_processes_out(tmp_path):
    path = tmp_path / "x.lock"
    lock = LockFile(str(path))
    program = (
        "import fcntl, os, sys\n"
        "descriptor = os.open(sys.argv[1], os.O_RDWR)\n"
        "try:\n    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "except OSError:\n    sys.exit(5)\n"
    )

    def code():
        return subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode

    with lock.held():
        assert code() == 5
    assert code() == 0
    lock.close()
    lock.close()


def test_an_appender_waits_for_its_lock(tmp_path, complaints, opened):
    path = tmp_path / "x.lock"
    appender = opened(file_appender(tmp_path, complaints, flushes=False))
    appender.lock_file = LockFile(str(path))
    program = (
        "import fcntl, os, sys\n"
        "descriptor = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.lockf(descriptor, fcntl.LOCK_EX)\n"
        "print('held', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        writer = threading.Thread(target=appender.handle, args=(record(),))
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
        assert (tmp_path / "x.log").read_bytes() == b""
        holder.stdin.close()
        writer.join()
    assert (
        tmp_path / "x.log"
    ).read_text() == "INFO - hello\n"  # other processes see it when they get the lock


# --- files that are put away by size


def rolling(folder, complaints, *, size_max=100, backups=3):
    options = FileOptions(path=str(folder / "x.log"))
    return RollingFileAppender("f", complaints, options, size_max=size_max, backups=backups)


def texts(folder):
    return {path.name: path.read_text().split("\n")[0][-3:] for path in folder.iterdir()}


def test_a_file_that_has_become_too_long_is_put_away(tmp_path, complaints, opened):
    appender = opened(rolling(tmp_path, complaints))
    for number in range(1, 6):
        appender.handle(record("." * 100 + f"{number:03d}"))
    assert texts(tmp_path) == {"x.log": "", "x.log.1": "005", "x.log.2": "004", "x.log.3": "003"}


def test_a_file_may_be_as_long_as_the_bound(tmp_path, complaints, opened):
    appender = opened(rolling(tmp_path, complaints, size_max=26))
    appender.handle(record())
    appender.handle(record())
    assert names(tmp_path) == ["x.log"]
    appender.handle(record())
    assert names(tmp_path) == ["x.log", "x.log.1"]


def test_what_was_in_the_file_before_counts(tmp_path, complaints, opened):
    (tmp_path / "x.log").write_text("." * 100)
    opened(rolling(tmp_path, complaints)).handle(record())
    assert (tmp_path / "x.log.1").read_text() == "." * 100 + "INFO - hello\n"


def test_nothing_moves_behind_a_number_that_is_free(tmp_path, complaints, opened):
    for number in (1, 3):
        (tmp_path / f"x.log.{number}").write_text(f"{number:03d}")
    appender = opened(rolling(tmp_path, complaints, size_max=1))
    appender.handle(record("000"))
    assert texts(tmp_path) == {"x.log": "", "x.log.1": "000", "x.log.2": "001", "x.log.3": "003"}


def test_one_backup_is_replaced(tmp_path, complaints, opened):
    appender = opened(rolling(tmp_path, complaints, size_max=1, backups=1))
    for number in range(3):
        appender.handle(record(f"{number:03d}"))
    assert texts(tmp_path) == {"x.log": "", "x.log.1": "002"}


def test_a_file_that_cannot_be_put_away_is_gone_on_with(tmp_path, complaints, err, opened):
    appender = opened(rolling(tmp_path, complaints, size_max=1, backups=1))
    report = f"log4cplus:ERROR f: '{tmp_path}/x.log' cannot be put away: Is a directory\n"
    in_the_way = tmp_path / "x.log.1"
    for times in (1, 2):
        in_the_way.mkdir()
        appender.handle(record("one"))
        appender.handle(record("two"))
        assert (tmp_path / "x.log").read_text() == "INFO - one\nINFO - two\n"
        assert err.getvalue() == report * times
        in_the_way.rmdir()
        appender.handle(record("three"))
        assert in_the_way.read_text() == "INFO - one\nINFO - two\nINFO - three\n"
        in_the_way.unlink()


def test_two_processes_put_a_file_away_once(tmp_path, complaints, opened):
    one, other = (opened(rolling(tmp_path, complaints)) for _ in range(2))
    one.handle(record("." * 90))
    other.handle(record("." * 90))  # now it is too long, and this one puts it away
    one.handle(record("last of the old file"))  # the old file is still too long, but it is away
    one.handle(record("first of the new file"))
    assert names(tmp_path) == ["x.log", "x.log.1"]
    assert (tmp_path / "x.log").read_text() == "INFO - first of the new file\n"
    assert (tmp_path / "x.log.1").read_text().endswith("INFO - last of the old file\n")


def test_a_pipe_is_never_put_away(tmp_path, complaints, err, opened):
    os.mkfifo(tmp_path / "x.log")
    with open(os.open(tmp_path / "x.log", os.O_RDONLY | os.O_NONBLOCK), "rb") as reader:
        appender = opened(rolling(tmp_path, complaints, size_max=1))
        appender.handle(record())
        assert reader.read() == b"INFO - hello\n"
    assert names(tmp_path) == ["x.log"]
    assert err.getvalue() == ""


def test_the_least_size_is_dcmtks():
    assert ROLLING_BYTES_MIN == 204_800


# --- files that are put away by time

NOON = time.mktime((2024, 5, 31, 12, 0, 0, 0, 0, -1))
DAY = 86_400


def daily(folder, complaints, *, backups=10, now=NOON):
    return DailyRollingFileAppender(
        "f",
        complaints,
        FileOptions(path=str(folder / "x.log")),
        schedule=Schedule.DAILY,
        backups=backups,
        clock=lambda: now,
    )


def test_a_file_is_put_away_with_the_first_message_of_a_new_period(tmp_path, complaints, opened):
    appender = opened(daily(tmp_path, complaints))
    appender.handle(record("001", created=NOON))
    appender.handle(record("002", created=NOON + DAY / 2 - 1))
    assert names(tmp_path) == ["x.log"]
    appender.handle(record("003", created=NOON + DAY / 2))
    appender.handle(record("004", created=NOON + DAY))
    assert texts(tmp_path) == {"x.log": "003", "x.log.2024-05-31": "001"}
    appender.handle(record("005", created=NOON + 5 * DAY))
    assert texts(tmp_path) == {"x.log": "005", "x.log.2024-05-31": "001", "x.log.2024-06-01": "003"}


def test_nothing_is_put_away_at_the_end(tmp_path, complaints):
    appender = daily(tmp_path, complaints)
    appender.handle(record("001", created=NOON))
    appender.close()
    assert texts(tmp_path) == {"x.log": "001"}


def test_older_files_of_the_same_period_get_numbers(tmp_path, complaints, opened):
    (tmp_path / "x.log.2024-05-31").write_text("001")
    (tmp_path / "x.log.2024-05-31.1").write_text("000")
    (tmp_path / "x.log.2024-05-31.2").write_text("old")
    appender = opened(daily(tmp_path, complaints, backups=2))
    appender.handle(record("002", created=NOON))
    appender.handle(record("003", created=NOON + DAY))
    assert texts(tmp_path) == {
        "x.log": "003",
        "x.log.2024-05-31": "002",
        "x.log.2024-05-31.1": "001",
        "x.log.2024-05-31.2": "000",
    }


def test_two_processes_put_a_period_away_once(tmp_path, complaints, opened):
    one, other = (opened(daily(tmp_path, complaints)) for _ in range(2))
    one.handle(record("001", created=NOON))
    other.handle(record("002", created=NOON + DAY))
    one.handle(record("003", created=NOON + DAY))
    assert names(tmp_path) == ["x.log", "x.log.2024-05-31"]
    assert (tmp_path / "x.log").read_text() == "INFO - 002\nINFO - 003\n"


# --- in a thread of its own


class Slow(NullAppender):
    """Waits with its first message until it is let go."""

    def __init__(self, complaints):
        super().__init__("slow", complaints)
        self.go_on = threading.Event()
        self.taken = []
        self.threads = set()

    def append(self, record):
        self.go_on.wait()
        self.taken.append(record.getMessage())
        self.threads.add(threading.current_thread().name)


def test_messages_are_written_in_order_by_a_thread_that_ends(complaints):
    slow = Slow(complaints)
    appender = AsyncAppender("a", complaints, slow, 10)
    for number in range(10):
        appender.handle(record(str(number)))
    assert slow.taken == []
    slow.go_on.set()
    appender.close()
    assert slow.taken == [str(number) for number in range(10)]
    assert slow.threads == {"log"}
    assert not [thread for thread in threading.enumerate() if thread.name == "log"]


def test_when_too_many_wait_the_next_one_waits_too(complaints):
    slow = Slow(complaints)
    appender = AsyncAppender("a", complaints, slow, 2)
    for number in range(3):  # one is in the hands of the thread
        appender.handle(record(str(number)))
    late = threading.Thread(target=appender.handle, args=(record("3"),))
    late.start()
    late.join(0.2)
    assert late.is_alive()
    slow.go_on.set()
    late.join()
    appender.close()
    assert len(slow.taken) == 4


def test_the_other_appender_keeps_its_threshold_and_the_number_of_the_thread(complaints):
    stream = io.StringIO()
    console = ConsoleAppender("c", complaints, stream)
    console.setLevel(NUMBERS[LogLevel.WARN])
    appender = AsyncAppender("a", complaints, console, 2)
    appender.handle(record("not this"))
    warned = record("this", LogLevel.WARN)
    appender.handle(warned)
    appender.close()
    assert stream.getvalue() == "WARN - this\n"
    assert warned.native_thread == threading.get_native_id()


def test_flushing_waits_until_everything_is_written(tmp_path, complaints):
    file = file_appender(tmp_path, complaints, flushes=False)
    appender = AsyncAppender("a", complaints, file, 100)
    appender.flush()
    for number in range(100):
        appender.handle(record(str(number)))
    appender.flush()
    assert len((tmp_path / "x.log").read_text().splitlines()) == 100
    appender.close()


def test_without_a_message_no_thread_begins(complaints):
    appender = AsyncAppender("a", complaints, NullAppender("n", complaints), 2)
    assert not [thread for thread in threading.enumerate() if thread.name == "log"]
    appender.close()


FORKING = """
import io, json, os, sys
from stowkeeper.dcmtk.log_options import LogOptions
from stowkeeper.dcmtk.oflog.loggers import Loggers

loggers = Loggers("storescp")
loggers.start(LogOptions(config_file=sys.argv[1]))
logger = loggers.get("dcmtk.apps.storescp")
logger.info("parent")
loggers.flush()
child = os.fork()
logger.info("child" if child == 0 else "parent again")
loggers.close()
if child:
    assert os.waitpid(child, 0)[1] == 0
    print(json.dumps("done"))
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["FileAppender", "AsyncAppender"])
def test_a_forked_process_logs_too(kind, tmp_path):
    file = {"FileAppender": "a", "AsyncAppender": "a.Appender"}[kind]
    (tmp_path / "log.cfg").write_text(
        "log4cplus.rootLogger = INFO, a\n"
        f"log4cplus.appender.a = log4cplus::{kind}\n"
        f"log4cplus.appender.{file} = log4cplus::FileAppender\n"
        f"log4cplus.appender.{file}.File = {tmp_path}/x.log\n"
        f"log4cplus.appender.{file}.ImmediateFlush = false\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING, str(tmp_path / "log.cfg")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(run.stdout) == "done"
    assert run.stderr == ""
    lines = (tmp_path / "x.log").read_text().splitlines()
    assert sorted(lines) == ["INFO - child", "INFO - parent", "INFO - parent again"]


FORKING_WHILE_MESSAGES_WAIT = """
import io, json, logging, os, threading
from stowkeeper.dcmtk.oflog.appenders import Appender
from stowkeeper.dcmtk.oflog.async_appender import AsyncAppender
from stowkeeper.dcmtk.oflog.complaints import Complaints

go_on, taken = threading.Event(), []

class Slow(Appender):
    def append(self, record):
        go_on.wait()
        taken.append(record.getMessage())

def log(message):
    appender.handle(logging.LogRecord("x", logging.INFO, "", 0, message, (), None))

complaints = Complaints(io.StringIO())
appender = AsyncAppender("a", complaints, Slow("s", complaints), 100)
for number in range(3):
    log(str(number))
reading, writing = os.pipe()
child = os.fork()
if not child:
    log("child")
go_on.set()
appender.close()
if child:
    os.waitpid(child, 0)
    print(json.dumps([taken, json.loads(os.read(reading, 1000))]))
else:
    os.write(writing, json.dumps(taken).encode())
"""


@pytest.mark.slow
def test_what_waits_at_a_fork_is_written_once():
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKING_WHILE_MESSAGES_WAIT],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert run.stderr == ""
    assert json.loads(run.stdout) == [["0", "1", "2"], ["child"]]
