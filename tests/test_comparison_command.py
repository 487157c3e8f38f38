"""The command `vmo-bench compare`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from command_line import refused

from suites.__main__ import main

OWN = """
import torch
logits = [torch.zeros(k) for k in (2, 3)]
def objective(sample):
    return (sample[0][..., 0] - sample[1][..., 1]) ** 2
"""


def test_the_command_measures_an_objective_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my_own_model.py"
    file.write_text(OWN, encoding="utf-8")
    words = ["compare", f"{file}:objective", "--estimator", "rloo", "reinmax", "--seconds", "1", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert "Take " in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "comparison.txt",
        "comparison.csv",
        "comparison.png",
    }
    assert set(pd.read_csv(tmp_path / "out" / "comparison.csv")["estimator"]) == {"rloo", "reinmax"}
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["best"] in {"rloo", "reinmax"}


def test_all_among_other_estimators_means_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def compare(*_: object, estimators: object, **__: object) -> None:
        raise ValueError(f"asked for {estimators!r}")

    file = tmp_path / "my_own_model.py"
    file.write_text(OWN, encoding="utf-8")
    monkeypatch.setattr("suites.scripts.compare.compare", compare)
    words = ["compare", f"{file}:objective", "--estimator", "rloo", "all", "--quiet"]
    assert "asked for 'all'" in refused(capsys, *words, by=main)


def test_a_file_may_have_the_name_of_a_module_that_is_in_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "json.py"
    file.write_text(OWN, encoding="utf-8")
    before = sys.modules["json"]
    assert main(["compare", str(file), "--estimator", "rloo", "--seconds", "0.5", "--quiet", "--json"]) == 0
    assert sys.modules["json"] is before
    assert capsys.readouterr().out


def test_the_command_says_what_is_wrong_with_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "broken_model.py"
    file.write_text("1 / 0", encoding="utf-8")
    assert "broken_model.py, line 1: ZeroDivisionError" in refused(capsys, "compare", str(file), by=main)
    file.write_text(OWN, encoding="utf-8")
    assert "has no 'other' at its top level" in refused(capsys, "compare", f"{file}:other", by=main)
    assert "has no 'phi' at its top level" in refused(capsys, "compare", str(file), "--logits", "phi", by=main)
    assert "there is no file" in refused(capsys, "compare", str(tmp_path / "none.py"), by=main)
    assert "name a Python file" in refused(capsys, "compare", "rloo", by=main)
    file.write_text(f"{OWN}    return sample[7]\n".replace("return (", "(lambda *_: 0)("), encoding="utf-8")
    assert "broken_model.py, line 6: IndexError" in refused(capsys, "compare", str(file), by=main)
