"""Verdicts and the report, from made-up rows in which every statement is known to hold or not."""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path

import made_rows
import numpy as np
import pandas as pd
import pytest
from test_results_plots import synthetic
from test_results_plots import words as words_of

import results
from results import appendix, claims, parallel, plots, report, summary, table, words

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
    assert said["rebar costs too much memory"] == "contradicted"
    assert said["relax costs too much compute"] == "supported"
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
    assert re.fullmatch(r"2\.5 ± 0\.1 \(n = 30\)", lines.loc["rebar", "step time"])


def test_relative_bias_needs_a_gradient(frame):
    weak = frame.copy()
    weak.loc[weak["metric"] == "gradient_sq", "se"] = 1.0
    assert summary.relative_bias(weak).empty
    assert not summary.relative_bias(frame).empty


def gradients(directory, number, name, entropy, bias, norm):
    """The rows of the suite `bias` of an estimator, at a network with this entropy of q."""
    at = {"point": "mid", "n": 100}
    rows = [
        table.row("bias_sq", bias, se=0.01 * bias, part="logits", **at),
        table.row("gradient_sq", norm, se=0.1 * norm, part="logits", **at),
        table.row("entropy_at", entropy, point="mid"),
    ]
    add(directory, number, made_rows.cell("bias", "width", name), *rows)


def test_a_bias_is_relative_to_the_gradient_of_its_own_network(tmp_path):
    gradients(tmp_path / "one", 1, "concrete", 1.5, 0.5, 1.0)
    gradients(tmp_path / "one", 2, "gapped", 1.5, 0.2, 1.0)
    shutil.copytree(tmp_path / "one", tmp_path / "both")
    gradients(tmp_path / "both", 3, "reinmax", 1.4, 0.5, 4.0)
    found = summary.relative_bias(table.read(tmp_path / "both")).set_index("estimator")
    assert found["value"].to_dict() == pytest.approx({"concrete": 0.5, "gapped": 0.2, "reinmax": 0.125})
    half = (found["high"] - found["low"]) / 2
    assert half["concrete"] == pytest.approx(1.96 * 0.5 * np.hypot(0.01, 0.1)), "the error of the norm is in it"
    notes = [
        [one["note"] for suite in appendix._suites(table.read(tmp_path / of)) for one in suite["tables"]]
        for of in ("one", "both")
    ]
    assert notes[0] == [""] and "differ at mid q" in notes[1][0]


def test_the_norm_of_weights_is_the_mean_over_estimates(tmp_path):
    gradients(tmp_path, 1, "concrete", 1.5, 0.5, 1.0)
    gradients(tmp_path, 2, "gapped", 1.5, 0.2, 3.0)  # another estimate at the same network
    norm = summary.squared_norms(table.read(tmp_path)).iloc[0]
    assert (norm["norm"], norm["norm_se"]) == pytest.approx((2.0, np.hypot(0.1, 0.3) / 2))


def test_the_interval_of_a_ratio_of_times_is_that_of_its_pairs(tmp_path):
    row = table.row("time_ratio", 1.5, se=0.1, n=4)
    add(tmp_path, 1, made_rows.cell("overhead", "width", "rloo"), row)
    add(tmp_path, 2, made_rows.cell("variance", "width", "rloo"), table.row("variance", 1.5, se=0.1, n=4))
    pooled = summary.pool(table.read(tmp_path)).set_index("metric")
    half = (pooled["high"] - pooled["low"]) / 2
    assert half.to_dict() == pytest.approx({"time_ratio": 3.182 * 0.1, "variance": 0.196}, rel=1e-3)


def test_the_appendix_says_what_each_estimator_took(frame):
    spent = frame.drop_duplicates("hash").assign(wall_s=lambda cells: np.arange(len(cells)) + 0.4)
    lines = appendix._seconds(spent).set_index("estimator")
    mine = spent[spent["estimator"] == "rebar"].groupby("suite")["wall_s"].sum()
    assert {"contest", "accuracy"} < set(mine.index)
    assert lines.loc["rebar"].to_dict() == {name: f"{mine[name]:,.0f}" if name in mine else "" for name in lines}


def test_p_values_are_adjusted_within_task_preset_and_data_set(frame):
    """One small p among many is no longer small; the tests of another preset, data set or task do not count."""
    base = frame[(frame["metric"] == "bias_p")].head(1)
    here = pd.concat([base] * 4).assign(value=[0.01, 0.5, 0.5, 0.5])
    others = [pd.concat([base] * 4).assign(value=0.9, **change)
              for change in ({"preset": "large"}, {"dataset": "cifar10"}, {"task": "depth"})]  # fmt: skip
    found = claims.adjusted(pd.concat([here, *others], ignore_index=True))
    assert found["value"].tolist() == pytest.approx([0.04, 0.5, 0.5, 0.5] + [0.9] * 12)
    said = by_measure(claims.verdicts(pd.concat([frame, frame.assign(preset="large", value=0.5)])))
    tests = (frame["metric"] == "bias_p").sum()
    assert f"adjusted over {tests} tests" in said["Concrete is biased", "squared bias / ‖∇‖², logits"].note


def test_what_carries_a_variance_is_counted_in_the_preset_of_the_verdict(frame):
    rows = (frame["metric"] == "variance") & (frame["estimator"] == "concrete")
    heavy = frame.copy()
    heavy.loc[rows, "se"] = heavy.loc[rows, "value"] * (1 / 15 - 1 / heavy.loc[rows, "n"]) ** 0.5
    elsewhere = heavy[rows].assign(preset="large")
    found = by_measure(claims.verdicts(pd.concat([heavy, elsewhere])))[
        "Concrete is biased", "squared bias / ‖∇‖², logits"
    ]
    assert "15 draws carry" in found.note


def test_what_failed_in_part_is_said_so(frame):
    half = frame[(frame["suite"] == "scaling") & (frame["estimator"] == "rloo")].copy()
    half.loc[half.index[0], ["status", "value"]] = ["infeasible", np.nan]
    found = pd.concat([frame[frame["suite"] != "scaling"], half])
    assert summary.summary(found, "width").loc["rloo", "failed"] == "partly infeasible"
    assert "None" not in words.markdown(appendix.failures(found.assign(message=None)))


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


@pytest.fixture(scope="module")
def built(rows, tmp_path_factory):
    out = tmp_path_factory.mktemp("built")
    report.build([rows], out)
    return out


def test_the_report_is_complete_repeatable_and_needs_no_torch(rows, built, tmp_path):
    done = run_report("--rows", rows, "--out", tmp_path / "a")
    assert (done.returncode, done.stderr) == (0, "")
    pages = sorted(path.name for path in (tmp_path / "a").glob("*.md"))
    assert pages == ["REPORT-toy.md", "REPORT-width.md", "REPORT.md"]
    text = {name: (tmp_path / "a" / name).read_text() for name in pages}
    assert text == {name: (built / name).read_text() for name in pages}
    for path in (tmp_path / "a" / "figures").iterdir():
        assert path.read_bytes() == (built / "figures" / path.name).read_bytes(), path.name
    everything = "".join(text.values())
    embedded = set(re.findall(r"\]\((figures/[^)]+)\)", everything))
    assert len(embedded) == 16
    assert embedded == {f"figures/{path.name}" for path in (tmp_path / "a" / "figures").iterdir()}
    assert set(re.findall(r"\]\((REPORT-[^)]+)\)", text["REPORT.md"])) == set(pages[:2])
    assert "16^12 terms" in text["REPORT-width.md"]
    assert "## Table 1 of the paper, and ours: small, digits" in text["REPORT.md"]
    assert "0123abcd" in text["REPORT-width.md"]
    assert str(tmp_path) not in everything
    for name in ("rloo", "relax", "straight_through"):
        assert f"| `{name}` " in text["REPORT.md"]


def test_the_pages_are_written_for_readers(built):
    """No text of the code, no names of rows for headings; and the first page is short."""
    for path in built.glob("*.md"):
        text = path.read_text()
        for of_code in ("DRAWS", "told apart", "of use", "time_ratio", "bias_sq", "objective_gap", "None", "nan"):
            assert not re.search(rf"\b{of_code}\b", text), (path.name, of_code)
    assert len((built / "REPORT.md").read_text().splitlines()) < 150


def add(directory, number, cell, *rows):
    made = [{**row, "cell": cell, "provenance": made_rows.PROVENANCE} for row in rows]
    table.write(directory, f"{number:016x}", made)


def test_rows_of_others_packages_appear_under_their_own_names(tmp_path):
    add(tmp_path / "rows", 1, made_rows.cell("heat", "kettle", "steam"), table.row("joules", 4.0, unit="J", n=7))
    report.build([tmp_path / "rows"], tmp_path)
    assert "Kettle" in (tmp_path / "REPORT.md").read_text()
    page = (tmp_path / "REPORT-kettle.md").read_text()
    assert "## Suite heat" in page
    assert "joules, J" in page
    assert "`steam`" in page


def test_rows_of_a_check_are_of_no_task(tmp_path):
    check = made_rows.cell("loop", "plain", "plain", preset="loop", dataset="none")
    add(tmp_path / "rows", 1, check, table.row("loop_ratio", 0.75, se=0.01, n=8, part="loader 2"))
    add(tmp_path / "rows", 2, made_rows.cell("memory", "width", "rloo", dataset="none"), table.row("peak_ratio", 1.5))
    text = report.build([tmp_path / "rows"], tmp_path).read_text()
    assert "Plain" not in text
    assert not (tmp_path / "REPORT-plain.md").exists()
    assert "DataLoader" in text and "0.75 ± 0.02" in text
    (tmp_path / "rows" / f"{2:016x}.jsonl").unlink()
    assert "0.75 ± 0.02" in report.build([tmp_path / "rows"], tmp_path / "alone").read_text()


def test_labels_keep_their_brackets(tmp_path):
    cell = made_rows.cell("memory", "width", "rloo[samples=4]", preset="cpu[train.epochs=2]", dataset="cifar10")
    held = [table.row("bytes", 2.0**20, part=part) for part in ("peak", "activations")]
    add(tmp_path / "rows", 1, cell, table.row("peak_ratio", 1.5), *held)
    text = report.build([tmp_path / "rows"], tmp_path).read_text()
    assert "; cpu[train.epochs=2], cifar10\n" in text
    assert "| `rloo[samples=4]` |" in text
    figure = plots.memory(table.read(tmp_path / "rows"))
    assert "cpu[train.epochs=2], cifar10" in words_of(figure)


def test_filters_choose_rows_and_say_what_there_is(rows, tmp_path):
    frame = table.read(rows)
    assert set(report.chosen(frame, {"estimator": ["concrete"]})["estimator"]) > {"concrete", "concrete[temperature=1]"}
    assert set(report.chosen(frame, {"suite": ["bias", "memory"]})["suite"]) == {"bias", "memory"}
    some = report.chosen(frame.assign(preset="small[a=1]"), {"preset": ["small"], "task": ["width"], "dataset": []})
    assert set(some["task"]) == {"width"}
    with pytest.raises(table.TableError, match="no rows with task wdith; there are toy, width"):
        report.build([rows], tmp_path, only={"task": ["wdith"]})
    text = report.build([rows], tmp_path, only={"suite": ["memory"], "estimator": ["rloo", "plain"]}).read_text()
    assert "`rebar`" not in text and "`rloo`" in text
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"memory.png", "overview.png"}


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


def test_pieces_are_made_by_others_where_there_are_many_and_here_where_one_of_them_dies(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = [partial(pow, 2, k) for k in range(9)]
    here = [2**k for k in range(9)]
    assert parallel.each(calls) == parallel.each(calls, few=9) == here
    ids = parallel.each([os.getpid] * 9)
    assert os.getpid() not in ids and parallel.each([os.getpid] * 2) == [os.getpid()] * 2
    with pytest.raises(ZeroDivisionError):
        parallel.each([partial(pow, 0, -1)] * 9)

    def killed(*args: object, **options: object) -> None:
        raise BrokenProcessPool("killed")

    monkeypatch.setattr(parallel, "Parallel", killed)
    assert parallel.each(calls) == here
