"""The comparison of loops runs and writes rows; what it measures is no test."""

from pathlib import Path

import pytest
import torch

from results import table
from suites.__main__ import main
from suites.scripts import loop_speed
from vmo.config import WideResNetConfig


def test_it_writes_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(loop_speed, "WORKERS", (0,))  # processes take seconds to start
    words = ["--depth", "10", "--images", "17", "--batch", "8", "--pairs", "2", "--out", str(tmp_path)]
    assert main(["loop-speed", *words]) == 0
    rows = table.read(tmp_path / "rows")
    assert rows["hash"].nunique() == 1 and rows["wall_s"].gt(0).all()
    frame = rows.set_index(["metric", "part"])["value"]
    assert set(frame["loop_seconds"].index) == {"trainer", "bare", "loader 0"}
    assert set(frame["loop_ratio"].index) == {"bare", "loader 0"}
    assert (frame > 0).all()
    assert "trainer / it" in capsys.readouterr().out


def test_every_loop_takes_the_same_steps() -> None:
    """Images of an epoch, as the network of each loop sees them: normalised, and as many."""
    seen: list[torch.Tensor] = []
    hook = torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, args: seen.append(args[0]) if isinstance(module, loop_speed.WideResNet) else None
    )
    with hook:
        for name, epoch in loop_speed.loops(WideResNetConfig(10), 17, 8, torch.device("cpu")).items():
            if name != "loader 2":
                epoch()
                assert [tuple(images.shape) for images in seen] == [(8, 3, 32, 32)] * 2, name
                assert all(0.5 < float(images.std()) < 1.5 for images in seen), name
                seen.clear()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--pairs", "1"), "--pairs must be an integer of at least 2"),
        (("--images", "4"), "--batch must not exceed --images"),
        (("--depth", "11"), "6n + 4 layers"),
    ],
)
def test_what_cannot_be(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["loop-speed", *words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
