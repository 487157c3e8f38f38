"""The command that measures, end to end: what it does, what it refuses, and what it keeps."""

import json
import platform
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from command_line import SMALL, SMOKE, TINY, TOY, refused

import estimators
from estimators.rloo import Rloo
from results import report, table
from suites import __main__ as program
from suites.run import main

BUILD = report.build


@pytest.fixture(autouse=True)
def _own_rows_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the committed rows and without figures, which take longer to draw than most of these runs."""
    monkeypatch.setattr("suites.run.REFERENCE", tmp_path / "no reference")
    monkeypatch.setattr(report, "build", lambda rows, out: Path(out) / "REPORT.md")
    monkeypatch.delenv("COLUMNS", raising=False)


def run(*words: str, out: Path) -> int:
    return main([*words, *SMOKE, "--out", str(out)])


# --- what it does ---------------------------------------------------------------------------------------------------


def test_what_failed_alike_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    of = ["--estimator", "exact", "rloo", "--task", "polynomial", "--suite", "bias", "variance", "accuracy"]
    run(*of, "--set", *SMALL, "polynomial.steps=4", out=tmp_path)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("infeasible: ")]
    assert len(said) == 1
    assert said[0].startswith("infeasible: exact on polynomial (bias, variance, accuracy): exact would enumerate")


def test_main_command_end_to_end_and_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "build", BUILD)
    words = ["--estimator", "relax", "--task", "width", "--set", *SMALL]
    assert run(*words, out=tmp_path) == 0
    rows = table.read(tmp_path / "rows")
    assert set(rows["suite"]) == {"bias", "variance", "memory", "overhead", "accuracy"}
    assert set(rows["status"]) == {"ok"}
    assert {"relax", "plain"} == set(rows["estimator"])
    assert (tmp_path / "REPORT.md").exists()
    assert list((tmp_path / "figures").glob("*.png"))
    before = {path: path.read_bytes() for path in (tmp_path / "rows").iterdir()}
    capsys.readouterr()
    assert run(*words, out=tmp_path) == 0
    assert {path: path.read_bytes() for path in (tmp_path / "rows").iterdir()} == before
    assert "done already" in capsys.readouterr().err
    assert len(list((tmp_path / "commands").iterdir())) == 1


@pytest.mark.parametrize("task", ["toy", "depth", "joint"])
def test_every_suite_runs_on_every_task(task: str, tmp_path: Path) -> None:
    assert run("--estimator", "rebar", "concrete", "--task", task, "--set", *SMALL, out=tmp_path) == 0
    rows = table.read(tmp_path / "rows")
    assert set(rows["suite"]) >= {"bias", "variance", "memory", "overhead", "accuracy"}
    assert set(rows["status"]) == {"ok"}
    assert ("sampling" in set(rows["suite"])) == (task == "joint")


def test_an_outside_estimator_runs_in_every_suite(tmp_path: Path) -> None:
    class Four(Rloo):
        def __init__(self, sizes: tuple[int, ...]) -> None:
            super().__init__(sizes, samples=4)

    estimators.register("outside_four", Four)
    try:
        assert run("--estimator", "outside_four", "--task", "toy", "width", "--set", *SMALL, out=tmp_path) == 0
    finally:
        estimators._REGISTRY.pop("outside_four")
    rows = table.read(tmp_path / "rows")
    own = rows[rows["estimator"] == "outside_four"]
    assert set(own["suite"]) == {"bias", "variance", "memory", "overhead", "accuracy"}
    assert set(own["status"]) == {"ok"}
    assert set(own.loc[own["metric"] == "evaluations", "value"]) == {4.0}


def test_results_repeat_from_the_seed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        words = ["--estimator", "relax", "--task", "width", "--suite", "accuracy", "bias", "--set", *SMALL]
        assert run(*words, out=tmp_path / name) == 0
    a, b = (table.read(tmp_path / name / "rows").sort_values(["hash", "metric", "part", "point", "x"]) for name in "ab")
    np.testing.assert_array_equal(a["value"].to_numpy(), b["value"].to_numpy())


def test_dry_run_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--estimator", "all", "--task", "toy", "width", "--dry-run", out=tmp_path / "out") == 0
    shown = capsys.readouterr().out
    assert "to do" in shown
    assert "infeasible" in shown  # exact at the size of the memory suite
    assert not (tmp_path / "out").exists()


def test_overwrite(tmp_path: Path) -> None:
    words = ["--estimator", "rloo", "--task", "toy", "--suite", "bias", "--set", *SMALL]
    assert run(*words, out=tmp_path) == 0
    (path,) = (tmp_path / "rows").glob("*.jsonl")
    first = path.read_bytes()
    assert run(*words, "--overwrite", "failed", out=tmp_path) == 0
    assert path.read_bytes() == first
    assert run(*words, "--overwrite", "always", out=tmp_path) == 0
    assert path.read_bytes() != first  # at least the wall time differs


def test_compare_prints_paired_differences(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--compare", "rloo", "reinforce", "--task", "toy", "--suite", "accuracy", "--seeds", "3", "--set", *SMALL]
    assert run(*words, out=tmp_path) == 0
    assert "paired by seed" in capsys.readouterr().out


def test_in_a_sweep_an_impossible_cell_is_a_row(tmp_path: Path) -> None:
    words = ["--estimator", "exact", "rloo", "--task", "width", "--suite", "memory"]
    assert run(*words, out=tmp_path) == 0
    rows = table.read(tmp_path / "rows").set_index("estimator")
    assert rows.loc["exact", "status"] == "infeasible"
    assert "limit" in rows.loc["exact", "message"]
    assert (rows.loc["rloo", "status"] == "ok").all()


def test_a_diverging_run_is_a_row_and_the_sweep_goes_on(tmp_path: Path) -> None:
    words = [
        "--estimator",
        "rloo",
        "concrete",
        "--task",
        "width",
        "--suite",
        "accuracy",
        "--set",
        *SMALL,
        "train.lr=1e9",
    ]
    assert run(*words, out=tmp_path) == 0
    rows = table.read(tmp_path / "rows")
    assert dict(rows.groupby("estimator")["status"].first()) == dict.fromkeys(["concrete", "plain", "rloo"], "diverged")


# --- what it refuses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--estimator", "relaxx", *TOY), ("'relaxx'", "did you mean 'relax'", "rloo")),
        (("--estimator", "relax", "--task", "widht"), ("'widht'", "did you mean 'width'", "depth")),
        (("--estimator", "relax[temp=1]", *TOY), ("no option 'temp'", "temperature")),
        (("--estimator", "relax[hidden=", *TOY), ("closing bracket",)),
        (("--estimator", "relax[temperature=-1]", *TOY), ("temperature must be",)),
        (("--estimator", "relax", *TOY, "--suite", "bais"), ("'bais'", "did you mean 'bias'")),
        (("--estimator", "relax", *TOY, "--preset", "quik"), ("'quik'", "did you mean 'quick'")),
        (("--estimator", "relax", *TOY, "--set", "train.epoch=3"), ("did you mean 'train.epochs'",)),
        (("--estimator", "relax", *TOY, "--set", "epochs=3"), ("'epochs'", "did you mean 'train.epochs'")),
        (("--estimator", "relax", *TOY, "--set", "train.epochs=three"), ("train.epochs", "'three'")),
        (("--estimator", "relax", *TOY, "--set", "train.epochs=0"), ("train.epochs", "greater than or equal to 1")),
        (("--estimator", "relax", *TOY, "--set", "train.batch_size=0"), ("train.batch_size", "to 1")),
        (("--estimator", "relax", *TOY, "--set", "train.freeze=99"), ("freeze=99 exceeds", "train.epochs")),
        (("--estimator", "relax", *TOY, "--set", "train.phi_optimizer=foo"), ("phi_optimizer", "'adam' or 'sgd'")),
        (("--estimator", "relax", *TOY, "--set", "penalty.gamma=1e400"), ("penalty.gamma", "finite")),
        (
            ("--estimator", "relax", *TOY, "--set", "train.epochs=2", "--set=train.batch_size=4"),
            ("--set is given twice; write all of its values after one --set",),
        ),
        (("--estimator", "relax", *TOY, "--estimator", "rloo"), ("--estimator is given twice",)),
        ((*TOY, "--compare", "rloo", "relax", "--compare", "rloo", "nvil"), ("--compare is given twice",)),
        (("--estimator", "relax", *TOY, "--set", "train.epochs"), ("GROUP.FIELD=VALUE", "'train.epochs'")),
        (("--estimator", "relax", *TOY, "--seeds", "-3"), ("--seeds must be", "1 … 1000", "-3")),
        (("--estimator", "relax", *TOY, "--seeds", "0"), ("1 … 1000",)),
        (("--estimator", "relax", *TOY, "--seeds", "1000000", "--dry-run"), ("1 … 1000", "1000000")),
        (("--estimator", "relax", *TOY, "--seeds", "two"), ("1 … 1000", "got two")),
        (("--estimator", "relax", *TOY, "--target-macs", "0"), ("--target-macs must be", "(0, 1]", "got 0")),
        (("--estimator", "relax", *TOY, "--target-macs", "nan"), ("(0, 1]", "got nan")),
        (("--estimator", "relax", *TOY, "--target-macs", "1.5"), ("(0, 1]", "got 1.5")),
        (
            ("--estimator", "relax", *TOY, "--target-macs", "0.5", "--set", "penalty.target_macs=0.4"),
            ("penalty.target_macs is given twice",),
        ),
        (("--estimator", "relax", *TOY, "--workers", "0"), ("--workers must be an integer of at least 1",)),
        (("--estimator", "relax", *TOY, "--checkpoint-seconds", "-1"), ("a number of at least 0",)),
        (("--estimator", "relax", *TOY, "--launcher", "rya"), ("--launcher", "did you mean ray")),
        (("--estimator", "relax", *TOY, "--workers", "2", "--launcher", "ray"), ("--workers needs --launcher local",)),
        (("--estimater", "relax", *TOY), ("--estimater", "did you mean --estimator")),
        (("--list", "setting"), ("'setting'", "did you mean settings")),
        (("--config", "none.yaml"), ("--config", "none.yaml")),
        (("--estimator", "relax", *TOY, "--dataset", "cifar1"), ("'cifar1'", "did you mean 'cifar10'")),
        (("--estimator", "relax", *TOY, "--device", "tpu"), ("auto, cpu or cuda",)),
        (("--estimator", "relax", "--task", "width", "--set", "network.depth=11"), ("6n + 4",)),
        (("--estimator", "relax", "--task", "width", "--set", "network.width_step=5"), ("step must divide",)),
        (("--estimator", "exact", "--task", "width", "--suite", "memory"), ("configurations", "limit")),
        (("--estimator", "relax", *TOY, "--suite", "sampling"), ("nothing to run", "sampling", "toy")),
        (("--estimator", "relax"), ("--task",)),
        (("--task", "toy"), ("--estimator",)),
    ],
)
def test_bad_input_is_one_line(
    words: tuple[str, ...], parts: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(capsys, *words, "--out", str(tmp_path / "out"))
    for part in parts:
        assert part in line
    assert not list((tmp_path / "out").glob("rows/*"))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("rnu",), ("'rnu'", "did you mean run")),
        ((), ("run", "report")),
        (("report", "--row", "x"), ("did you mean --rows",)),
        (("study", "--seeds", "0"), ("--seeds must be a number of seeds, 1 … 1000, got 0",)),
        (("report", "--rows", "one", "--task", "toy", "--rows", "other"), ("--rows is given twice",)),
        (("report", "--rows", "nowhere"), ("no rows in nowhere",)),
        (("export", "x.safetensors"), ("required: to",)),
        (("completion", "fish"), ("'fish'", "bash")),
    ],
)
def test_bad_subcommands_are_one_line(
    words: tuple[str, ...], parts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(report, "build", BUILD)
    line = refused(capsys, *words, by=program.main)
    for part in parts:
        assert part in line


def test_an_estimator_that_no_worker_can_import(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Inside(Rloo):
        pass

    estimators.register("inside", Inside)
    try:
        words = ["--estimator", "inside", *TOY, "--suite", "bias", *TINY, "--workers", "2", "--out", str(tmp_path)]
        line = refused(capsys, *words)
    finally:
        estimators._REGISTRY.pop("inside")
    assert "'inside'" in line and "inside a function" in line
    assert not list(tmp_path.glob("rows/*"))


def test_cuda_without_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "no CUDA device" in refused(capsys, "--estimator", "rloo", *TOY, "--device", "cuda")


def test_missing_data_are_missed_before_anything_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--estimator", "rloo", "--task", "toy", "width", "--suite", "bias", *SMOKE, "--out", str(tmp_path)]
    assert "none.npz" in refused(capsys, *words, "--dataset", "none.npz")
    assert not list(tmp_path.glob("rows/*"))


def test_a_file_of_the_users_own_is_known_by_its_content(tmp_path: Path) -> None:
    labels = np.arange(120) % 3
    images = np.random.default_rng(0).integers(0, 256, (120, 8, 8, 3), np.uint8)
    for shift in (0, 1):
        np.savez(tmp_path / "mine.npz", images=images + np.uint8(shift), labels=labels)
        words = ["--estimator", "rloo", "--task", "width", "--suite", "accuracy", "--dataset", "mine.npz"]
        assert (
            run(*words, "--data-root", str(tmp_path), "--set", *SMALL, "train.batch_size=32", out=tmp_path / "out") == 0
        )
    rows = table.read(tmp_path / "out" / "rows")
    assert set(rows["status"]) == {"ok"}
    assert set(rows["dataset"]) == {f"mine.npz@{content[:8]}" for content in rows["data"]}
    assert rows.groupby("estimator")["hash"].nunique().eq(2).all()
    values = rows[(rows["metric"] == "loss") & (rows["part"] == "train")]
    assert values.groupby("estimator")["value"].nunique().eq(2).all(), "the data that were trained on are others"


def test_corrupt_cache_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "cifar10_train.npz").write_bytes(b"PK\x03\x04 nothing")
    words = ["--estimator", "rloo", "--task", "width", "--suite", "accuracy", "--dataset", "cifar10", *SMOKE]
    line = refused(capsys, *words, "--data-root", str(tmp_path), "--out", str(tmp_path / "out"))
    assert "cifar10_train.npz" in line


def test_truncated_rows_are_named_and_nothing_is_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "--estimator",
        "rloo",
        *TOY,
        "--suite",
        "bias",
        "overhead",
        *SMOKE,
        "--set",
        *SMALL,
        "--out",
        str(tmp_path),
    ]
    assert main(words) == 0
    capsys.readouterr()
    paths = sorted((tmp_path / "rows").glob("*.jsonl"))
    paths[0].write_bytes(paths[0].read_bytes()[:-40])
    line = refused(capsys, *words)
    assert str(paths[0]) in line
    assert "delete or move" in line
    assert sorted((tmp_path / "rows").glob("*.jsonl")) == paths


def test_unwritable_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("in the way")
    line = refused(capsys, "--estimator", "rloo", *TOY, "--out", str(blocker / "out"))
    assert str(blocker / "out") in line
    assert "cannot be written" in line


def test_rows_say_what_they_need_to(tmp_path: Path) -> None:
    assert run("--estimator", "rloo", *TOY, "--suite", "overhead", out=tmp_path) == 0
    path = next((tmp_path / "rows").glob("*.jsonl"))
    row = json.loads(path.read_text().splitlines()[0])
    assert row["hash"] == path.stem
    wanted = {"commit", "dirty", "python", "torch", "numpy", "device", "dtype", "wall_s", "processor"}
    assert set(row["provenance"]) == wanted and row["provenance"]["processor"].startswith(platform.machine())
    assert str(tmp_path) not in path.read_text()


def test_a_cell_that_failed_fails_the_command_until_it_is_run_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--estimator", "rloo", *TOY, "--suite", "variance"]
    assert main([*words, *TINY, "--out", str(tmp_path)]) == 0
    (path,) = (tmp_path / "rows").iterdir()
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    failed = {**first, **table.row("cell", None, status="error", message="a worker died")}
    table.write(tmp_path / "rows", path.stem, [failed])
    capsys.readouterr()
    assert main([*words, *TINY, "--out", str(tmp_path)]) == 1
    assert "1 finished cells failed with an error" in capsys.readouterr().err
    assert main([*words, *TINY, "--out", str(tmp_path), "--overwrite", "failed"]) == 0
    assert main([*words, *TINY, "--out", str(tmp_path)]) == 0


# --- what it keeps ----------------------------------------------------------------------------------------------------


def test_the_configuration_that_is_kept_asks_for_the_same_cells(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--estimator", "rloo[samples=3]", *TOY, "--suite", "accuracy", "--seeds", "2", *SMOKE]
    assert main([*words, "--set", "function.steps=4", "--out", str(tmp_path)]) == 0
    (path,) = (tmp_path / "commands").iterdir()
    kept = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert kept["estimator"] == ["rloo[samples=3]"] and kept["seeds"] == 2
    assert {"function.steps=4", "train.epochs=2"} <= set(kept["set"])
    capsys.readouterr()
    assert main(["--config", str(path), "--dry-run", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["counts"] == {"done": 2} and captured.err == ""
    assert main(["--config", str(path), "--seeds", "3", "--dry-run", "--json"]) == 0  # what is typed counts
    assert json.loads(capsys.readouterr().out)["counts"] == {"done": 2, "to do": 1}


@pytest.mark.parametrize("preset", ["smoke", "quick", "cpu", "paper"])
def test_a_configuration_holds_every_preset(preset: str, tmp_path: Path) -> None:
    from suites import presets, run
    from suites.commands import saved

    parser = run.COMMAND.parser()
    args = parser.parse_args(["--estimator", "rloo", *TOY, "--preset", preset, "--target-macs", "0.5"])
    given = presets.resolve(preset, ["penalty.target_macs=0.5", "train.weights=concrete[temperature=1.0]"])
    path = saved.save(parser, args, given, tmp_path)
    again = run.COMMAND.parser().parse_args(["--config", str(path)])
    assert presets.resolve(again.preset, again.set) == given
    assert again.target_macs is None


def test_a_configuration_of_the_users_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("estimator: [rloo]\ntask: [toy]\nsuite: [bias]\npreset: smoke\n")
    assert program.main(["run", "--config", str(path), "--dry-run", "--json"]) == 0
    assert [one["estimator"] for one in json.loads(capsys.readouterr().out)["cells"]] == ["rloo"]
    path.write_text("estimater: [rloo]\n")
    assert "estimater" in refused(capsys, "--config", str(path))


def test_the_example_of_the_readme_learns() -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    assert "seconds=30" in example
    example = example.replace("seconds=30", "seconds=0.5, quiet=True")
    names: dict[str, object] = {}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        exec(example, names)
    exact = estimators.get("exact", sizes=(3, 4))
    logits = tuple(names["logits"])  # type: ignore[arg-type]
    start = exact.estimate(names["objective"], tuple(map(torch.zeros_like, logits)), ()).loss  # type: ignore[arg-type]
    assert exact.estimate(names["objective"], logits, ()).loss.mean() < 0.7 * start.mean()  # type: ignore[arg-type]
