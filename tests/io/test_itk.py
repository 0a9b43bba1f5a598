"""MHA and NRRD files that are written whole or not at all."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from petlesion.io.itk import write_like
from petlesion.volume import Volume

# Writes masks where no file may grow to more than a share of their size, and prints what is told of each.
SCRIPT = """
import resource, sys
from pathlib import Path
import numpy as np
from petlesion.errors import OutputError
from petlesion.io.atomic import atomic_file
from petlesion.io.itk import write_like
from petlesion.io.nifti import write_volume
from petlesion.volume import Volume

target, side = Path(sys.argv[1]), int(sys.argv[2])
mask = Volume(np.random.default_rng(0).integers(0, 2, (side,) * 3, dtype=np.uint8), np.eye(4))
original = Path(sys.argv[3]) / "original.mha"
write_volume(original, mask)

def write():
    if target.stem != "like":
        write_volume(target, mask)
        return
    with atomic_file(target) as temporary:
        write_like(temporary, mask, original)

write()
size = target.stat().st_size
for share in (0, 0.2, 0.6, 0.99):
    target.write_text("old")
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(share * size), resource.RLIM_INFINITY))
    try:
        write()
        print("written")
    except OutputError as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
"""


@pytest.mark.parametrize("side", [8, 100])
@pytest.mark.parametrize("name", ["mask.mha", "mask.nrrd", "like.mha"])
def test_a_full_disk_is_told_and_leaves_what_was_there(tmp_path: Path, name: str, side: int) -> None:
    target = tmp_path / "out" / name
    target.parent.mkdir()
    command = [sys.executable, "-c", SCRIPT, str(target), str(side), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert len(told) == 4
    assert [line for line in told if not line.startswith(f"{target} cannot be written (")] == []
    assert all(line.endswith("that there is room") for line in told)
    assert target.read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_a_mask_gets_the_place_of_its_original_to_the_last_bit(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    angle = np.deg2rad(17)
    original = sitk.GetImageFromArray(rng.normal(size=(4, 5, 6)).astype(np.float32))
    original.SetSpacing((2.0364201068878174, 1 / 3, np.pi))
    original.SetOrigin((-347.00000000000006, 0.1 + 0.2, -1e-7))
    original.SetDirection((np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1))
    sitk.WriteImage(original, str(tmp_path / "pet.mha"))
    mask = rng.integers(0, 2, (4, 5, 6), dtype=np.uint8)
    write_like(tmp_path / "mask.mha", Volume(mask, np.eye(4)), tmp_path / "pet.mha")
    written, read = (sitk.ReadImage(str(tmp_path / name)) for name in ("mask.mha", "pet.mha"))
    for fact in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(written, fact)() == getattr(read, fact)() == getattr(original, fact)()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), mask)
