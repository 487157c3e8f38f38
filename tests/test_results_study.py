"""The study: design, the drop in accuracy taken apart, figures and page, on rows whose effects are known."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from made_rows import PROVENANCE, cell
from made_study import EFFECTS, factorial, sets, write

from results import figures_study, paper, report, stats, study, study_page, table
from results.study_design import (
    AVERAGED,
    DEFAULTS,
    FRESH,
    LITERAL,
    PAPER,
    PARTS,
    PRESET,
    RLOO,
    SWEEP,
    Arm,
    arm,
)
from suites import presets, run, tasks
from suites.__main__ import main
from suites.engine.cell import Workshop
from suites.labels import parse
from suites.scripts.study import _cells
from suites.settings import dotted
from suites.tasks.base import Context
from suites.tasks.network_roles import RunSettings
from suites.tasks.network_settings import Train

ARMS = [one for part in PARTS.values() for one in part()]


# --- the design -----------------------------------------------------------------------------------------------------


def test_the_defaults_of_the_design_are_the_settings_of_the_preset() -> None:
    handed = presets.resolve(PRESET).hand(RunSettings).model_dump()
    assert {name: handed[name.split(".")[0]][name.split(".")[1]] for name in dotted(handed)} == DEFAULTS


@pytest.mark.parametrize("one", ARMS, ids=str)
def test_every_arm_can_be_run_and_is_named_as_its_rows_are(one: Arm) -> None:
    preset = presets.resolve(PRESET, [f"{name}={value}" for name, value in one.changed.items()])
    label = parse(one.estimator)
    assert str(label) == one.estimator
    train = preset.groups["train"]
    assert isinstance(train, Train)
    assert one.changed.get("train.weights", "own") == train.weights
    assert one.task in tasks.available() and 1 <= one.seeds <= FRESH.stop
    if label.is_estimator:
        label.make((4, 8))


def test_what_enters_a_verdict_has_five_seeds() -> None:
    deciding = [one for part in ("factorial", "estimators", "table1", "cifar100-table1") for one in PARTS[part]()]
    assert {one.seeds for one in deciding} == {5}


# --- the drop, and figures ------------------------------------------------------------------------------------------


def test_effects_that_add_up_are_found_each_and_do_not_interact(tmp_path: Path) -> None:
    factorial(tmp_path, lambda on: sum(EFFECTS[name] for name in on))
    found = study.decomposition(table.read(tmp_path))
    assert found is not None and found.drop.n == 5
    lost = {step.name: step.lost for step in found.steps}
    expected = {
        "smaller network": 2.0, "exploration": 1.0, "bias of φ's gradient": 0.3, "variance of φ's gradient": 1.1,
        "soft weights": 2.0, "one sample for both": 0.1,
    }  # fmt: skip
    assert set(lost) == set(expected)
    for name, value in expected.items():
        assert lost[name].estimate == pytest.approx(value, abs=0.06)
        assert lost[name].low < lost[name].estimate < lost[name].high
    assert sum(step.lost.estimate for step in found.steps) == pytest.approx(found.drop.estimate)
    assert found.share.estimate == pytest.approx(0.3 / 6.5, abs=0.01) and found.share.low < found.share.high
    for step in found.interactions:
        assert step.lost.estimate == pytest.approx(0, abs=0.08)


def test_two_switches_that_only_work_together_share_what_they_do(tmp_path: Path) -> None:
    """v = 3 where both are on: by symmetry each has 1.5, and they interact by 3."""
    factorial(tmp_path, lambda on: 3.0 * ({"bias", "soft weights"} <= set(on)))
    found = study.decomposition(table.read(tmp_path))
    assert found is not None
    lost = {step.name: step.lost.estimate for step in found.steps}
    assert lost["bias of φ's gradient"] == pytest.approx(1.5, abs=0.06)
    assert lost["soft weights"] == pytest.approx(1.5, abs=0.06)
    assert lost["variance of φ's gradient"] == pytest.approx(0, abs=0.06)
    together = {step.name: step.lost.estimate for step in found.interactions}
    assert together["bias × soft weights"] == pytest.approx(3, abs=0.1)
    assert together["bias × variance"] == pytest.approx(0, abs=0.1)


def test_of_seeds_that_lack_a_run_nothing_is_said(tmp_path: Path) -> None:
    factorial(tmp_path, lambda on: len(on), seeds=1)
    assert study.decomposition(table.read(tmp_path)) is None
    assert study.decomposition(table.read(tmp_path / "nowhere")) is None


def test_without_runs_for_every_switch_bias_and_variance_are_one_step(tmp_path: Path) -> None:
    deciding = list(PARTS["cifar100"]())
    factorial(tmp_path, lambda on: sum(EFFECTS[name] for name in on), dataset="cifar100_16", only=deciding)
    frame = table.read(tmp_path)
    assert set(study.runs(frame, deciding[0])["seed"]) == set(range(5))
    assert frame["hash"].nunique() == 5 * len(deciding), "all of the part's arms are used"
    found = study.decomposition(frame, "cifar100_16")
    assert found is not None and found.blamed == study.BIAS_AND_VARIANCE and not found.interactions
    lost = {step.name: step.lost.estimate for step in found.steps}
    assert lost == pytest.approx(
        {
            "smaller network": 2.0,
            "exploration": 1.0,
            study.BIAS_AND_VARIANCE: 1.4,
            "soft weights, one sample for both": 2.1,
        },
        abs=0.06,
    )
    assert sum(lost.values()) == pytest.approx(found.drop.estimate)
    assert found.share.estimate == pytest.approx(1.4 / 6.5, abs=0.01)
    figure = figures_study.waterfall(frame, "cifar100_16")
    assert figure is not None and "Shapley" not in "".join(text.get_text() for text in figure.axes[0].texts)
    figure = figures_study.factorial(frame, "cifar100_16")
    assert figure is not None
    legend = figure.axes[0].get_legend()
    assert legend is not None and len(legend.get_texts()) == 1, "no run has soft weights"


def test_runs_of_other_settings_data_or_tasks_are_not_of_an_arm(tmp_path: Path) -> None:
    write(tmp_path, arm(PAPER), 0, 80.0)
    write(tmp_path, arm(PAPER, "mode"), 0, 70.0)
    write(tmp_path, arm(PAPER, changed={"train.freeze": "2"}), 0, 60.0)
    write(tmp_path, arm(PAPER, dataset="cifar100_16"), 0, 50.0)
    write(tmp_path, arm(PAPER, task="joint"), 0, 40.0)
    write(tmp_path, arm(PAPER, changed=LITERAL), 0, 30.0)
    frame = table.read(tmp_path)
    assert study.values(frame, arm(PAPER)).tolist() == [80.0]
    assert study.values(frame, arm(PAPER, "mode")).tolist() == [70.0]
    assert study.values(frame, arm(PAPER, changed=LITERAL)).tolist() == [30.0]
    assert study.values(pd.concat([frame, frame]), arm(PAPER)).tolist() == [80.0], "a run counts once"
    newer = frame.assign(hash="f" * 8 + frame["hash"].str[:8], task_version=2, value=frame["value"] / 2)
    assert study.values(pd.concat([newer, frame]), arm(PAPER)).tolist() == [40.0], "the latest version of a seed's run"


@pytest.mark.parametrize("name", figures_study.FIGURES)
def test_a_figure_has_a_headline_and_needs_rows(name: str, tmp_path: Path) -> None:
    draw = figures_study.FIGURES[name]
    assert draw(table.read(tmp_path)) is None
    factorial(tmp_path, lambda on: sum(EFFECTS[one] for one in on))
    for seed in range(3):
        write(tmp_path, arm(f"scratch[of='{PAPER}']"), seed, 88.0)
        write(tmp_path, arm("concrete[temperature=0.1]"), seed, 85.0 + 0.1 * seed)
        write(tmp_path, arm("pruned"), seed, 88.5 + 0.1 * seed)
    figure = draw(table.read(tmp_path))
    assert figure is not None and figure.get_suptitle().strip()
    for ax in figure.axes:
        assert len(ax.get_lines()) > 0


def test_the_waterfall_says_what_each_step_loses(tmp_path: Path) -> None:
    factorial(tmp_path, lambda on: sum(EFFECTS[one] for one in on))
    frame = table.read(tmp_path)
    figure, parts = figures_study.waterfall(frame), study.decomposition(frame)
    assert figure is not None and parts is not None
    (ax,) = figure.axes
    said = [text.get_text().replace("−", "-").split(" ± ") for text in ax.texts if "±" in text.get_text()]
    found = [float(lost) for lost, _ in said[: len(parts.steps)]]
    assert found == [pytest.approx(-step.lost.estimate, abs=0.006) for step in parts.steps]
    assert any("Shapley" in text.get_text() for text in ax.texts)
    assert all(0 < float(half) < 0.1 for _, half in said[: len(parts.steps)])


def test_every_interval_of_the_waterfall_is_inside(tmp_path: Path) -> None:
    factorial(tmp_path, lambda on: 0.0, seeds=3)
    for seed in range(3):
        write(tmp_path, study.arms_of("cifar10_16")["scratch"], seed, 88.0 + 0.5 * seed + 1.1 * (seed - 1))
    figure = figures_study.waterfall(table.read(tmp_path))
    assert figure is not None
    (ax,) = figure.axes
    low, high = ax.get_ylim()
    assert all(low < y < high for line in ax.lines for y in line.get_ydata())


def test_convergence_is_relative_to_the_same_network_trained_alone(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, arm(f"scratch[of='{PAPER}']"), seed, 80.0 + 3 * seed)
        write(tmp_path, arm(PAPER), seed, 78.0 + 3 * seed)
    figure = figures_study.convergence(table.read(tmp_path))
    assert figure is not None
    _, accuracy = figure.axes
    (curve,) = [line for line in accuracy.lines if len(line.get_xdata()) > 2]
    assert curve.get_ydata()[-1] == pytest.approx(-2.0), "in points"
    (band,) = accuracy.collections
    assert band.get_paths()[0].vertices[:, 1].min() == pytest.approx(-2.0), "paired by seed, so without spread"


# --- the numbers behind them ----------------------------------------------------------------------------------------


def test_fiellers_interval_covers_the_ratio() -> None:
    """2,000 samples of five pairs with a ratio of 0.4: 95 % within 1.5 points (three standard errors)."""
    random = np.random.default_rng(1)
    inside = 0
    for _ in range(2000):
        common = random.normal(0, 0.3, 5)
        found = stats.fieller(2.0 + common + random.normal(0, 0.3, 5), 5.0 + common + random.normal(0, 0.3, 5))
        inside += found.low <= 0.4 <= found.high
    assert abs(inside / 2000 - 0.95) < 0.015


def test_a_denominator_of_nothing_has_no_ratio() -> None:
    found = stats.fieller([1.0, 1.1, 0.9], [0.1, -0.1, 0.05])
    assert (found.low, found.high) == (-np.inf, np.inf)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_detectable_difference_is_detected_as_often_as_it_says(n: int) -> None:
    """20,000 t tests: 80 % within 1 point (3.5 standard errors)."""
    effect = stats.detectable(1.0, n)
    draws = np.random.default_rng(n).normal(effect, 1.0, (20_000, n))
    t = draws.mean(1) / (draws.std(1, ddof=1) / np.sqrt(n))
    critical = stats.t_half(1.0, n) * np.sqrt(n)
    assert abs((np.abs(t) > critical).mean() - 0.8) < 0.01
    assert (stats.needed(1.0, effect * 1.001), stats.needed(1.0, effect * 0.999)) == (n, n + 1)
    assert stats.needed(1.0, 0.01) is None


def test_switches_have_arms_that_differ_in_the_switch_alone() -> None:
    arms = study.arms_of("cifar10_16")
    for on in sets(study.SWITCHES):
        one = arms[on]
        phi = {(): SWEEP, ("bias",): AVERAGED, ("variance",): RLOO, ("bias", "variance"): PAPER}
        assert one.estimator == phi[tuple(name for name in on if name != "soft weights")]
        assert one.changed["train.weights"] == (PAPER if "soft weights" in on else "mode")


# --- the report, and the command ------------------------------------------------------------------------------------


def test_the_report_begins_with_the_ten_statements_and_has_a_page_of_the_study(tmp_path: Path) -> None:
    factorial(tmp_path / "rows", lambda on: sum(EFFECTS[name] for name in on))
    other = cell("memory", "width", "rloo")
    row = table.row("peak_ratio", 1.1, unit="plain peaks")
    table.write(tmp_path / "rows", "0" * 16, [{**row, "cell": other, "provenance": PROVENANCE}])
    path = report.build([tmp_path / "rows"], tmp_path)
    first, page = path.read_text(), (tmp_path / study_page.FILE).read_text()
    assert first.index("prohibitively high variance") < first.index("## Estimators compared")
    assert study_page.FILE in first and "study-waterfall-cifar10-16.png" in first
    assert "study[" not in first, "runs of the study are compared on their own page"
    for heading in ("The ten statements", "The drop from the plain network", "Arms: factorial", "Statement 5"):
        assert f"## {heading}" in page
    assert (tmp_path / "figures" / "study-waterfall-cifar10-16.png").stat().st_size > 10_000


def test_runs_on_validation_images_are_a_table_of_rates_and_no_result(tmp_path: Path) -> None:
    tuned = next(iter(PARTS["tuning"]()))
    write(tmp_path / "rows", tuned, 0, 80.0, part="validation")
    write(tmp_path / "rows", next(one for one in PARTS["tuning"]() if one.task == "depth"), 0, 70.0, part="validation")
    assert list(paper.beside(table.read(tmp_path / "rows"))) == []
    page = report.build([tmp_path / "rows"], tmp_path).read_text()
    assert "## Learning rates of φ" in page and "80.00" in page
    assert "## Arms" not in page and "## Table 1" not in page


def test_beside_own_rows_the_study_of_others_is_left_out(tmp_path: Path) -> None:
    """It would be most of the figures, and is of another preset; one's own runs of the study are shown."""
    write(tmp_path / "study", arm("plain"), 0, 80.0)
    about = cell("memory", "width", "rloo", preset="quick")
    row = table.row("peak_ratio", 1.1, unit="plain peaks")
    table.write(tmp_path / "usual", "0" * 16, [{**row, "cell": about, "provenance": PROVENANCE}])
    first = report.build([tmp_path / "usual", tmp_path / "study"], tmp_path / "a").read_text()
    assert "study" not in first and "quick" in first
    second = report.build([tmp_path / "study", tmp_path / "usual"], tmp_path / "b").read_text()
    assert "study" in second and "quick" in second


def test_rows_of_the_study_alone_make_its_page(tmp_path: Path) -> None:
    write(tmp_path / "rows", arm("plain"), 0, 80.0)
    assert report.build([tmp_path / "rows"], tmp_path) == tmp_path / study_page.FILE


def test_the_study_is_run_once_by_seeds_and_told_beforehand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = {"train.epochs": "1", "network.depth": "10", "network.width_step": "4"}
    arms = [
        Arm("plain", tiny, dataset="digits", seeds=2),
        Arm("rloo", {**tiny, "train.weights": "mode"}, dataset="digits", seeds=1),
    ]
    monkeypatch.setitem(PARTS, "tiny", lambda: iter(arms))
    words = ["study", "--part", "tiny", "--out", str(tmp_path), "--quiet"]
    assert main([*words, "--dry-run"]) == 0
    assert "3 to do" in capsys.readouterr().out
    assert main([*words, "--commands"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 and "--estimator rloo --set train.epochs=1" in printed[1]
    assert main([*words, "--seeds", "1"]) == 0 and len(table.hashes(tmp_path / "rows")) == 2
    assert main(words) == 0 and len(table.hashes(tmp_path / "rows")) == 3
    # what the printed command measures is the same cell
    capsys.readouterr()
    assert run.main([*shlex.split(printed[1])[3:], "--dry-run", "--json", "--out", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {one["hash"] for one in told["cells"]} <= table.hashes(tmp_path / "rows")
    name = next(one["hash"] for one in told["cells"] if one["estimator"] == "rloo")
    rows = table.rows_of(tmp_path / "rows", name)
    failed = {**table.row("cell", None, status="error", message="a worker died"), **{
        key: rows[0][key] for key in ("cell", "provenance")
    }}  # fmt: skip
    table.write(tmp_path / "rows", name, [failed])
    assert main(words[:-1]) == 1, "a failed cell is done, but not a success"
    assert "1 finished cells failed with an error; --overwrite failed runs them again" in capsys.readouterr().err
    assert main([*words, "--overwrite", "failed"]) == 0 and table.status(tmp_path / "rows", name) == "ok"
    assert main(["study", "--part", "tyny"]) == 2
    assert "did you mean 'tiny'" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main([*words, "--device", "cuda"]) == 2
        assert "this machine has no CUDA device" in capsys.readouterr().err


def test_seeds_come_before_arms_and_a_shared_cell_once(tmp_path: Path) -> None:
    shop = Workshop(Context("digits"), tmp_path)
    arms = [("a", Arm("plain", dataset="digits", seeds=2)), ("a", Arm("rloo", dataset="digits", seeds=2)),
            ("b", Arm("plain", dataset="digits", seeds=3))]  # fmt: skip
    found = _cells(shop, arms, tmp_path, None)
    assert [(item.cell.label.name, item.cell.seed) for item in found] == [
        ("plain", 0), ("rloo", 0), ("plain", 1), ("rloo", 1), ("plain", 2),
    ]  # fmt: skip


def test_failed_runs_of_the_study_are_on_its_page(tmp_path: Path) -> None:
    factorial(tmp_path / "rows", lambda on: 0.1 * len(on))
    report.build([tmp_path / "rows"], tmp_path)
    page = tmp_path / study_page.FILE
    assert "Failed" not in page.read_text(encoding="utf-8")
    one = study.arms_of("cifar10_16")["bias",]
    name = study.runs(table.read(tmp_path / "rows"), one)["hash"].iloc[0]
    rows = table.rows_of(tmp_path / "rows", name)
    failed = table.row("cell", None, status="diverged", message="the loss is NaN")
    table.write(tmp_path / "rows", name, [{**failed, "cell": rows[0]["cell"], "provenance": rows[0]["provenance"]}])
    report.build([tmp_path / "rows"], tmp_path)
    text = page.read_text(encoding="utf-8")
    assert "[Failed cells](#failed-cells)" in text and "the loss is NaN" in text.split("## Failed cells")[1]


def test_table_1_has_the_runs_on_own_samples_alone(tmp_path: Path) -> None:
    for seed in range(2):
        write(tmp_path / "rows", arm(PAPER, task="depth", changed=LITERAL), seed, 80.0)
        write(tmp_path / "rows", arm(PAPER, "mode", task="depth", changed=LITERAL), seed, 20.0)
    report.build([tmp_path / "rows"], tmp_path)
    table_1 = (tmp_path / study_page.FILE).read_text(encoding="utf-8").split("## Table 1")[1].split("\n## ")[0]
    (line,) = [line for line in table_1.splitlines() if "| `concrete`" in line]
    assert "80.00" in line


def test_the_arms_of_the_replication_have_its_seeds_alone(tmp_path: Path) -> None:
    for seed in (0, 1, FRESH.start, FRESH.start + 1, FRESH.start + 2):
        write(tmp_path / "rows", arm(SWEEP, "mode"), seed, 60.0 if seed < FRESH.start else 80.0)
    report.build([tmp_path / "rows"], tmp_path)
    page = (tmp_path / study_page.FILE).read_text(encoding="utf-8")
    (line,) = [
        line for line in page.split("## Arms: replication")[1].split("\n## ")[0].splitlines() if "`sweep`" in line
    ]
    assert f"3 of {len(FRESH)}" in line and "80.00 ± 0.00" in line


def test_runs_on_other_data_of_the_same_name_are_another_arm(tmp_path: Path) -> None:
    for seed in range(3):
        write(tmp_path, arm("plain"), seed, 80.0)
    for path in list(tmp_path.glob("*.jsonl"))[:2]:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        name = path.stem[::-1]
        for row in rows:
            row["cell"]["data"], row["value"], row["hash"] = "f" * 16, 0.1, name
        table.write(tmp_path, name, rows)
    frame = table.read(tmp_path)
    assert set(frame["dataset"]) == {"cifar10_16", "cifar10_16 (ffffffff)"}
    assert list(study.values(frame, arm("plain"))) == [80.0] * 3
