from petlesion.dicom.suv import suv_conversion
from petlesion.report.facts import conversion_in_words, model_in_words
from tests.dicom.builders import pet_header


def test_the_facts_of_a_conversion_in_words_and_units() -> None:
    assert conversion_in_words(suv_conversion([pet_header()]).facts) == {
        "Units": "BQML",
        "Radionuclide": "F-18",
        "Injected dose": "350 MBq",
        "Body weight": "70 kg",
        "Decay correction": "START",
        "Decay reference": "SeriesDate and SeriesTime",
        "Decay of the dose": "60 min",
        "Half-life": "109.8 min",
    }


def test_beds_are_shown_by_their_ends() -> None:
    beds = [
        pet_header(SeriesTime=None, AcquisitionTime=time, FrameReferenceTime=None)
        for time in ("110000", "110230", "110500")
    ]
    assert conversion_in_words(suv_conversion(beds).facts)["Decay of the dose"] == "60 to 65 min"


def test_every_fact_has_a_name_and_nothing_is_shown_for_what_is_unknown() -> None:
    conversion = suv_conversion([pet_header(Units="GML", SUVType="IBW")])
    words = conversion_in_words({**conversion.facts, "radionuclide": None, "software": "x"})
    assert words == {
        "Units": "GML",
        "SUV type": "IBW",
        "Body weight": "70 kg",
        "Body height": "175 cm",
        "Sex": "M",
        "software": "x",
    }


def test_the_facts_of_a_model_have_names() -> None:
    assert model_in_words({"name": "b", "sha256": "ab12", "x": 1}) == {
        "Name": "b",
        "SHA-256": "ab12",
        "x": "1",
    }
