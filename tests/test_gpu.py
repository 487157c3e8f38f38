"""On a GPU: no waiting, the CPU's and eager's numbers, memory as it is counted. And what of it needs none."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import QUICK, make, noise
from torch import Tensor

from results import table
from suites import presets
from suites.__main__ import main
from suites.memory import count
from suites.overhead import seconds
from suites.scripts import gpu_check, gpu_projection
from suites.tasks import factory
from suites.tasks.base import Context
from suites.tasks.granted import Granted
from vmo.config import WideResNetConfig
from vmo.objective import MinibatchObjective
from vmo.train import Trainer

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


class Masked(Trainer):
    """A run that reads no width, as a compiled one."""

    def objective(self, images: Tensor, labels: Tensor) -> MinibatchObjective:
        objective = super().objective(images, labels)
        objective.slicing = False
        return objective


def on_gpu(name: str | None, task: str = "joint", recipe: Any = QUICK, **options: Any) -> Trainer:
    with CUDA:
        return make(name, task, recipe, data=noise().to(CUDA), kind=Masked, gamma=0.1, **options)


def plain(preset: presets.Preset, role: str, device: torch.device = CPU) -> Granted:
    """The width task with plain training at one size."""
    task = factory("width")(Context(device=device))
    return Granted(task, {role: preset.hand(task.plain_roles[role])})


@contextmanager
def without_waiting() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("name", [None, "reinforce", "rloo", "concrete", "rebar", "relax", "unordered"])
def test_an_epoch_never_waits(name: str | None) -> None:
    trainer = on_gpu(name)
    trainer.epoch()  # libraries set themselves up
    minibatches = trainer.minibatches()
    with without_waiting():
        for images, labels in minibatches:
            trainer._loss += trainer.step(images, labels)
    assert torch.isfinite(trainer._loss)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["exact", "rebar"])
def test_gradients_are_those_of_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In double precision, on the same weights, images and noise."""
    runs = (make(name, "width", kind=Masked), on_gpu(name, "width"))
    runs[1].network.load_state_dict(runs[0].network.state_dict())
    images, labels = next(runs[0].minibatches())
    found = []
    for trainer in runs:
        q, estimator = trainer.distribution, trainer.estimator
        assert q is not None and estimator is not None
        trainer.network.double()
        drawn = torch.Generator().manual_seed(0)
        device = q.logits[0].device
        host = tuple(site.detach().cpu() for site in q.logits)
        draw = torch.utils._pytree.tree_map(
            lambda u, device=device: u.to(device) if isinstance(u, Tensor) else u, estimator.draw(host, drawn)
        )
        objective = trainer.objective(images.double().to(device), labels.to(device))
        found.append([site.cpu() for site in estimator.estimate(objective, q.logits, draw).grads])
        found[-1] += [w.grad.cpu() for w in trainer.network.parameters() if w.grad is not None]
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-4, atol=1e-6)


@pytest.mark.gpu
@pytest.mark.parametrize("name", [None, "rloo", "straight_through", "rebar"])
def test_compiled_is_eager(name: str | None) -> None:
    runs = on_gpu(name, "width"), on_gpu(name, "width", replace(QUICK, compile=True))
    for trainer in runs:
        trainer.network.double()
    for _ in range(2):
        losses = []
        for trainer in runs:
            images, labels = next(trainer.minibatches())
            losses.append(trainer.step(images.double(), labels))
        torch.testing.assert_close(*losses, rtol=1e-5, atol=1e-6)


@pytest.mark.gpu
def test_memory_is_what_is_counted() -> None:
    """The allocator's peak, less what was there before, within a fifth: it rounds up, and cuDNN has workspaces."""
    preset = presets.resolve("smoke", ["counted.depth=16", "counted.widen=4"])
    counted = sum(count(plain(preset, "counted"), "counted", None).values())
    before = torch.cuda.memory_allocated()
    step = plain(preset, "counted", CUDA).workload("counted", None)
    step.step()
    torch.cuda.reset_peak_memory_stats()
    step.step()
    assert torch.cuda.max_memory_allocated() - before == pytest.approx(counted, rel=0.2)


@pytest.mark.gpu
def test_steps_are_timed_by_events() -> None:
    step = plain(presets.resolve("smoke"), "timed", CUDA).workload("timed", None)
    seconds(step, CUDA, 1)
    assert 0 < seconds(step, CUDA, 3) < 1


# --- without a GPU --------------------------------------------------------------------------------------------------


def test_without_a_gpu_the_check_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["gpu"]) == 2
    assert capsys.readouterr().err == "error: this machine has no CUDA device that PyTorch can use\n"


def test_the_check_finds_the_tests() -> None:
    """Those of the checkout that it is part of; where it is installed as a wheel there are none."""
    here, code = Path(__file__).parent, Path(gpu_check.__file__).parents[2]
    assert code / "tests" == gpu_check.TESTS
    assert gpu_check.TESTS.is_dir() == (code == here.parent)


def test_the_fraction_of_peak() -> None:
    fraction_of_peak = gpu_projection.fraction_of_peak
    assert fraction_of_peak(156e12, 2.0, "NVIDIA A100-SXM4-80GB", "bfloat16") == pytest.approx(0.5)
    assert fraction_of_peak(494e12, 2.0, "NVIDIA H100 80GB HBM3", "float32") == pytest.approx(1.0)
    assert fraction_of_peak(1.0, 1.0, "cpu × 2", "bfloat16") is None
    assert fraction_of_peak(1.0, 1.0, "NVIDIA H100 PCIe", "bfloat16") is None  # another peak


def test_rows_of_the_fraction_of_peak(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = gpu_projection.Device("here", {"bfloat16": 1e12, "float32": 1e12}, 1.0)
    monkeypatch.setitem(gpu_projection.DEVICES, "here", here)
    monkeypatch.setattr(gpu_check, "compile_network", lambda network: None)
    preset = presets.resolve("smoke")
    for found in gpu_check.peak(preset, CPU, "here too", 2):
        gpu_check.write(tmp_path, found, preset, CPU)
    frame = table.read(tmp_path).set_index("part")
    assert sorted(frame.index) == ["bfloat16", "bfloat16, compiled", "float32"]
    assert set(frame["metric"]) == {"peak_fraction"} and (frame["value"] > 0).all()
    assert frame.loc["bfloat16", "dtype"] == "bfloat16" and frame["n"].eq(2).all()
    assert frame["hash"].is_unique and set(frame["preset"]) == {"smoke"}
    assert not list(gpu_check.peak(preset, CPU, "another", 1))


def test_a_step_is_counted_as_arithmetic_says() -> None:
    """Backward has two products for each of forward, but none for the gradient of the images."""
    preset = presets.resolve("smoke", ["train.batch_size=4"])
    macs, size, operations = gpu_projection.counted(preset, "plain")
    stem = 9 * 3 * 16 * 32 * 32
    assert macs == pytest.approx(4 * (3 * WideResNetConfig(10, 1).total_macs(32) - stem), rel=1e-6)
    assert size > 4 * 2 * 16 * 32 * 32 * 2 * 6 and operations > 100
    assert gpu_projection.counted(preset, "rloo")[0] == pytest.approx(2 * macs, rel=0.01)
    device = gpu_projection.Device("made up", {"bfloat16": 100.0}, 10.0)
    seconds = gpu_projection.seconds
    assert seconds(50, 1, 1, device) == pytest.approx(1 / gpu_projection.COMPUTE)
    assert seconds(50, 100, 1, device) == pytest.approx(10 / gpu_projection.MEMORY)
    assert seconds(1e-9, 1e-9, 10**6, device) == pytest.approx(5.0)


@pytest.mark.slow
def test_the_documented_projection_is_the_one_that_is_computed() -> None:
    text = (Path(__file__).parents[1] / "docs" / "how-to" / "gpu.md").read_text(encoding="utf-8")
    documented = [
        [cell.strip().strip("`") for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith("| ---")
    ]
    # in a process of its own: conftest makes sites a pytree, and what runs then is not what the command runs
    code = 'import json; from suites.scripts.gpu_projection import lines; print(json.dumps(lines(["cpu", "paper"])))'
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == documented


def test_the_projection_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(gpu_projection, "counted", lambda preset, estimator: (1e9, 2e9, 3000))
    assert main(["gpu-projection", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.startswith("Projected, not measured") and "3,000" in shown and "hours per run, H100" in shown
    assert main(["gpu-projection", "cpu", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["preset"] for one in found["projected"]} == {"cpu"} and found["assumed"]["of peak"] == 0.3


def test_a_preset_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gpu-projection", "papr"]) == 2
    assert "error: no preset 'papr', did you mean 'paper'" in capsys.readouterr().err
