"""Verdicts on the ten statements, from made-up runs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_rows import PROVENANCE, cell
from made_study import factorial, write

from results import report, statements, stats, study, study_page, table
from results.explorer import verdicts
from results.statement import (
    Evidence,
    Statement,
    Verdict,
    concluded,
    holm,
    lines,
    of_interval,
    of_seeds,
    p_text,
    p_values,
    replicated,
)
from results.study_design import (
    EPOCHS,
    FRESH,
    LITERAL,
    LOOKS,
    MOST,
    PAPER,
    SWEEP,
    WARM,
    arm,
    of_deciding,
)


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


def test_a_share_of_bias_and_variance_together_decides_nothing(tmp_path: Path) -> None:
    for dataset in ("cifar10_16", "cifar100_16"):
        factorial(tmp_path, lambda on: 0.1 * len(on), dataset=dataset, only=list(of_deciding(dataset, 5)))
    fifth = by_number(table.read(tmp_path))[5]
    assert fifth.verdict == "not measured" and not fifth.tests
    shares = [test for test in fifth.beside if "share" in test.measure]
    assert [test.n for test in shares] == [5, 5] and all(study.BIAS_AND_VARIANCE in test.measure for test in shares)
    halves = [test.estimate for test in fifth.beside if "minus 50% of the drop" in test.measure]
    assert halves == pytest.approx([0.2 - 0.5 * 3.4] * 2, abs=0.06), "0.2 of 3.4 points"


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


def test_what_stays_open_names_the_least_certain_of_several_tests() -> None:
    sure = of_seeds("sure", "here", pd.Series([1.0, 1.1, 0.9, 1.05, 1.0]), 0.0)
    unsure = of_seeds("unsure", "there", pd.Series([1.0, -1.1, 0.9, -1.05, 1.0]), 0.0)
    for tests in ((sure, unsure), (unsure, sure)):
        assert concluded(Statement(1, "", "", tests), 0.5).open.startswith("unsure (there): 5 seeds detect")
    assert concluded(Statement(1, "", "", (unsure,)), 0.5).open.startswith("5 seeds detect")


def test_what_the_seeds_can_show_is_told_at_the_level_of_two_looks() -> None:
    test = of_seeds("a", "", pd.Series([1.0, -1.1, 0.9, -1.05, 1.0]), 0.0)
    seen = stats.detectable(test.sd, 5, level=1 - 0.05 / 2)
    assert seen > 1.1 * stats.detectable(test.sd, 5)
    told = concluded(Statement(1, "", "", (test,)), 0.5).open
    assert told.startswith(f"5 seeds detect a distance of {seen:.2g} from the threshold")
    assert f"needs {stats.needed(test.sd, 0.5, level=1 - 0.05 / 2)} seeds" in told


def test_every_measurement_of_a_statement_is_shown_once(tmp_path: Path) -> None:
    undecided(tmp_path)
    for one in by_number(table.read(tmp_path)).values():
        shown = [(test.measure, test.n) for test in one.evidence if test.n]
        assert len(shown) == len(set(shown))
    assert any("constant 1" in test.measure for test in by_number(table.read(tmp_path))[9].evidence)


SECOND_LOOKS = {
    1: (arm("random"), arm("reinforce")),
    6: (arm(SWEEP, "mode"), arm(PAPER, "mode")),
    9: (arm(PAPER, "mode"), arm(SWEEP, "mode")),
}
"""The arms that a statement compares at both looks."""


@pytest.mark.parametrize("number", SECOND_LOOKS)
def test_a_second_look_waits_for_all_of_its_seeds(number: int, tmp_path: Path) -> None:
    base, other = SECOND_LOOKS[number]
    for name in (PAPER, WARM):  # the second test of statement 9, which stays with five seeds
        for seed in range(LOOKS[0]):
            write(tmp_path, arm(name), seed, 80.0 + (0.5 + 0.1 * seed if name == WARM else 0.0))
    against = -1.0 if number == 9 else 1.0  # the direction that contradicts the statement
    for seed, noise in enumerate((-2.0, 1.5, 0.4, -1.0, 2.2, 0.3, -0.2, 0.1, 0.2, -0.3)):
        gain = noise + against * (2.0 if seed < LOOKS[0] else 4.0)
        write(tmp_path, base, seed, 80.0)
        write(tmp_path, other, seed, 80.0 + gain)
        one = by_number(table.read(tmp_path))[number]
        looks = [tests[0].n for tests in (one.tests, one.earlier) if tests]
        assert looks == ([10, 5] if seed == 9 else [min(seed + 1, 5)])
        assert one.verdict == ("not measured" if seed < 4 else "contradicted" if seed == 9 else "undecided")
    assert [test.n for test in one.tests[1:] + one.earlier[1:]] == ([5, 5] if number == 9 else [])


def test_both_looks_are_shown(tmp_path: Path) -> None:
    for seed in range(10):
        write(tmp_path / "rows", arm("random"), seed, 80.0)
        write(tmp_path / "rows", arm("reinforce"), seed, 80.6 + 0.7 * (-1) ** seed)
    judged = statements.judged(table.read(tmp_path / "rows"))
    found = [(one["n"], one["threshold"]) for one in verdicts.shown(judged)[0]["evidence"]]
    assert found[:2] == [("10", "< 0.5"), ("5", "< 0.5")]
    report.build([tmp_path / "rows"], tmp_path)
    section = (tmp_path / study_page.FILE).read_text(encoding="utf-8").split("## Statement 1:")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if "reinforce − q never learned" in line]
    assert [line.split("|")[4].strip() for line in lines] == ["10", "5"]


def test_the_blame_of_bias_shows_bias_and_variance_together_with_all_seeds(tmp_path: Path) -> None:
    gains = [0.0] * LOOKS[0] + [4.0] * (LOOKS[-1] - LOOKS[0])
    for seed, gain in enumerate(gains):
        write(tmp_path, arm(SWEEP, "mode", seeds=LOOKS[-1]), seed, 70.0 + gain)
        write(tmp_path, arm(PAPER, "mode", seeds=LOOKS[-1]), seed, 70.0)
    shown = next(e for e in by_number(table.read(tmp_path))[5].beside if "together" in e.measure)
    assert shown.n == LOOKS[-1] and shown.estimate == pytest.approx(np.mean(gains))


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


def replication(out: Path, gain: float, seeds: range = FRESH) -> None:
    """Runs with the fresh seeds: with `sweep` the accuracy is higher and the gap narrower, by `gain` points."""
    for seed in seeds:
        write(out, arm(SWEEP, "mode"), seed, 80.0 + gain + 0.1 * (-1) ** seed)
        write(out, arm(PAPER, "mode"), seed, 80.0)


def undecided(out: Path) -> None:
    """Runs of both looks that leave statements 6 and 9 open."""
    for seed, noise in enumerate((-2.0, 1.5, 0.4, -1.0, 2.2, 0.3, -0.2, 0.1, 0.2, -0.3)):
        for name in (PAPER, WARM):
            write(out, arm(name), seed, 80.0 + noise * (name == WARM))
        write(out, arm(SWEEP, "mode"), seed, 80.5 + noise)
        write(out, arm(PAPER, "mode"), seed, 80.0)


@pytest.mark.parametrize(
    ("gain", "sixth", "ninth"), [(0.0, "contradicted", "contradicted"), (1.0, "supported", "undecided")]
)
def test_the_replication_decides_what_is_open(gain: float, sixth: str, ninth: str, tmp_path: Path) -> None:
    """Statement 9 has a second test, which is not replicated, so it cannot be supported."""
    undecided(tmp_path)
    replication(tmp_path, gain, FRESH[:-1])
    found = by_number(table.read(tmp_path))
    for number in (6, 9):
        one = found[number]
        assert one.verdict == "undecided" and one.replication is not None and one.replication.n == len(FRESH) - 1
        assert np.isnan([one.replication.estimate, one.p_replication]).all(), "it waits for all seeds"
    replication(tmp_path, gain, FRESH[-1:])
    found = by_number(table.read(tmp_path))
    assert (found[6].verdict, found[9].verdict) == (sixth, ninth)
    for number in (6, 9):
        again = found[number].replication
        assert again is not None and again.n == len(FRESH)
        assert again.estimate == pytest.approx(gain, abs=0.01), "the seeds of the looks do not count"
    line = next(iter(lines([found[6]])))
    assert line["n"] == "10<br>20" and line["corrected p"].endswith("<br>replication: < 0.001")


def test_the_replication_has_a_correction_of_its_own() -> None:
    def open_with(p: float, verdict: Verdict = "undecided", more: int = 0) -> Statement:
        test = Evidence("a", threshold=0.5, p_yes=1 - p, p_no=p)
        return Statement(1, "", "", (test,) * (1 + more), (), (), test, verdict, 0.2)

    plain = Statement(2, "", "")
    one, other, without = replicated([open_with(0.011), open_with(0.02), plain])
    assert (one.p_replication, other.p_replication) == (pytest.approx(0.044), pytest.approx(0.044))
    assert one.verdict == other.verdict == "contradicted" and without is plain
    one, other = replicated([open_with(0.013), open_with(0.3)])
    assert one.verdict == other.verdict == "undecided" and one.p_replication == pytest.approx(0.052)
    (decided,) = replicated([open_with(0.0001, "supported")])
    assert decided.verdict == "supported" and decided.p_replication == pytest.approx(0.0002)
    assert replicated([open_with(0.9999)])[0].verdict == "supported"
    assert replicated([open_with(0.9999, more=1)])[0].verdict == "undecided"
    assert np.isnan(replicated([open_with(np.nan)])[0].p_replication)


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


def test_the_speed_of_two_runs_is_compared_without_favour(tmp_path: Path) -> None:
    """If Concrete's runs and those of its network alone change places, the effect changes its sign."""
    for seed in range(5):
        for out, first in ((tmp_path / "a", 80.0), (tmp_path / "b", 40.0 + seed)):
            write(out, arm(f"scratch[of='{PAPER}']"), seed, first)
            write(out, arm(PAPER), seed, 120.0 + seed - first)
    a, b = (by_number(table.read(tmp_path / name))[8].tests[0].estimate for name in "ab")
    assert a == pytest.approx(-b) and a > 0.5


def step_times(out: Path, tasks: Sequence[str], preset: str = "cpu") -> None:
    for task in tasks:
        about = cell("overhead", task, PAPER, preset=preset, dataset="none")
        found = table.row("time_ratio", 1.05, se=0.02, n=12)
        table.write(out, f"{len(list(out.glob('*'))):016x}", [{**found, "cell": about, "provenance": PROVENANCE}])


def test_minimal_overhead_is_judged_on_every_task(tmp_path: Path) -> None:
    step_times(tmp_path, ("depth", "width"))
    step_times(tmp_path, ("joint",), preset="cpu[timed.batch=8]")
    assert by_number(table.read(tmp_path))[7].verdict == "not measured"
    step_times(tmp_path, ("joint",))
    assert by_number(table.read(tmp_path))[7].verdict == "supported"


@pytest.mark.parametrize(("entropies", "verdict"), [((1.5, 1.5, 1.5), "supported"), ((1.5, 1.5, 1.4), "not measured")])
def test_variances_at_different_networks_are_not_compared(
    entropies: tuple[float, ...], verdict: str, tmp_path: Path
) -> None:
    names = ("rebar", "relax", "reinforce[baseline='none']")
    for number, (name, entropy) in enumerate(zip(names, entropies, strict=True)):
        at: dict[str, Any] = {"point": "mid"}
        value = 100.0 if name.startswith("reinforce") else 1.0
        rows = {
            "variance": [table.row("variance", value, se=0.05 * value, n=400, part="logits", **at)],
            "bias": [table.row("entropy_at", entropy, **at)],
        }
        for more, (suite, found) in enumerate(rows.items()):
            about = cell(suite, "width", name, preset="study")
            shared = {"cell": about, "provenance": PROVENANCE}
            table.write(tmp_path, f"{2 * number + more:016x}", [{**one, **shared} for one in found])
    assert by_number(table.read(tmp_path))[2].verdict == verdict


def test_table_1_needs_both_data_sets(tmp_path: Path) -> None:
    for dataset in ("cifar10_16", "cifar100_16"):
        for seed in range(5):
            write(tmp_path, arm("plain", dataset=dataset), seed, 90.0 + 0.1 * seed)
            for task, accuracy in (("width", 88.0), ("joint", 87.0), ("depth", 90.1)):
                one = arm(PAPER, task=task, dataset=dataset, changed=LITERAL)
                more = float(dataset == "cifar100_16")
                write(tmp_path, one, seed, accuracy + more + 0.12 * seed, parameters=800)
        tenth = by_number(table.read(tmp_path))[10]
        assert tenth.verdict == ("supported" if dataset == "cifar100_16" else "not measured")
    kept = next(test for test in tenth.beside if test.measure == "parameters kept, %: width")
    assert kept.estimate == pytest.approx(80.0)
    more = {test.measure[-5:]: test.estimate for test in tenth.beside if "on CIFAR-100 − on CIFAR-10" in test.measure}
    assert more == pytest.approx({"depth": -1.0, "width": -1.0, "joint": -1.0})


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
    assert (of_interval("", "", line, 1.2).p_yes, of_interval("", "", line, 1.2).p_no) == (0.5, 0.5)
    assert np.isnan(Evidence("").p_yes)
