"""The export folder: whole copies under a name of its users' liking, and an archive that stays as it was."""

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stowkeeper.archive.versions import mark_removed, mark_removing
from stowkeeper.durable import copying
from stowkeeper.durable.copying import CopyStoppedError, copy_into
from stowkeeper.durable.filesystem import FileSystem
from stowkeeper.services.events.export import EXPORT_PLACES, ExportWay, filled_path
from stowkeeper.services.events.feed import later_arrivals_elsewhere
from stowkeeper.services.events.targets import DeliveryError
from support.event_rig import event_rig


def never():
    return False


def at_once():
    return True


@pytest.fixture
def rig(tmp_path):
    with event_rig(tmp_path / "archive") as made:
        yield made


@pytest.fixture(autouse=True)
def archive_folder(tmp_path):
    (tmp_path / "archive").mkdir()


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "export"
    made.mkdir()
    return made


def way(rig, folder, template="{sop_instance_uid}{ext}", files=None, **more):
    chosen = {"extension": ".dcm", "mode": 0o644, **more}
    return ExportWay(
        files or FileSystem(), rig.archive.root, rig.database, folder=str(folder), template=template, **chosen
    )


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_copy_is_what_the_archive_has_and_no_link(rig, folder):
    rig.keep(1)
    (event,) = rig.events()
    way(rig, folder, mode=0o640).deliver(event, never)
    (copy,) = folder.iterdir()
    original = Path(rig.archive.root, event.path)
    assert copy.name == "1.2.3.1.dcm"
    assert copy.read_bytes() == original.read_bytes()
    assert copy.stat().st_ino != original.stat().st_ino
    assert copy.stat().st_mode & 0o777 == 0o640
    before = original.read_bytes()
    copy.write_bytes(b"changed")
    assert original.read_bytes() == before


def test_a_newer_version_replaces_the_copy_alone(rig, folder):
    rig.keep(1)
    rig.keep(1, content=7)
    first, second = rig.events()
    for event in (first, second):
        way(rig, folder).deliver(event, never)
    (copy,) = folder.iterdir()
    assert copy.read_bytes() == Path(rig.archive.root, second.path).read_bytes()
    assert Path(rig.archive.root, first.path).exists()


def test_of_versions_in_two_studies_the_later_one_stays_in_whatever_order_they_are_told(rig, folder):
    rig.keep(1)
    rig.keep(1, study="1.2.99", series="1.2.99.1", content=7)
    first, second = rig.events()
    for event in (second, first):
        way(rig, folder).deliver(event, never)
    (copy,) = folder.iterdir()
    assert copy.read_bytes() == Path(rig.archive.root, second.path).read_bytes()


def test_versions_in_two_studies_have_two_copies_where_their_names_differ(rig, folder):
    rig.keep(1)
    rig.keep(1, study="1.2.99", series="1.2.99.1", content=7)
    for event in rig.events():
        way(rig, folder, "{series_instance_uid}-{sop_instance_uid}{ext}").deliver(event, never)
        way(rig, folder, "{study_instance_uid}/{sop_instance_uid}{ext}").deliver(event, never)
    assert names_in(folder) == [
        "1.2.10.1-1.2.3.1.dcm",
        "1.2.10/1.2.3.1.dcm",
        "1.2.99.1-1.2.3.1.dcm",
        "1.2.99/1.2.3.1.dcm",
    ]


def test_an_earlier_version_stays_where_the_later_one_was_removed(rig, folder):
    rig.keep(1)
    rig.keep(1, study="1.2.99", series="1.2.99.1", content=7)
    first, second = rig.events()
    with rig.database.write() as transaction:
        mark_removing(transaction, [2], reason="")
    Path(rig.archive.root, second.path).unlink()
    way(rig, folder).deliver(first, never)
    way(rig, folder).deliver(second, never)
    (copy,) = folder.iterdir()
    assert copy.read_bytes() == Path(rig.archive.root, first.path).read_bytes()


def test_what_a_crash_left_of_a_copy_that_is_not_made_any_more_is_removed(rig, folder):
    rig.keep(1)
    (first,) = rig.events()
    template = "{calling_ae_title}/{sop_instance_uid}{ext}"

    left = folder / "SCANNER" / f".1.2.3.1.dcm.{first.seq}.part"
    left.parent.mkdir()
    left.write_bytes(b"half")
    rig.keep(1, study="1.2.99", series="1.2.99.1", content=7)
    way(rig, folder, template).deliver(first, never)
    assert names_in(folder) == []


def test_copies_of_one_name_are_never_each_others_parts(rig, folder):
    rig.keep(1, 2, size=200_000)
    one, other = rig.events()
    copies = way(rig, folder, "{calling_ae_title}{ext}")
    begun, goes_on = threading.Event(), threading.Event()

    def late(*values):
        if threading.current_thread() is behind:
            begun.set()
            assert goes_on.wait(30)
        copy_into(*values)

    behind = threading.Thread(target=copies.deliver, args=(one, never))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("stowkeeper.services.events.export.copy_into", late)
        behind.start()
        assert begun.wait(30)
        copies.deliver(other, never)
        (copy,) = folder.glob("*.dcm")
        assert copy.read_bytes() == Path(rig.archive.root, other.path).read_bytes()
        goes_on.set()
        behind.join()
    assert names_in(folder) == ["SCANNER.dcm"]
    assert copy.read_bytes() == Path(rig.archive.root, one.path).read_bytes()


def test_later_versions_in_other_studies_are_found_without_a_walk(rig):
    rig.keep(1)
    rig.keep(1, study="1.2.99", series="1.2.99.1", content=7)
    first, second = rig.events()
    asked = []
    with rig.database.read() as connection:
        driver = connection.connection.driver_connection
        driver.set_trace_callback(asked.append)
        assert later_arrivals_elsewhere(connection, first) == [second]
        driver.set_trace_callback(None)
        (question,) = asked
        steps = [step[3] for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {question}")]
    assert "SEARCH instances USING INDEX instances_uid_hash (uid_hash=?)" in steps
    assert "SEARCH changes USING INDEX changes_received (receipt_key=?)" in steps
    of_the_empty_list = {
        "SCAN CONSTANT ROW",
        "SCAN (subquery-1)",
    }  # the kinds of changes that are asked for: none
    assert not [step for step in steps if step.startswith("SCAN") and step not in of_the_empty_list]


def test_a_copy_whose_name_a_folder_has_leaves_nothing_behind(rig, folder):
    rig.keep(1)
    (event,) = rig.events()
    (folder / "1.2.3.1.dcm").mkdir()
    with pytest.raises(DeliveryError, match="Is a directory"):
        way(rig, folder).deliver(event, never)
    assert names_in(folder) == []


def test_a_template_makes_folders(rig, folder):
    rig.keep(1)
    (event,) = rig.events()
    template = "{calling_ae_title}/{study_instance_uid}/{received_date}-{sop_instance_uid}{ext}"
    way(rig, folder, template, extension="").deliver(
        replace(event, received_at="2026-03-01T10:00:00Z"), never
    )
    assert names_in(folder) == ["SCANNER/1.2.10/20260301-1.2.3.1"]


def test_what_was_removed_meanwhile_is_passed_over(rig, folder):
    rig.keep(1)
    (event,) = rig.events()
    with rig.database.write() as transaction:
        mark_removing(transaction, [1], reason="")
    Path(rig.archive.root, event.path).unlink()
    with rig.database.write() as transaction:
        mark_removed(transaction, [1])
    way(rig, folder).deliver(event, never)
    assert names_in(folder) == []


def test_what_is_missing_is_no_success(rig, folder):
    rig.keep(1)
    (event,) = rig.events()
    Path(rig.archive.root, event.path).unlink()
    with pytest.raises(DeliveryError, match="is not there: run stowkeeper verify"):
        way(rig, folder).deliver(event, never)


def test_a_folder_that_is_gone_is_not_made(rig, folder):
    rig.keep(1)
    (event,) = rig.events()
    folder.rmdir()
    for template in ("{sop_instance_uid}{ext}", "{study_instance_uid}/{sop_instance_uid}{ext}"):
        with pytest.raises(DeliveryError, match="cannot be written: No such file or directory"):
            way(rig, folder, template).deliver(event, never)
    assert not folder.exists()


def test_nothing_is_written_through_a_link_that_somebody_put_there(rig, folder, tmp_path):
    rig.keep(1)
    (event,) = rig.events()
    precious = tmp_path / "precious"
    precious.write_text("ours")
    (folder / f".1.2.3.1.dcm.{event.seq}.part").symlink_to(precious)
    (folder / "1.2.3.1.dcm").symlink_to(precious)
    way(rig, folder).deliver(event, never)
    assert precious.read_text() == "ours"
    assert not (folder / "1.2.3.1.dcm").is_symlink()


def test_no_folder_that_is_a_link_is_written_into(rig, folder, tmp_path):
    rig.keep(1)
    (event,) = rig.events()
    private = tmp_path / "private"
    (private / "1.2.10").mkdir(parents=True)
    template = "{calling_ae_title}/{study_instance_uid}/{sop_instance_uid}{ext}"
    (folder / "SCANNER").symlink_to(private)
    with pytest.raises(DeliveryError, match="SCANNER is in the way, which is no folder, or a link"):
        way(rig, folder, template).deliver(event, never)
    (folder / "SCANNER").unlink()
    (folder / "SCANNER").mkdir()
    (folder / "SCANNER" / "1.2.10").symlink_to(private / "1.2.10")
    with pytest.raises(DeliveryError, match=r"1\.2\.10 is in the way"):
        way(rig, folder, template).deliver(event, never)
    assert names_in(private) == []
    (folder / "SCANNER" / "1.2.10").unlink()
    (folder / "SCANNER" / "1.2.10").write_text("")
    with pytest.raises(DeliveryError, match=r"1\.2\.10 is in the way"):
        way(rig, folder, template).deliver(event, never)
    linked = tmp_path / "linked"
    linked.symlink_to(private)  # the export folder itself is named by the settings
    way(rig, linked, template).deliver(event, never)
    assert names_in(private) == ["SCANNER/1.2.10/1.2.3.1.dcm"]


class Full(FileSystem):
    def synchronize(self, descriptor):
        raise OSError(28, "No space left on device")


def test_a_full_disk_leaves_nothing_half(rig, folder):
    rig.keep(1)
    (event,) = rig.events()
    (folder / "1.2.3.1.dcm").write_text("the copy before")
    with pytest.raises(DeliveryError, match="No space left on device"):
        way(rig, folder, files=Full()).deliver(event, never)
    assert names_in(folder) == ["1.2.3.1.dcm"]
    assert (folder / "1.2.3.1.dcm").read_text() == "the copy before"


@pytest.mark.parametrize("clones", [False, True])
def test_a_copy_is_given_up_when_nobody_waits_for_it(rig, folder, monkeypatch, clones):
    monkeypatch.setattr(copying, "_clone", lambda _source, _target: clones)
    rig.keep(1)
    (event,) = rig.events()
    if clones:  # a clone is there at once
        way(rig, folder).deliver(event, at_once)
        return
    with pytest.raises(DeliveryError, match="the delivery was stopped"):
        way(rig, folder).deliver(event, at_once)
    assert names_in(folder) == []


@pytest.mark.slow
@given(st.text(min_size=1, max_size=80))
def test_no_value_of_a_peer_leads_out_of_the_folder(value):
    values = dict.fromkeys([name for name in EXPORT_PLACES if name != "ext"], value)
    path = filled_path("{calling_ae_title}/{sop_instance_uid}{ext}", values, ".dcm")
    assert path.count("/") == 1
    assert "\0" not in path
    assert os.path.normpath(path) == path
    assert not path.startswith("..")


def test_what_has_no_value_is_a_dash():
    values = dict.fromkeys([name for name in EXPORT_PLACES if name != "ext"], "")
    assert filled_path("{study_instance_uid}/{sop_class_uid}", values, "") == "-/-"


@pytest.mark.parametrize("size", [0, 1, 3 * 4096, 1_000_000])
def test_a_file_of_any_length_is_copied(tmp_path, monkeypatch, size):
    monkeypatch.setattr(copying, "_COPY_BYTES", 4096)
    content = os.urandom(size)
    (tmp_path / "source").write_bytes(content)
    with open(tmp_path / "source", "rb") as source, open(tmp_path / "target", "wb") as target:
        assert copy_into(source.fileno(), target.fileno(), never) == size
    assert (tmp_path / "target").read_bytes() == content


def test_a_copy_stops_in_its_middle(tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "_COPY_BYTES", 4096)
    monkeypatch.setattr(copying, "_clone", lambda _source, _target: False)
    (tmp_path / "source").write_bytes(b"x" * 100_000)
    looks = iter([False, False, True])
    with open(tmp_path / "source", "rb") as source, open(tmp_path / "target", "wb") as target:
        with pytest.raises(CopyStoppedError):
            copy_into(source.fileno(), target.fileno(), lambda: next(looks))
        assert os.fstat(target.fileno()).st_size == 8192
