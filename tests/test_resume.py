"""A run that is killed goes on from the checkpoint of its cell, to the bit; and from no other's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making import cell, planned, workshop

from suites import rivals, suite, tasks
from suites.engine.cell import Workshop
from suites.engine.execute import execute
from vmo import checkpoint

FUNCTION = ("function.steps=30",)
VAE = ("vae.latents=2", "vae.categories=3", "vae.hidden=8", "vae.layers=1", "vae.steps=12", "vae.batch_size=16")
AMORTISED = ("amortised.hidden=8", "amortised.steps=12", "amortised.batch_size=16")
NETWORK = ("train.epochs=2", "train.batch_size=256", "train.freeze=1")
SETTINGS = {
    **dict.fromkeys(("toy", "quadratic", "multilinear"), FUNCTION),
    "polynomial": ("polynomial.steps=12", "polynomial.categories=3"),
    "vae": VAE,
    **dict.fromkeys(("bottleneck", "experts", "halves", "spelling", "hierarchy"), AMORTISED),
    **dict.fromkeys(("depth", "width", "joint"), NETWORK),
}
RUNS = [(task, "relax", ()) for task in SETTINGS] + [
    ("toy", "rloo", ()),
    ("width", "plain", ()),
    ("joint", "random", ()),
    ("width", "concrete", ("penalty.target_macs=0.6",)),
    ("depth", "rebar", ("train.weights=soft", "train.phi_optimizer=sgd")),
    ("width", "rloo", ("train.weights=mode", "train.held_out=0.25", "train.recipe=fast")),
    ("joint", "concrete", ("train.continued=1",)),
]
RIVALS = [("width", name, ("penalty.target_macs=0.6", "train.freeze=0")) for name in rivals.available()]


def test_every_task_is_tried() -> None:
    assert set(tasks.available()) == {task for task, *_ in RUNS}


class Killed(BaseException):
    """What ends a run here, so that nothing takes it for an error of the run."""


def run(shop: Workshop, task: str, label: str, *settings: str) -> list[dict[str, Any]]:
    """The rows of the accuracy suite."""
    return suite.get("accuracy").run(shop.job(cell(shop, task, "accuracy", label, *settings)))


@pytest.mark.parametrize(("task", "label", "more"), [*RUNS, *RIVALS])
def test_a_run_killed_half_way_ends_as_if_it_had_not_been(
    task: str, label: str, more: tuple[str, ...], tmp_path: Path
) -> None:
    """Rows and the last checkpoint: weights, logits, what was learned, optimizers, generators and the curve."""
    given = {text.partition("=")[0]: text for text in (*SETTINGS[task], *more)}
    settings, seen, kill = tuple(given.values()), [], True

    def progress(what: str, done: int, total: int) -> None:
        seen.append(done)
        if kill and done > 0.7 * total:  # of a network's two epochs within the second
            raise Killed

    def shop(name: str, **context: Any) -> Workshop:
        return Workshop(workshop(tmp_path, **context).context, tmp_path / name, seconds=0.0)

    straight = run(shop("straight"), task, label, *settings)
    with pytest.raises(Killed):
        run(shop("killed", progress=progress), task, label, *settings)
    last, kill = seen[-1], False
    seen.clear()
    assert run(shop("killed", progress=progress), task, label, *settings) == straight
    assert seen[0] >= last - 1, "it began anew"
    files = sorted((tmp_path / "straight" / "checkpoints").iterdir())
    assert [file.name for file in files] == [f"{cell(shop('x'), task, 'accuracy', label, *settings).run}.safetensors"]
    for file in files:
        same(checkpoint.load(file), checkpoint.load(tmp_path / "killed" / "checkpoints" / file.name))


def same(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict | list):
        assert len(one) == len(other)
        for key in one if isinstance(one, dict) else range(len(one)):
            same(one[key], other[key])
    else:
        assert one == other


# --- other data -----------------------------------------------------------------------------------------------------


def images(root: Path, seed: int) -> Path:
    """A folder with a file of forty images, whose name says nothing of them."""
    random = np.random.default_rng(seed)
    root.mkdir(exist_ok=True)
    pixels = random.integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(root / "mine.npz", images=pixels, labels=np.arange(40) % 10)
    return root


SMALL = {"width": ("train.epochs=1", "train.batch_size=8"), "vae": VAE}


@pytest.mark.parametrize("task", ["width", "vae"])
def test_other_data_by_the_same_name_are_another_cell(task: str, tmp_path: Path) -> None:
    """Wherever data are read, and nowhere else."""
    one, other = (
        workshop(tmp_path / "out", dataset="mine.npz", data_root=images(tmp_path / str(seed), seed)) for seed in (0, 1)
    )
    reads = set()
    for of in suite.available():
        if suite.get(of).roles and set(suite.get(of).roles) <= set(tasks.factory(task).roles):
            pair = [cell(shop, task, of, "rloo", *SMALL[task]) for shop in (one, other)]
            assert pair[0].run != pair[1].run or pair[0].data is None
            if pair[0].hash != pair[1].hash:
                reads.add(of)
    assert {"bias", "variance", "accuracy"} <= reads
    assert not reads & {"memory", "overhead", "scaling"}
    assert cell(one, "toy", "accuracy", "rloo") == cell(other, "toy", "accuracy", "rloo")


@pytest.mark.parametrize("task", ["width", "vae"])
def test_a_checkpoint_of_other_data_is_not_resumed(task: str, tmp_path: Path) -> None:
    one, other = (
        workshop(tmp_path / "out", dataset="mine.npz", data_root=images(tmp_path / str(seed), seed)) for seed in (0, 1)
    )
    first, second = (cell(shop, task, "accuracy", "rloo", *SMALL[task]) for shop in (one, other))
    found = suite.get("accuracy").run(one.job(first))
    assert suite.get("accuracy").run(other.job(second)) != found, "they are other data"
    checkpoints = tmp_path / "out" / "checkpoints"
    (checkpoints / f"{first.run}.safetensors").replace(checkpoints / f"{second.run}.safetensors")
    with pytest.raises(ValueError, match=rf"whose data is '{first.data.content}', and this one's is") as caught:  # type: ignore[union-attr]
        suite.get("accuracy").run(other.job(second))
    assert "\n" not in str(caught.value)


def test_data_that_have_changed_since_the_plan_are_refused(tmp_path: Path) -> None:
    """No row is written under the hash of data that were not read."""
    root = images(tmp_path / "data", 0)
    items = planned(
        workshop(tmp_path, dataset="mine.npz", data_root=root), "width", ["rloo"], ["accuracy"], *SMALL["width"]
    )
    was = items[0].cell.data
    images(root, 1)
    anew = workshop(tmp_path, dataset="mine.npz", data_root=root)
    with pytest.raises(ValueError, match=r"mine\.npz is another data set here: content"):
        anew.job(items[0].cell)
    found = list(execute(items, anew, tmp_path / "rows"))
    assert {done.status for done in found} == {"error"}
    assert all(was is not None and was.content in str(done.message) for done in found)
    assert not (tmp_path / "checkpoints").exists()
