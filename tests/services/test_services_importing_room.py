"""An import waits for the catalog, and never takes that for a refusal."""

from contextlib import closing
from pathlib import Path

import pytest

from stowkeeper.services.importing import Importer, ImportOutcome, ImportStoppedError, SourceFile
from support.archive_server import instances, open_archive
from support.command_line import write_part10
from support.instances import make_instance


@pytest.fixture
def sources(tmp_path: Path) -> list[SourceFile]:
    """Return files of which every other one takes many portions."""
    made = [make_instance(number, size=2_500_000 if number % 2 else 900) for number in range(12)]
    paths = [write_part10(tmp_path / f"{number}.dcm", instance) for number, instance in enumerate(made)]
    return [SourceFile(path=str(path), is_named=True) for path in paths]


@pytest.mark.slow
@pytest.mark.parametrize("bound", [1, 2, 5])
def test_with_few_places_an_import_waits_and_every_file_is_stored(
    tmp_path: Path, sources: list[SourceFile], bound: int
) -> None:
    with closing(open_archive(tmp_path / "archive", uncatalogued_max=bound)) as archive:
        results = list(Importer(archive).run(sources))
        assert [result.outcome for result in results] == [ImportOutcome.STORED] * len(sources)
        assert len(instances(archive)) == len(sources)


@pytest.mark.slow
def test_a_disk_that_takes_nothing_more_stops_an_import(tmp_path: Path, sources: list[SourceFile]) -> None:
    with closing(open_archive(tmp_path / "archive")) as archive:
        archive.admission.distrust("the disk failed")
        with pytest.raises(ImportStoppedError, match="the disk failed"):
            list(Importer(archive).run(sources))
        assert instances(archive) == []
