import json
from pathlib import Path

import pytest

from petlesion.cohort.layout import create_cohort
from petlesion.cohort.simulated import RECORD, keep_record
from petlesion.errors import CohortError, UsageError

COARSE = {"petlesion": "1", "spacing_mm": [12.0, 12.0, 12.0], "organs_sha256": None}
MASKED = {**COARSE, "organs_sha256": "ab"}


def test_what_studies_were_made_with_is_kept_and_held_against_the_next_call(tmp_path: Path) -> None:
    keep_record(tmp_path, 3, COARSE, begun=False)
    keep_record(tmp_path, 3, COARSE, begun=True)
    with pytest.raises(UsageError, match=r"simulation\.json: .*seed 3 .*organs_sha256 None, not ab; give"):
        keep_record(tmp_path, 3, MASKED, begun=True)
    assert json.loads((tmp_path / RECORD).read_text()) == {"3": COARSE}


def test_each_seed_may_be_made_with_settings_of_its_own(tmp_path: Path) -> None:
    keep_record(tmp_path, 3, COARSE, begun=False)
    keep_record(tmp_path, 4, MASKED, begun=False)
    for seed, made_with in ((3, COARSE), (4, MASKED)):
        keep_record(tmp_path, seed, made_with, begun=True)


def test_what_no_study_was_made_with_yet_may_change(tmp_path: Path) -> None:
    keep_record(tmp_path, 3, COARSE, begun=False)
    keep_record(tmp_path, 3, MASKED, begun=False)
    keep_record(tmp_path, 3, MASKED, begun=True)
    assert create_cohort(tmp_path).cases == ()  # as after a first call that was cut off


def test_studies_older_than_the_record_go_without(tmp_path: Path) -> None:
    keep_record(tmp_path, 3, COARSE, begun=True)
    assert not (tmp_path / RECORD).exists()


@pytest.mark.parametrize("text", ["", "[]", '{"3": 1}'])
def test_a_record_that_cannot_be_read(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD).write_text(text)
    with pytest.raises(CohortError, match=r"simulation\.json"):
        keep_record(tmp_path, 3, COARSE, begun=True)
