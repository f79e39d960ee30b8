"""Which studies begin, are quiet, and go on late; told once each, whoever looks and whatever breaks."""

import pytest
from sqlalchemy import select

from stowkeeper.archive.changes import ChangeKind
from stowkeeper.database.schema import changes, consumers
from stowkeeper.services.events import study_watch
from stowkeeper.services.events.feed import EventKind
from stowkeeper.services.events.study_watch import StudyWatch
from support.event_rig import QUIET_SECONDS, event_rig
from support.job_rig import counting_writes

RECEIVED, REPEATED = "instance.received", "instance.repeated"
STARTED, QUIET, LATE = "study.started", "study.quiet", "study.late"


@pytest.fixture
def rig(tmp_path):
    with event_rig(tmp_path) as made:
        yield made


def test_a_study_begins_with_its_first_instance(rig):
    rig.keep(1, 2)
    rig.look()
    assert rig.told() == [RECEIVED, RECEIVED, STARTED]
    started = rig.events()[-1]
    assert (started.study_instance_uid, started.revision) == ("1.2.10", 1)
    assert started.sop_instance_uid == "1.2.3.1"
    assert started.evidence["began_at"] == started.at == rig.clocks.wall
    rig.keep(3)
    rig.look()
    assert rig.told()[3:] == [RECEIVED]


def test_a_study_is_quiet_when_nothing_came_for_some_time(rig):
    rig.keep(1, instance_number=1)
    rig.look()
    rig.clocks.pass_(QUIET_SECONDS - 1)
    rig.look()
    assert QUIET not in rig.told()
    rig.keep(2, instance_number=2)
    rig.look()
    rig.clocks.pass_(QUIET_SECONDS - 1)
    rig.look()
    assert QUIET not in rig.told()
    rig.clocks.pass_(1)
    rig.look()
    assert rig.told().count(QUIET) == 1
    rig.clocks.pass_(10 * QUIET_SECONDS)
    rig.look()
    assert rig.told().count(QUIET) == 1
    quiet = rig.events()[-1]
    assert (quiet.kind, quiet.revision, quiet.sop_instance_uid) == (EventKind.STUDY_QUIET, 1, "1.2.3.2")
    assert quiet.words == "revision 1 is quiet for 60 s: 2 instances in 1 series, 0 instance numbers missing"


def test_one_of_something_is_called_one(rig):
    rig.keep(1, instance_number=1)
    rig.look()
    rig.clocks.pass_(QUIET_SECONDS)
    rig.look()
    assert rig.events()[-1].words.endswith(": 1 instance in 1 series, 0 instance numbers missing")
    rig.keep(2, instance_number=3)
    rig.look()
    rig.clocks.pass_(QUIET_SECONDS)
    rig.look()
    assert rig.events()[-1].words.endswith(": 2 instances in 1 series, 1 instance number missing")


def test_quiet_comes_with_what_it_is_based_on(rig):
    began = rig.clocks.wall
    rig.keep(1, instance_number=1)
    rig.clocks.pass_(5)
    rig.keep(4, instance_number=4)
    rig.keep(5, series="1.2.10.2")
    last = rig.clocks.wall
    rig.look()
    rig.clocks.pass_(QUIET_SECONDS)
    rig.look()
    assert rig.events()[-1].evidence == {
        "began_at": began,
        "last_arrival_at": last,
        "quiet_seconds": QUIET_SECONDS,
        "arrivals": 3,
        "instances": 3,
        "series_count": 2,
        "numbers_missing": 2,
        "instances_expected": None,
        "series": [
            {
                "series_instance_uid": "1.2.10.1",
                "modality": "CT",
                "instances": 2,
                "lowest_number": 1,
                "highest_number": 4,
                "numbers_missing": 2,
                "instances_expected": None,
            },
            {
                "series_instance_uid": "1.2.10.2",
                "modality": "CT",
                "instances": 1,
                "lowest_number": None,
                "highest_number": None,
                "numbers_missing": 0,
                "instances_expected": None,
            },
        ],
    }


ACQUISITION_NUMBER, IMAGES_IN_ACQUISITION, OF_STUDY, OF_SERIES = (
    0x00200012,
    0x00201002,
    0x00201208,
    0x00201209,
)


@pytest.mark.parametrize(
    ("first", "second", "other", "of_series", "of_study"),
    [
        ({}, {}, {}, [None, None], None),
        ({OF_SERIES: 40}, {OF_SERIES: 41}, {OF_SERIES: 3}, [41, 3], 44),
        ({OF_SERIES: 40}, {}, {}, [40, None], None),
        ({OF_STUDY: 90}, {}, {OF_SERIES: 3}, [None, 3], 90),
        ({IMAGES_IN_ACQUISITION: 20}, {IMAGES_IN_ACQUISITION: 20}, {OF_SERIES: 1}, [20, 1], 21),
        (
            {ACQUISITION_NUMBER: 1, IMAGES_IN_ACQUISITION: 20},
            {ACQUISITION_NUMBER: 2, IMAGES_IN_ACQUISITION: 30},
            {},
            [50, None],
            None,
        ),
        ({ACQUISITION_NUMBER: 1, IMAGES_IN_ACQUISITION: 20}, {ACQUISITION_NUMBER: 2}, {}, [None, None], None),
        ({IMAGES_IN_ACQUISITION: 20, OF_SERIES: 60}, {}, {}, [60, None], None),
        ({OF_SERIES: -1, OF_STUDY: 0}, {}, {}, [None, None], None),
    ],
)
def test_quiet_says_how_many_were_expected_where_instances_say_so(
    rig, first, second, other, of_series, of_study
):
    rig.keep(1, integers=first)
    rig.keep(2, integers=second)
    rig.keep(3, series="1.2.10.2", integers=other)
    rig.look()
    rig.clocks.pass_(QUIET_SECONDS)
    rig.look()
    quiet = rig.events()[-1]
    assert [one["instances_expected"] for one in quiet.evidence["series"]] == of_series
    assert quiet.evidence["instances_expected"] == of_study
    assert f"3 instances{f' of {of_study} expected' if of_study else ''} in 2 series" in quiet.words


def test_what_comes_after_quiet_is_a_new_revision(rig):
    rig.keep(1)
    rig.look()
    rig.clocks.pass_(QUIET_SECONDS)
    rig.look()
    rig.keep(2)
    rig.look()
    rig.clocks.pass_(QUIET_SECONDS)
    rig.look()
    assert [(str(event.kind), event.revision) for event in rig.events() if event.revision] == [
        (STARTED, 1),
        (QUIET, 1),
        (LATE, 2),
        (QUIET, 2),
    ]
    assert rig.events()[-1].evidence["arrivals"] == 1
    assert rig.events()[-1].evidence["instances"] == 2


def test_the_same_bytes_once_more_begin_nothing(rig):
    rig.keep(1)
    rig.look()
    rig.clocks.pass_(QUIET_SECONDS)
    rig.look()
    rig.keep(1)
    rig.look()
    rig.clocks.pass_(QUIET_SECONDS)
    rig.look()
    assert rig.told() == [RECEIVED, STARTED, QUIET, REPEATED]


def test_studies_are_watched_apart(rig):
    rig.keep(1)
    rig.keep(2, study="1.2.20", series="1.2.20.1")
    rig.look()
    rig.clocks.pass_(QUIET_SECONDS / 2)
    rig.keep(3)
    rig.look()
    rig.clocks.pass_(QUIET_SECONDS / 2)
    rig.look()
    quiet = rig.events(kinds=[EventKind.STUDY_QUIET])
    assert [event.study_instance_uid for event in quiet] == ["1.2.20"]
    assert {event.study_instance_uid for event in rig.events(study_instance_uid="1.2.10")} == {"1.2.10"}


def test_instances_outside_of_studies_are_told_alone(rig):
    rig.keep(1, study="", sop_class_uid="1.2.840.10008.5.1.4.38.1")
    rig.look()
    assert rig.told() == [RECEIVED]
    assert rig.events()[0].study_instance_uid == ""


def test_who_begins_on_a_full_archive_tells_nothing_of_what_was_there(tmp_path):
    with event_rig(tmp_path, begins=False) as rig:
        rig.keep(1)
        rig.watch.begin()
        rig.look()
        assert STARTED not in rig.told()
        rig.keep(2)
        rig.look()
        late = rig.events()[-1]
        assert (str(late.kind), late.revision) == (LATE, 2)


def test_several_watches_tell_everything_once(rig):
    others = [StudyWatch(rig.database, QUIET_SECONDS, clock=rig.clocks.now) for _ in range(2)]
    for number in range(4):
        rig.keep(number)
        for watch in (rig.watch, *others):
            watch.look()
    rig.clocks.pass_(QUIET_SECONDS)
    for watch in (*others, rig.watch):
        watch.look()
    assert rig.told().count(STARTED) == 1
    assert rig.told().count(QUIET) == 1


def test_a_clock_that_is_set_back_delays_quiet_by_no_more_than_its_time(rig):
    rig.keep(1)
    rig.look()
    rig.clocks.set_by(-86_400)
    rig.look()
    assert QUIET not in rig.told()
    rig.clocks.pass_(QUIET_SECONDS)
    rig.look()
    assert rig.told()[-1] == QUIET


def test_a_look_that_finds_nothing_writes_nothing(rig):
    rig.keep(1)
    rig.look()
    with rig.database.read() as connection:
        before = connection.execute(select(consumers)).all(), connection.execute(select(changes)).all()
    with counting_writes(rig.database) as writes:
        assert rig.watch.look() is False
    assert writes == []
    with rig.database.read() as connection:
        assert before == (
            connection.execute(select(consumers)).all(),
            connection.execute(select(changes)).all(),
        )


def test_what_was_told_is_not_followed_by_a_look_of_its_own(rig):
    rig.keep(1)
    assert rig.watch.look() is False  # what came
    rig.clocks.pass_(QUIET_SECONDS)
    assert rig.watch.look() is False  # quiet was told
    assert rig.told()[-1] == QUIET
    assert rig.watch.look() is False


def test_a_failed_write_leaves_nothing_half_told(rig, monkeypatch):
    rig.keep(1)

    def fail(*_arguments, **_named):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(study_watch, "note_study_change", fail)
        with pytest.raises(MemoryError):
            rig.watch.look()
    rig.look()
    assert rig.told() == [RECEIVED, STARTED]
    rig.clocks.pass_(QUIET_SECONDS)
    with monkeypatch.context() as patched:
        patched.setattr(study_watch, "note_study_change", fail)
        with pytest.raises(MemoryError):
            rig.watch.look()
    rig.look()
    assert rig.told() == [RECEIVED, STARTED, QUIET]


def test_an_event_tells_what_it_is_about_and_nothing_of_the_patient(rig):
    rig.keep(1)
    (event,) = rig.events()
    assert event.sop_class_uid == "1.2.840.10008.5.1.4.1.1.2"
    assert event.series_instance_uid == "1.2.10.1"
    assert event.calling_ae_title == "SCANNER"
    assert event.path.startswith("objects/1.2.10/1.2.10.1/1.2.3.1_")
    assert event.data_set_length > 600
    assert len(event.digest) == 64
    assert "Test^Patient" not in repr(event)
    assert "P1" not in repr(event)


def test_study_events_are_changes_of_kinds_of_their_own(rig):
    rig.keep(1)
    rig.look()
    with rig.database.read() as connection:
        kinds = list(connection.execute(select(changes.c.kind).order_by(changes.c.seq)).scalars())
    assert kinds == [ChangeKind.RECEIVED, ChangeKind.STUDY_STARTED]


def test_studies_become_quiet_while_others_arrive(rig):
    rig.keep(1)
    rig.look()
    rig.clocks.pass_(QUIET_SECONDS)
    rig.keep(2, study="1.2.20", series="1.2.20.1")
    rig.watch.look()  # one look: at the next one more will have arrived
    assert rig.told()[-1] == QUIET
