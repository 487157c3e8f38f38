"""Every size of network goes the same way: WRN-16-1 to 16-4 for a step, WRN-28-10 for a whole run of a few steps."""

from pathlib import Path

import numpy as np
import pytest
import torch
from making import granted

from results import table
from suites import labels
from suites.run import main
from suites.tasks.base import Context


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Fifty images of the size of CIFAR's."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "few.npz", images=pixels, labels=np.arange(50) % 10)
    return tmp_path / "few.npz"


@pytest.mark.parametrize("task", ["depth", "width", "joint"])
@pytest.mark.parametrize("widen", [1, 2, 3, 4])
def test_a_step_of_every_width_factor(images: Path, widen: int, task: str) -> None:
    settings = (f"network.widen={widen}", "train.batch_size=4", "train.bf16=false", "penalty.target_macs=0.6")
    made = granted(task, *settings, preset="cpu", context=Context(str(images)))
    trainer = made.task.trainer(made.handed["run"], labels.parse("rloo").make, 0)  # type: ignore[attr-defined]
    before = [w.detach().clone() for w in trainer.network.parameters()]
    assert trainer.network.config.outputs == tuple(widen * k for k in (16, 16, 32, 32, 64, 64))
    loss = trainer.step(*next(trainer.minibatches()))
    assert torch.isfinite(loss)
    # heads beyond the sampled depth have no gradient and decay to where they were not
    assert all((w != old).any() for w, old in zip(trainer.network.parameters(), before, strict=True) if old.any())
    assert all(site.grad is not None for site in trainer.distribution.logits)  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["concrete", "rloo", "relax"])
def test_a_run_of_wrn_28_10(images: Path, tmp_path: Path, estimator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suites.run.REFERENCE", tmp_path / "no reference")
    words = ["--estimator", estimator, "--task", "depth", "width", "joint", "--suite", "accuracy", "--preset", "paper"]
    words += ["--set", "train.epochs=1", "train.batch_size=10", "train.bf16=false", "train.lr=0.001"]
    words += ["penalty.kind=macs", "--seeds", "1", "--dataset", str(images), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    frame = table.read(tmp_path / "out" / "rows")
    assert set(frame["status"]) == {"ok"}
    plain = frame[(frame["estimator"] == "plain") & (frame["metric"] == "parameters")]["value"]
    assert set(plain) == {36_479_194}
    kept = frame[(frame["estimator"] == estimator) & (frame["metric"] == "macs_ratio")].set_index("task")["value"]
    assert set(kept.index) == {"depth", "width", "joint"}
    assert ((kept > 0) & (kept <= 1)).all()
