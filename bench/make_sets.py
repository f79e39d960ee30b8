"""Make the seeded instance sets that the benchmark sends, from pydicom's bundled CT_small.dcm.

`python make_sets.py [FOLDER]` (default bench/sets) makes ct/ mr/ tiny/ big/. Pixels and UIDs come from one seed, so that
every machine sends the same bytes. A finished set carries a mark and is not made again. The names tell sizes, not
modalities: every instance is of CT Image Storage, in Explicit VR Little Endian.
"""

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian

SEED = 1
FORMAT = "sets 1"
"""Written into the mark of a finished set; a change of how sets are made changes it."""
DEFAULT_FOLDER = Path(__file__).parent / "sets"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSet:
    """A set of like instances: how many, and the size of their pixels (16 bits each)."""

    name: str
    title: str
    instances: int
    rows: int
    columns: int
    frames: int = 1
    studies: int = 1
    series_a_study: int = 2


SETS = {
    each.name: each
    for each in (
        InstanceSet(name="ct", title="CT 512×512, 0.5 MB", instances=400, rows=512, columns=512, studies=2),
        InstanceSet(name="mr", title="MR 256×256, 0.13 MB", instances=1000, rows=256, columns=256, studies=2),
        InstanceSet(name="tiny", title="tiny 32×32, 8 kB", instances=2000, rows=32, columns=32, studies=20),
        InstanceSet(name="big", title="multi-frame, 210 MB", instances=4, rows=512, columns=512, frames=400),
    )
}


def seeded_uids(generator: np.random.Generator) -> Iterator[str]:
    """Yield UIDs of 42 characters each under the root for UUIDs (PS3.5 §B.2), always the same for one seed."""
    while True:
        high, low = (int(part) for part in generator.integers(0, 10**18, 2))
        yield f"2.25.{(9 * 10**18 + high) * 10**18 + low}"


def pixel_bytes(generator: np.random.Generator, instance_set: InstanceSet) -> bytes:
    """Return noise like that of a CT, frame by frame, so that no compressing file system has an easy time."""
    size = instance_set.rows * instance_set.columns
    frames = (generator.normal(1000, 100, size).astype("<i2").tobytes() for _ in range(instance_set.frames))
    return b"".join(frames)


def make_set(instance_set: InstanceSet, folder: Path) -> None:
    """Write one set into its folder; one that is there and finished is left alone."""
    mark = folder / ".made"
    wanted = f"{FORMAT} {instance_set}"
    if mark.exists() and mark.read_text(encoding="utf-8") == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    generator = np.random.default_rng([SEED, instance_set.instances])
    uids = seeded_uids(generator)
    studies = [
        (next(uids), [next(uids) for _ in range(instance_set.series_a_study)])
        for _ in range(instance_set.studies)
    ]
    data_set = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    data_set.pop((0xFFFC, 0xFFFC), None)  # trailing padding would only blur the sizes
    data_set.Rows, data_set.Columns = instance_set.rows, instance_set.columns
    if instance_set.frames > 1:
        data_set.NumberOfFrames = instance_set.frames
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    for index in range(instance_set.instances):
        study, series = studies[index * instance_set.studies // instance_set.instances]
        data_set.StudyInstanceUID = study
        data_set.SeriesInstanceUID = series[index % instance_set.series_a_study]
        data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = next(uids)
        data_set.InstanceNumber = index + 1
        data_set.PixelData = pixel_bytes(generator, instance_set)
        data_set.save_as(folder / f"{index:05d}.dcm", enforce_file_format=True)
    mark.write_text(wanted, encoding="utf-8")


def main() -> None:
    """Make every set under the folder named on the command line."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT_FOLDER
    for instance_set in SETS.values():
        print(f"making {instance_set.name}: {instance_set.instances} instances", flush=True)
        make_set(instance_set, folder / instance_set.name)


if __name__ == "__main__":
    main()
