"""Pixels out of DICOM objects, one frame at a time, with sizes checked before memory is taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.pixels import pixel_array

from petlesion.dicom.files import DicomFile, read_dataset, reading
from petlesion.dicom.frames import Frame
from petlesion.dicom.headers import number, text
from petlesion.errors import FormatError

Pixels = npt.NDArray[np.integer]

_BIG_ENDIAN = "1.2.840.10008.1.2.2"
NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", _BIG_ENDIAN, "1.2.840.10008.1.2.1.99")
"""Transfer syntaxes whose pixels are stored as they are."""


def decode(frames: Sequence[Frame]) -> Iterator[Pixels]:
    """Yield the stored values [y, x] of each frame; a file is opened once for neighbouring frames of its own.

    Raises FormatError for pixels that are missing, cut off, of several samples or that no decoder can read.
    """
    opened: tuple[DicomFile, Dataset] | None = None
    for frame in frames:
        if opened is None or opened[0] != frame.file:
            opened = (frame.file, read_dataset(frame.file))
            _check_pixels(frame.file, opened[1])
        yield decode_frame(frame.file, opened[1], frame.number)


def _check_pixels(file: DicomFile, dataset: Dataset) -> None:
    """Compare what the header promises with what the file holds, before a decoder believes it."""
    if "PixelData" not in dataset:
        raise FormatError(f"{file} holds no pixels; export the series again")
    samples = number(dataset, "SamplesPerPixel") or 1
    bits = number(dataset, "BitsAllocated") or 0
    if samples != 1 or bits not in (8, 16, 32) or text(dataset, "PhotometricInterpretation") != "MONOCHROME2":
        raise FormatError(f"{file} is no grey-scale image of 8, 16 or 32 bits; give the original images")
    rows, columns = number(dataset, "Rows") or 0, number(dataset, "Columns") or 0
    frames = number(dataset, "NumberOfFrames") or 1
    promised = rows * columns * frames * bits / 8
    if str(dataset.file_meta.TransferSyntaxUID) in NATIVE and promised > len(dataset.PixelData):
        raise FormatError(
            f"{file} is cut off: it holds {len(dataset.PixelData)} bytes of pixels where its header states "
            f"{promised:.0f}; copy it again from its source"
        )


def decode_frame(file: DicomFile, dataset: Dataset, number: int) -> Pixels:
    """The stored values [y, x] of frame `number` (from 0) of a data set that was read with its pixels."""
    with reading(file):
        native = str(dataset.file_meta.TransferSyntaxUID) in NATIVE
        pixels = _native_frame(dataset, number) if native else _compressed_frame(dataset, number)
        pixels = _stored_bits(dataset, pixels)
    if pixels.shape != (dataset.Rows, dataset.Columns):
        raise FormatError(f"{file} decodes to {pixels.shape} pixels, not {dataset.Rows} × {dataset.Columns}")
    return pixels


def _native_frame(dataset: Dataset, number: int) -> Pixels:
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    kind = "i" if dataset.PixelRepresentation == 1 else "u"
    order = ">" if dataset.file_meta.TransferSyntaxUID == _BIG_ENDIAN else "<"
    dtype = np.dtype(f"{order}{kind}{int(dataset.BitsAllocated) // 8}")
    size = rows * columns
    start = number * size * dtype.itemsize
    return np.frombuffer(dataset.PixelData, dtype, count=size, offset=start).reshape(rows, columns)


def _stored_bits(dataset: Dataset, pixels: Pixels) -> Pixels:
    """The value in the bits that are used, with its sign; old scanners keep overlays in the others."""
    allocated = 8 * pixels.dtype.itemsize
    stored = int(dataset.get("BitsStored") or allocated)
    highest = int(dataset.get("HighBit") or stored - 1)
    if not 0 < stored < allocated or not stored <= highest + 1 <= allocated:
        return pixels
    raised: Pixels = pixels << (allocated - 1 - highest) >> (allocated - stored)
    return raised


def _compressed_frame(dataset: Dataset, number: int) -> Pixels:
    pixels: Pixels = pixel_array(dataset, index=number, raw=True)
    return pixels
