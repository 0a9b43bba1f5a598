"""The challenge's interface, also as a container runs it: no network, a root that cannot be written to."""

import math
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from typer.testing import CliRunner

from petlesion.cli.main import app
from petlesion.io.nifti import write_volume
from petlesion.pipeline import segment
from petlesion.training.export import ExportRequest, export_model
from petlesion.volume import Study, Volume
from tests.conftest import REPOSITORY

RUNNER = CliRunner()
NAME = "1.2.826.0.1.3680043-pet.mha"
LESIONS = Path("images", "automated-petct-lesion-segmentation")
GEOMETRY = ("GetOrigin", "GetSpacing", "GetDirection")
SOMEBODY = 12345
GIBIBYTE = 2**30
INSIDE = Path("/mnt")
MOUNTS = """
set -e
mount --bind "$1" "$2"
for name in out tmp; do mount --bind "$1/$name" "$2/$name"; done
for place in "$2" /; do mount -o remount,bind,ro "$place"; done
shift 2
exec "$@"
"""

Confined = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def bundle(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(ExportRequest([model_folder]), tmp_path_factory.mktemp("challenge") / "bundle").path


@pytest.fixture
def awry(phantom: Study) -> Study:
    """The phantom at a place whose numbers are not round, with the patient a little askew."""
    angle = 0.0312345678901
    cos, sin = math.cos(angle), math.sin(angle)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ np.diag([4.0364583, 4.1, 3.9])
    affine[:3, 3] = (-100 / 3, 1e-7 / 3, -1234.5678901234567)
    return Study("awry", *(Volume(image.array, affine) for image in (phantom.pet, phantom.ct) if image))


def write_input(folder: Path, study: Study) -> Path:
    assert study.ct is not None
    write_volume(folder / "images" / "pet" / NAME, study.pet)
    write_volume(folder / "images" / "ct" / "another-name.mha", study.ct)
    return folder


def challenge(folder: Path, output: Path, model: Path, *options: str) -> tuple[int, str]:
    command = ["challenge", "--input", str(folder), "--output", str(output), "--model", str(model), *options]
    result = RUNNER.invoke(app, command)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 2, str(result.exception)
    return result.exit_code, result.stderr


def test_the_mask_lies_where_the_pet_lies_to_the_last_bit(bundle: Path, awry: Study, tmp_path: Path) -> None:
    status, said = challenge(write_input(tmp_path / "in", awry), tmp_path / "out", bundle)
    assert status == 0, said
    assert [path.name for path in (tmp_path / "out" / LESIONS).iterdir()] == [NAME]
    pet = sitk.ReadImage(str(tmp_path / "in" / "images" / "pet" / NAME))
    lesions = sitk.ReadImage(str(tmp_path / "out" / LESIONS / NAME))
    assert lesions.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    for fact in GEOMETRY:
        assert getattr(lesions, fact)() == getattr(pet, fact)()
    header = (tmp_path / "out" / LESIONS / NAME).read_bytes()[:600]
    assert b"CompressedData = True" in header
    expected = segment(awry, bundle).mask.array
    assert expected.any()
    np.testing.assert_array_equal(sitk.GetArrayFromImage(lesions), expected)


def test_what_is_said_tells_neither_the_name_nor_what_was_found(
    bundle: Path, phantom: Study, tmp_path: Path
) -> None:
    status, said = challenge(write_input(tmp_path / "in", phantom), tmp_path / "out", bundle)
    assert status == 0
    assert "1 mask written" in said
    assert Path(NAME).stem not in said and "mL" not in said and "lesion," not in said


def test_where_no_body_is_found_all_of_the_images_can_be_searched(
    bundle: Path, phantom: Study, tmp_path: Path
) -> None:
    assert phantom.ct is not None
    nothing = phantom.pet.with_array(np.full_like(phantom.pet.array, 0.01))
    nothing.array[4, 4, 4] = 1.2  # warm enough for a PET in SUV, and too small for a body
    air = phantom.ct.with_array(np.full_like(phantom.ct.array, -1000))
    empty = write_input(tmp_path / "in", Study("empty", nothing, air))
    status, said = challenge(empty, tmp_path / "out", bundle)
    assert status == 2 and "--tiles full" in said
    status, said = challenge(empty, tmp_path / "out", bundle, "--tiles", "full", "--precision", "float32")
    assert status == 0, said
    assert (tmp_path / "out" / LESIONS / NAME).is_file()


def without_ct(folder: Path) -> None:
    (folder / "images" / "ct" / "another-name.mha").unlink()


def without_pet(folder: Path) -> None:
    shutil.rmtree(folder / "images" / "pet")


def with_two_pets(folder: Path) -> None:
    shutil.copy(folder / "images" / "pet" / NAME, folder / "images" / "pet" / "second.mha")


def with_another_grid(folder: Path) -> None:
    path = str(folder / "images" / "ct" / "another-name.mha")
    image = sitk.ReadImage(path)
    image.SetOrigin([place + 3 for place in image.GetOrigin()])
    sitk.WriteImage(image, path)


def truncated(folder: Path) -> None:
    path = folder / "images" / "pet" / NAME
    path.write_bytes(path.read_bytes()[:5000])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (without_ct, ("ct", "no .mha file")),
        (without_pet, ("pet", "no .mha file")),
        (with_two_pets, ("pet", "2 .mha files")),
        (with_another_grid, ("another-name.mha", "does not lie on the grid", NAME)),
        (truncated, (NAME, "truncated")),
    ],
)
def test_input_that_is_not_as_agreed_ends_in_one_sentence_and_no_output(
    bundle: Path, phantom: Study, tmp_path: Path, spoil: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    spoil(write_input(tmp_path / "in", phantom))
    status, said = challenge(tmp_path / "in", tmp_path / "out", bundle)
    assert status == 2
    assert all(word in said for word in words) and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.fixture
def confined(tmp_path: Path) -> Confined:
    """Runs a command as the challenge's container would, with `tmp_path` at INSIDE.

    There is no network, nothing can be written but INSIDE/out and INSIDE/tmp, the user is not root and has
    no name and no home, and memory and the size of files are limited. Where a user may not go so far, the
    test is skipped.
    """
    if shutil.which("unshare") is None or shutil.which("setpriv") is None:
        pytest.skip("a container's conditions need Linux's unshare and setpriv")
    as_root = os.geteuid() == 0
    tmp_path.chmod(0o755)
    for name in ("out", "tmp"):
        (tmp_path / name).mkdir()
        if as_root:
            os.chown(tmp_path / name, SOMEBODY, SOMEBODY)
    apart = ["unshare", "--mount", "--net", *([] if as_root else ["--map-root-user"])]
    # An interpreter may lie in root's home: somebody else may read it here, but write nothing.
    reading = ["--inh-caps", "-all,+dac_read_search", "--ambient-caps", "-all,+dac_read_search"]
    somebody = ["setpriv", "--reuid", str(SOMEBODY), "--regid", str(SOMEBODY), "--clear-groups", *reading]
    user = [*somebody, "--no-new-privs"] if as_root else []

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*apart, "sh", "-c", MOUNTS, "sh", str(tmp_path), str(INSIDE), *user, *map(str, command)],
            env={"PATH": os.environ["PATH"], "TMPDIR": str(INSIDE / "tmp"), "OMP_NUM_THREADS": "1"},
            cwd="/",
            preexec_fn=_limit,
            capture_output=True,
            text=True,
            check=False,
        )

    tried = run("true")
    if tried.returncode:
        pytest.skip(f"this user may not make a container's conditions: {tried.stderr.strip()}")
    return run


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (30 * GIBIBYTE, 30 * GIBIBYTE))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))


def test_the_conditions_are_a_containers(confined: Confined, tmp_path: Path) -> None:
    assert "Read-only" in confined("touch", REPOSITORY / "never").stderr
    assert "Read-only" in confined("touch", INSIDE / "never").stderr
    assert confined("touch", INSIDE / "out" / "file").returncode == 0
    listen = "import socket; socket.create_connection(('127.0.0.1', 9), timeout=1)"
    assert "unreachable" in confined(sys.executable, "-c", listen).stderr
    if os.geteuid() == 0:
        assert confined("id", "-u").stdout.strip() == str(SOMEBODY)


def test_a_container_needs_no_network_no_home_and_no_other_place(
    confined: Confined, bundle: Path, phantom: Study, tmp_path: Path
) -> None:
    write_input(tmp_path / "in", phantom)
    shutil.copytree(bundle, tmp_path / "model")
    command = ["challenge", "--input", INSIDE / "in", "--output", INSIDE / "out", "--model", INSIDE / "model"]
    done = confined(sys.executable, "-W", "error", "-m", "petlesion", *command)
    assert done.returncode == 0, done.stderr
    written = [path.relative_to(tmp_path) for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written == [Path("out") / LESIONS / NAME]
    assert not list((tmp_path / "tmp").iterdir())
    lesions = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / written[0])))
    np.testing.assert_array_equal(lesions, segment(phantom, bundle).mask.array)
