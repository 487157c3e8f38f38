"""What the command line says: lists, plans, tables, notices, JSON; and the program that all commands are one of."""

import json
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from command_line import SMOKE, TINY, TOY, refused

import estimators
from estimators.rloo import Rloo
from results import report, table
from suites import __main__ as program
from suites import suite, tasks
from suites.commands import source, tables
from suites.run import main


@pytest.fixture(autouse=True)
def _own_rows_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without the committed rows and without figures, which take longer to draw than most of these runs."""
    monkeypatch.setattr("suites.run.REFERENCE", tmp_path / "no reference")
    monkeypatch.setattr(report, "build", lambda rows, out: Path(out) / "REPORT.md")
    monkeypatch.delenv("COLUMNS", raising=False)


# --- lists, plans and tables ----------------------------------------------------------------------------------------


def without_torch(*words: str) -> str:
    """The output of a command that must not import torch or pandas."""
    code = (
        "import sys; from suites.__main__ import main\n"
        f"try: status = main({list(words)!r})\n"
        "except SystemExit as stop: status = stop.code\n"
        "slow = {'torch', 'pandas', 'seaborn', 'sklearn', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(status or (f'imported {slow}' if slow else 0))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_list_imports_nothing_slow() -> None:
    shown = without_torch("run", "--list")
    named = (*estimators.available(), *tasks.available(), *suite.available(), "quick", "cifar10", "scratch[of=NAME]")
    assert [name for name in named if name not in shown] == []


@pytest.mark.parametrize("words", [("--version",), ("--help",), ("completion", "bash"), ("report", "--help")])
def test_nor_do_help_version_and_completion(words: tuple[str, ...]) -> None:
    assert without_torch(*words)


def test_the_list_as_json_is_what_is_registered(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["estimators"]] == list(estimators.available())
    assert [one["name"] for one in found["tasks"]] == list(tasks.available())
    assert [one["name"] for one in found["suites"]] == list(suite.available())
    of = {one["name"]: one for one in found["estimators"]}
    assert of["exact"]["options"] == {"limit": "4096", "chunk": "64"} and "enumeration" in of["exact"]["summary"]
    assert all(one["summary"] for kind in ("estimators", "tasks", "suites", "presets") for one in found[kind])


def test_what_is_read_from_the_source_is_what_python_says() -> None:
    for name, place in source.estimators().items():
        read, asked = source.describe(place), source.describe(estimators.factory(name))
        assert set(read.options) == set(asked.options), name
    for name, place in source.suites().items():
        read = source.describe(place)
        assert read.constants["title"] == suite.get(name).title
        assert read.constants.get("by_name", False) == suite.get(name).by_name


def test_an_estimator_registered_since_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    estimators.register("since", Rloo)
    try:
        assert main(["--list", "estimators"]) == 0
    finally:
        estimators._REGISTRY.pop("since")
    assert "since[samples=2" in capsys.readouterr().out


def test_help_lists_every_setting_with_its_range_and_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help", "--preset", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "--dry-run" in shown
    assert main(["--list", "settings", "--preset", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["settings"]
    for one in found:
        assert f"  {one['name']}={one['value']}  ({one['type']})\n" in shown
        assert one["meaning"], one["name"]
    of = {one["name"]: one for one in found}
    assert of["train.epochs"] | {"group": ""} == {
        "name": "train.epochs", "type": "integer ≥ 1", "value": 4, "meaning": "Passes over the training images.",
        "group": "",
    }  # fmt: skip
    assert of["train.phi_optimizer"]["type"] == "adam or sgd"
    assert of["penalty.target_macs"]["type"] == "number ≥ 0 and ≤ 1"


def test_the_plan_estimates_by_like_cells_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*TOY, "--suite", "accuracy", *TINY, "--out", str(tmp_path)]
    assert main(["--estimator", "rloo", *words]) == 0
    capsys.readouterr()
    words += ["--dry-run", "--seeds", "3"]
    assert main(["--estimator", "rloo", "reinforce", *words]) == 0
    shown = capsys.readouterr().out
    assert "1 done, 5 to do" in shown and "3 of the 5 to do have no estimate" in shown
    assert main(["--estimator", "rloo", "reinforce", *words, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    seconds = {(one["estimator"], one["seed"]): one["seconds"] for one in plan["cells"]}
    (took,) = table.read(tmp_path / "rows")["wall_s"].unique()
    assert seconds == {
        ("rloo", 0): None, ("rloo", 1): took, ("rloo", 2): took,
        ("reinforce", 0): None, ("reinforce", 1): None, ("reinforce", 2): None,
    }  # fmt: skip
    assert plan["without_estimate"] == 3 and plan["seconds"] == pytest.approx(2 * took)
    # another preset is another time
    other = [word.replace("steps=4", "steps=5") for word in words]
    assert main(["--estimator", "rloo", *other]) == 0
    assert "no estimate of the time" in capsys.readouterr().out


def test_seeds_that_mean_nothing_are_said_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--estimator", "rloo", *TOY, "--dry-run", "--seeds", "3", "--out", str(tmp_path)]
    assert main([*words, "--suite", "bias", "variance"]) == 0
    assert "note: --seeds is ignored: only accuracy and latency repeat" in capsys.readouterr().err
    for more in (["--suite", "bias", "accuracy"], ["--suite", "bias", "--quiet"]):
        assert main([*words, *more]) == 0
        assert capsys.readouterr().err == ""


def test_settings_that_no_cell_depends_on_are_said_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--estimator", "rloo", *TOY, "--suite", "bias", "--dry-run", "--out", str(tmp_path)]
    assert main([*words, "--set", "train.epochs=3", "function.estimates=30"]) == 0
    assert capsys.readouterr().err == "note: no requested cell depends on train.epochs\n"
    assert main([*words, "--target-macs", "0.5"]) == 0
    assert "penalty.target_macs" in capsys.readouterr().err


def test_titles_keep_what_stands_in_brackets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--estimator", "rloo[samples=3]", *TOY, "--suite", "bias", *TINY, "--out", str(tmp_path)]
    assert main(words) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "smoke[function.estimates=20, function.steps=4]" in shown
    assert "rloo[samples=3]" in shown


def test_nothing_is_wider_than_eighty_columns_or_lost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = "rebar[coupled=True, every=7, temperature=0.75, tuning='regression']"
    words = ["--estimator", label, "rloo", *TOY, *TINY, "--out", str(tmp_path)]
    for more in ([], ["--dry-run"], ["--list"], ["--list", "settings"], ["--help"]):
        assert main([*words, *more]) == 0
        shown = capsys.readouterr().out
        own = [line for line in shown.splitlines() if str(tmp_path) not in line and "python -m" not in line]
        assert max(map(len, own)) <= 80, more
        if not more:
            columns = ("relative bias", "variance × cost", "peak memory", "step time", "objective gap")
            assert all(column in shown for column in columns)
        if more == ["--dry-run"]:
            assert label.replace(" ", "") in "".join(shown.replace(" ", "").split("\n"))


def test_columns_that_do_not_fit_stand_below(capsys: pytest.CaptureFixture[str]) -> None:
    header = ["estimator", *(f"column {i}" for i in range(9))]
    tables.show("of [x]", header, [["rloo[samples=4]", *(f"{i}.123 ± 0.5" for i in range(9))]])
    shown = capsys.readouterr().out
    assert shown.startswith("of [x]\n") and shown.count("rloo[samples=4]") > 1
    assert all(f"{i}.123 ± 0.5" in shown for i in range(9))
    assert max(map(len, shown.splitlines())) <= 80


def test_own_rows_come_first_and_stand_beside_like_ones_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*TOY, "--suite", "bias", *TINY]
    assert main(["--estimator", "reinforce", *words, "--out", str(tmp_path / "others")]) == 0
    monkeypatch.setattr("suites.run.REFERENCE", tmp_path / "others" / "rows")
    capsys.readouterr()
    assert main(["--estimator", "rloo", *words, "--out", str(tmp_path / "a")]) == 0
    shown = capsys.readouterr().out
    assert 0 < shown.index("rloo") < shown.index("reinforce")
    other = [*TOY, "--suite", "bias", *SMOKE, "--set", "function.steps=4", "function.estimates=21"]
    assert main(["--estimator", "rloo", *other, "--out", str(tmp_path / "b")]) == 0
    shown = capsys.readouterr().out
    before, said, after = " ".join(shown.split()).partition("Reference rows, other preset or data set")
    assert said and "reinforce" in after and "reinforce" not in before
    assert "rloo" in before and "n = " in before and "rloo" not in after


def test_results_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--compare", "rloo", "reinforce", *TOY, "--suite", "accuracy", "--seeds", "2", *TINY, "--json"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = table.read(tmp_path / "rows")
    assert {one["hash"] for one in found["cells"]} == set(rows["hash"])
    assert sum(len(one["results"]) for one in found["cells"]) == len(rows)
    assert {one["pairs"] for one in found["compared"]} == {2}
    assert Path(found["rows"]) == tmp_path / "rows"


def test_quiet_says_nothing_but_the_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--estimator", "rloo", *TOY, "--suite", "bias", *TINY]
    assert main([*words, "--quiet", "--out", str(tmp_path / "a")]) == 0
    captured = capsys.readouterr()
    assert captured.err == "" and "rloo" in captured.out
    assert main([*words, "--out", str(tmp_path / "b")]) == 0
    normal = capsys.readouterr().err
    assert main([*words, "--verbose", "--out", str(tmp_path / "c")]) == 0
    assert len(capsys.readouterr().err.splitlines()) > len(normal.splitlines()) == 1
    assert "--quiet" in refused(capsys, *words, "--quiet", "--verbose")


# --- the other commands -----------------------------------------------------------------------------------------------


def test_the_console_script_is_the_program(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(__file__).parent.parent / "pyproject.toml"
    module, _, name = tomllib.loads(path.read_text(encoding="utf-8"))["project"]["scripts"]["vmo-bench"].partition(":")
    assert getattr(import_module(module), name) is program.main
    with pytest.raises(SystemExit) as stop:
        program.main(["--version"])
    assert stop.value.code in (0, None) and capsys.readouterr().out.startswith("vmo-bench ")


def test_every_command_is_named_in_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        program.main(["--help"])
    shown = capsys.readouterr().out
    names = ("run", "report", "export", "reproduce", "gpu", "gpu-projection", "loop-speed", "library-speed")
    assert all(f"    {name} " in shown for name in names)


def test_completion_knows_the_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    (line,) = (line for line in script.splitlines() if line.startswith("_shtab_vmo_bench_run___task_choices="))
    assert "polynomial" in line
    assert "--checkpoint-seconds" in script and "gumbel_rao" in script and "bernoulli" in script
    path = tmp_path / "completion.bash"
    path.write_text(script)
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_the_report_takes_filters(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given: dict[str, object] = {}
    monkeypatch.setattr(report, "build", lambda rows, out, **more: given.update(more) or out / "REPORT.md")
    assert program.main(["report", "--rows", "a", "b", "--out", "c", "--task", "toy", "vae", "--json"]) == 0
    assert given == {"only": {"task": ["toy", "vae"]}}
    assert json.loads(capsys.readouterr().out)["report"] == "c/REPORT.md"
    given.clear()
    assert program.main(["report", "--rows", "a"]) == 0
    assert given == {}


def test_export_is_a_command_of_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "export", str(tmp_path / "none.safetensors"), "--to", str(tmp_path), by=program.main)
    assert "none.safetensors" in line


def test_an_estimator_of_another_package_is_named_without_being_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere = SimpleNamespace(name="elsewhere", value="no_such_package.module:Elsewhere")
    monkeypatch.setattr(source, "entry_points", lambda group: [elsewhere])
    assert main(["--list", "estimators", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["estimators"]}
    assert found["elsewhere"] == {"name": "elsewhere", "options": {}, "summary": ""}
