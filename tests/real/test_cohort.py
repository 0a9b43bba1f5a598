"""Cohorts of the real studies, and simulated bodies around real organs."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from petlesion.cli.main import app
from petlesion.cohort.layout import Cohort
from petlesion.simulation import SimulationSettings
from petlesion.simulation.body import Tissue
from petlesion.simulation.study import simulate_in_full

runner = CliRunner()


def test_the_sarcomas_make_a_cohort(real_data: Path, tmp_path: Path) -> None:
    some = tmp_path / "sts"
    some.mkdir()
    for number in ("001", "004", "009", "013", "024", "034"):
        (some / f"STS_{number}").symlink_to(real_data / "sts" / f"STS_{number}")
    folder = tmp_path / "Dataset011_Sarcoma"
    built = runner.invoke(app, ["cohort", "build", str(some), "-o", str(folder)])
    assert built.exit_code == 0, built.output
    split = runner.invoke(app, ["cohort", "split", str(folder), "--test-share", "0", "--folds", "3"])
    assert split.exit_code == 0, split.output
    checked = runner.invoke(app, ["cohort", "check", str(folder)])
    assert checked.exit_code == 0, checked.output
    cohort = Cohort.open(folder)
    assert len(cohort.cases) == 6 and not cohort.test_cases
    for case in cohort.cases:
        original = nibabel.load(real_data / "sts" / case.case_id / "SEG.nii.gz")
        volume_ml = (
            np.count_nonzero(np.asarray(original.dataobj)) * np.prod(original.header.get_zooms()) / 1000
        )
        assert case.reference_volume_ml == pytest.approx(volume_ml, rel=1e-3)
        pet = nibabel.load(cohort.image_path(case.case_id, 1))
        source = nibabel.load(real_data / "sts" / case.case_id / "PET.nii.gz")
        np.testing.assert_array_equal(pet.get_fdata(), source.get_fdata())
        np.testing.assert_allclose(pet.affine, source.affine, atol=1e-4)


def test_a_body_is_fitted_around_real_organs(real_data: Path) -> None:
    settings = SimulationSettings((6.0, 5.0, 5.0), organs=real_data / "organs")
    paths = sorted((real_data / "organs").glob("*.nii.gz"))
    for seed in (0, 4, 31):
        simulation = simulate_in_full(seed, settings)
        masks = nibabel.load(paths[seed % len(paths)])
        # To the masks' own index by way of RAS.
        to_index = np.linalg.inv(masks.affine) @ np.diag([-1, -1, 1, 1]) @ simulation.tissue.affine
        tissue = simulation.tissue.array
        labels = np.asarray(masks.dataobj)
        for kind, label in ((Tissue.LIVER, 3), (Tissue.SPLEEN, 1), (Tissue.LUNG, 5)):
            z, y, x = np.nonzero(tissue == kind)
            index = np.rint(to_index @ np.stack([x, y, z, np.ones_like(x)])).astype(int)
            assert np.mean(labels[index[0], index[1], index[2]] == label) > 0.95
        spacing_ml = np.prod(masks.header.get_zooms()) / 1000
        for kind, label in ((Tissue.LIVER, 3), (Tissue.LUNG, 5)):
            placed = np.count_nonzero(tissue == kind) * simulation.tissue.voxel_volume_ml
            assert placed == pytest.approx(np.count_nonzero(labels == label) * spacing_ml, rel=0.08)
        truth = simulation.study.reference
        assert truth is not None
        assert not np.isin(tissue[truth.array], (Tissue.AIR, Tissue.AIRWAY, Tissue.BOWEL_GAS)).any()


def test_the_figures_in_the_simulator_are_the_published_ones(real_data: Path) -> None:
    import json

    from petlesion.simulation import burden

    published = json.loads((real_data / "autopet_lesions.json").read_text())
    assert tuple(published["probabilities"]) == burden.PROBABILITIES
    assert tuple(published["components_per_positive_study"]) == burden.COMPONENTS_PER_STUDY
    assert tuple(published["component_volume_ml"]) == burden.COMPONENT_VOLUME_ML
    assert tuple(published["total_lesion_volume_ml_per_positive_study"]) == burden.TOTAL_VOLUME_ML
    assert published["studies_with_lesions"] / published["studies"] == burden.SHARE_WITH_LESIONS
