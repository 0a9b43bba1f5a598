"""Compressed pixels, encoded by GDCM and decoded with what the base install brings."""

from pathlib import Path

import gdcm
import numpy as np
import pytest
from pydicom.pixels import get_decoder
from pydicom.uid import UID

from petlesion.dicom.files import find_dicom, read_header
from petlesion.dicom.series import group_series, read_volume, stack
from petlesion.errors import FormatError
from tests.dicom.builders import ct_spec, write_series

SYNTAXES = {
    "1.2.840.10008.1.2.5": gdcm.TransferSyntax.RLELossless,
    "1.2.840.10008.1.2.4.57": gdcm.TransferSyntax.JPEGLosslessProcess14,
    "1.2.840.10008.1.2.4.70": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "1.2.840.10008.1.2.4.80": gdcm.TransferSyntax.JPEGLSLossless,
    "1.2.840.10008.1.2.4.90": gdcm.TransferSyntax.JPEG2000Lossless,
}
BASE_PLUGINS = {"pydicom", "gdcm"}


def compress(path: Path, syntax: int) -> None:
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


@pytest.mark.parametrize("uid", SYNTAXES)
@pytest.mark.parametrize("signed", [False, True])
def test_compressed_series_decode_to_the_same_values(
    tmp_path: Path, rng: np.random.Generator, uid: str, signed: bool
) -> None:
    stored = rng.integers(-900 if signed else 0, 900, (3, 16, 20)).astype(np.int16 if signed else np.uint16)
    for path in write_series(tmp_path, stored, ct_spec()):
        compress(path, SYNTAXES[uid])
    files = find_dicom(tmp_path)
    (series,) = group_series(files, [read_header(file) for file in files])
    assert series.header.file_meta.TransferSyntaxUID == uid
    np.testing.assert_array_equal(read_volume(stack(series)).array, stored.astype(np.int32) - 1024)
    assert BASE_PLUGINS & set(get_decoder(UID(uid)).available_plugins)


def test_damaged_compressed_pixels(tmp_path: Path, rng: np.random.Generator) -> None:
    stored = rng.integers(0, 900, (2, 16, 20)).astype(np.uint16)
    path = write_series(tmp_path, stored, ct_spec())[0]
    compress(path, SYNTAXES["1.2.840.10008.1.2.4.90"])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\xff\x4f\xff\x51", bytes(4)))
    files = find_dicom(tmp_path)
    (series,) = group_series(files, [read_header(file) for file in files])
    with pytest.raises(FormatError, match=path.name):
        read_volume(stack(series))
