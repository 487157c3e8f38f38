"""Verdicts and the report, from made-up rows in which every statement is known to hold or not."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from test_results_plots import synthetic

import results
from results import claims, report, summary, table

ROOT = Path(results.__file__).parents[1]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    directory = tmp_path_factory.mktemp("rows")
    synthetic(directory, tasks=("width",))
    return directory


@pytest.fixture(scope="module")
def frame(rows):
    return table.read(rows)


def by_measure(verdicts):
    return {(v.statement, v.measure): v for v in verdicts}


def test_verdicts_follow_the_rows(frame):
    found = by_measure(claims.verdicts(frame))
    said = {statement: v.verdict for (statement, _), v in found.items()}
    assert said["Concrete is biased"] == "supported"
    assert said["The variance of reinforce is prohibitive"] == "supported"
    assert said["REBAR costs too much memory"] == "contradicted"
    assert said["RELAX costs too much compute"] == "supported"
    assert said["Learning with Concrete loses accuracy"] == "supported"
    rebar = found["An unbiased estimator improves on Concrete", "test accuracy, points: rebar − concrete"]
    reinforce = found["An unbiased estimator improves on Concrete", "test accuracy, points: reinforce − concrete"]
    assert (rebar.verdict, reinforce.verdict) == ("supported", "contradicted")
    assert rebar.low < rebar.estimate < rebar.high
    assert rebar.n == 5
    assert all("small" in v.note for v in found.values() if v.verdict != "not measured")


def test_nothing_measured_is_said_so(frame):
    assert {v.verdict for v in claims.verdicts(frame.iloc[:0])} == {"not measured"}


def test_one_seed_decides_nothing(frame):
    one = claims.verdicts(frame[(frame["suite"] == "accuracy") & (frame["seed"] == 0)])
    assert {v.verdict for v in one} == {"not measured", "undecided"}


def test_variance_ratio_and_its_interval(frame):
    chosen = frame[(frame["metric"] == "variance") & (frame["part"] == "logits") & (frame["point"] == "mid")]
    v = chosen.set_index("estimator")["value"]
    found = by_measure(claims.verdicts(frame))
    rloo = found["The variance of rloo is prohibitive", "variance / that of Concrete, logits"]
    assert rloo.estimate == pytest.approx(v["rloo"] / v["concrete"])
    half = 1.96 * np.sqrt(2) / 12
    assert np.log([rloo.low, rloo.high]) == pytest.approx(np.log(rloo.estimate) + np.array([-half, half]))


def test_a_mean_that_a_few_draws_carry_gets_no_verdict(frame):
    """n draws of which m carry all the variance: se / value = √(1/m − 1/n)."""
    rows = (frame["metric"] == "variance") & (frame["estimator"] == "concrete") & (frame["task"] == "width")
    for carried, verdict in ((3, "undecided"), (100, "supported")):
        heavy = frame.copy()
        n = heavy.loc[rows, "n"]
        heavy.loc[rows, "se"] = heavy.loc[rows, "value"] * (1 / carried - 1 / n) ** 0.5
        found = by_measure(claims.verdicts(heavy))["Concrete is biased", "squared bias / ‖∇‖², logits"]
        assert found.verdict == verdict
        assert (f"{carried} draws carry" in found.note) == (verdict == "undecided")


def test_summary_has_a_line_for_every_estimator_and_every_failure(frame):
    lines = summary.summary(frame, "width")
    assert set(lines.index) == set(frame.loc[frame["task"] == "width", "estimator"])
    assert lines.index[0] == "plain"
    assert lines.loc["exact", "failed"] == "infeasible"
    assert lines.loc["exact", "peak memory"] == ""
    assert re.fullmatch(r"2\.5 ± 0\.098 \(n = 30\)", lines.loc["rebar", "step time"])


def test_relative_bias_needs_a_gradient(frame):
    weak = frame.copy()
    weak.loc[weak["metric"] == "gradient_sq", "se"] = 1.0
    assert summary.relative_bias(weak).empty
    assert not summary.relative_bias(frame).empty


def test_the_report_says_what_each_estimator_took(frame):
    """All cells of an estimator and task with the main preset, those that run by name alone left out."""
    spent = frame.drop_duplicates("hash")
    few = spent[spent["estimator"] == "rebar"].assign(preset="other")
    spent = pd.concat([spent, few]).assign(wall_s=lambda cells: np.arange(len(cells)) + 0.4)
    _, _, lines = report._seconds(spent)
    header, _, *body = lines.splitlines()
    tasks = [word.strip() for word in header.strip("|").split("|")]
    found = {row[0].strip(): dict(zip(tasks[1:], map(str.strip, row[1:]), strict=True))
             for row in (line.strip("|").split("|") for line in body)}  # fmt: skip
    mine = spent[(spent["estimator"] == "rebar") & (spent["task"] == "width") & (spent["preset"] == "small")]
    assert {"contest", "accuracy"} < set(mine["suite"])
    mine = mine[~mine["suite"].isin(["contest", "scaling"])]
    assert found["rebar"]["width"] == f"{mine['wall_s'].sum():.0f}"


# A finder and not sys.modules["torch"] = None, which scipy would take for torch.
WITHOUT_TORCH = """
import sys

class Block:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("torch", "torchvision"):
            raise ImportError(name + " is not for reports")

sys.meta_path.insert(0, Block())
from suites.report import main
sys.exit(main())
"""


def run_report(*arguments):
    command = [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_report_is_complete_repeatable_and_needs_no_torch(rows, tmp_path):
    done = run_report("--rows", rows, "--out", tmp_path / "a")
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "a" / "REPORT.md").read_text()
    report.build([rows], tmp_path / "b")
    assert (tmp_path / "b" / "REPORT.md").read_text() == text
    for path in (tmp_path / "a" / "figures").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "figures" / path.name).read_bytes(), path.name
    embedded = set(re.findall(r"\]\((figures/[^)]+)\)", text))
    assert len(embedded) == 16
    assert embedded == {f"figures/{path.name}" for path in (tmp_path / "a" / "figures").iterdir()}
    assert "16^12 terms" in text
    assert "## Table 1 of the paper, and ours: small, digits" in text
    assert "0123abcd" in text
    assert str(tmp_path) not in text
    for name in ("rloo", "relax", "straight_through"):
        assert f"| {name} " in text


def test_errors_are_one_line(rows, tmp_path):
    none = run_report("--rows", tmp_path / "absent", "--out", tmp_path / "out")
    assert none.returncode == 2
    assert "python -m suites.run" in none.stderr
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / f"{'0' * 16}.jsonl").write_text('{"schema": 1')
    bad = run_report("--rows", tmp_path / "bad", "--out", tmp_path / "out")
    assert bad.returncode == 2
    assert none.stderr.count("\n") == bad.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
