"""The commands that set our numbers beside those of others: what they print, and what they refuse."""

import json
from pathlib import Path

import pytest

from results import table
from suites.__main__ import main
from suites.scripts import EXPERIMENTS, library_speed, reproduce
from suites.scripts.reproduce import Line


def test_the_bernoulli_numbers_are_reproduced(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "bernoulli", "--seeds", "2"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("-4.1589") >= 4  # published and measured, twice
    assert "yes" in shown
    assert " no " not in shown


def test_the_same_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "bernoulli", "--seeds", "1", "--json"]) == 0
    exact, sampled = json.loads(capsys.readouterr().out)
    assert exact["mean"] == pytest.approx(-4.1589, abs=1e-4) and exact["error"] is None
    assert len(sampled["measured"]) == 2 and sampled["agrees"] == "yes"


def test_what_may_be_asked_for_is_what_there_is() -> None:
    assert tuple(reproduce.EXPERIMENTS) == EXPERIMENTS


def test_the_variance_of_arm_is_reproduced(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "arm"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("0.039788") == 2  # published and measured
    assert shown.count("yes") == 2 and " no " not in shown


@pytest.mark.parametrize("experiment", ["relax", "polynomial"])
def test_long_experiments_are_those_of_the_papers(experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut to a few steps: every published number has a line, and the first of RELAX's toy is that of its start."""
    monkeypatch.setattr(reproduce, "STEPS", (1, 2))
    monkeypatch.setattr(reproduce, "RELAX", {name: values[:2] for name, values in reproduce.RELAX.items()})
    monkeypatch.setattr(reproduce, "DRAWS", 2000)
    monkeypatch.setattr(reproduce, "POLYNOMIAL_STEPS", 3)
    lines = list(reproduce.EXPERIMENTS[experiment](1))
    if experiment == "relax":
        assert len(lines) == 6
        assert lines[0].measured[0] == pytest.approx(-4.16, abs=0.01)
    else:
        assert {line.published for line in lines} == {0.2027, 0.2038, 0.2459, 0.2475, 0.24775}
        for line in lines:  # three steps from the middle
            assert line.measured[0] == pytest.approx((0.45**2 + 0.55**2) / 2, abs=1e-3)


def test_agreement_is_within_both_errors() -> None:
    assert Line("", "", 1.0, 0.1, [1.09]).agrees == "yes"
    assert Line("", "", 1.0, 0.1, [1.2]).agrees == "no"
    assert Line("", "", 1.0, 0.1, [1.1, 1.3]).agrees == "yes"  # t interval of two seeds: ± 1.27
    assert Line("", "", 1.0, 0.1, [1.29, 1.3]).agrees == "no"
    assert Line("", "", 1.0, 0.1, [1.0, 2.0]).agrees == "too few seeds"  # ± 6.4


@pytest.mark.parametrize(
    ("words", "said"), [(["relux"], "did you mean 'relax'"), (["--seeds", "0"], "integer of at least 1")]
)
def test_bad_input_is_one_line(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1


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
    assert (rows["value"] > 0.5).all()  # no backward pass is cheaper than half of one
    assert all(name.startswith("gumbel_softmax") for name in rows["estimator"])
    assert main(["library-speed", "--pairs", "1"]) == 2


def test_a_peer_that_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = library_speed.Peer("no-such-package", "x", "rloo", lambda logits, f: lambda: None)
    monkeypatch.setattr(library_speed, "PEERS", [absent])
    assert list(library_speed.measured(2)) == []
