from pathlib import Path

import numpy as np
import pytest
from highdicom.sr import srread

from petlesion.dicom.seg import write_seg
from petlesion.dicom.sr import write_report
from petlesion.lesions import label_components, measure_lesions
from tests.dicom.test_seg import MADE_BY, check_with_dciodvfy, source_of


@pytest.mark.parametrize("per_lesion", [True, False])
def test_each_lesion_is_a_measurement_group(tmp_path: Path, per_lesion: bool) -> None:
    images = source_of(tmp_path / "study")
    assert images.pet_stack is not None
    mask = np.zeros(images.pet.shape, bool)
    mask[1:3, 2:5, 3:9] = mask[4, 7, 2] = True
    table = measure_lesions(images.pet.with_array(mask), images.pet)
    labels, _ = label_components(mask)
    lesions = images.pet.with_array(labels if per_lesion else mask)
    segmentation = write_seg(tmp_path / "seg.dcm", lesions, images.pet_stack, MADE_BY)
    write_report(tmp_path / "sr.dcm", table.lesions, segmentation, images.pet_stack, MADE_BY)
    check_with_dciodvfy(tmp_path / "sr.dcm")
    report = srread(tmp_path / "sr.dcm")
    assert report.VerificationFlag == "UNVERIFIED" and report.CompletionFlag == "COMPLETE"
    groups = report.content.get_volumetric_roi_measurement_groups()
    assert len(groups) == len(table.lesions) == 2
    for group, lesion in zip(groups, table.lesions, strict=True):
        measured = {
            (item.name.meaning, item.derivation.meaning if item.derivation else None): (
                item.value,
                item.unit.value,
            )
            for item in group.get_measurements()
        }
        suv = "g/ml{SUVbw}"
        expected = {
            ("SUVbw", "Maximum"): (lesion.suv_max, suv),
            ("SUVbw", "Mean"): (lesion.suv_mean, suv),
            ("SUVbw", "Peak Value Within ROI"): (lesion.suv_peak, suv),
            ("Volume", None): (lesion.volume_ml, "ml"),
            ("Total Lesion Glycolysis", None): (lesion.tlg, "g"),
        }
        assert measured.keys() == expected.keys()
        for key, (value, unit) in expected.items():
            assert measured[key][0] == pytest.approx(value, rel=1e-5) and measured[key][1] == unit
        if per_lesion:
            assert group.tracking_uid == segmentation.SegmentSequence[lesion.number - 1].TrackingUID


def test_without_lesions_there_is_nothing_to_report(tmp_path: Path) -> None:
    images = source_of(tmp_path / "study")
    assert images.pet_stack is not None
    empty = images.pet.with_array(np.zeros(images.pet.shape, bool))
    segmentation = write_seg(tmp_path / "seg.dcm", empty, images.pet_stack, MADE_BY)
    assert write_report(tmp_path / "sr.dcm", (), segmentation, images.pet_stack, MADE_BY) is None
    assert not (tmp_path / "sr.dcm").exists()
