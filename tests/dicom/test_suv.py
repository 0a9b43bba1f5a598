"""Each rule of docs/suv.md, against figures worked out here by the formulas themselves."""

import math

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from petlesion.dicom.suv import suv_conversion
from petlesion.errors import SuvError
from tests.dicom.builders import nuclide_code, pet_header

DOSE = 350e6
HALF_LIFE = 6586.2
WEIGHT_G = 70_000.0


def decayed(seconds: float, half_life: float = HALF_LIFE) -> float:
    """SUV factor of an activity whose dose decayed for so many seconds."""
    return WEIGHT_G / (DOSE * math.exp(-math.log(2) * seconds / half_life))


def average(seconds: float, half_life: float = HALF_LIFE) -> float:
    """When the count rate of a frame equals its average."""
    rate = math.log(2) / half_life
    return math.log(rate * seconds / (1 - math.exp(-rate * seconds))) / rate


def factor(**changes: object) -> float:
    return suv_conversion([pet_header(**changes)]).factors[0]


# Units.


def test_activity_is_divided_by_the_decayed_dose_per_gram() -> None:
    assert factor() == pytest.approx(decayed(3600), rel=1e-12)


def test_suv_by_body_weight_stays_as_it_is() -> None:
    assert factor(Units="GML") == 1.0
    assert factor(Units="GML", SUVType="BW", PatientWeight=None) == 1.0


@pytest.mark.parametrize(
    ("suv_type", "sex", "mass_kg"),
    [
        ("LBMJAMES128", "M", 1.10 * 70 - 128 * (70 / 175) ** 2),
        ("LBMJAMES128", "F", 1.07 * 70 - 148 * (70 / 175) ** 2),
        ("LBM", "M", 1.10 * 70 - 120 * (70 / 175) ** 2),
        ("LBMJANMA", "M", 9270 * 70 / (6680 + 216 * 70 / 1.75**2)),
        ("LBMJANMA", "F", 9270 * 70 / (8780 + 244 * 70 / 1.75**2)),
        ("IBW", "M", 48.0 + 1.06 * (175 - 152)),
        ("IBW", "F", 45.5 + 0.91 * (175 - 152)),
    ],
)
def test_suv_by_another_mass_becomes_suv_by_body_weight(suv_type: str, sex: str, mass_kg: float) -> None:
    assert factor(Units="GML", SUVType=suv_type, PatientSex=sex) == pytest.approx(70 / mass_kg, rel=1e-12)


def test_sex_other_takes_the_mean_of_both_with_a_warning() -> None:
    male = 48.0 + 1.06 * 23
    female = 45.5 + 0.91 * 23
    conversion = suv_conversion([pet_header(Units="GML", SUVType="IBW", PatientSex="O")])
    assert conversion.factors[0] == pytest.approx(70 / ((male + female) / 2))
    assert any("PatientSex" in warning for warning in conversion.warnings)


@pytest.mark.parametrize(
    "changes",
    [{"PatientSex": None}, {"PatientSex": "X"}, {"PatientSize": None}, {"PatientSize": "0"}],
)
def test_suv_by_another_mass_needs_sex_and_height(changes: dict[str, object]) -> None:
    with pytest.raises(SuvError, match=r"Patient(Sex|Size)"):
        factor(Units="GML", SUVType="IBW", **changes)


def test_the_lbm_of_dicom_is_not_taken_for_the_one_of_james_in_silence() -> None:
    (warning,) = suv_conversion([pet_header(Units="GML", SUVType="LBM")]).warnings
    assert "LBMJAMES128" in warning
    for changes in ({"SUVType": "LBM", "PatientSex": "F"}, {"SUVType": "LBMJAMES128"}):
        assert suv_conversion([pet_header(Units="GML", **changes)]).warnings == ()


def test_height_in_centimetres_is_told() -> None:
    conversion = suv_conversion([pet_header(Units="GML", SUVType="IBW", PatientSize="175")])
    assert conversion.factors[0] == factor(Units="GML", SUVType="IBW")
    assert "PatientSize" in conversion.warnings[0]


def test_suv_by_body_surface_is_in_square_centimetres() -> None:
    area_cm2 = 0.007184 * 70**0.425 * 175**0.725 * 1e4
    assert factor(Units="CM2ML") == pytest.approx(WEIGHT_G / area_cm2, rel=1e-12)


def test_james_formula_without_any_mass_is_refused() -> None:
    with pytest.raises(SuvError, match="no positive mass"):
        factor(Units="GML", SUVType="LBMJAMES128", PatientWeight="300", PatientSize="1.4")


@pytest.mark.parametrize("changes", [{"Units": "GML", "SUVType": "BSA"}, {"Units": "CM2ML", "SUVType": "BW"}])
def test_suv_type_has_to_fit_the_units(changes: dict[str, object]) -> None:
    with pytest.raises(SuvError, match="SUVType"):
        factor(**changes)


@pytest.mark.parametrize("units", ["PROPCNTS", "PCNT", None])
def test_other_units_are_refused(units: str | None) -> None:
    with pytest.raises(SuvError, match=r"Units \(0054,1001\)"):
        factor(Units=units)


def philips(**factors: str) -> Dataset:
    header = pet_header(Units="CNTS", Manufacturer="Philips Medical Systems")
    block = header.private_block(0x7053, "Philips PET Private Group", create=True)
    if "suv" in factors:
        block.add_new(0x00, "DS", factors["suv"])
    if "activity" in factors:
        block.add_new(0x09, "DS", factors["activity"])
    return header


def test_counts_take_the_suv_factor_of_philips_first() -> None:
    assert suv_conversion([philips(suv="0.0005", activity="2.5")]).factors == (0.0005,)


def test_counts_without_suv_factor_take_the_activity_factor() -> None:
    for header in (philips(activity="2.5"), philips(suv="0", activity="2.5")):
        assert suv_conversion([header]).factors[0] == pytest.approx(2.5 * decayed(3600))


def test_counts_with_a_private_factor_stored_as_bytes() -> None:
    header = pet_header(Units="CNTS")
    header.add_new((0x7053, 0x1000), "UN", b"0.0005 ")
    assert suv_conversion([header]).factors == (0.0005,)


def test_a_private_attribute_of_another_maker_is_not_read() -> None:
    header = pet_header(Units="CNTS")
    header.private_block(0x7053, "Another maker", create=True).add_new(0x00, "DS", "0.0005")
    with pytest.raises(SuvError, match="7053,1000"):
        suv_conversion([header])


def test_counts_without_any_factor_are_refused() -> None:
    with pytest.raises(SuvError, match="7053,1000"):
        suv_conversion([philips()])


# Decay.


def test_admin_needs_no_decay_of_the_dose() -> None:
    assert factor(DecayCorrection="ADMIN") == WEIGHT_G / DOSE


def test_start_refers_to_the_series_time_where_it_is_not_later_than_the_earliest_acquisition() -> None:
    beds = [pet_header(AcquisitionTime=time) for time in ("112000", "110500", "111000")]
    assert suv_conversion(beds).factors == pytest.approx([decayed(3600)] * 3)


def ge(scan: str | None, **changes: object) -> Dataset:
    header = pet_header(Manufacturer="GE MEDICAL SYSTEMS", **changes)
    if scan is not None:
        header.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", scan)
    return header


def test_start_with_a_later_series_takes_the_private_scan_time_of_ge() -> None:
    header = ge("20240305105500.00", SeriesTime="140000", AcquisitionTime="110000")
    assert suv_conversion([header]).factors[0] == pytest.approx(decayed(3300))
    header.Manufacturer = ""
    assert suv_conversion([header]).factors[0] == pytest.approx(decayed(3300))
    header.Manufacturer = "Another maker"
    assert suv_conversion([header]).factors[0] == pytest.approx(decayed(3600))


def test_start_with_a_later_series_takes_the_private_decay_time_of_siemens() -> None:
    header = pet_header(Manufacturer="SIEMENS", SeriesTime="140000", AcquisitionTime="110300")
    header.private_block(0x0071, "SIEMENS MED PT", create=True).add_new(0x22, "DT", "20240305105900.000000")
    assert suv_conversion([header]).factors[0] == pytest.approx(decayed(3540))
    header.SeriesTime = "105930"
    assert suv_conversion([header]).factors[0] == pytest.approx(decayed(3570))


def test_a_series_dated_long_before_its_acquisition_is_no_decay_reference() -> None:
    header = pet_header(SeriesDate="20240304", SeriesTime="140000", RadiopharmaceuticalStartTime="100000")
    header.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartDateTime = "20240305100000"
    conversion = suv_conversion([header])
    assert conversion.factors[0] == pytest.approx(decayed(3600))
    assert "21.0 h before the acquisition" in conversion.warnings[0]


def test_start_with_a_later_series_works_back_from_the_frames() -> None:
    beds = [
        pet_header(SeriesTime="140000", AcquisitionTime="110000", FrameReferenceTime="90000"),
        pet_header(SeriesTime="140000", AcquisitionTime="110300", FrameReferenceTime="270000"),
    ]
    seconds = 3600 + average(180) - 90
    assert suv_conversion(beds).factors == pytest.approx([decayed(seconds)] * 2, rel=1e-9)


@pytest.mark.parametrize("reference", ["0", None])
def test_reference_times_that_say_nothing_leave_the_acquisition_time(reference: str | None) -> None:
    beds = [
        pet_header(SeriesTime="140000", AcquisitionTime=time, FrameReferenceTime=reference)
        for time in ("110000", "110300")
    ]
    conversion = suv_conversion(beds)
    assert conversion.factors == pytest.approx([decayed(3600), decayed(3780)])
    assert "each bed's AcquisitionTime" in conversion.warnings[0]
    assert suv_conversion(beds[:1]).warnings == ()


def test_without_any_moment_of_the_scan() -> None:
    with pytest.raises(SuvError, match=r"0008,0031.*0008,0032"):
        factor(SeriesDate=None, AcquisitionDate=None)


def test_decay_factor_tells_that_ge_counts_from_the_start_of_the_frame() -> None:
    frame_factor = 2 ** ((240 + average(180)) / HALF_LIFE)
    header = ge(
        None,
        SeriesTime="140000",
        AcquisitionTime="110400",
        FrameReferenceTime="240000",
        DecayFactor=f"{frame_factor:.5f}",
    )
    assert suv_conversion([header]).factors[0] == pytest.approx(decayed(3600))


def test_none_refers_to_the_average_count_rate_of_each_frame() -> None:
    corrected = ["NORM", "ATTN"]
    beds = [
        pet_header(DecayCorrection="NONE", CorrectedImage=corrected, AcquisitionTime=time)
        for time in ("110000", "110300")
    ]
    expected = [decayed(3600 + average(180)), decayed(3780 + average(180))]
    assert suv_conversion(beds).factors == pytest.approx(expected, rel=1e-9)


def test_none_needs_the_duration_of_the_frame() -> None:
    with pytest.raises(SuvError, match="ActualFrameDuration"):
        factor(DecayCorrection="NONE", CorrectedImage=["ATTN"], ActualFrameDuration=None)


@pytest.mark.parametrize("correction", [None, "LATER"])
def test_decay_correction_has_to_be_known(correction: str | None) -> None:
    with pytest.raises(SuvError, match="DecayCorrection"):
        factor(DecayCorrection=correction)


def test_decay_factor_that_contradicts_is_told_with_both_values() -> None:
    right = 2 ** (average(180) / HALF_LIFE)
    assert suv_conversion([pet_header(DecayFactor=f"{right:.4f}")]).warnings == ()
    (warning,) = suv_conversion([pet_header(DecayFactor="1.25")]).warnings
    assert "1.25" in warning and f"{right:.4f}"[:5] in warning
    (warning,) = suv_conversion([pet_header(DecayCorrection="ADMIN", DecayFactor="1.01")]).warnings
    assert "1.01" in warning


# The injection.


def test_injection_date_and_time_come_before_the_time_alone() -> None:
    assert factor(RadiopharmaceuticalStartDateTime="20240305103000.00") == pytest.approx(decayed(1800))
    assert factor(
        RadiopharmaceuticalStartDateTime="20240305103000", RadiopharmaceuticalStartTime=None
    ) == pytest.approx(decayed(1800))


def test_injection_before_midnight() -> None:
    header = pet_header(SeriesTime="003000", AcquisitionTime="003000", RadiopharmaceuticalStartTime="233000")
    conversion = suv_conversion([header])
    assert conversion.factors[0] == pytest.approx(decayed(3600))
    assert "RadiopharmaceuticalStartTime" in conversion.warnings[0]


def test_beds_without_a_date_on_both_sides_of_midnight() -> None:
    beds = [
        pet_header(
            DecayCorrection="NONE",
            CorrectedImage=["ATTN"],
            SeriesTime="235500",
            AcquisitionDate=None,
            AcquisitionTime=time,
            RadiopharmaceuticalStartTime="225500",
        )
        for time in ("235500", "000100")
    ]
    expected = [decayed(seconds + average(180)) for seconds in (3600, 3960)]
    assert suv_conversion(beds).factors == pytest.approx(expected, rel=1e-9)


def test_a_date_without_a_clock_takes_the_clock_of_the_start_time() -> None:
    conversion = suv_conversion([pet_header(RadiopharmaceuticalStartDateTime="19000101000000")])
    assert conversion.factors[0] == pytest.approx(decayed(3600))
    assert "0018,1078" in conversion.warnings[0]


def test_two_clock_times_of_the_injection_are_told() -> None:
    conversion = suv_conversion([pet_header(RadiopharmaceuticalStartDateTime="20240305091500")])
    assert conversion.factors[0] == pytest.approx(decayed(6300))
    assert "45 min apart" in conversion.warnings[0]


def test_an_acquisition_that_begins_with_the_injection_is_told() -> None:
    blanked = pet_header(SeriesTime="000000", AcquisitionTime="000000", RadiopharmaceuticalStartTime="000000")
    assert "0 min after the injection" in suv_conversion([blanked]).warnings[0]
    later_frame = pet_header(SeriesTime="100000", AcquisitionTime="110000")
    assert suv_conversion([later_frame]).warnings == ()


@pytest.mark.parametrize("injection", ["20240306100000", "20210101100000", "20240304100000"])
def test_a_wrong_date_of_injection_is_taken_from_the_series(injection: str) -> None:
    conversion = suv_conversion([pet_header(RadiopharmaceuticalStartDateTime=injection)])
    assert conversion.factors[0] == pytest.approx(decayed(3600))
    assert "0018,1078" in conversion.warnings[0]


@pytest.mark.parametrize("injection", ["20240305114000", "20240306220000"])
def test_an_injection_that_makes_no_sense_on_any_date_is_refused(injection: str) -> None:
    with pytest.raises(SuvError, match="StartDateTime"):
        factor(RadiopharmaceuticalStartDateTime=injection)


def test_without_any_time_of_injection() -> None:
    with pytest.raises(SuvError, match="0018,1072"):
        factor(RadiopharmaceuticalStartTime=None)


def test_utc_offsets_count_where_the_dataset_has_one() -> None:
    change = {"RadiopharmaceuticalStartDateTime": "20240305090000+0000"}
    assert factor(**change, TimezoneOffsetFromUTC="+0100") == pytest.approx(decayed(3600))
    assert factor(**change) == pytest.approx(decayed(7200))


# Doses, weights, radionuclides, corrections.


def test_dose_in_megabecquerel_is_told() -> None:
    conversion = suv_conversion([pet_header(RadionuclideTotalDose="350")])
    assert conversion.factors[0] == pytest.approx(decayed(3600))
    assert "RadionuclideTotalDose (0018,1074) is 350" in conversion.warnings[0]


@pytest.mark.parametrize("keyword", ["RadionuclideTotalDose", "PatientWeight", "RadionuclideHalfLife"])
@pytest.mark.parametrize("value", [None, "0", "-5"])
def test_what_has_to_be_positive(keyword: str, value: str | None) -> None:
    with pytest.raises(SuvError, match=keyword):
        factor(**{keyword: value})


def test_numbers_that_are_none() -> None:
    header = pet_header()
    header.PatientWeight = float("inf")
    with pytest.raises(SuvError, match="PatientWeight"):
        suv_conversion([header])


@pytest.mark.parametrize(
    ("code", "meaning", "half_life", "injected"),
    [
        ("35337001", "^68^Gallium", 4057.74, "20240305100000"),
        ("3932008", "^64^Copper", 45_723.6, "20240305100000"),
        ("63360001", "^89^Zirconium", 282_240.0, "20240301100000"),
        ("99ZZ", "Zr-89", 282_240.0, "20240301100000"),
    ],
)
def test_other_radionuclides(code: str, meaning: str, half_life: float, injected: str) -> None:
    seconds = 3600 + (4 * 86_400 if injected < "20240305" else 0)
    found = factor(
        RadionuclideCodeSequence=nuclide_code(code, meaning),
        RadionuclideHalfLife=str(half_life),
        RadiopharmaceuticalStartDateTime=injected,
    )
    assert found == pytest.approx(decayed(seconds, half_life))


def test_half_life_of_another_radionuclide() -> None:
    with pytest.raises(SuvError, match=r"RadionuclideHalfLife .*F-18"):
        factor(RadionuclideHalfLife="4057.74")
    assert suv_conversion([pet_header(RadionuclideHalfLife="6450")]).warnings
    conversion = suv_conversion([pet_header(RadionuclideHalfLife="4057.74", DecayCorrection="ADMIN")])
    assert conversion.factors[0] == WEIGHT_G / DOSE and "RadionuclideHalfLife" in conversion.warnings[0]


def test_corrections_that_an_suv_needs() -> None:
    with pytest.raises(SuvError, match="ATTN"):
        factor(CorrectedImage=["NORM", "DECY"])
    with pytest.raises(SuvError, match="DECY"):
        factor(CorrectedImage=["NORM", "ATTN"])
    conversion = suv_conversion([pet_header(CorrectedImage=["ATTN"], Units="GML")])
    assert "DECY" in conversion.warnings[0]
    assert "CorrectedImage" in suv_conversion([pet_header(CorrectedImage=None)]).warnings[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"Modality": "NM"},
        {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.20"},
        {"ImageType": ["ORIGINAL", "PRIMARY", "RECON TOMO", "EMISSION"]},
        {"RadionuclideCodeSequence": nuclide_code("C-163A8", "^99m^Technetium")},
        {"RadionuclideCodeSequence": nuclide_code("0", "In-111")},
        {"DetectorInformationSequence": Sequence()},
    ],
)
def test_spect_posing_as_pet_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SuvError):
        factor(**changes)


def test_series_of_two_minds_is_refused() -> None:
    with pytest.raises(SuvError, match="PatientWeight"):
        suv_conversion([pet_header(), pet_header(PatientWeight="80")])
    with pytest.raises(SuvError):
        suv_conversion([])


def test_facts_say_what_the_factor_came_from() -> None:
    facts = suv_conversion([pet_header()]).facts
    assert facts["units"] == "BQML" and facts["decay_seconds"] == [3600.0] and facts["radionuclide"] == "F-18"
