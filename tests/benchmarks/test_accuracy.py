from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from petlesion.model.bundle import BundleMember, ModelCard, write_bundle_file
from petlesion.model.plan import Normalization, Plan
from petlesion.model.training_cases import case_digests, write_training_cases
from petlesion.volume import Study, Volume

PLAN = Plan(
    channels=("PET",),
    normalization=(Normalization("ZScoreNormalization"),),
    spacing_mm=(4.0, 4.0, 4.0),
    patch_size=(16, 16, 16),
    transpose=(0, 1, 2),
    labels={"background": 0, "lesion": 1},
    mirror_axes=(),
)


def write_bundle(folder: Path, seen: Mapping[str, tuple[str, ...]]) -> Path:
    """A bundle whose networks, which nobody runs, know what they were trained on."""
    folder.mkdir()
    networks = {fold: f"fold_{fold}.onnx" for fold in ("0", "1", "2")}
    for name in networks.values():
        (folder / name).write_bytes(name.encode())
    write_training_cases(folder, {networks[fold]: case_digests(cases) for fold, cases in seen.items()})
    write_bundle_file(folder, (BundleMember(PLAN, networks),), ModelCard("made up", "nothing", "CC0"))
    return folder


def test_only_networks_that_did_not_see_a_case_are_asked(tmp_path: Path) -> None:
    from unseen import UnseenNetworks

    seen = {"0": ("a", "b"), "1": ("a", "c"), "2": ("a", "c")}
    networks = UnseenNetworks(write_bundle(tmp_path / "bundle", seen))
    folds = {case: networks.folds(case) for case in "abcd"}
    assert folds == {"a": (), "b": ("1", "2"), "c": ("0",), "d": ("0", "1", "2")}
    with pytest.raises(SystemExit, match="every network has trained on a"):
        networks.model("a")


def test_a_network_that_saw_a_study_cut_anew_has_seen_it(tmp_path: Path) -> None:
    from unseen import UnseenNetworks

    seen = {"0": ("a_recut1",), "1": ("a_recut32",), "2": ("b", "a_recut")}
    assert UnseenNetworks(write_bundle(tmp_path / "bundle", seen)).folds("a") == ("2",)


def test_a_network_that_does_not_tell_is_not_taken_for_one_that_saw_nothing(tmp_path: Path) -> None:
    from unseen import UnseenNetworks

    with pytest.raises(SystemExit, match=r"fold_2\.onnx does not tell"):
        UnseenNetworks(write_bundle(tmp_path / "bundle", {"0": ("a",), "1": ()}))


def test_a_peer_of_one_fold_is_compared_on_its_studies(
    phantom: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    from accuracy import report_real, score

    def exact(study: Study) -> Volume | None:
        return study.reference

    def nothing_but_of_the_first(study: Study) -> Volume | None:
        return study.pet.with_array(np.zeros(study.pet.shape, np.uint8)) if study.name == "p1" else None

    studies = [replace(phantom, name=name) for name in ("p1", "p2", "p2-recut-101")]
    rows = score(studies, {"petlesion": exact, "peer": nothing_but_of_the_first})
    assert [len(rows["petlesion"]), len(rows["peer"])] == [3, 1]
    report_real("cut anew", rows, {"p1": "p1", "p2": "p2", "p2-recut-101": "p2"})
    whole, shared = capsys.readouterr().out.split("real studies, cut anew: ")[1:]
    assert whole.startswith("3 cases of 2 patients\n") and "peer" not in whole
    assert shared.startswith("1 cases of 1 patients that each bundle has an unseen network for\n")
    lines = {line.split("|")[1].strip(): line for line in shared.splitlines() if line.startswith("|")}
    assert "1.000" in lines["petlesion"] and "0.000" in lines["peer"]


def test_each_method_scores_all_studies_in_one_table(
    phantom: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    from accuracy import by_method, report_real, score

    rows = score([phantom], {"suv-2.5": by_method("suv-2.5"), "suv-4": by_method("suv-4")})
    report_real("as they are", rows, {phantom.name: phantom.name})
    told = capsys.readouterr().out
    assert told.count("real studies") == 1 and told.count("1.000") >= 2


def test_real_crops_are_cut_anew_three_times(tmp_path: Path, phantom: Study) -> None:
    from accuracy import patient_of, real_sets

    from petlesion.io.nifti import write_volume

    assert phantom.ct is not None and phantom.reference is not None
    for name, volume in (("PET", phantom.pet), ("CT", phantom.ct), ("SEG", phantom.reference)):
        write_volume(tmp_path / "S1" / f"{name}.nii.gz", volume.with_array(volume.array.astype(np.float32)))
    sets = real_sets(tmp_path)
    (whole,) = sets["as they are"]
    crops = sets["cut anew"]
    assert len({crop.name for crop in crops}) == 3 and {patient_of(crop.name) for crop in crops} == {
        whole.name
    }
    for crop in crops:
        lost_mm = (np.array(whole.pet.shape) - crop.pet.shape) * whole.pet.spacing_mm
        assert (lost_mm >= 0).all() and (lost_mm <= 104).all()
