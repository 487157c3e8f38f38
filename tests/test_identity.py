"""A result is what produced it: what a cell's code is handed, what it reads and what its hash is made of are one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from suites import presets, settings, suite, tasks
from suites.engine.cell import Cell, Workshop
from suites.engine.plan import make_cell
from suites.labels import parse
from suites.settings import Group, Preset, Settings
from suites.tasks.base import Context
from vmo.identity import Identity

TINY = [
    "function.steps=20", "function.estimates=40", "function.ride=2", "polynomial.steps=4", "vae.steps=4",
    "vae.estimates=20", "vae.ride=2", "vae.hidden=8", "vae.latents=3", "trajectory.steps=6", "trajectory.ride=2",
    "train.epochs=1", "truth.minibatches=2", "gradient.budget=40", "overhead.pairs=2", "contest.estimates=9",
    "contest.steps=1", "contest.runs=1", "contest.pairs=2", "counted.depth=10", "counted.widen=1", "counted.batch=4",
    "timed.batch=4", "scaling.batch=4", "network.width_step=16", "train.batch_size=8", "vae.batch_size=8",
    "amortised.steps=4", "amortised.estimates=20", "amortised.ride=2", "amortised.hidden=8", "amortised.batch_size=8",
]  # fmt: skip
READING = ("toy", "polynomial", "vae", "bottleneck", "width")
"""Tasks that read all settings there are: quadratic and multilinear read as toy does, experts, halves, spelling and
hierarchy as bottleneck, depth and joint as width."""


@functools.cache
def preset() -> Preset:
    return presets.resolve("smoke", TINY)


def workshop(out: Path) -> Workshop:
    return Workshop(Context(), out)


def cell(shop: Workshop, task: str, of: str, label: str, how: Preset | None = None) -> Cell:
    return make_cell(shop, how or preset(), shop.task(task), suite.get(of), parse(label), 0)


def pairs(names: tuple[str, ...], label: str) -> list[tuple[str, str]]:
    shop = workshop(Path())
    found = [(task, of) for task in names for of in suite.available()]
    return [(task, of) for task, of in found if suite.get(of).applies(shop.task(task), parse(label))]


def other(group: Group, name: str) -> Any:
    """Another value that the field may have."""
    value, kind = getattr(group, name), type(group).model_fields[name].annotation
    if get_origin(kind) is Literal:
        return next(word for word in get_args(kind) if word != value)
    if name == "weights":
        return "hard" if value == "own" else "own"
    if name == "depth":
        return value + 6
    if isinstance(value, bool):
        return not value
    if name == "values":
        return value + 1
    return value + 1 if isinstance(value, int) else value / 2 + 0.125


@pytest.mark.parametrize("label", ["rloo", "plain"])
@pytest.mark.parametrize("task", tasks.available())
def test_a_hash_is_made_of_every_setting_that_is_handed_over_and_of_no_other(task: str, label: str, tmp_path: Path):
    shop = workshop(tmp_path)
    for _, of in pairs((task,), label):
        before = cell(shop, task, of, label)
        handed = set(settings.dotted(before.settings))
        for name, group in preset().groups.items():
            for field in type(group).model_fields:
                dotted = f"{name}.{field}"
                if dotted == "train.freeze":  # at most as long as the run
                    after = cell(shop, task, of, label, preset().with_({"train.freeze": 1}))
                elif dotted == "train.held_out":  # where the weights have a pass of their own
                    base = preset().with_({"train.weights": "hard"})
                    before_it, after = (cell(shop, task, of, label, p) for p in (base, base.with_({dotted: 0.5})))
                    assert (after.hash != before_it.hash) == (dotted in handed), of
                    continue
                else:
                    after = cell(shop, task, of, label, preset().with_({dotted: other(group, field)}))
                assert (after.hash != before.hash) == (dotted in handed), (of, dotted)


def test_a_hash_is_made_of_versions_options_seed_device_and_data(tmp_path: Path):
    one = cell(workshop(tmp_path), "width", "accuracy", "rloo")
    assert one.data is not None
    others = [
        replace(one, seed=1),
        replace(one, device="cuda"),
        replace(one, suite="bias"),
        replace(one, suite_version=2),
        replace(one, task="depth"),
        replace(one, task_version=2),
        replace(one, label=parse("rloo[samples=4]")),
        replace(one, label=parse("reinforce")),
        replace(one, uses=(("concrete", 1),)),
        replace(one, data=Identity("digits", "0" * 16, one.data.dataset, one.data.note)),
        replace(one, data=None),
    ]
    hashes = [each.hash for each in (one, *others)]
    assert len(set(hashes)) == len(hashes)
    renamed = replace(one, preset=("another", "another", ()))
    assert renamed.hash == one.hash, "what a preset is called is not what it is"
    assert replace(one, data=Identity("x", one.data.content, "another name", "a note")).hash == one.hash


def recording(model: Settings, log: set[str]) -> Settings:
    """The same settings, which write down what is read of them."""
    views = {}
    for group in type(model).model_fields:
        view = getattr(model, group)

        kind = type(type(view))(
            f"Recorded{type(view).__name__}", (type(view),), {"__getattribute__": reader(type(view), group, log)}
        )
        views[group] = kind.model_construct(**view.model_dump())
    return type(model).model_construct(**views)


def reader(kind: type[Settings], group: str, log: set[str]) -> Callable[[Any, str], Any]:
    """An attribute look-up that writes down the settings it is asked for."""

    def read(self: Any, name: str) -> Any:
        if name in kind.model_fields:
            log.add(f"{group}.{name}")
        return super(kind, self).__getattribute__(name)

    return read


def recorded(one: Cell, log: set[str]) -> Cell:
    return replace(
        one,
        own=recording(one.own, log),
        handed=tuple((role, recording(how, log)) for role, how in one.handed),
    )


@pytest.mark.parametrize(("task", "of"), pairs(READING, "relax"))
def test_what_a_cell_reads_is_what_its_hash_is_made_of(task: str, of: str, tmp_path: Path):
    if of == "sampling":
        pytest.skip("depends on no settings")
    if suite.get(of).follows is not None:
        pytest.skip("its hash is made of what the run reads whose network it measures")
    read: set[str] = set()
    handed: set[str] = set()
    for label in ("relax", "plain"):  # relax learns, and so has a use for every learning rate
        shop = workshop(tmp_path / label)
        if not suite.get(of).applies(shop.task(task), parse(label)):
            continue
        one, log = cell(shop, task, of, label), set()
        assert suite.get(of).run(shop.job(recorded(one, log)))
        mine = set(settings.dotted(one.settings))
        assert log <= mine
        read |= log
        handed |= mine
    assert read == handed


def test_rows_have_the_metrics_that_a_suite_declares(tmp_path: Path):
    shop = workshop(tmp_path)
    for of in ("bias", "variance", "memory", "overhead", "accuracy"):
        found = suite.get(of).run(shop.job(cell(shop, "toy", of, "rloo")))
        assert {row["metric"] for row in found} <= set(suite.get(of).measures)


def test_a_role_that_a_suite_did_not_ask_for_cannot_be_reached(tmp_path: Path):
    shop = workshop(tmp_path)
    job = shop.job(cell(shop, "toy", "memory", "rloo"))
    with pytest.raises(KeyError, match="run"):
        job.task.run(None, 0, job.keeper)
    assert not hasattr(job.settings, "function")
