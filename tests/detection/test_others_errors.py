"""The benchmark that reads other models' solutions, on the smallest model and few of them."""

import json
from pathlib import Path

import pytest

from benchmarks.others_errors import main

DATA = Path(__file__).parents[3] / "shared" / "data" / "gsm8k_example_model_solutions.jsonl"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not DATA.exists(), reason="the published solutions are not here")
def test_a_detector_is_fitted_on_what_others_wrote_and_stands_beside_every_control(tmp_path, capsys):
    main(["--data", str(DATA), "--model", "nano", "--questions", "45", "--out", str(tmp_path)])
    card = json.loads((tmp_path / "card.json").read_text())
    row = card["levels"]["intra_step"]
    assert set(card["left_out"]) == {"inter_step", "instance"}
    assert 0 <= row["first_error_f1"] <= 1
    assert len(row["controls"]) == 7
    for control in row["controls"].values():
        assert 0 <= control["auroc"] <= 1
        assert 0 <= control["first_error_f1"] <= 1
    assert row["n"] > row["positives"] > 0
    assert "First-error F1" in capsys.readouterr().out
