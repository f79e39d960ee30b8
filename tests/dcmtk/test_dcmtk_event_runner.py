"""Commands in a shell: waited for or not, and what they inherit."""

import os
from pathlib import Path

import pytest

from stowkeeper.dcmtk import event_runner
from stowkeeper.dcmtk.event_runner import EventRunner
from support.dropin import children, wait_for


def test_with_waiting_each_is_over_before_the_next(tmp_path: Path) -> None:
    runner = EventRunner(waits=True)
    runner.run(f"sleep 0.1; echo one >> {tmp_path}/record")
    runner.run(f"echo two >> {tmp_path}/record; exit 7")
    assert (tmp_path / "record").read_text() == "one\ntwo\n"
    assert os.getpid() not in children(os.getpid())


def test_without_waiting_they_run_beside_one_another_and_are_forgotten(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    runner = EventRunner(waits=False)
    before = set(children(os.getpid()))
    for number in (1, 2):
        runner.run(f"read line < {gate}; echo $line > {tmp_path}/{number}")
    started = set(children(os.getpid())) - before
    assert len(started) == 2
    runner.collect()
    assert started <= set(children(os.getpid()))
    held = os.open(gate, os.O_RDWR)  # else a line is lost between two that read
    os.write(held, b"go\ngo\n")
    wait_for(lambda: children(os.getpid()).get(min(started)) in {"Z", None}, "for the first to end")
    for process in runner._running:
        process.kill()
        process.wait()
    os.close(held)
    runner.collect()
    assert not started & set(children(os.getpid()))


def test_a_command_inherits_neither_input_nor_files(tmp_path: Path) -> None:
    with (tmp_path / "open").open("wb") as opened:
        os.set_inheritable(opened.fileno(), True)
        EventRunner(waits=True).run(f"ls -l /proc/self/fd > {tmp_path}/record; cat >> {tmp_path}/record")
    record = (tmp_path / "record").read_text()
    assert str(tmp_path / "open") not in record
    assert " 0 -> /dev/null" in record


def test_without_a_shell_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_runner, "SHELL", "/nowhere/sh")
    with pytest.raises(OSError, match="No such file"):
        EventRunner(waits=True).run("true")
