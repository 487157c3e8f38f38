"""Settings: what a preset is made of, how it is changed, and how what it cannot be is refused in one line."""

import pickle
import re
from collections.abc import Iterator
from typing import ClassVar

import pytest
from pydantic import Field, ValidationError

from suites import presets, settings, tasks
from suites.run import main
from suites.settings import Group, Settings
from suites.tasks.network_settings import Penalty, PlainStep, Train
from suites.tasks.toy import Toy


class Part(Settings):
    """A view."""

    size: int = Field(3, ge=1)
    """How many."""


class Whole(Part, Group, name="whole"):
    """A group."""

    rate: float = Field(0.5, ge=0, le=1)
    """How fast."""
    presets: ClassVar = {"smoke": {"rate": 0.25}}


class OfPart(Settings):
    """What some code is handed."""

    whole: Part


class OfWhole(Settings):
    """What other code is handed."""

    whole: Whole


# --- presets and groups ---------------------------------------------------------------------------------------------


def test_a_preset_has_the_values_that_its_groups_declare() -> None:
    for name, rate in (("smoke", 0.25), ("quick", 0.5)):
        handed = settings.resolve(name, [Whole]).hand(OfWhole)
        assert handed.whole == Whole(rate=rate)
    assert settings.resolve("smoke", [Whole], ["whole.rate=1", "whole.size=7"]).groups["whole"] == Whole(size=7, rate=1)


def test_what_is_handed_over_has_the_fields_of_its_view_and_no_others() -> None:
    handed = settings.resolve("smoke", [Whole]).hand(OfPart)
    assert type(handed.whole) is Part and not hasattr(handed.whole, "rate")
    plain = presets.resolve("smoke").groups["train"]
    assert not hasattr(settings.narrow(plain, PlainStep), "phi_lr")
    assert settings.identity([handed]) == {"whole": {"size": 3}}
    assert settings.dotted(settings.identity([handed, OfWhole(whole=Whole())])) == ["whole.rate", "whole.size"]


def test_settings_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        presets.resolve("smoke").groups["train"].lr = 1.0  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        presets.resolve("smoke").groups["train"] = Train()  # type: ignore[index]


def test_a_label_names_what_was_changed_of_what_is_read() -> None:
    preset = presets.resolve("smoke", ["train.epochs=3", "penalty.gamma=0.1"])
    names = [f"{group}.{name}" for group, found in preset.groups.items() for name in type(found).model_fields]
    label, changed = preset.label(names)
    assert label == "smoke[penalty.gamma=0.1, train.epochs=3]"
    assert changed == {"penalty.gamma": 0.1, "train.epochs": 3}
    assert preset.label(["penalty.gamma", "train.lr"]) == ("smoke[penalty.gamma=0.1]", {"penalty.gamma": 0.1})
    assert preset.label(["train.lr"]) == ("smoke", {})


def test_a_value_that_is_the_presets_own_is_no_change() -> None:
    preset = presets.resolve("smoke", ["train.epochs=3"])
    assert preset.changed == {"train.epochs": 3}
    assert preset.with_({"train.epochs": 2}).changed == {}
    assert presets.resolve("smoke", ["train.epochs=2", "penalty.gamma=0.30"]).changed == {}
    assert preset.with_({"train.lr": 0.2}).changed == {"train.epochs": 3, "train.lr": 0.2}


def test_a_preset_can_be_sent_to_another_process() -> None:
    preset = presets.resolve("cpu", ["train.epochs=3"])
    assert pickle.loads(pickle.dumps(preset)) == preset


def test_what_this_machine_cannot_do_is_a_change_and_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("suites.tasks.network_settings.native_bf16", lambda: False)
    assert presets.resolve("cpu").changed == {"train.bf16": False}
    assert presets.resolve("cpu", ["train.bf16=true"]).changed == {}
    monkeypatch.setattr("suites.tasks.network_settings.native_bf16", lambda: True)
    assert presets.resolve("cpu").changed == {}


def test_every_group_has_values_at_every_preset_that_it_names() -> None:
    for name in presets.PRESETS:
        for group in presets.groups():
            assert set(group.presets) <= set(presets.PRESETS)
            assert group.at(name)
    assert all(info.description for group in presets.groups() for info in group.model_fields.values())


@pytest.fixture
def another_penalty() -> Iterator[None]:
    """A registered task whose group has the name of one that there is."""

    class Fine(Group, name="penalty"):
        """Another penalty."""

        gamma: float = 1.0
        """Another gamma."""

    class Another(Toy):
        name = "another"
        groups = (*Toy.groups, Fine)

    tasks.register("another", Another)
    yield
    del tasks._REGISTRY["another"]


def test_two_groups_of_one_name_are_refused(another_penalty: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="two groups of settings have the name 'penalty'"):
        presets.resolve("smoke")
    assert main(["--estimator", "rloo", "--task", "toy", "--dry-run"]) == 2
    assert capsys.readouterr().err == "error: two groups of settings have the name 'penalty'\n"
    settings.resolve("smoke", [Penalty, Penalty])  # the same one twice is what two tasks share


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("train.epoch=2", "no setting 'train.epoch', did you mean 'train.epochs'?"),
        ("penalti.gamma=2", "no setting 'penalti.gamma', did you mean 'penalty.gamma'?"),
        ("epochs=2", "no setting 'epochs', did you mean 'train.epochs'?"),
        ("gamma=2", "no setting 'gamma', did you mean 'penalty.gamma'?"),
        ("depth=16", "no setting 'depth', did you mean 'network.depth' or 'timed.depth' or 'counted.depth'?"),
        ("batch_size=2", "no setting 'batch_size', did you mean 'vae.batch_size' or 'amortised.batch_size'"),
        ("nothing.like.this=2", "no setting 'nothing.like.this'; --help lists every setting"),
        ("train.epochs", "a setting must be written as GROUP.FIELD=VALUE, got 'train.epochs'"),
        ("train=2", "no setting 'train'"),
        ("train.epochs=0", "setting train.epochs: input should be greater than or equal to 1, got '0'"),
        ("train.epochs=2.5", "setting train.epochs: input should be a valid integer"),
        ("train.epochs=", "setting train.epochs: input should be a valid integer"),
        ("train.freeze=99", "setting train: freeze=99 exceeds the 2 epochs of train.epochs"),
        ("train.lr=-1", "setting train.lr: input should be greater than or equal to 0, got '-1'"),
        ("train.bf16=maybe", "setting train.bf16: input should be a valid boolean"),
        ("train.phi_optimizer=foo", "setting train.phi_optimizer: input should be 'adam' or 'sgd', got 'foo'"),
        (
            "train.weights=nonsense",
            "setting train.weights: must be own, mode, hard, soft or an estimator: no",
        ),
        (
            "train.weights=plain",
            "setting train.weights: must be own, mode, hard, soft or an estimator, and plain is",
        ),
        ("penalty.gamma=1e400", "setting penalty.gamma: input should be a finite number, got '1e400'"),
        ("penalty.gamma=nan", "setting penalty.gamma: input should be a finite number, got 'nan'"),
        ("penalty.kind=mac", "setting penalty.kind: input should be 'macs', 'parameters' or 'literal', got 'mac'"),
        ("penalty.target_macs=1.5", "setting penalty.target_macs: input should be less than or equal to 1, got '1.5'"),
        ("network.depth=11", "setting network.depth: a Wide ResNet has 6n + 4 layers (10, 16, 22, 28, …), got '11'"),
        ("network.depth=4", "setting network.depth: a Wide ResNet has 6n + 4 layers (10, 16, 22, 28, …), got '4'"),
        ("gradient.estimates=3", "setting gradient.estimates: input should be greater than or equal to 20, got '3'"),
    ],
)
def test_what_a_setting_cannot_be_is_one_line(assignment: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Which setting, what it may be and what was given, before anything runs; by the command line as well."""
    with pytest.raises(ValueError, match=re.escape(said)):
        presets.resolve("smoke", [assignment])
    assert main(["--estimator", "rloo", "--task", "toy", "--preset", "smoke", "--dry-run", "--set", assignment]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("error: ") and told.err.count("\n") == 1
    assert said in told.err


def test_a_setting_given_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    said = "setting train.epochs is given twice: 2 and 3"
    with pytest.raises(ValueError, match=said):
        presets.resolve("smoke", ["train.epochs=2", "train.lr=0.1", "train.epochs=3"])
    words = ["--estimator", "rloo", "--task", "toy", "--preset", "smoke", "--dry-run", "--target-macs", "0.5"]
    assert main([*words, "--set", "penalty.target_macs=0.6"]) == 2
    assert capsys.readouterr().err == "error: setting penalty.target_macs is given twice: 0.6 and 0.5\n"


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(ValueError, match="no preset 'smok', did you mean 'smoke'"):
        presets.resolve("smok")


def test_of_several_settings_the_whole_is_checked() -> None:
    """A freeze is as long as the run that it is given with, not the one that it is given after."""
    group = presets.resolve("smoke", ["train.freeze=5", "train.epochs=6"]).groups["train"]
    assert (group.freeze, group.epochs) == (5, 6)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="freeze=5 exceeds the 4 epochs"):
        presets.resolve("smoke", ["train.freeze=5", "train.epochs=6"]).with_({"train.epochs": 4})
