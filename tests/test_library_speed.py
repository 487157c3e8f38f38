"""The command that times other installed libraries: what it prints and writes."""

from pathlib import Path

import pytest

from results import table
from suites.__main__ import main
from suites.scripts import library_speed


def test_peers_that_are_installed_are_timed_and_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_alone = [peer for peer in library_speed.PEERS if peer.package == "torch"]
    monkeypatch.setattr(library_speed, "PEERS", torch_alone)
    assert main(["library-speed", "--pairs", "2", "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "gumbel_straight_through" in shown and "concrete[temperature=1.0]" in shown
    rows = table.read(tmp_path / "rows")
    assert len(rows) == 2
    assert set(rows["metric"]) == {"backward_ratio"}
    assert (rows["value"] > 0).all()
    assert all(name.startswith("gumbel_softmax") for name in rows["estimator"])
    assert main(["library-speed", "--pairs", "1"]) == 2


def test_a_peer_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = library_speed.Peer("no-such-package", "x", "rloo", lambda logits, f: lambda: None)
    monkeypatch.setattr(library_speed, "PEERS", [absent])
    assert list(library_speed.measured(2)) == []
