"""What is in this folder, zip or pair of files? Studies are found by a cheap look, then read one by one.

An image file's role stands in its name: PET, SUV or PT; CT or CTres; SEG, MASK or LABEL; nnU-Net's `_0000`
(CT) and `_0001` (PET); HECKTOR's `__CT` and `__PT`; in upper or lower case. What stands before it names the
case. SUV is taken before PET, and CTres before CT where it lies on the PET's grid.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from petlesion.dicom.files import DicomFile, find_dicom, read_header, reading, walk, without_remarks
from petlesion.dicom.headers import text
from petlesion.dicom.series import Series, Stack, group_series
from petlesion.dicom.study import Choice, holds_pet, read_images
from petlesion.dicom.suv import SuvConversion
from petlesion.errors import FormatError, GeometryError, PetlesionError, StudyError, ValueRangeError
from petlesion.io.nifti import image_stem, is_image, read_grid, read_mask, read_volume
from petlesion.resample import resample_to_grid
from petlesion.volume import Array, Study, Volume

OUTSIDE_CT_HU = -1024.0

_ROLES = {
    "suv": "SUV",
    "suvbw": "SUV",
    "pet": "PET",
    "pt": "PET",
    "0001": "PET",
    "ctres": "CTres",
    "ct": "CT",
    "0000": "CT",
    "seg": "SEG",
    "mask": "SEG",
    "label": "SEG",
}
_ANY_ROLE = f"(?P<role>{'|'.join(_ROLES)})"
_ROLE_LAST = re.compile(rf"(?:(?P<stem>.*?)[_\-. ]+)?{_ANY_ROLE}", re.IGNORECASE)
_ROLE_FIRST = re.compile(rf"{_ANY_ROLE}[_\-. ]+(?P<stem>.*)", re.IGNORECASE)
_DICOM_MODALITIES = ("PT", "CT", "RTSTRUCT", "SEG")

_LOWEST_SUV = -5.0
_LEAST_HIGHEST_SUV = 0.5
_MOST_SUV = 500.0
_BODY_SUV = 0.3
_LEAST_BODY_CM2 = 20.0
_NO_TISSUE_HU = -1000.0
_MISSING_SHARE = 0.95
_LARGEST_MISSING_SHARE = 0.1


@dataclass(frozen=True)
class IntakeOptions:
    """`keep_identity`: name DICOM studies by PatientID and date instead of a hash.

    `pet_series`: the SeriesInstanceUID of the PET to use. `roi`: the structure or segment that is the
    reference.
    """

    keep_identity: bool = False
    pet_series: str | None = None
    roi: str | None = None


@dataclass(frozen=True, eq=False)
class StudySource:
    """Where one study's images are: DICOM series, or image files by role (SUV, PET, CT, CTres, SEG).

    `problem` is what was wrong at the first look; reading raises it.
    """

    name: str
    origin: Path
    series: tuple[Series, ...] = ()
    files: Mapping[str, Path] = field(default_factory=dict)
    options: IntakeOptions = IntakeOptions()
    problem: PetlesionError | None = None

    @property
    def kind(self) -> str:
        """`dicom` or `images`."""
        return "dicom" if self.series else "images"

    @property
    def containers(self) -> list[Path]:
        """The files and zips that hold the study, in sorted order."""
        return sorted(
            {file.container for one in self.series for file in one.files} | set(self.files.values())
        )

    @property
    def identity(self) -> str:
        """A hash that tells which study this is, whatever its files hold now.

        DICOM is known by the UIDs of the study and its PET, image files by the place of their PET.
        """
        if self.series:
            pets = [one for one in self.series if one.modality == "PT"]
            chosen = [self.options.pet_series] if self.options.pet_series else [one.uid for one in pets]
            return _short_hash((pets or self.series)[0].study_uid, *sorted(chosen))
        place = _pet_file(self.files) if self.files else self.origin
        return _short_hash(str(place.parent.resolve() / place.name))


@dataclass(frozen=True, eq=False)
class SourceImages:
    """One study's images as its source gives them.

    `pet` is in SUV; `ct` in HU on the CT's own grid; `reference` is bool on the PET's grid. `conversion` and
    `pet_stack` (the PET's headers in the order of the array's slices) are None for image files.
    """

    name: str
    origin: Path
    pet: Volume
    ct: Volume | None = None
    reference: Volume | None = None
    conversion: SuvConversion | None = None
    pet_stack: Stack | None = None
    warnings: tuple[str, ...] = ()


def find_studies(
    paths: Sequence[str | Path],
    options: IntakeOptions = IntakeOptions(),
    results: str | Path | None = None,
) -> list[StudySource]:
    """The studies in folders, zips and image files, by name; no pixel is read.

    What a folder of input holds in `results`, where the command is to write, is left out.

    Image files given one by one make studies together, so that a pair may be given as two paths. Raises
    StudyError for a path that holds nothing to work on and FormatError for one that does not exist; of
    several paths, such a one becomes a study that cannot be read, so that the others can.
    """
    given = [Path(path) for path in paths]
    single_files = [path for path in given if path.is_file() and is_image(path)]
    sources: list[StudySource] = []
    for path in given:
        if path in single_files:
            continue
        try:
            sources += _find_in(path, options, results)
        except PetlesionError as problem:
            if len(given) == 1:
                raise
            sources.append(_unusable(path, problem))
    sources += _single_file_studies(single_files, options)
    return _with_distinct_names(sources)


def dicom_studies(
    files: Iterable[Path], origin: Path, options: IntakeOptions = IntakeOptions()
) -> list[StudySource]:
    """DICOM files (and zips of them) sorted into studies, `origin` naming them all in messages.

    What cannot be read makes the studies of its folder or zip fail when they are read.
    """
    objects: list[DicomFile] = []
    headers = []
    problems: list[tuple[Path, FormatError]] = []
    for file in files:
        try:
            for candidate in find_dicom(file):
                headers.append(read_header(candidate))
                objects.append(candidate)
        except FormatError as broken:
            problems.append((file, broken))
    with without_remarks():
        series = [one for one in group_series(objects, headers) if one.modality in _DICOM_MODALITIES]
        sources = [_dicom_source(study, origin, options) for study in _join_series(series)]
    for file, problem in problems:
        hit = [
            i for i, source in enumerate(sources) if file.parent in _folders(source) or source.origin == file
        ]
        for index in hit:
            sources[index] = replace(sources[index], problem=problem)
        if not hit:
            sources.append(_unusable(file, problem))
    return sources


def read_source(source: StudySource) -> SourceImages:
    """Read and check a study's images; raises an InputError that names the file and the remedy."""
    if source.problem is not None:
        raise source.problem
    if source.series:
        return _read_dicom(source)
    return _read_image_files(source)


def to_study(images: SourceImages) -> Study:
    """The study on the PET's grid, its CT resampled; a PET may come without CT.

    Raises StudyError for a CT that misses a tenth or more of the slices in which the PET shows a body; one
    that misses less is a warning.
    """
    if images.ct is None:
        return Study(images.name, images.pet, None, images.reference, images.warnings)
    ct = ct_on_grid_of(images.pet, images.ct)
    missing, body = _slices_without_ct(images.pet, ct)
    warnings = images.warnings
    if missing:
        share = f"the CT misses {missing} of the {body} slices in which the PET shows a body"
        if missing >= _LARGEST_MISSING_SHARE * body:
            raise StudyError(f"{images.origin}: {share}; give the CT that was taken with this PET")
        warnings = (*warnings, share)
    return Study(images.name, images.pet, ct, images.reference, warnings)


def ct_on_grid_of(pet: Volume, ct: Volume) -> Volume:
    """The CT on the PET's grid (the paper's CTres): cubic spline, −1024 HU outside the CT."""
    if ct.grid.matches(pet.grid):
        return ct
    return resample_to_grid(ct, pet.grid, fill=OUTSIDE_CT_HU)


def _find_in(path: Path, options: IntakeOptions, results: str | Path | None) -> list[StudySource]:
    """The studies in a folder and its subfolders, in a zip, or of a DICOM file."""
    if not path.exists():
        raise FormatError(f"{path} does not exist; check the path")
    files = _without_results(walk(path), path, results) if path.is_dir() else [path]
    images = [file for file in files if is_image(file)]
    sources = dicom_studies([file for file in files if not is_image(file)], path, options)
    for folder in sorted({file.parent for file in images}):
        sources += _image_studies([file for file in images if file.parent == folder], options)
    if sources:
        return sources
    if any(_role(file) for file in images):
        raise StudyError(f"{path} holds no PET; add a file called PET.nii.gz or SUV.nii.gz beside the CT")
    raise StudyError(
        f"{path} holds neither DICOM nor image files called PET or SUV and CT; give the folder of a PET/CT "
        "study"
    )


def _without_results(files: list[Path], root: Path, results: str | Path | None) -> list[Path]:
    """The files below `root` that do not lie in its subfolder `results`."""
    if results is None or not Path(results).resolve().is_relative_to(root.resolve()):
        return files
    inside = root / Path(results).resolve().relative_to(root.resolve())
    return [file for file in files if not file.is_relative_to(inside)] if inside != root else files


def _join_series(series: Sequence[Series]) -> list[list[Series]]:
    """Series by study; those of a study without PET go to the one whose frame of reference they share.

    Scanners and archives sometimes give the CT a study of its own. If a single study with PET is there and it
    has no CT, it takes what is left over too, so that a mismatch is told as such.
    """
    by_uid: dict[str, list[Series]] = {}
    for one in series:
        by_uid.setdefault(one.study_uid, []).append(one)
    studies = [study for study in by_uid.values() if holds_pet(study)]
    orphans = [study for study in by_uid.values() if not holds_pet(study)]
    left: list[list[Series]] = []
    for orphan in orphans:
        frames = {one.frame_of_reference for one in orphan} - {None}
        hosts = [study for study in studies if frames & {one.frame_of_reference for one in study}]
        if not hosts and len(studies) == 1 and not any(one.modality == "CT" for one in studies[0]):
            hosts = studies
        if len(hosts) == 1:
            hosts[0].extend(orphan)
        elif any(one.modality == "CT" for one in orphan) or not studies:
            left.append(orphan)
    return studies + left


def _dicom_source(study: Sequence[Series], origin: Path, options: IntakeOptions) -> StudySource:
    containers = {file.container for one in study for file in one.files}
    if len(containers) == 1:
        origin = next(iter(containers))
    elif origin.is_dir():
        origin = Path(os.path.commonpath([str(container.parent) for container in containers]))
    pet = next((one for one in study if one.modality == "PT"), study[0])
    if options.keep_identity:
        identity = [text(pet.header, keyword) for keyword in ("PatientID", "StudyDate")]
        name = _safe_name("_".join(part for part in identity if part) or "study")
    else:
        name = f"study-{_short_hash(pet.study_uid)}"
    return StudySource(name, origin, series=tuple(study), options=options)


def _unusable(path: Path, problem: PetlesionError) -> StudySource:
    """What cannot even be looked into; its name may be a patient's and is not shown."""
    return StudySource(f"study-{_short_hash(str(path.absolute()))}", path, problem=problem)


def _folders(source: StudySource) -> set[Path]:
    return {file.container.parent for one in source.series for file in one.files if file.member is None}


def _role(file: Path) -> tuple[str, str] | None:
    """What stands before (or after) an image's role in its name, and the role."""
    name = image_stem(file)
    match = _ROLE_LAST.fullmatch(name) or _ROLE_FIRST.fullmatch(name)
    return (match["stem"] or "", _ROLES[match["role"].lower()]) if match else None


def _image_studies(files: Sequence[Path], options: IntakeOptions) -> list[StudySource]:
    """The studies among the image files of one folder; a case without a PET is none."""
    cases: dict[str, dict[str, list[Path]]] = {}
    for file in files:
        found = _role(file)
        if found is not None:
            cases.setdefault(found[0], {}).setdefault(found[1], []).append(file)
    folder = files[0].parent
    with_pet = {stem: roles for stem, roles in sorted(cases.items()) if "PET" in roles or "SUV" in roles}
    studies = [
        _image_source(stem or folder.resolve().name, folder, roles, options)
        for stem, roles in with_pet.items()
    ]
    strays = [file for stem, roles in cases.items() if stem not in with_pet for file in roles.get("CT", [])]
    return [_with_stray_ct(study, strays) for study in studies] if strays else studies


def _with_stray_ct(study: StudySource, strays: Sequence[Path]) -> StudySource:
    """A study that lacks a CT where a CT lies that fits no PET by its name is told so."""
    if study.problem is not None or "CT" in study.files or "CTres" in study.files:
        return study
    listed = " and ".join(sorted(file.name for file in strays))
    problem = StudyError(
        f"{_pet_file(study.files)} has no CT of its name, and {listed} beside it fits no PET; let a study's "
        "files differ in PET and CT alone, such as a_PET and a_CT"
    )
    return replace(study, problem=problem)


def _image_source(
    name: str, origin: Path, roles: Mapping[str, Sequence[Path]], options: IntakeOptions
) -> StudySource:
    problem = None
    for role, files in roles.items():
        if len(files) > 1:
            listed = " and ".join(file.name for file in files)
            problem = StudyError(f"{origin} holds more than one {role}, {listed}; keep the one to use")
    single = {role: files[0] for role, files in roles.items()}
    return StudySource(_safe_name(name), origin, files=single, options=options, problem=problem)


def _single_file_studies(files: Sequence[Path], options: IntakeOptions) -> list[StudySource]:
    """Studies of image files that were given one by one: cases by their names, or one pair of any names."""
    roles: dict[str, list[Path]] = {}
    for file in files:
        found = _role(file)
        if found is None:
            raise StudyError(f"{file} does not say what it is; let its name end in PET or SUV, CT, or SEG")
        roles.setdefault(found[1], []).append(file)
    pets = roles.get("SUV", []) + roles.get("PET", [])
    if files and not pets:
        raise StudyError(f"{files[0]} is given without a PET; give the PET and the CT of a study together")
    if len(pets) == 1 and all(len(given) == 1 for given in roles.values()):
        stem = (_role(pets[0]) or ("", ""))[0]
        return [_image_source(stem or pets[0].resolve().parent.name, pets[0], roles, options)]
    sources = []
    for folder in sorted({file.parent for file in files}):
        sources += _image_studies([file for file in files if file.parent == folder], options)
    return [replace(source, origin=_pet_file(source.files)) for source in sources]


def _with_distinct_names(sources: Sequence[StudySource]) -> list[StudySource]:
    """Set the name of the folder above before names that clash, and a hash behind if that is not enough.

    The hash is of where the study lies and which it is, so that the order of the studies does not matter. A
    study that was given twice is taken once.
    """
    sources = list({_place(source): source for source in sources}.values())
    names = Counter(source.name for source in sources)
    named = [_named_by_folder(source) if names[source.name] > 1 else source for source in sources]
    names = Counter(source.name for source in named)
    distinct = [_named_by_place(source) if names[source.name] > 1 else source for source in named]
    return sorted(distinct, key=lambda source: source.name)


def _named_by_folder(source: StudySource) -> StudySource:
    if not source.files:
        return source
    above = source.origin.resolve().parent.name
    return replace(source, name=_safe_name(f"{above}_{source.name}"))


def _named_by_place(source: StudySource) -> StudySource:
    return replace(source, name=f"{source.name}-{_place(source)[:6]}")


def _place(source: StudySource) -> str:
    return _short_hash(str(source.origin.resolve()), source.identity)


def _short_hash(*facts: str) -> str:
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:12]


def _safe_name(name: str) -> str:
    """A name that can be a folder's."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._") or "study"


def _read_dicom(source: StudySource) -> SourceImages:
    choice = Choice(source.options.pet_series, source.options.roi)
    with reading(source.origin):
        images = read_images(source.series, choice, source.origin)
    _check_suv(images.pet.array, str(source.origin))
    return SourceImages(
        name=source.name,
        origin=source.origin,
        pet=images.pet,
        ct=images.ct,
        reference=images.reference,
        conversion=images.conversion,
        pet_stack=images.pet_stack,
        warnings=images.warnings,
    )


def _read_image_files(source: StudySource) -> SourceImages:
    pet_file = _pet_file(source.files)
    pet = read_volume(pet_file)
    pet = pet.with_array(pet.array.astype(np.float32, copy=False))
    _check_suv(pet.array, str(pet_file))
    ct_file = _ct_file(source, pet)
    ct = read_volume(ct_file) if ct_file is not None else None
    if ct is not None and not np.isfinite(ct.array).all():
        raise ValueRangeError(f"{ct_file} has voxels that are not finite; write the CT in HU again")
    seg_file = source.files.get("SEG")
    reference = _read_reference(seg_file, pet) if seg_file is not None else None
    return SourceImages(source.name, source.origin, pet, ct, reference)


def _pet_file(files: Mapping[str, Path]) -> Path:
    """The PET among image files by role, in SUV where there are two."""
    return files.get("SUV") or files["PET"]


def _ct_file(source: StudySource, pet: Volume) -> Path | None:
    """CTres where it lies on the PET's grid, else the CT."""
    resampled = source.files.get("CTres")
    if resampled is not None and ("CT" not in source.files or read_grid(resampled).matches(pet.grid)):
        return resampled
    return source.files.get("CT")


def _read_reference(file: Path, pet: Volume) -> Volume:
    label = read_mask(file)
    if not label.grid.matches(pet.grid):
        raise GeometryError(
            f"{file} does not lie on the PET's grid; resample it to the PET by nearest neighbour"
        )
    return label


def _check_suv(array: Array, origin: str) -> None:
    """Refuse values that cannot be SUV, with the likely reason; raises ValueRangeError."""
    if not np.isfinite(array).all():
        raise ValueRangeError(f"{origin} has voxels that are not finite; write the PET in SUV again")
    lowest, highest = float(array.min()), float(array.max())
    if lowest < _LOWEST_SUV:
        raise ValueRangeError(f"{origin} goes down to {lowest:g}, which cannot be SUV; is it a CT?")
    if highest < _LEAST_HIGHEST_SUV:
        raise ValueRangeError(
            f"{origin} goes up to {highest:g} only, which cannot be a PET in SUV; check unit, dose and weight"
        )
    if highest > _MOST_SUV:
        high = float(np.quantile(array[array > 0], 0.999))
        if high > _MOST_SUV:
            raise ValueRangeError(
                f"{origin} holds values such as {high:.0f}, which cannot be SUV; divide activity in Bq/mL "
                "by the decayed dose per gram, or give the DICOM series"
            )


def _slices_without_ct(pet: Volume, ct: Volume) -> tuple[int, int]:
    """How many axial slices with a body in the PET have no tissue in the CT, and how many have a body."""
    pet, ct = pet.reoriented(), ct.reoriented()
    _, y_mm, x_mm = pet.spacing_mm
    least_voxels = _LEAST_BODY_CM2 * 100.0 / (y_mm * x_mm)
    missing = body = 0
    for pet_slice, ct_slice in zip(pet.array, ct.array, strict=True):
        inside = pet_slice > _BODY_SUV
        if np.count_nonzero(inside) < least_voxels:
            continue
        body += 1
        missing += bool(np.mean(ct_slice[inside] <= _NO_TISSUE_HU) > _MISSING_SHARE)
    return missing, body
