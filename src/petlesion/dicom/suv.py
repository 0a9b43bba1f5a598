"""From the rescaled pixel values of a PET image to SUV by body weight, a pure function of the headers.

The decision table and its sources stand in docs/suv.md: DICOM PS3.3 C.8.9.1, QIBA's vendor-neutral
pseudo-code, and the IBSI's SUV reference manual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from petlesion.dicom.body_size import SEX_SPECIFIC, BodySize, to_body_weight
from petlesion.dicom.decay import (
    check_admin_decay_factor,
    decay_to_reference,
    injection_moment,
    scan_moment,
)
from petlesion.dicom.files import without_remarks
from petlesion.dicom.frames import single_slice_header
from petlesion.dicom.headers import as_number, describe, number, private_value, text, texts
from petlesion.dicom.radionuclides import (
    F18_HALF_LIFE_S,
    SINGLE_PHOTON_RADIONUCLIDES,
    Radionuclide,
    named_radionuclide,
)
from petlesion.errors import PetlesionError, SuvError

PET_STORAGE = "1.2.840.10008.5.1.4.1.1.128"
LEGACY_ENHANCED_PET_STORAGE = "1.2.840.10008.5.1.4.1.1.128.1"
ENHANCED_PET_STORAGE = "1.2.840.10008.5.1.4.1.1.130"
PET_CLASSES = (PET_STORAGE, LEGACY_ENHANCED_PET_STORAGE, ENHANCED_PET_STORAGE)

_PHILIPS_GROUP = 0x7053
_PHILIPS_CREATOR = "Philips PET Private Group"
_PHILIPS_SUV_FACTOR = 0x00
_PHILIPS_ACTIVITY_FACTOR = 0x09
_SMALLEST_BQ = 1e4
_LEAST_PLAUSIBLE_BQ = 1e6
_MOST_PLAUSIBLE_BQ = 1e10
_HEAVIEST_KG = 500.0
_TALLEST_M = 3.0
_COMMON = ("Units", "SUVType", "DecayCorrection", "PatientWeight", "PatientSize", "PatientSex")


@dataclass(frozen=True)
class SuvConversion:
    """What turns a PET series into SUV by body weight.

    `factors`: one per dataset, in the order given: rescaled pixel value × factor = SUV. `facts`: what they
    were derived from, ready for JSON. `warnings`: sentences for the reader of a result.
    """

    factors: tuple[float, ...]
    facts: Mapping[str, object] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def suv_conversion(datasets: Sequence[Dataset]) -> SuvConversion:
    """Derive the SUV factor of each dataset of one PET series from its header.

    An enhanced multi-frame dataset counts as one; its frames may not differ in decay (`frames_of` splits it).
    Raises SuvError, naming tag, value and remedy, where no trustworthy SUV can be computed.
    """
    if not datasets:
        raise SuvError("a PET series without a single image has no SUV; give the folder of the series")
    with without_remarks():
        return _convert([single_slice_header(dataset) for dataset in datasets])


def _convert(datasets: Sequence[Dataset]) -> SuvConversion:
    for dataset in datasets:
        _refuse_what_is_no_pet(dataset)
    _require_common_values(datasets)
    warnings: list[str] = []
    units = text(datasets[0], "Units")
    conversion = {"BQML": _from_activity, "GML": _from_suv, "CM2ML": _from_suv, "CNTS": _from_counts}
    if units is None or units.upper() not in conversion:
        raise SuvError(
            f"{describe('Units')} is {units or 'absent'}, from which no SUV follows; export the series in "
            "BQML or GML"
        )
    factors, facts = conversion[units.upper()](datasets, warnings)
    return SuvConversion(tuple(factors), {"units": units.upper(), **facts}, tuple(dict.fromkeys(warnings)))


_Derived = tuple[Sequence[float], dict[str, object]]


def _from_suv(datasets: Sequence[Dataset], warnings: list[str]) -> _Derived:
    """GML and CM2ML: the values are SUV already, perhaps by another measure than body weight."""
    dataset = datasets[0]
    surface = (text(dataset, "Units") or "").upper() == "CM2ML"
    suv_type = (text(dataset, "SUVType") or ("BSA" if surface else "BW")).upper()
    if surface != (suv_type == "BSA") or suv_type not in ("BW", "BSA", *SEX_SPECIFIC):
        raise SuvError(
            f"{describe('SUVType')} {suv_type} does not go with Units {'CM2ML' if surface else 'GML'}; "
            "export the series again as SUV by body weight"
        )
    _check_corrections(datasets, False, warnings)
    _note_injection_fault(datasets, warnings)
    facts: dict[str, object] = {"suv_type": suv_type}
    factor = 1.0
    if suv_type != "BW":
        size = _body_size(dataset, suv_type, warnings)
        factor = to_body_weight(suv_type, size)
        facts |= {"weight_kg": size.weight_kg, "height_cm": size.height_cm, "sex": size.sex}
    return [factor] * len(datasets), facts


def _from_counts(datasets: Sequence[Dataset], warnings: list[str]) -> _Derived:
    """CNTS: Philips' private factor to SUV, else its factor to Bq/mL."""
    to_suv = [_philips_factor(dataset, _PHILIPS_SUV_FACTOR) for dataset in datasets]
    if all(to_suv):
        _check_corrections(datasets, False, warnings)
        _note_injection_fault(datasets, warnings)
        return [factor for factor in to_suv if factor], {"derived_from": "Philips SUV factor (7053,1000)"}
    to_activity = [_philips_factor(dataset, _PHILIPS_ACTIVITY_FACTOR) for dataset in datasets]
    if not all(to_activity):
        raise SuvError(
            "Units (0054,1001) is CNTS, but neither Philips' SUV factor (7053,1000) nor its activity "
            "factor (7053,1009) is present; export the series again with its private attributes, or in BQML"
        )
    factors, facts = _from_activity(datasets, warnings)
    scaled = [factor * (activity or 0.0) for factor, activity in zip(factors, to_activity, strict=True)]
    return scaled, {**facts, "derived_from": "Philips activity factor (7053,1009)"}


def _from_activity(datasets: Sequence[Dataset], warnings: list[str]) -> _Derived:
    """BQML: activity × body weight / the dose that was left at the decay reference time."""
    dataset = datasets[0]
    decay_correction = (text(dataset, "DecayCorrection") or "").upper()
    if decay_correction not in ("START", "ADMIN", "NONE"):
        raise SuvError(
            f"{describe('DecayCorrection')} is {decay_correction or 'absent'}, but has to be START, ADMIN "
            "or NONE; export the series again"
        )
    _check_corrections(datasets, True, warnings)
    weight_kg = _weight_kg(dataset)
    item = _radiopharmaceutical(datasets)
    dose_bq = _dose_bq(item, warnings)
    nuclide = named_radionuclide(item)
    facts: dict[str, object] = {
        "decay_correction": decay_correction,
        "weight_kg": weight_kg,
        "dose_bq": dose_bq,
        "radionuclide": nuclide.name if nuclide else None,
    }
    if decay_correction == "ADMIN":
        _check_admin(datasets, item, nuclide, warnings)
        return [1000.0 * weight_kg / dose_bq] * len(datasets), facts
    half_life_s = _half_life_s(item, nuclide, warnings)
    decay = decay_to_reference(datasets, decay_correction, half_life_s, warnings)
    facts |= {
        "half_life_s": half_life_s,
        "decay_reference": decay.reference,
        "decay_seconds": sorted({round(seconds, 3) for seconds in decay.seconds}),
    }
    factors = [1000.0 * weight_kg / (dose_bq * 2.0 ** (-seconds / half_life_s)) for seconds in decay.seconds]
    return factors, facts


def _refuse_what_is_no_pet(dataset: Dataset) -> None:
    sop_class = text(dataset, "SOPClassUID")
    modality = (text(dataset, "Modality") or "PT").upper()
    if modality != "PT" or (sop_class is not None and sop_class not in PET_CLASSES):
        raise SuvError(
            f"an object of Modality {modality} and SOPClassUID {sop_class or 'unknown'} is no PET image, so "
            "it has no SUV; give the PET series itself"
        )
    for item in dataset.get("RadiopharmaceuticalInformationSequence") or ():
        nuclide = named_radionuclide(item)
        if nuclide in SINGLE_PHOTON_RADIONUCLIDES:
            raise SuvError(
                f"RadiopharmaceuticalInformationSequence (0054,0016) names {nuclide.name}, which emits no "
                "positrons: this is a SPECT image and has no SUV; give the PET series"
            )
    if "DetectorInformationSequence" in dataset:
        raise SuvError(
            "DetectorInformationSequence (0054,0022) is that of a gamma camera, whose image has no SUV; "
            "give the PET series"
        )
    if {"TOMO", "RECON TOMO", "GATED TOMO", "RECON GATED TOMO"} & set(texts(dataset, "ImageType")):
        raise SuvError(
            "ImageType (0008,0008) is that of a SPECT image, which has no SUV; give the PET series"
        )


def _require_common_values(datasets: Sequence[Dataset]) -> None:
    for keyword in _COMMON:
        values = {text(dataset, keyword) for dataset in datasets}
        if len(values) > 1:
            raise SuvError(
                f"{describe(keyword)} differs within the series; export the series again in one piece"
            )


def _check_corrections(datasets: Sequence[Dataset], decay_matters: bool, warnings: list[str]) -> None:
    decay_correction = (text(datasets[0], "DecayCorrection") or "").upper()
    for dataset in datasets:
        corrections = texts(dataset, "CorrectedImage")
        if not corrections:
            warnings.append(
                f"{describe('CorrectedImage')} is absent: nothing says that the image is corrected for "
                "attenuation; check the reconstruction"
            )
            continue
        listed = ", ".join(corrections)
        if "ATTN" not in corrections:
            raise SuvError(
                f"{describe('CorrectedImage')} is {listed}, without ATTN: an image that is not corrected "
                "for attenuation has no SUV; give the attenuation-corrected series"
            )
        if "DECY" not in corrections and decay_correction in ("START", "ADMIN"):
            problem = (
                f"{describe('CorrectedImage')} is {listed}, without DECY, but DecayCorrection is "
                f"{decay_correction}"
            )
            if decay_matters:
                raise SuvError(f"{problem}; find out which is true and correct the header")
            warnings.append(f"{problem}; check that the scanner's SUV is corrected for decay")
        if "DECY" in corrections and decay_correction == "NONE":
            warnings.append(
                f"{describe('CorrectedImage')} names DECY, but DecayCorrection is NONE; check which is true"
            )


def _check_admin(
    datasets: Sequence[Dataset], item: Dataset, nuclide: Radionuclide | None, warnings: list[str]
) -> None:
    """With ADMIN no time enters the SUV: what is wrong with the times is told, but does no harm."""
    try:
        half_life_s = _half_life_s(item, nuclide, warnings)
        check_admin_decay_factor(datasets, half_life_s, warnings)
    except SuvError as fault:
        warnings.append(f"{fault} (it does not enter the SUV, since DecayCorrection is ADMIN)")
    _note_injection_fault(datasets, warnings)


def _note_injection_fault(datasets: Sequence[Dataset], warnings: list[str]) -> None:
    """Tell of an impossible injection time where the SUV does not depend on it."""
    scan = scan_moment(datasets)
    sequence = datasets[0].get("RadiopharmaceuticalInformationSequence")
    if scan is None or not sequence:
        return
    try:
        half_life_s = number(sequence[0], "RadionuclideHalfLife", SuvError)
        injection_moment(datasets[0], scan, half_life_s or F18_HALF_LIFE_S, warnings)
    except PetlesionError as fault:
        if text(sequence[0], "RadiopharmaceuticalStartDateTime") is not None:
            warnings.append(f"{fault} (it does not enter the SUV)")


def _weight_kg(dataset: Dataset) -> float:
    weight = number(dataset, "PatientWeight", SuvError)
    if weight is None or weight <= 0:
        raise SuvError(
            f"{describe('PatientWeight')} is {'absent' if weight is None else f'{weight:g}'}, but the SUV "
            "is by body weight; enter the patient's weight in kg"
        )
    if weight > _HEAVIEST_KG:
        raise SuvError(
            f"{describe('PatientWeight')} is {weight:g} kg, which cannot be; enter the weight in kg"
        )
    return weight


def _body_size(dataset: Dataset, suv_type: str, warnings: list[str]) -> BodySize:
    height_m = number(dataset, "PatientSize", SuvError)
    if height_m is not None and height_m > _TALLEST_M:
        warnings.append(
            f"{describe('PatientSize')} is {height_m:g}, taken as cm instead of m; correct the header"
        )
        height_m /= 100.0
    sex = text(dataset, "PatientSex")
    if sex == "O" and suv_type in SEX_SPECIFIC:
        warnings.append(
            f"{describe('PatientSex')} is O: the mean of a man's and a woman's {suv_type} was taken; check "
            "the SUV"
        )
    if suv_type == "LBM" and sex != "F":
        warnings.append(
            f"{describe('SUVType')} is LBM, taken as DICOM defines it, with 120 for men; one made with "
            "James's 128 should be called LBMJAMES128, so check which the scanner means"
        )
    return BodySize(_weight_kg(dataset), None if height_m is None else 100.0 * height_m, sex)


def _radiopharmaceutical(datasets: Sequence[Dataset]) -> Dataset:
    """The one injection of the series."""
    items = [list(dataset.get("RadiopharmaceuticalInformationSequence") or []) for dataset in datasets]
    if not all(items):
        raise SuvError(
            "RadiopharmaceuticalInformationSequence (0054,0016) is absent, but it holds dose and "
            "half-life; export the series again with it"
        )
    doses = {text(item, "RadionuclideTotalDose") for sequence in items for item in sequence}
    if len(doses) > 1:
        raise SuvError(
            "RadionuclideTotalDose (0018,1074) holds several doses, and nothing says which one is imaged; "
            "export the series with one injection"
        )
    first: Dataset = items[0][0]
    return first


def _dose_bq(item: Dataset, warnings: list[str]) -> float:
    dose = number(item, "RadionuclideTotalDose", SuvError)
    if dose is None or dose <= 0:
        raise SuvError(
            f"{describe('RadionuclideTotalDose')} is {'absent' if dose is None else f'{dose:g}'}; enter the "
            "injected dose in Bq"
        )
    if dose < _SMALLEST_BQ:
        warnings.append(
            f"{describe('RadionuclideTotalDose')} is {dose:g}, taken as MBq instead of Bq; check it"
        )
        dose *= 1e6
    if not _LEAST_PLAUSIBLE_BQ <= dose <= _MOST_PLAUSIBLE_BQ:
        warnings.append(f"{describe('RadionuclideTotalDose')} of {dose:g} Bq is unusual; check its unit")
    return dose


def _half_life_s(item: Dataset, nuclide: Radionuclide | None, warnings: list[str]) -> float:
    half_life = number(item, "RadionuclideHalfLife", SuvError)
    if half_life is None or half_life <= 0:
        raise SuvError(
            f"{describe('RadionuclideHalfLife')} is {'absent' if half_life is None else f'{half_life:g}'}; "
            "enter the half-life in seconds"
        )
    if nuclide is None or nuclide.half_life_s is None:
        return half_life
    off = abs(half_life / nuclide.half_life_s - 1)
    fault = (
        f"{describe('RadionuclideHalfLife')} is {half_life:g} s, but {nuclide.name} has "
        f"{nuclide.half_life_s:g} s"
    )
    if off > 0.05:
        raise SuvError(f"{fault}; correct the half-life or the radionuclide")
    if off > 0.01:
        warnings.append(f"{fault}; check which is true")
    return half_life


def _philips_factor(dataset: Dataset, offset: int) -> float | None:
    """A positive private factor, None where it is absent or 0."""
    value = private_value(dataset, _PHILIPS_GROUP, _PHILIPS_CREATOR, offset)
    factor = as_number(value, f"Philips' private factor (7053,10{offset:02X})", SuvError)
    if factor is not None and factor < 0:
        raise SuvError(
            f"Philips' private factor (7053,10{offset:02X}) is {factor:g}; export the series in BQML"
        )
    return factor or None
