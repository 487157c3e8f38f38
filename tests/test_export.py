"""Export: what is written is the extracted network, whoever loads it, and what cannot be exported is refused."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import granted
from torch import Tensor

from suites import labels
from vmo import checkpoint, cifar, compact, export
from vmo.data import identify, load, normalise
from vmo.evaluate import recalibrate
from vmo.extract import extract
from vmo.wrn import WideResNet


def train(path: Path, task: str = "joint", label: str = "rloo") -> list[dict[str, Any]]:
    """One epoch on the digits; its rows. The checkpoint is at `path`."""
    make = None if label == "plain" else labels.parse(label).make
    of = granted(task, "train.epochs=1", "train.batch_size=256", plain=make is None)
    return of.run(make, 0, checkpoint.Keeper(path))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a finished run that has come to two blocks of 8 and 24 channels."""
    path = tmp_path_factory.mktemp("run") / "run.safetensors"
    train(path)
    state = checkpoint.load(path)
    assert state is not None
    state["run"]["architecture"] = {"blocks": 2, "hidden": [8, 24]}
    checkpoint.save(path, state)
    return path


@pytest.fixture(scope="module")
def exported(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export") / "new" / "compact"
    assert export.main([str(finished), "--to", str(folder), "--device", "cpu"]) == 0
    return folder


@pytest.fixture(scope="module")
def network(finished: Path) -> WideResNet:
    """The compact network by the shortest way."""
    run, data = compact.read(finished), load("digits")
    made = extract(run.network, run.architecture)
    recalibrate(made, data)
    return made


@pytest.fixture
def images() -> Tensor:
    data = load("digits")
    return normalise(data.test.images[:50], data)


def lines(table: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    return {name: rest for name, *rest in cells}


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert export.main([str(word) for word in words]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("error: ")
    return captured.err


# --- what is written ------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_the_reloaded_network_is_the_extracted_one(exported: Path, network: WideResNet, images: Tensor) -> None:
    loaded = export.load(exported)
    assert not loaded.training
    assert loaded.config == network.config
    assert loaded.config.hidden == (8, 24)
    assert torch.equal(loaded(images), network(images))
    assert [p.stride() for p in loaded.parameters()] == [p.stride() for p in network.parameters()]


@torch.no_grad()
def test_the_exported_program_gives_its_logits(exported: Path, network: WideResNet, images: Tensor) -> None:
    program = torch.export.load(exported / "model.pt2").module()
    for n in (1, 2, 50):
        torch.testing.assert_close(program(images[:n]), network(images[:n]), rtol=0, atol=1e-5)


@torch.no_grad()
def test_onnx_gives_its_logits(exported: Path, network: WideResNet, images: Tensor) -> None:
    onnx, onnxruntime, _ = (pytest.importorskip(name) for name in export.EXTRA)
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 1, 8, 8]
    assert session.get_outputs()[0].shape == ["batch", 10]
    for n in (1, 2, 50):
        (logits,) = session.run(["logits"], {"images": images[:n].numpy()})
        np.testing.assert_allclose(logits, network(images[:n]).numpy(), rtol=0, atol=1e-4)
    onnx.checker.check_model(exported / "model.onnx", full_check=True)


def test_the_configuration_is_plain(exported: Path) -> None:
    config, data = json.loads((exported / "config.json").read_text()), load("digits")
    assert config["input_shape"] == [1, 8, 8]
    assert (config["mean"], config["std"]) == (list(data.mean), list(data.std))
    assert config["class_names"] == [str(i) for i in range(10)]
    assert config["network"]["hidden"] == [8, 24]
    assert (config["dataset"], config["data"], config["data_note"]) == ("digits", data.identity.content, "")


def test_no_file_names_a_folder_of_this_machine(exported: Path) -> None:
    places = {str(Path(module.__file__ or "").parent.parent) for module in (export, torch)}
    assert {file.name for file in exported.iterdir()} >= set(export.FILES) - {"model.onnx"}
    for file in exported.iterdir():
        assert not [place for place in places if place.encode() in file.read_bytes()], file.name


def test_the_table(exported: Path, finished: Path, network: WideResNet) -> None:
    text = (exported / "table.md").read_text()
    found, full = lines(text), compact.read(finished).network.config
    assert found["layers"][:2] == ["10", "8"]
    assert found["hidden channels"][:2] == ["112", "32"]
    assert found["MACs per image"][:2] == [f"{round(c.total_macs(8)):,}" for c in (full, network.config)]
    rest, fixed, slope = full.parameters()
    whole = rest + sum(fixed) + sum(s * k for s, k in zip(slope, full.widths, strict=True))
    count = sum(p.numel() for p in network.parameters())
    assert found["parameters"] == [f"{round(whole):,}", f"{count:,}", f"{count / whole:.2f}"]
    assert all(float(cell) > 0 for batch in (1, 128) for cell in found[f"latency, batch {batch} (ms)"])
    assert "Blocks kept: 2 of 3; hidden channels of each: 8, 24 of 16, 32, 64." in text
    assert "model.onnx" in text.splitlines()[-1]  # how far it is from torch, or that it was not written


@pytest.mark.parametrize(("task", "label"), [("width", "plain"), ("depth", "relax")])
def test_other_runs_and_the_accuracy_of_their_rows(task: str, label: str, tmp_path: Path) -> None:
    """A plain run is its own compact network."""
    path = tmp_path / "run.safetensors"
    rows = train(path, task, label)
    run, data = compact.read(path), load("digits")
    made = compact.compact(run, data)
    accuracy = next(r["value"] for r in rows if (r["metric"], r["part"]) == ("accuracy", "test"))
    assert lines(compact.comparison(run, made, data))["test accuracy"][1] == f"{accuracy:.4f}"
    assert next(r["value"] for r in rows if r["metric"] == "parameters") == sum(p.numel() for p in made.parameters())
    if label == "plain":
        assert made.config.widths == run.network.config.widths


def test_fine_tuning_trains_at_the_last_rate_and_recalibrates(finished: Path, network: WideResNet) -> None:
    run, data = compact.read(finished), load("digits")
    seen: list[tuple[int, float]] = []
    tuned = compact.compact(run, data, fine_tune=2, progress=lambda *told: seen.append(told))
    assert [epoch for epoch, _ in seen] == [1, 2]
    assert not tuned.training
    pairs = zip(tuned.parameters(), network.parameters(), strict=True)
    moved = [float((a - b).detach().norm() / b.detach().norm()) for a, b in pairs]
    assert 0 < max(moved[:2]) < 0.05  # 10 steps at 8e-4
    before = {name: value.clone() for name, value in tuned.named_buffers()}
    recalibrate(tuned, data)
    assert all(torch.equal(before[name], value) for name, value in tuned.named_buffers() if "running" in name)


def test_an_export_replaces_the_one_before(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.onnx").write_text("of another network")
    (tmp_path / "notes.txt").write_text("of the user")
    assert export.main([str(finished), "--to", str(tmp_path), "--no-onnx", "--fine-tune", "1"]) == 0
    assert {file.name for file in tmp_path.iterdir()} == {*export.FILES, "notes.txt"} - {"model.onnx"}
    captured = capsys.readouterr()
    assert captured.out == (tmp_path / "table.md").read_text()
    assert "model.onnx (as requested)" in captured.out
    assert "fine-tuned for 1 epoch." in captured.out
    assert re.fullmatch(r"fine-tuning: epoch 1 of 1, loss \d\.\d{4}\n", captured.err)


# --- loading --------------------------------------------------------------------------------------------------------

ALONE = """
import pickle, sys
import torch
from pathlib import Path

def forbidden(*words, **more):
    raise AssertionError("unpickling")

class Forbidden(pickle.Unpickler):
    __init__ = forbidden

torch.load = torch.serialization.load = pickle.load = pickle.loads = forbidden
pickle.Unpickler = pickle._Unpickler = torch._weights_only_unpickler.Unpickler = Forbidden
for name in ("train", "objective", "space", "data", "checkpoint", "compact", "extract"):
    sys.modules[f"vmo.{name}"] = None
sys.modules["estimators"] = sys.modules["suites"] = sys.modules["results"] = None
state = torch.get_rng_state()
from vmo.export import load
network = load(sys.argv[1])
assert torch.equal(torch.get_rng_state(), state)
print(network(torch.ones(1, *map(int, sys.argv[2:]))).tolist())
"""


def test_loading_needs_no_pickle_and_nothing_that_trains(exported: Path, network: WideResNet) -> None:
    command = [sys.executable, "-c", ALONE, str(exported), "1", "8", "8"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with torch.no_grad():
        torch.testing.assert_close(torch.tensor(json.loads(done.stdout)), network(torch.ones(1, 1, 8, 8)))


def test_the_example_of_the_documentation(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[1] / "docs" / "how-to" / "export.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(exported.parent)
    exec(code, {})
    assert capsys.readouterr().out.strip() in {str(i) for i in range(10)}


def test_another_format_is_refused(exported: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((exported / "config.json").read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ValueError, match="format 2"):
        export.load(tmp_path)


def test_class_names() -> None:
    assert {name: len(words.split()) for name, words in cifar.CLASS_NAMES.items()} == {"cifar10": 10, "cifar100": 100}
    assert all(words.split() == sorted(words.split()) for words in cifar.CLASS_NAMES.values())
    data = replace(load("digits"), name="cifar10_16")
    assert compact.class_names(data)[0] == "airplane"


def test_fine_tuning_does_not_compile_the_network(finished: Path) -> None:
    run = compact.read(finished)
    run = replace(run, recipe=replace(run.recipe, compile=True))
    tuned = compact.compact(run, load("digits"), fine_tune=1)
    assert all(module._compiled_call_impl is None for module in tuned.modules())


# --- what is refused ------------------------------------------------------------------------------------------------


def test_what_is_not_a_finished_run(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    to = ("--to", tmp_path / "out")
    assert "there is no file" in refused(capsys, tmp_path / "missing", *to)
    assert "there is no file" in refused(capsys, tmp_path, *to)
    other = tmp_path / "other"
    other.write_text("hello")
    assert "is not a checkpoint" in refused(capsys, other, *to)
    checkpoint.save(other, [1, 2])
    assert "accuracy suite" in refused(capsys, other, *to)
    state = checkpoint.load(finished)
    assert state is not None
    checkpoint.save(other, {**state, "epoch": 1})
    assert "0 of 1 epochs" in refused(capsys, other, *to)
    checkpoint.save(other, {**state, "run": {**state["run"], "network": {**state["run"]["network"], "widen": 2}}})
    assert "does not hold a complete run" in refused(capsys, other, *to)
    wide = {"blocks": 2, "hidden": [8, 24_000]}
    checkpoint.save(other, {**state, "run": {**state["run"], "architecture": wide}})
    assert "are not part of" in refused(capsys, other, *to)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_that_does_not_say_what_the_data_were(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state, path = checkpoint.load(finished), tmp_path / "run.safetensors"
    assert state is not None
    for missing in ("data", "data_name"):
        about = {key: value for key, value in state["run"].items() if key != missing}
        checkpoint.save(path, {**state, "run": about})
        assert f"does not hold a complete run: KeyError: '{missing}'" in refused(capsys, path, "--to", tmp_path / "out")


def test_a_folder_that_cannot_be_written(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        assert "cannot be written" in refused(capsys, finished, "--to", folder)


def test_a_failed_export_leaves_the_one_before(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "model.pt2").write_text("of before")
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    assert "differ" in refused(capsys, finished, "--to", tmp_path, "--no-onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt2"]
    assert (tmp_path / "model.pt2").read_text() == "of before"


def test_without_the_extra(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(compact, "latency", lambda networks, images: ([1.0, 1.0], 1))
    error = refused(capsys, finished, "--to", tmp_path, "--onnx")
    assert export.INSTALL in error
    assert "onnxruntime" in error
    assert export.main([str(finished), "--to", str(tmp_path)]) == 0
    assert {file.name for file in tmp_path.iterdir()} == set(export.FILES) - {"model.onnx"}
    assert f"Not written: model.onnx (it needs {export.INSTALL})." in capsys.readouterr().out


def test_a_file_of_the_users_own_must_be_the_one_trained_on(finished: Path, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    images, names = generator.integers(0, 256, (40, 8, 8), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "mine.npz", images=images, labels=names)
    run = compact.read(finished)
    mine = replace(run, data=identify("mine.npz", tmp_path))
    assert compact.dataset(mine, tmp_path).classes == 2
    with pytest.raises(ValueError, match="--data-root"):
        compact.dataset(mine, tmp_path / "elsewhere")
    np.savez(tmp_path / "mine.npz", images=images, labels=1 - names)
    with pytest.raises(
        ValueError, match=f"on mine.npz with content {mine.data.content}, but what is found is"
    ) as caught:
        compact.dataset(mine, tmp_path)
    assert identify("mine.npz", tmp_path).content in str(caught.value)


def test_a_named_set_must_be_the_one_trained_on(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder holds other images by the same name; not even a table is written of them."""
    for folder, n in (("trained on", 30), ("other", 20)):
        (tmp_path / folder).mkdir()
        for part in ("train", "test"):
            images, names = np.full((n, 28, 28), n, np.uint8), np.arange(n) % 10
            np.savez(tmp_path / folder / f"mnist_{part}.npz", images=images, labels=names)
    trained, other = (identify("mnist", tmp_path / folder) for folder in ("trained on", "other"))
    state, path = checkpoint.load(finished), tmp_path / "run.safetensors"
    assert state is not None
    checkpoint.save(path, {**state, "run": {**state["run"], **trained.recorded()}})
    to = ("--to", tmp_path / "out", "--no-onnx")
    error = refused(capsys, path, *to, "--data-root", tmp_path / "other")
    for words in ("mnist (30 + 30 images)", trained.content, "mnist (20 + 20 images)", other.content, "--data-root"):
        assert words in error
    assert list((tmp_path / "out").iterdir()) == []
    assert export.main([*map(str, (path, *to)), "--data-root", str(tmp_path / "trained on")]) == 0
    text = (tmp_path / "out" / "table.md").read_text()
    assert f"Data: mnist (30 + 30 images) with content {trained.content}." in text
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["dataset"], config["data"]) == ("mnist (30 + 30 images)", trained.content)


def test_a_note_on_the_data_stands_under_the_table(finished: Path) -> None:
    run, data = compact.read(finished), load("digits")
    run = replace(run, data=replace(run.data, note="one image is upside down"))
    text = compact.comparison(run, compact.compact(run, data), data)
    assert text.endswith(f"Data: digits with content {data.identity.content}; one image is upside down.")


def test_other_words_are_refused(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--fine-tune" in refused(capsys, finished, "--to", tmp_path, "--fine-tune", "-1")
    if not torch.cuda.is_available():
        assert "CUDA" in refused(capsys, finished, "--to", tmp_path, "--device", "cuda")
