import itertools
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.uid import ExplicitVRBigEndian

from petlesion.dicom.files import find_dicom, read_header
from petlesion.dicom.series import Series, group_series, read_volume, stack
from petlesion.errors import FormatError, GeometryError, SeriesError
from petlesion.volume import Volume
from tests.dicom.builders import SeriesSpec, ct_spec, pet_spec, slice_dataset, write_series


def load(folder: Path) -> list[Series]:
    files = find_dicom(folder)
    return group_series(files, [read_header(file) for file in files])


def load_one(folder: Path) -> Series:
    (series,) = load(folder)
    return series


def volume_of(folder: Path) -> Volume:
    return read_volume(stack(load_one(folder)))


@pytest.fixture
def stored(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 2000, (6, 5, 7)).astype(np.uint16)


def test_slices_are_sorted_by_position_and_rescaled(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path, stored, ct_spec(spacing=(3.0, 2.0, 1.5), origin=(-10.0, 20.0, -30.0)))
    volume = volume_of(tmp_path)
    np.testing.assert_array_equal(volume.array, stored.astype(np.int32) - 1024)
    assert volume.array.dtype == np.int16
    expected = np.diag([1.5, 2.0, 3.0, 1.0])
    expected[:3, 3] = (-10, 20, -30)
    np.testing.assert_allclose(volume.affine, expected, atol=1e-9)


def test_each_slice_has_its_own_slope(tmp_path: Path, stored: np.ndarray) -> None:
    slopes = [0.1 * (z + 1) for z in range(len(stored))]
    write_series(tmp_path, stored, SeriesSpec(header={"RescaleSlope": [f"{slope:.1f}" for slope in slopes]}))
    expected = stored * np.array(slopes)[:, None, None]
    np.testing.assert_allclose(volume_of(tmp_path).array, expected, rtol=1e-6)


def test_factors_multiply_each_slice(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path, stored, SeriesSpec())
    factors = np.arange(1, 7) / 7
    volume = read_volume(stack(load_one(tmp_path)), factors.tolist())
    np.testing.assert_allclose(volume.array, stored * factors[:, None, None], rtol=1e-6)


def axis_directions() -> list[tuple[float, ...]]:
    """Row and column cosines: all pairs of signed axes, the normal then being right-handed."""
    axes = np.eye(3)
    return [
        tuple(first * axes[i]) + tuple(second * axes[j])
        for i, j in itertools.permutations(range(3), 2)
        for first in (1, -1)
        for second in (1, -1)
    ]


@pytest.mark.parametrize("orientation", axis_directions())
def test_every_orientation_puts_each_voxel_in_its_place(
    tmp_path: Path, stored: np.ndarray, orientation: tuple[float, ...]
) -> None:
    spec = ct_spec(orientation=orientation, spacing=(3.0, 2.0, 1.5), origin=(5.0, 6.0, 7.0))
    write_series(tmp_path, stored, spec)
    volume = volume_of(tmp_path)
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    z, y, x = 4, 3, 2
    place = np.array(spec.origin) + 1.5 * x * row + 2.0 * y * column + 3.0 * z * np.cross(row, column)
    index = np.linalg.inv(volume.affine) @ np.append(place, 1)
    i, j, k = np.round(index[:3]).astype(int)
    np.testing.assert_allclose(index[:3], (i, j, k), atol=1e-6)
    assert volume.array[k, j, i] == int(stored[z, y, x]) - 1024


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(angles=st.tuples(*[st.floats(-1.5, 1.5)] * 3))
def test_oblique_series(
    tmp_path_factory: pytest.TempPathFactory, stored: np.ndarray, angles: tuple[float, ...]
) -> None:
    from scipy.spatial.transform import Rotation

    rotation = Rotation.from_euler("xyz", angles).as_matrix()
    spec = ct_spec(orientation=tuple(rotation[:, 0]) + tuple(rotation[:, 1]), spacing=(3.0, 2.0, 1.5))
    folder = tmp_path_factory.mktemp("oblique")
    write_series(folder, stored, spec)
    volume = volume_of(folder)
    expected = np.eye(4)
    expected[:3, :3] = rotation * (1.5, 2.0, 3.0)
    expected[:3, 3] = spec.origin
    np.testing.assert_allclose(volume.affine, expected, atol=1e-5)
    np.testing.assert_array_equal(volume.array, stored.astype(np.int32) - 1024)


def test_a_missing_slice_is_named(tmp_path: Path, stored: np.ndarray) -> None:
    paths = write_series(tmp_path, stored, ct_spec())
    paths[3].unlink()
    with pytest.raises(SeriesError, match=f"misses 1 slice.*{paths[2].name} and {paths[4].name}"):
        stack(load_one(tmp_path))


def test_a_duplicate_is_named(tmp_path: Path, stored: np.ndarray) -> None:
    paths = write_series(tmp_path, stored, ct_spec())
    (tmp_path / "copy.dcm").write_bytes(paths[2].read_bytes())
    with pytest.raises(SeriesError, match=r"copy\.dcm.*same place"):
        stack(load_one(tmp_path))


def test_steps_may_vary_by_a_twentieth(tmp_path: Path, stored: np.ndarray) -> None:
    positions = (0.0, 3.27, 6.54, 9.73, 13.0, 16.27)
    write_series(tmp_path / "even", stored, pet_spec(positions_mm=positions))
    found = stack(load_one(tmp_path / "even"))
    assert "3.190 to 3.270" in found.warnings[0]
    assert found.grid.spacing_mm[0] == pytest.approx(16.27 / 5)
    write_series(tmp_path / "uneven", stored, pet_spec(positions_mm=(0.0, 3.0, 6.0, 9.2, 12.2, 15.2)))
    with pytest.raises(SeriesError, match=r"3\.200 mm"):
        stack(load_one(tmp_path / "uneven"))


def test_steps_that_drift_are_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    steps = np.r_[np.full(30, 3.0), np.full(31, 3.14)]
    positions = tuple(np.cumsum(np.r_[0.0, steps]).tolist())
    write_series(tmp_path, rng.integers(0, 9, (62, 2, 2)).astype(np.uint16), pet_spec(positions_mm=positions))
    with pytest.raises(SeriesError, match="even steps"):
        stack(load_one(tmp_path))


@pytest.mark.parametrize(
    "header",
    [
        {"ImageOrientationPatient": [[1, 0, 0, 0, 1, 0]] * 5 + [[0, 1, 0, 1, 0, 0]]},
        {"PixelSpacing": [[4, 4]] * 5 + [[4, 5]]},
        {"PatientID": ["A"] * 5 + ["B"]},
        {"FrameOfReferenceUID": ["1.2"] * 5 + ["1.3"]},
    ],
)
def test_a_mixture_is_refused(tmp_path: Path, stored: np.ndarray, header: dict[str, object]) -> None:
    write_series(tmp_path, stored, ct_spec(header=header))
    with pytest.raises(SeriesError, match=f"mixture: {next(iter(header))}"):
        stack(load_one(tmp_path))


def test_two_series_in_one_folder_are_told_apart(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path / "x", stored, ct_spec())
    write_series(tmp_path / "y", stored, pet_spec())
    assert {series.modality for series in load(tmp_path)} == {"PT", "CT"}


def test_a_tilted_gantry_is_refused(tmp_path: Path, stored: np.ndarray) -> None:
    positions = [[0.0, 0.5 * z, 3.0 * z] for z in range(6)]
    write_series(tmp_path, stored, ct_spec(header={"ImagePositionPatient": positions}))
    with pytest.raises(GeometryError, match="sheared"):
        stack(load_one(tmp_path))


def test_localizers_are_left_out(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path, stored, ct_spec())
    scout = ct_spec(
        orientation=(1, 0, 0, 0, 0, -1), header={"ImageType": ("ORIGINAL", "PRIMARY", "LOCALIZER")}
    )
    write_series(tmp_path / "scout", stored[:1, :4, :4], scout)
    assert stack(load_one(tmp_path)).grid.shape == stored.shape


def test_gates_are_averaged(tmp_path: Path, rng: np.random.Generator) -> None:
    gates = rng.integers(0, 500, (2, 4, 5, 6)).astype(np.uint16)
    spec = pet_spec(header={"SeriesType": ("GATED", "IMAGE")})
    for gate, stored in enumerate(gates):
        write_series(tmp_path / str(gate), stored, spec)
    found = stack(load_one(tmp_path))
    assert "2 gates" in found.warnings[0]
    np.testing.assert_allclose(read_volume(found).array, gates.mean(axis=0) * 0.01, rtol=1e-5)
    next((tmp_path / "1").iterdir()).unlink()
    with pytest.raises(SeriesError, match="gates"):
        stack(load_one(tmp_path))


def test_dynamic_series_are_refused(tmp_path: Path, stored: np.ndarray) -> None:
    spec = pet_spec(header={"SeriesType": ("DYNAMIC", "IMAGE")})
    write_series(tmp_path / "first", stored, spec)
    assert stack(load_one(tmp_path)).grid.shape == stored.shape
    write_series(tmp_path / "second", stored, spec)
    with pytest.raises(SeriesError, match="dynamic"):
        stack(load_one(tmp_path))


@pytest.mark.parametrize("slope", [None, "-1"])
def test_a_pet_without_a_slope_is_refused(tmp_path: Path, stored: np.ndarray, slope: str | None) -> None:
    write_series(tmp_path, stored, pet_spec(header={"RescaleSlope": slope}))
    with pytest.raises(SeriesError, match=r"RescaleSlope \(0028,1053\)"):
        volume_of(tmp_path)


def test_bits_that_are_not_used_do_not_count(tmp_path: Path) -> None:
    values = np.array([[[-2048, -1], [0, 2047]]] * 2, dtype=np.int16)
    overlay = np.uint16(0xA000)
    for signed, expected in ((1, values), (0, values & 0x0FFF)):
        folder = tmp_path / str(signed)
        used = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed}
        stored = (values.view(np.uint16) & 0x0FFF) | overlay
        write_series(folder, stored, ct_spec(intercept=0.0, header=used))
        np.testing.assert_array_equal(volume_of(folder).array, expected)


def test_big_endian_pixels(tmp_path: Path, stored: np.ndarray) -> None:
    for z, plane in enumerate(stored):
        dataset = slice_dataset(plane, ct_spec(intercept=0.0), z)
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        dataset.PixelData = plane.astype(">u2").tobytes()
        pydicom.dcmwrite(tmp_path / f"{z}.dcm", dataset, enforce_file_format=True)
    np.testing.assert_array_equal(volume_of(tmp_path).array, stored)


def test_truncated_pixels_are_refused(tmp_path: Path, stored: np.ndarray) -> None:
    path = write_series(tmp_path, stored, ct_spec())[0]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FormatError, match=path.name):
        volume_of(tmp_path)


def test_pixels_that_are_no_grey_scale_are_refused(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path, stored, ct_spec(header={"PhotometricInterpretation": "MONOCHROME1"}))
    with pytest.raises(FormatError, match="grey-scale"):
        volume_of(tmp_path)


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*.dcm")):
            archive.write(path, str(path.relative_to(folder)))
    return target


def test_a_zip_reads_as_its_folder(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path / "in", stored, ct_spec())
    archive = zipped(tmp_path / "in", tmp_path / "study.zip")
    np.testing.assert_array_equal(volume_of(archive).array, volume_of(tmp_path / "in").array)


@pytest.mark.parametrize(
    "name", ["../evil.dcm", "/etc/evil.dcm", "a/../../evil.dcm", "..\\evil.dcm", "C:/evil.dcm"]
)
def test_a_zip_cannot_leave_its_folder(tmp_path: Path, name: str) -> None:
    path = tmp_path / "evil.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"\0" * 128 + b"DICM")
    with pytest.raises(FormatError, match="leave its folder"):
        find_dicom(path)


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            with archive.open(f"{number}.dcm", "w") as member:
                for _ in range(100):
                    member.write(bytes(2**20))
    with pytest.raises(FormatError, match="times its size"):
        find_dicom(path)


def test_a_damaged_zip_is_refused(tmp_path: Path, stored: np.ndarray) -> None:
    write_series(tmp_path / "in", stored, ct_spec())
    archive = zipped(tmp_path / "in", tmp_path / "study.zip")
    archive.write_bytes(archive.read_bytes()[:-200])
    with pytest.raises(FormatError, match=r"study\.zip"):
        find_dicom(archive)


def test_a_stated_length_takes_no_memory(tmp_path: Path) -> None:
    meta = b"\x02\x00\x10\x00UI\x14\x001.2.840.10008.1.2.1\0"
    huge = b"\x10\x00\x10\x00UT\0\0\xf0\xff\xff\xff" + b"x" * 10
    path = tmp_path / "huge.dcm"
    path.write_bytes(b"\0" * 128 + b"DICM" + meta + huge)
    tracemalloc.start()
    header = read_header(find_dicom(path)[0])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20 and "PatientID" not in header


def test_a_long_series_takes_little_more_memory_than_its_volume(tmp_path: Path) -> None:
    stored = np.zeros((120, 128, 128), np.uint16)
    write_series(tmp_path, stored, ct_spec())
    found = stack(load_one(tmp_path))
    tracemalloc.start()
    volume = read_volume(found)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < volume.array.nbytes + 20 * stored[0].nbytes
