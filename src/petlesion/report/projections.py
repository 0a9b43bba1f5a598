"""Maximum intensity projections of a PET that turn about the patient's long axis, with its lesions in colour.

Seen at 0° the patient faces the reader, with the right side on the left of the picture; at 90° the reader
looks at the left side, with the nose to the left. Pixels are square and measure `pixel_mm` on each side.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from petlesion.errors import GeometryError, UsageError
from petlesion.io.atomic import atomic_file
from petlesion.volume import Array, Volume

Floats = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]

ANGLES = 36
PIXEL_MM = 3.5
WINDOW_SUV = 10.0
LESION_COLOUR = (214, 0, 86)
BACK_OPACITY = 0.45
FRONT_OPACITY = 0.9
FAINTEST = 0.25  # of a lesion that is surely none, against one that surely is

_BODY_SUV = 0.3
_SLIDE_SCALE = 3
_MOVIE_SCALE = 2
_FRAME_MS = 100
_THUMBNAIL_PIXELS = (96, 192)


@dataclass(frozen=True, eq=False)
class Projections:
    """Frames [angle, row, column]; row 0 is at the head, frame k is seen at k · 360° / frames.

    `suv` is the highest SUV along each ray. `lesions` is the number of the lesion that is met first, 0 for
    none, and `depth` how deep it lies (0 at the reader's side, 255 at the far side). `centre_mm` is where
    the axis of rotation and the middle of row 0 lie, (z, y, x) in mm along the PET's axes from the centre
    of its first voxel. `strengths` tells by a lesion's number how opaque it is drawn, from 0 to 1; its
    entry 0 is of no lesion.
    """

    suv: Floats
    lesions: npt.NDArray[np.uint16]
    depth: npt.NDArray[np.uint8]
    pixel_mm: float
    centre_mm: tuple[float, float, float]
    strengths: Floats


def strength_of(confidence: float | None) -> float:
    """How opaque a lesion is drawn: the surer, the more; one without a confidence is drawn in full."""
    return 1.0 if confidence is None else FAINTEST + (1 - FAINTEST) * confidence


def maximum_projections(
    pet: Volume,
    lesions: Volume,
    confidence: Sequence[float | None] = (),
    *,
    angles: int = ANGLES,
    pixel_mm: float = PIXEL_MM,
) -> Projections:
    """Project a PET (SUV) and its lesions (numbers from 1, or a mask) at `angles` angles over a full turn.

    `confidence` is that of lesion 1, 2, …; lesions beyond it are drawn in full. Both images may be in any
    orientation; they are turned to LPS first. Raises UsageError where `angles` is no multiple of four and
    GeometryError where the two grids differ.
    """
    if angles < 4 or angles % 4:
        raise UsageError(f"{angles} angles cannot be projected; give a multiple of four")
    if not lesions.grid.matches(pet.grid):
        raise GeometryError(
            f"the lesions' grid {lesions.shape} is not the PET's {pet.shape} or lies elsewhere"
        )
    pet, lesions = pet.reoriented(), lesions.reoriented()
    scene = _scene(pet, lesions.array, pixel_mm)
    turns = [2 * np.pi * index / angles for index in range(angles)]
    half = [_project_suv(scene, turn) for turn in turns[: angles // 2]]
    # Seen from behind, the highest value along each ray is the same, and left and right change places.
    suv = np.stack(half + [frame[:, ::-1] for frame in half])
    found = [_project_lesions(scene, turn) for turn in turns]
    return Projections(
        suv=suv,
        lesions=np.stack([numbers for numbers, _ in found]),
        depth=np.stack([depth for _, depth in found]),
        pixel_mm=pixel_mm,
        centre_mm=_centre_mm(scene, pet, pixel_mm),
        strengths=_strengths(confidence, int(lesions.array.max(initial=0))),
    )


def _strengths(confidence: Sequence[float | None], highest_number: int) -> Floats:
    strengths = np.ones(max(highest_number, len(confidence)) + 1, dtype=np.float32)
    strengths[0] = 0
    strengths[1 : len(confidence) + 1] = [strength_of(value) for value in confidence]
    return strengths


def draw(projections: Projections, index: int, *, window_suv: float = WINDOW_SUV) -> Picture:
    """Return a frame as RGB [row, column, 3]: inverted grey from 0 to `window_suv`, lesions in colour."""
    brightness = 1 - np.clip(projections.suv[index] / window_suv, 0, 1)
    depth = projections.depth[index] / 255
    opacity = FRONT_OPACITY + (BACK_OPACITY - FRONT_OPACITY) * depth
    opacity = (opacity * projections.strengths[projections.lesions[index]])[..., None]
    colour = np.array(LESION_COLOUR, dtype=np.float32)
    mixed = brightness[..., None] * 255 * (1 - opacity) + colour * opacity
    picture: Picture = np.round(mixed).astype(np.uint8)
    return picture


def draw_pair(projections: Projections, *, window_suv: float = WINDOW_SUV) -> Picture:
    """Return the coronal (0°) and the sagittal (90°) projection side by side as RGB [row, column, 3]."""
    quarter = len(projections.suv) // 4
    return np.concatenate([draw(projections, index, window_suv=window_suv) for index in (0, quarter)], axis=1)


def write_png(path: str | Path, projections: Projections, *, window_suv: float = WINDOW_SUV) -> None:
    """Write the coronal and the sagittal projection side by side."""
    picture = _enlarged(draw_pair(projections, window_suv=window_suv), _SLIDE_SCALE)
    with atomic_file(path) as temporary:
        picture.save(temporary, format="PNG")


def write_gif(path: str | Path, projections: Projections, *, window_suv: float = WINDOW_SUV) -> None:
    """Write the turning projection as an endless film of one turn."""
    pictures = [
        _enlarged(draw(projections, index, window_suv=window_suv), _MOVIE_SCALE)
        for index in range(len(projections.suv))
    ]
    # One palette for all frames, or the colours flicker.
    palette = _enlarged(draw_pair(projections, window_suv=window_suv), 1).quantize(256)
    first, *others = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    with atomic_file(path) as temporary:
        first.save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=others,
            duration=_FRAME_MS,
            loop=0,
            disposal=1,
        )


def thumbnail_url(projections: Projections) -> str:
    """The coronal projection as a small PNG in a data URL."""
    image = Image.fromarray(draw(projections, 0))
    image.thumbnail(_THUMBNAIL_PIXELS, Image.Resampling.LANCZOS)
    data = io.BytesIO()
    image.quantize(64).save(data, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")


def _enlarged(picture: Picture, scale: int) -> Image.Image:
    image = Image.fromarray(picture)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BICUBIC)


@dataclass(frozen=True, eq=False)
class _Scene:
    """The PET and its lesions on cubes of `pixel_mm`, as columns along the patient's long axis.

    `suv` and `lesions` are [y, x, z] with a margin of one empty column; `axis` (y, x) is where the axis of
    rotation stands, and `radius` reaches from it to the farthest column of the body, all in pixels.
    """

    suv: Floats
    lesions: npt.NDArray[np.uint16]
    axis: tuple[float, float]
    radius: float

    @property
    def shape(self) -> tuple[int, ...]:
        return self.suv.shape

    @property
    def offsets(self) -> Floats:
        """Distance in pixels from the axis, of the columns of a frame as of the steps along a ray."""
        steps = int(np.ceil(self.radius))
        return np.arange(-steps, steps + 1, dtype=np.float32)


def _scene(pet: Volume, numbers: Array, pixel_mm: float) -> _Scene:
    counts = [max(1, round(n * s / pixel_mm)) for n, s in zip(pet.shape, pet.spacing_mm, strict=True)]
    suv = np.asarray(pet.array, dtype=np.float32)
    for axis, count in enumerate(counts):
        weights = _resampling(suv.shape[axis], pet.spacing_mm[axis], count, pixel_mm)
        suv = np.moveaxis(np.tensordot(weights, suv, axes=(1, axis)), 0, axis)
    coarse = _coarse_numbers(numbers, counts, [pixel_mm / s for s in pet.spacing_mm])
    margin = ((1, 1), (1, 1), (0, 0))
    suv = np.pad(suv.transpose(1, 2, 0), margin)
    coarse = np.pad(coarse.transpose(1, 2, 0), margin)
    body = ((suv > _BODY_SUV) | (coarse > 0)).any(axis=2)
    y, x = np.nonzero(body if body.any() else np.ones_like(body))
    axis_y, axis_x = (y.min() + y.max()) / 2, (x.min() + x.max()) / 2
    radius = float(np.hypot(y - axis_y, x - axis_x).max())
    return _Scene(suv, coarse, (float(axis_y), float(axis_x)), radius)


def _centre_mm(scene: _Scene, pet: Volume, pixel_mm: float) -> tuple[float, float, float]:
    """Return the middle of the top row, on the axis of rotation, in mm (z, y, x) from the first voxel."""
    # The first cube starts where the first voxel starts; the margin stands one cube before it.
    first = [(pixel_mm - spacing) / 2 for spacing in pet.spacing_mm]
    z = first[0] + (scene.shape[2] - 1) * pixel_mm
    y, x = (first[1 + i] + (scene.axis[i] - 1) * pixel_mm for i in (0, 1))
    return z, y, x


def _resampling(old_count: int, old_mm: float, new_count: int, new_mm: float) -> Floats:
    """Weights [new, old] of a linear interpolation that averages where the new grid is the coarser one."""
    new_centres = (np.arange(new_count, dtype=np.float32) + 0.5) * new_mm
    old_centres = (np.arange(old_count, dtype=np.float32) + 0.5) * old_mm
    distance = np.abs(new_centres[:, None] - old_centres)
    weights: Floats = np.clip(1 - distance / max(old_mm, new_mm), 0, None)
    weights[weights.sum(axis=1) == 0, -1] = 1
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


def _coarse_numbers(numbers: Array, counts: list[int], ratios: list[float]) -> npt.NDArray[np.uint16]:
    """Nearest lesion number for each cube; then each lesion voxel marks its cube, so that none is lost."""
    nearest = [
        np.minimum(((np.arange(count) + 0.5) * ratio).astype(int), old - 1)
        for count, ratio, old in zip(counts, ratios, numbers.shape, strict=True)
    ]
    coarse = numbers[np.ix_(*nearest)].astype(np.uint16)
    voxels = np.nonzero(numbers)
    cubes = tuple(
        np.minimum(((index + 0.5) / ratio).astype(int), count - 1)
        for index, ratio, count in zip(voxels, ratios, counts, strict=True)
    )
    coarse[cubes] = numbers[voxels]
    return coarse


def _project_suv(scene: _Scene, turn: float) -> Floats:
    """Highest SUV along parallel rays [row, column], interpolated between four columns at each point."""
    columns = scene.suv.reshape(-1, scene.shape[2])
    frame = np.zeros((len(scene.offsets), scene.shape[2]), dtype=np.float32)
    for step in scene.offsets:
        y, x = _ray_points(scene, turn, step)
        row, column = np.floor(y).astype(int), np.floor(x).astype(int)
        y, x = (y - row)[:, None], (x - column)[:, None]
        first = row * scene.shape[1] + column
        upper = columns[first] * (1 - x) + columns[first + 1] * x
        lower = columns[first + scene.shape[1]] * (1 - x) + columns[first + scene.shape[1] + 1] * x
        np.maximum(frame, upper * (1 - y) + lower * y, out=frame)
    return frame.T[::-1]


def _project_lesions(scene: _Scene, turn: float) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """Lesion met first along parallel rays, and its depth, both [row, column]."""
    columns = scene.lesions.reshape(-1, scene.shape[2])
    used = np.any(columns, axis=1, keepdims=True)[:, 0]
    offsets = scene.offsets
    numbers = np.zeros((len(offsets), scene.shape[2]), dtype=np.uint16)
    depth = np.zeros(numbers.shape, dtype=np.uint8)
    for index, step in enumerate(offsets):
        y, x = _ray_points(scene, turn, step)
        nearest = np.round(y).astype(int) * scene.shape[1] + np.round(x).astype(int)
        hit = np.flatnonzero(used[nearest])
        if not hit.size:
            continue
        met = columns[nearest[hit]]
        new = (numbers[hit] == 0) & (met > 0)
        numbers[hit] = np.where(new, met, numbers[hit])
        depth[hit] = np.where(new, np.uint8(255 * index // max(1, len(offsets) - 1)), depth[hit])
    return numbers.T[::-1], depth.T[::-1]


def _ray_points(scene: _Scene, turn: float, step: np.float32) -> tuple[Floats, Floats]:
    """Where the rays of a frame are after `step`: (y, x) in the scene, points outside of it on its margin."""
    y = scene.axis[0] + scene.offsets * np.sin(turn) + step * np.cos(turn)
    x = scene.axis[1] + scene.offsets * np.cos(turn) - step * np.sin(turn)
    rows, columns, _ = scene.shape
    inside = (y >= 0) & (y < rows - 1) & (x >= 0) & (x < columns - 1)
    return np.where(inside, y, 0), np.where(inside, x, 0)
