"""The study: its design, the drop in accuracy taken apart, and verdicts, on rows whose effects are known."""

from __future__ import annotations

import hashlib
import itertools
import json
import shlex
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_rows import PROVENANCE, cell

from results import figures_study, paper, report, statements, stats, study, study_page, table
from results.statement import Evidence, Statement, concluded, holm, of_interval, of_seeds, p_text, p_values
from results.study_design import (
    AVERAGED,
    DEFAULTS,
    EPOCHS,
    LITERAL,
    LOOKS,
    MOST,
    PAPER,
    PARTS,
    PRESET,
    RIVALS,
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
    assert one.task in tasks.available() and 1 <= one.seeds <= LOOKS[-1]
    if label.is_estimator:
        label.make((4, 8))


def test_what_enters_a_verdict_has_five_seeds() -> None:
    deciding = [one for part in ("factorial", "estimators", "table1", "cifar100-table1") for one in PARTS[part]()]
    assert {one.seeds for one in deciding} == {5}


# --- made-up runs ---------------------------------------------------------------------------------------------------


def write(out: Path, of: Arm, seed: int, accuracy: float, part: str = "test", **more: float) -> None:
    """The rows of a finished run with a test accuracy in %."""
    settings: dict[str, dict[str, object]] = {}
    for name, value in {**DEFAULTS, **{key: study._typed(text) for key, text in of.changed.items()}}.items():
        group, key = name.split(".")
        settings.setdefault(group, {})[key] = value
    about = cell(
        "accuracy", of.task, of.estimator, preset=f"{PRESET}[{sorted(of.changed.items())}]", preset_name=PRESET,
        dataset=of.dataset, seed=seed, settings=settings,
    )  # fmt: skip
    numbers = [("accuracy", part, None, accuracy / 100), ("accuracy", "train", None, more.get("train", 99.0) / 100)]
    numbers += [("parameters", None, None, more.get("parameters", 1000.0)), ("macs", None, None, 1e6)]
    numbers += [("macs_ratio", None, None, 0.5), ("layers", None, None, 16), ("width_fraction", None, None, 0.6)]
    numbers += [("width_sd_blocks", None, None, 0.1)]
    if of.estimator in RIVALS:
        numbers.append(("training_cost", None, None, 0.75))
    for epoch in (1, 2, 3, 4):
        numbers.append(("curve_test_loss", "test", epoch, more.get("slow", 1.0) / epoch))
        numbers.append(("curve_accuracy", "test", epoch, accuracy / 100 * epoch / 4))
    rows = [table.row(metric, value, part=part, x=x) for metric, part, x, value in numbers]
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    table.write(out, name, [{**row, "cell": about, "provenance": PROVENANCE} for row in rows])


def sets(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    chosen = list(names)
    return itertools.chain.from_iterable(itertools.combinations(chosen, n) for n in range(len(chosen) + 1))


EFFECTS = {"bias": 0.3, "variance": 1.1, "soft weights": 2.0}


def factorial(
    out: Path, value: Callable[[tuple[str, ...]], float], seeds: int = 5, dataset: str = "cifar10_16"
) -> None:
    """Runs of every arm of the decomposition: plain at 90, its smaller network at 88, weights on the mode at 87 − v."""
    random = np.random.default_rng(0)
    for key, one in study.arms_of(dataset).items():
        for seed in range(seeds):
            common = 0.5 * seed
            if key == "plain":
                accuracy = 90.0
            elif key == "scratch":
                accuracy = 88.0
            elif key == "concrete":
                accuracy = 87.0 - value(study.SWITCHES) - 0.1
            else:
                assert isinstance(key, tuple)
                accuracy = 87.0 - value(key)
            write(out, one, seed, accuracy + common + random.normal(0, 0.02))


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


# --- verdicts -------------------------------------------------------------------------------------------------------


def by_number(frame: pd.DataFrame) -> dict[int, Statement]:
    return {one.number: one for one in statements.judged(frame)}


def test_without_rows_nothing_is_measured(tmp_path: Path) -> None:
    found = statements.judged(table.read(tmp_path))
    assert [one.number for one in found] == list(range(1, 11))
    assert {one.verdict for one in found} == {"not measured"}


@pytest.mark.parametrize(("bias", "verdict"), [(6.0, "supported"), (0.1, "contradicted")])
def test_the_blame_of_bias_is_judged_by_its_share(bias: float, verdict: str, tmp_path: Path) -> None:
    effects = {"bias": bias, "variance": 0.5, "soft weights": 0.5}
    factorial(tmp_path, lambda on: sum(effects[name] for name in on))
    fifth = by_number(table.read(tmp_path))[5]
    assert fifth.verdict == verdict
    assert (fifth.tests[0].estimate > MOST) == (verdict == "supported") and fifth.tests[0].threshold == MOST


@pytest.mark.parametrize(("better", "verdict"), [(3.0, "contradicted"), (0.0, "supported")])
def test_a_score_function_that_learns_is_not_prohibitively_noisy(better: float, verdict: str, tmp_path: Path) -> None:
    for seed in range(5):
        write(tmp_path, arm("random"), seed, 80.0 + 0.3 * seed)
        write(tmp_path, arm("reinforce"), seed, 80.0 + better + 0.3 * seed + 0.01 * (-1) ** seed)
    assert by_number(table.read(tmp_path))[1].verdict == verdict


def test_what_stays_open_says_what_its_seeds_can_show(tmp_path: Path) -> None:
    for seed, noise in enumerate((-2.0, 1.5, 0.4, -1.0, 2.2)):
        write(tmp_path, arm("random"), seed, 80.0)
        write(tmp_path, arm("reinforce"), seed, 80.5 + noise)
    first = by_number(table.read(tmp_path))[1]
    assert first.verdict == "undecided" and "5 seeds detect" in first.open and "needs" in first.open


def test_a_second_look_waits_for_all_of_its_seeds(tmp_path: Path) -> None:
    for seed, noise in enumerate((-2.0, 1.5, 0.4, -1.0, 2.2, 0.3, -0.2, 0.1, 0.2, -0.3)):
        write(tmp_path, arm("random"), seed, 80.0)
        write(tmp_path, arm("reinforce"), seed, (82.0 if seed < LOOKS[0] else 89.0) + noise)
        first = by_number(table.read(tmp_path))[1]
        looks = [test.n for test in (*first.tests, *first.earlier)]
        assert looks == ([10, 5] if seed == 9 else [min(seed + 1, 5)])
        assert first.verdict == ("not measured" if seed < 4 else "contradicted" if seed == 9 else "undecided")


def test_what_the_first_look_decided_stays_decided(tmp_path: Path) -> None:
    for seed in range(10):
        write(tmp_path, arm("random"), seed, 80.0)
        write(tmp_path, arm("reinforce"), seed, 90.0 + 0.1 * seed if seed < LOOKS[0] else 70.0)
    first = by_number(table.read(tmp_path))[1]
    assert [test.n for test in first.tests] == [10] and first.tests[0].estimate == pytest.approx(0.1, abs=0.01)
    assert first.verdict == "contradicted"


def test_the_price_of_a_second_look_is_paid_at_the_first() -> None:
    test = of_seeds("a", "", pd.Series([1.0, 1.1, 0.9, 1.3, 0.2]), 0.0)
    assert p_values(Statement(1, "", "", (test,)))[0] == pytest.approx(4 * test.p_yes)  # two sides, two looks
    worse = of_seeds("a", "", pd.Series([1.0, -1.1, 0.9, 1.3, 0.2]), 0.0)
    for tests, earlier in (((test,), (worse,)), ((worse,), (test,))):
        assert p_values(Statement(1, "", "", tests, (), earlier))[0] == pytest.approx(4 * test.p_yes)


def test_an_arm_has_the_runs_of_its_seeds(tmp_path: Path) -> None:
    for seed in range(7):
        write(tmp_path, arm("random"), seed, 80.0)
    frame = table.read(tmp_path)
    assert [len(study.values(frame, arm("random", seeds=n))) for n in (3, 5, 10)] == [3, 5, 7]


def test_the_network_alone_that_is_ahead_makes_exploration_slow(tmp_path: Path) -> None:
    for seed in range(5):
        write(tmp_path, arm(f"scratch[of='{PAPER}']"), seed, 80.0)
        write(tmp_path, arm(PAPER), seed, 40.0 + 0.1 * seed)
        write(tmp_path, arm(PAPER, changed={"train.freeze": str(EPOCHS // 2)}), seed, 42.0 + 0.11 * seed)
    eighth = by_number(table.read(tmp_path))[8]
    assert eighth.verdict == "supported"
    assert np.exp(eighth.tests[0].estimate) == pytest.approx(2.0, rel=0.05)  # 4 epochs to what takes 2
    assert eighth.tests[1].estimate == pytest.approx(2.0, abs=0.1)


def test_table_1_needs_both_data_sets(tmp_path: Path) -> None:
    for dataset in ("cifar10_16", "cifar100_16"):
        for seed in range(5):
            write(tmp_path, arm("plain", dataset=dataset), seed, 90.0 + 0.1 * seed)
            for task, accuracy in (("width", 88.0), ("joint", 87.0), ("depth", 90.1)):
                one = arm(PAPER, task=task, dataset=dataset, changed=LITERAL)
                write(tmp_path, one, seed, accuracy + 0.12 * seed, parameters=800)
        tenth = by_number(table.read(tmp_path))[10]
        assert tenth.verdict == ("supported" if dataset == "cifar100_16" else "not measured")
    kept = next(test for test in tenth.beside if test.measure == "parameters kept, %: width")
    assert kept.estimate == pytest.approx(80.0)


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_is_monotone_at_least_as_large_and_at_most_bonferroni(p: list[float]) -> None:
    q = holm(p)
    order = np.argsort(p, kind="stable")
    assert all(q[a] <= q[b] + 1e-12 for a, b in itertools.pairwise(order))
    assert all(min(1.0, one) <= two <= min(1.0, len(p) * one) + 1e-12 for one, two in zip(p, q, strict=True))


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0, "< 0.001"), (1.5e-8, "< 0.001"), (0.001, "0.001"), (0.0576, "0.058"), (1.0, "1"), (np.nan, "")],
)
def test_text_of_a_p_value(p: float, text: str) -> None:
    assert p_text(p) == text


def test_holm_counts_what_was_not_measured() -> None:
    assert holm([0.01, np.nan])[0] == pytest.approx(0.02) and np.isnan(holm([0.01, np.nan])[1])


def test_all_tests_support_and_one_contradicts() -> None:
    yes = of_seeds("a", "", pd.Series([1.0, 1.1, 0.9, 1.05, 1.0]), 0.0)
    no = of_seeds("b", "", pd.Series([-1.0, -1.1, -0.9, -1.05, -1.0]), 0.0)
    for tests, verdict in (((yes,), "supported"), ((yes, yes), "supported"), ((yes, no), "contradicted")):
        one = Statement(1, "", "", tests)
        assert concluded(one, min(p_values(one))).verdict == verdict
    below = of_seeds("c", "", pd.Series([-1.0, -1.1, -0.9, -1.05, -1.0]), 0.0, above=False)
    assert (below.p_yes, below.p_no) == (no.p_no, no.p_yes)


def test_fewer_seeds_than_the_design_has_give_no_verdict(tmp_path: Path) -> None:
    for seed in range(4):
        write(tmp_path, arm("random"), seed, 80.0)
        write(tmp_path, arm("reinforce"), seed, 90.0 + 0.1 * seed)
    first = by_number(table.read(tmp_path))[1]
    assert first.verdict == "not measured" and first.tests[0].n == 4 and first.tests[0].estimate > 9


def test_of_what_is_counted_there_is_no_doubt() -> None:
    line = pd.Series({"value": 1.2, "low": np.nan, "high": np.nan, "n": 1})
    assert (of_interval("", "", line, 2.0).p_yes, of_interval("", "", line, 2.0).p_no) == (1.0, 0.0)
    assert np.isnan(Evidence("").p_yes)


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
    assert stats.needed(1.0, effect * 1.001) == n


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
