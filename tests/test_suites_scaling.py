"""The scaling suite: what it varies, what its rows say, and that it runs by name only."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from making import granted, job, workshop

from results import table
from suites import labels, scaling, suite
from suites.engine.plan import suite_names
from suites.memory import count
from suites.run import main

TINY = ["scaling.batch=2", "scaling.budget=2000"]


@pytest.fixture(autouse=True)
def _own_rows_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On ranges that take seconds, and without the committed rows, whose figures take longer to draw."""
    monkeypatch.setattr("suites.run.REFERENCE", tmp_path / "no reference")
    small = {"batch": (2, 4), "samples": (2, 4)}
    ranges = {what: (name, small.get(what, values)) for what, (name, values) in scaling.RANGES.items()}
    monkeypatch.setattr(scaling, "RANGES", ranges)


def measured(label: str, out: Path, *settings: str, task: str = "width") -> pd.DataFrame:
    given = dict(setting.split("=") for setting in (*TINY, *settings))
    settings = tuple(f"{name}={value}" for name, value in given.items())
    return pd.DataFrame(suite.get("scaling").run(job(workshop(out), task, "scaling", label, *settings)))


def varied(rows: pd.DataFrame) -> dict[str, list[float]]:
    seconds = rows[rows["metric"] == "seconds"]
    return {what: part["x"].tolist() for what, part in seconds.groupby("point")}


def test_rows_of_an_estimator_with_samples(tmp_path: Path) -> None:
    rows = measured("rloo", tmp_path)
    assert varied(rows) == {"batch": [2, 4], "widen": [1, 2], "blocks": [3, 6], "K": [8, 16], "samples": [2, 4]}
    base = rows[rows["metric"] == "base"].set_index("point")["value"]
    assert base.to_dict() == {"batch": 2, "widen": 1, "blocks": 3, "K": 8, "samples": 2}
    sizes = rows[rows["metric"] != "base"]
    assert set(sizes["status"]) == {"ok"}
    assert (
        sizes.groupby(["point", "x"])["metric"]
        .agg(set)
        .map({"seconds", "time_ratio", "bytes", "peak_ratio"}.__eq__)
        .all()
    )
    # the base is one measurement, whatever is varied around it
    held = sizes[sizes["x"] == sizes["point"].map(base)]
    assert (held.groupby("metric")["value"].nunique() == 1).all()
    # bytes are those of the memory suite at that size
    task = granted("width", "counted.depth=16", "counted.widen=1", "counted.batch=2")
    expected = sum(count(task, "counted", labels.parse("rloo").make).values())
    found = sizes[(sizes["point"] == "blocks") & (sizes["x"] == 6) & (sizes["metric"] == "bytes")]
    assert found["value"].item() == expected
    # two samples more are a graph more each
    peaks = sizes[(sizes["metric"] == "bytes") & (sizes["point"] == "samples")]["value"]
    assert np.all(np.diff(peaks) > 0)


def test_what_an_estimator_has_not_is_not_varied(tmp_path: Path) -> None:
    assert set(varied(measured("reinforce", tmp_path))) == {"batch", "widen", "blocks", "K"}
    plain = measured("plain", tmp_path)
    assert set(varied(plain)) == {"batch", "widen", "blocks"}
    assert set(plain.loc[plain["metric"] == "peak_ratio", "value"]) == {1.0}
    assert "K" not in varied(measured("reinforce", tmp_path, task="depth"))  # the step of the width is nothing to it


def test_a_size_that_cannot_be_had_is_a_row(tmp_path: Path) -> None:
    """WRN-10-1 in steps of 16 has 1 · 2 · 4 architectures; with twice of anything there are 64 or more."""
    rows = measured("exact[limit=8]", tmp_path, "network.width_step=16")
    failed = rows[rows["status"] == "infeasible"]
    assert set(zip(failed["point"], failed["x"], strict=True)) == {("widen", 2), ("blocks", 6), ("K", 8), ("K", 16)}
    assert failed["message"].str.contains("limit").all()
    assert varied(rows[rows["status"] == "ok"])["batch"] == [2, 4]
    # two steps are timed after two
    dear = measured("exact[limit=8]", tmp_path, "network.width_step=16", "scaling.budget=31")
    assert set(dear.loc[dear["metric"] == "seconds", "status"]) == {"infeasible"}
    assert dear["message"].dropna().str.contains("needs 8 evaluations|limit").all()


def test_it_runs_by_name_and_where_it_applies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "scaling" not in suite_names([])
    assert set(suite_names([])) == {*suite.available()} - {"scaling", "contest", "latency"}
    words = ["--estimator", "reinforce", "--preset", "smoke", "--out", str(tmp_path), "--task"]
    assert main([*words, "width", "--dry-run"]) == 0
    assert "scaling" not in capsys.readouterr().out
    assert main([*words, "width", "--suite", "scaling", "--set", *TINY]) == 0
    rows = table.read(tmp_path / "rows")
    assert set(rows["suite"]) == {"scaling"}
    assert set(rows["estimator"]) == {"plain", "reinforce"}
    assert {path.stem for path in (tmp_path / "figures").iterdir()} >= {"scaling_time", "scaling_memory"}
    capsys.readouterr()
    assert main([*words, "toy", "--suite", "scaling"]) == 2
    assert capsys.readouterr().err.strip() == "error: nothing to run: scaling does not apply to reinforce on toy"
    assert main([*words, "width", "--suite", "scaling", "--set", "scaling.pairs=1"]) == 2
    assert "scaling.pairs: input should be greater than or equal to 2, got '1'" in capsys.readouterr().err
    assert main(["--list", "suites"]) == 0
    by_name = [line.split()[0] for line in capsys.readouterr().out.splitlines() if "(runs only if named)" in line]
    assert by_name == ["latency", "scaling", "contest"]
