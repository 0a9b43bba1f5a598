"""A small trained model, as nnU-Net's folder and as a bundle, and the study that it knows."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from petlesion.model.bundle import Bundle
from petlesion.training.export import ExportRequest, export_model
from petlesion.volume import Study
from tests.conftest import make_phantom
from tests.inference.nnunet import Recipe, write_model_folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks as small as these are faster on one thread, above all on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def known_study() -> Study:
    return make_phantom()


@pytest.fixture(scope="session")
def model_folder(known_study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folds, trained for a moment; CT and PET of 4 mm, patches of 32 voxels."""
    path = tmp_path_factory.mktemp("model") / "Trainer__nnUNetPlans__3d_fullres"
    return write_model_folder(path, Recipe(folds=("0", "1")), known_study)


@pytest.fixture(scope="session")
def bundle(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = tmp_path_factory.mktemp("bundle") / "tiny"
    request = ExportRequest([model_folder], name="tiny", licence="CC0", scores={"dice": 0.5})
    return export_model(request, path)


@pytest.fixture(scope="session")
def member_folders(known_study: Study, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two members, trained for a moment: a fold that sees the PET alone, two folds that see both images."""
    folder = tmp_path_factory.mktemp("members")
    recipes = {
        "pet": Recipe(
            channels=("PET",), schemes=("ZScoreNormalization",), features=(4, 8), patch=(16, 16, 16)
        ),
        "both": Recipe(features=(4, 8), folds=("0", "1")),
    }
    return [write_model_folder(folder / name, recipe, known_study) for name, recipe in recipes.items()]
