"""Images in and out, held against nibabel and SimpleITK, and files that lie."""

import gzip
import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from petlesion.errors import FormatError, GeometryError, InputError, ValueRangeError
from petlesion.io.nifti import (
    image_stem,
    is_image,
    read_grid,
    read_mask,
    read_volume,
    write_probability,
    write_volume,
)
from petlesion.volume import Volume

ENDINGS = [".nii", ".nii.gz", ".mha", ".nrrd"]
ORIENTATIONS = [
    "".join(sides)
    for axes in itertools.permutations(("LR", "PA", "SI"))
    for sides in itertools.product(*axes)
]


@pytest.fixture
def volume(rng: np.random.Generator) -> Volume:
    affine = np.diag([2.0, 2.5, 3.0, 1.0])
    affine[:3, 3] = (10.0, -20.0, 30.0)
    return Volume(rng.normal(size=(3, 4, 5)).astype(np.float32), affine)


def oblique(volume: Volume, degrees: float = 20) -> Volume:
    angle = np.deg2rad(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = volume.affine.copy()
    affine[:3, :3] = rotation @ affine[:3, :3]
    return Volume(volume.array, affine)


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> nibabel.Nifti1Image:
    image = nibabel.Nifti1Image(array, np.diag([2.0, 2.0, 3.0, 1.0]) if affine is None else affine)
    nibabel.save(image, path)
    return image


def set_header_bytes(path: Path, offset: int, value: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[offset : offset + len(value)] = value
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_volume_comes_back_in_its_own_axes(
    tmp_path: Path, volume: Volume, ending: str, orientation: str
) -> None:
    turned = oblique(volume.reoriented(orientation))
    path = tmp_path / f"image{ending}"
    write_volume(path, turned)
    back = read_volume(path)
    np.testing.assert_array_equal(back.array, turned.array)
    np.testing.assert_allclose(back.affine, turned.affine, atol=1e-4)
    assert read_grid(path).matches(turned.grid)


@pytest.mark.parametrize("ending", ENDINGS)
def test_itk_sees_each_voxel_where_the_volume_has_it(tmp_path: Path, volume: Volume, ending: str) -> None:
    turned = oblique(volume.reoriented("LAS"))
    path = tmp_path / f"image{ending}"
    write_volume(path, turned)
    image = sitk.ReadImage(str(path))
    place = (turned.affine @ [3, 2, 1, 1])[:3]
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((3, 2, 1)), place, atol=1e-3)
    assert image[3, 2, 1] == turned.array[1, 2, 3]


def test_nibabel_sees_sform_and_qform_in_ras_millimetres(tmp_path: Path, volume: Volume) -> None:
    path = tmp_path / "image.nii.gz"
    write_volume(path, volume)
    image = nibabel.load(path)
    expected = np.diag([-1, -1, 1, 1]) @ volume.affine
    for matrix, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        np.testing.assert_allclose(matrix, expected, atol=1e-5)
        assert code == 1
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(np.asarray(image.dataobj).T, volume.array)


def test_the_same_volume_gives_the_same_bytes(tmp_path: Path, volume: Volume) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        write_volume(tmp_path / name, volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64", ">i2", ">f4"])
def test_values_are_those_of_nibabel(tmp_path: Path, rng: np.random.Generator, dtype: str) -> None:
    path = tmp_path / "image.nii.gz"
    save(path, rng.integers(0, 100, (5, 4, 3)).astype(dtype))
    array = read_volume(path).array
    np.testing.assert_array_equal(array, np.asarray(nibabel.load(path).dataobj).T)
    assert array.dtype.isnative
    assert array.dtype == (np.float32 if "f" in dtype else np.dtype(dtype).newbyteorder("="))


def test_scaled_values_become_float32(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, tmp_path / "image.nii")
    array = read_volume(tmp_path / "image.nii").array
    assert array.dtype == np.float32
    np.testing.assert_allclose(array, nibabel.load(tmp_path / "image.nii").get_fdata().T, rtol=1e-6)


def test_axes_of_one_voxel_at_the_end_are_dropped(tmp_path: Path) -> None:
    save(tmp_path / "image.nii", np.zeros((5, 4, 3, 1), np.float32))
    assert read_volume(tmp_path / "image.nii").shape == (3, 4, 5)


def test_nifti_2_and_metres_are_understood(tmp_path: Path) -> None:
    image = nibabel.Nifti2Image(np.zeros((5, 4, 3), np.float32), np.diag([0.002, 0.002, 0.003, 1.0]))
    image.header.set_xyzt_units(xyz="meter")
    nibabel.save(image, tmp_path / "image.nii")
    assert read_grid(tmp_path / "image.nii").spacing_mm == pytest.approx((3.0, 2.0, 2.0))


def test_the_qform_counts_where_there_is_no_sform(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((5, 4, 3), np.float32), None)
    matrix = np.diag([-2.0, -2.0, 3.0, 1.0])
    image.set_qform(matrix, code=1)
    image.set_sform(None, code=0)
    nibabel.save(image, tmp_path / "image.nii")
    np.testing.assert_allclose(read_grid(tmp_path / "image.nii").affine, np.diag([2.0, 2.0, 3.0, 1.0]))


def test_the_sform_counts_where_both_are_set(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(np.zeros((5, 4, 3), np.float32), np.eye(4))
    moved = np.eye(4)
    moved[0, 3] = 7.0
    image.set_sform(moved, code=2)
    image.set_qform(np.eye(4), code=1)
    nibabel.save(image, tmp_path / "image.nii")
    assert read_grid(tmp_path / "image.nii").affine[0, 3] == -7.0


def no_orientation(image: nibabel.Nifti1Image) -> None:
    image.set_sform(None, code=0)
    image.set_qform(None, code=0)


def two_directions(image: nibabel.Nifti1Image) -> None:
    image.set_sform(np.diag([1.0, 1.0, 1.0, 1.0]), code=1)
    image.set_qform(np.diag([-1.0, 1.0, 1.0, 1.0]), code=1)


def two_sizes(image: nibabel.Nifti1Image) -> None:
    image.set_sform(np.diag([1.0, 1.0, 2.0, 1.0]), code=1)


def sheared(image: nibabel.Nifti1Image) -> None:
    matrix = np.eye(4)
    matrix[0, 1] = 0.5
    image.header["pixdim"][2] = np.linalg.norm([0.5, 1])
    image.set_sform(matrix, code=1, update_affine=False)


def not_finite(image: nibabel.Nifti1Image) -> None:
    image.header["srow_x"][1] = np.nan


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (no_orientation, "neither"),
        (two_directions, "RAS and a qform that says LAS"),
        (two_sizes, "voxel size"),
        (sheared, "sheared"),
        (not_finite, "finite"),
    ],
)
def test_a_place_that_cannot_be_is_refused_by_name(tmp_path: Path, spoil, word: str) -> None:
    path = tmp_path / "spoilt.nii"
    image = nibabel.Nifti1Image(np.zeros((5, 4, 3), np.float32), np.eye(4))
    image.set_qform(None, code=0)
    spoil(image)
    path.write_bytes(image.header.binaryblock + bytes(4) + np.zeros((3, 4, 5), np.float32).tobytes())
    set_header_bytes(path, 108, np.float32(352).tobytes())
    set_header_bytes(path, 344, b"n+1\0")
    for read in (read_grid, read_volume):
        with pytest.raises(GeometryError, match=word) as caught:
            read(path)
        assert "spoilt.nii" in str(caught.value)


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 3, 2), (4, 4, 3, 1, 2)])
def test_an_image_that_is_not_three_dimensional_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    save(tmp_path / "image.nii.gz", np.zeros(shape, np.float32))
    with pytest.raises(GeometryError, match=r"image\.nii\.gz"):
        read_volume(tmp_path / "image.nii.gz")


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999])
def test_a_truncated_file_is_refused_by_name(
    tmp_path: Path, rng: np.random.Generator, ending: str, share: float
) -> None:
    path = tmp_path / f"cut{ending}"
    write_volume(path, Volume(rng.normal(size=(20, 20, 20)).astype(np.float32), np.eye(4)))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(InputError, match="cut"):
        read_volume(path)


def test_a_damaged_compressed_file_is_refused(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "damaged.nii.gz"
    write_volume(path, Volume(rng.normal(size=(20, 20, 20)).astype(np.float32), np.eye(4)))
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF
    path.write_bytes(bytes(content))
    with pytest.raises(FormatError, match="damaged"):
        read_volume(path)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_header_that_promises_too_much_is_refused_before_memory_is_taken(
    tmp_path: Path, compressed: bool
) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.float64)
    header.set_data_shape((1000, 1000, 1000))
    header.set_sform(np.eye(4), code=1)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    content = header.binaryblock + bytes(4)
    path = tmp_path / "large.nii"
    path.write_bytes(gzip.compress(content) if compressed else content)
    with pytest.raises(FormatError, match=r"large\.nii is truncated"):
        read_volume(path)


def test_absurd_dimensions_are_refused(tmp_path: Path) -> None:
    header = nibabel.Nifti1Header()
    header.set_data_shape((32767, 32767, 32767))
    header.set_sform(np.eye(4), code=1)
    header["magic"] = b"n+1"
    (tmp_path / "absurd.nii").write_bytes(header.binaryblock + bytes(4))
    with pytest.raises(GeometryError, match="cannot be"):
        read_grid(tmp_path / "absurd.nii")


def meta_image(**changes: str) -> bytes:
    fields = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": "False",
        "DimSize": "2 2 2",
        "ElementType": "MET_UCHAR",
    }
    fields.update(changes)
    fields["ElementDataFile"] = fields.pop("ElementDataFile", "LOCAL")  # what follows it are the voxels
    return "".join(f"{key} = {value}\n" for key, value in fields.items()).encode() + bytes(8)


def test_a_plain_meta_image_is_read(tmp_path: Path) -> None:
    (tmp_path / "image.mha").write_bytes(meta_image())
    assert read_volume(tmp_path / "image.mha").shape == (2, 2, 2)
    (tmp_path / "image.mhd").write_bytes(meta_image(ElementDataFile="image.raw"))
    (tmp_path / "image.raw").write_bytes(bytes(range(8)))
    assert read_volume(tmp_path / "image.mhd").array[1, 1, 1] == 7


@pytest.mark.parametrize(
    "changes",
    [
        {"DimSize": "1000 1000 900"},
        {"CompressedData": "True", "CompressedDataSize": "100000000000"},
        {"NDims": "-3"},
        {"NDims": "11"},
        {"ndims": "3"},
        {"ElementDataFile": "/etc/hostname"},
        {"ElementDataFile": "LIST"},
        {"ElementType": "MET_NONSENSE"},
    ],
)
@pytest.mark.parametrize("ending", [".mha", ".mhd"])
def test_a_meta_image_that_cannot_be_trusted_is_refused(
    tmp_path: Path, changes: dict[str, str], ending: str
) -> None:
    path = tmp_path / f"hostile{ending}"
    path.write_bytes(meta_image(**changes))
    with pytest.raises(FormatError, match="hostile"):
        read_volume(path)


def test_an_nrrd_with_its_voxels_elsewhere_is_refused(tmp_path: Path) -> None:
    header = "NRRD0004\ntype: uchar\ndimension: 3\nsizes: 2 2 2\nencoding: raw\ndata file: /etc/hostname\n\n"
    (tmp_path / "image.nrrd").write_text(header, encoding="ascii")
    with pytest.raises(FormatError, match="elsewhere"):
        read_volume(tmp_path / "image.nrrd")


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz", "image.mha", "image.nrrd"])
def test_what_is_no_image_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("this is not an image " * 100, encoding="ascii")
    with pytest.raises(FormatError, match=name):
        read_volume(tmp_path / name)


def test_several_numbers_in_a_voxel_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "complex.nii", np.zeros((3, 3, 3), np.complex64))
    sitk.WriteImage(sitk.Image([3, 3, 3], sitk.sitkVectorFloat32, 2), str(tmp_path / "vector.mha"))
    for name in ("complex.nii", "vector.mha"):
        with pytest.raises(FormatError, match=name):
            read_volume(tmp_path / name)


def test_unknown_endings_and_missing_files_are_refused(tmp_path: Path, volume: Volume) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(FormatError, match=r"notes\.txt is not an image"):
        read_volume(tmp_path / "notes.txt")
    with pytest.raises(FormatError, match="is not a file"):
        read_volume(tmp_path / "absent.nii.gz")
    with pytest.raises(FormatError, match="mha instead"):
        write_volume(tmp_path / "image.mhd", volume)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_mask_is_written_as_0_and_1_and_read_as_bool(tmp_path: Path, rng: np.random.Generator) -> None:
    mask = Volume(rng.random((3, 4, 5)) > 0.5, np.eye(4))
    write_volume(tmp_path / "mask.nii.gz", mask)
    assert read_volume(tmp_path / "mask.nii.gz").array.dtype == np.uint8
    back = read_mask(tmp_path / "mask.nii.gz")
    assert back.array.dtype == np.bool_
    np.testing.assert_array_equal(back.array, mask.array)


@pytest.mark.parametrize("value", [3, -1, 0.5, float("nan")])
def test_a_mask_with_another_value_is_refused_with_the_value(tmp_path: Path, value: float) -> None:
    array = np.zeros((3, 3, 3), np.int16 if isinstance(value, int) else np.float32)
    array[1, 1, 1] = value
    save(tmp_path / "label.nii", array)
    with pytest.raises(ValueRangeError, match=rf"label\.nii has the value {value:g}"):
        read_mask(tmp_path / "label.nii")


def test_64_bit_whole_numbers_are_written_if_they_fit(tmp_path: Path) -> None:
    array = np.full((2, 2, 2), 7, np.int64)
    write_volume(tmp_path / "small.nii", Volume(array, np.eye(4)))
    np.testing.assert_array_equal(read_volume(tmp_path / "small.nii").array, array)
    with pytest.raises(ValueRangeError, match=r"big\.nii"):
        write_volume(tmp_path / "big.nii", Volume(array * 2**40, np.eye(4)))
    assert not (tmp_path / "big.nii").exists()


def test_names_without_endings() -> None:
    assert image_stem("folder/a.b.nii.gz") == "a.b"
    assert image_stem("x.NRRD") == "x"
    assert image_stem("notes.txt") == "notes.txt"
    assert is_image("x.mha")
    assert not is_image("x.gz")


def test_what_nibabel_mends_is_not_told_on_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    header = nibabel.Nifti1Header()
    header["pixdim"][1] = -2
    header["datatype"] = 9999
    path = tmp_path / "a.nii"
    path.write_bytes(header.binaryblock + bytes(100))
    with pytest.raises(FormatError, match=r"a\.nii has a NIfTI header that cannot be"):
        read_volume(path)
    assert capfd.readouterr().err == ""


def test_probabilities_come_back_on_the_same_side_of_one_half(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    half = np.float32(0.5)
    edges = [0, 1, half, np.nextafter(half, np.float32(0)), np.nextafter(half, np.float32(1)), 1e-9]
    values = np.concatenate([edges, rng.random(54)]).astype(np.float32).reshape(3, 4, 5)
    write_probability(tmp_path / "p.nii.gz", Volume(values, np.eye(4)))
    by_nibabel = nibabel.load(tmp_path / "p.nii.gz")
    assert by_nibabel.get_data_dtype() == np.uint16
    for found in (read_volume(tmp_path / "p.nii.gz").array, by_nibabel.get_fdata().T):
        np.testing.assert_allclose(found, values, atol=8e-6)
        np.testing.assert_array_equal(found > 0.5, values > 0.5)
        assert found.min() == 0 and found.max() == pytest.approx(1)
