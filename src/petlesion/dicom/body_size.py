"""What an uptake is normalised by: body weight, lean body mass, ideal body weight, body surface area.

Formulas as DICOM PS3.16 defines the methods of CID 85 and the IBSI's SUV reference manual repeats them:
James 1976 (male 128, or the 120 that DICOM's LBM uses after Morgan 1994), Janmahasatian 2005, Sugawara 1999
for ideal body weight, and Du Bois 1916.
"""

from __future__ import annotations

from dataclasses import dataclass

from petlesion.errors import SuvError

SEX_SPECIFIC = ("LBM", "LBMJAMES128", "LBMJANMA", "IBW")


@dataclass(frozen=True)
class BodySize:
    """A patient's weight in kg, height in cm (None where unknown) and sex M, F, O or None."""

    weight_kg: float
    height_cm: float | None = None
    sex: str | None = None


def to_body_weight(suv_type: str, size: BodySize) -> float:
    """The factor from an SUV of `suv_type` to one by body weight.

    `suv_type` is a defined term of SUVType (0054,1006); BSA is in cm²/mL and the others in g/mL. For sex O
    the mean of the male and the female size is taken. Raises SuvError where height or sex is missing, or
    where the formula leaves no mass (James at a very high body mass index).
    """
    if suv_type == "BW":
        return 1.0
    height_cm = _required_height(suv_type, size)
    if suv_type == "BSA":
        area_cm2 = 1e4 * 0.007184 * float(size.weight_kg**0.425 * height_cm**0.725)
        return 1000.0 * size.weight_kg / area_cm2
    sexes = _sexes(suv_type, size)
    mass_kg = sum(_mass_kg(suv_type, size.weight_kg, height_cm, sex) for sex in sexes) / len(sexes)
    if mass_kg <= 0:
        raise SuvError(
            f"SUVType (0054,1006) {suv_type} gives no positive mass for {size.weight_kg:g} kg and "
            f"{height_cm:g} cm; correct PatientWeight or PatientSize"
        )
    return size.weight_kg / mass_kg


def _mass_kg(suv_type: str, weight_kg: float, height_cm: float, sex: str) -> float:
    male = sex == "M"
    if suv_type == "IBW":
        return 48.0 + 1.06 * (height_cm - 152.0) if male else 45.5 + 0.91 * (height_cm - 152.0)
    if suv_type == "LBMJANMA":
        body_mass_index = weight_kg / (height_cm / 100.0) ** 2
        denominator = 6680.0 + 216.0 * body_mass_index if male else 8780.0 + 244.0 * body_mass_index
        return 9270.0 * weight_kg / denominator
    ratio = (weight_kg / height_cm) ** 2
    if male:
        return 1.10 * weight_kg - (128.0 if suv_type == "LBMJAMES128" else 120.0) * ratio
    return 1.07 * weight_kg - 148.0 * ratio


def _required_height(suv_type: str, size: BodySize) -> float:
    if size.height_cm is None or size.height_cm <= 0:
        raise SuvError(
            f"PatientSize (0010,1020) is absent or 0, but SUVType {suv_type} needs it to become an SUV by "
            "body weight; enter the patient's height in metres"
        )
    return size.height_cm


def _sexes(suv_type: str, size: BodySize) -> tuple[str, ...]:
    if size.sex in ("M", "F"):
        return (size.sex,)
    if size.sex == "O":
        return ("M", "F")
    raise SuvError(
        f"PatientSex (0010,0040) is absent or none of M, F and O, but SUVType {suv_type} needs it to become "
        "an SUV by body weight; enter the patient's sex"
    )
