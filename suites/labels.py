"""Labels of estimators with options: `relax`, `relax[temperature=0.5]`, `concrete[temperature=(0.1, 0.001)]`."""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import estimators
from estimators import Estimator

PLAIN = "plain"
"""The label of the baseline: the same network trained without a distribution over architectures."""
RANDOM = "random"
"""The label of a control: weights trained on samples of a uniform q that is never learned, and one of these chosen."""
FIXED = ("uniform", "scratch")
"""Labels of controls for the network that an estimator learned, which the option `of` names. See `suites.accuracy`."""
BASELINES = (PLAIN, RANDOM, *FIXED)


@dataclass(frozen=True)
class Label:
    """A registered name with options, or a baseline; equal labels are equal cells."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        own = _defaults(self.name)
        changed = ((key, value) for key, value in self.options if key not in own or own[key] != value)
        inside = ", ".join(f"{key}={value!r}" for key, value in changed)
        return f"{self.name}[{inside}]" if inside else self.name

    @property
    def of(self) -> Label | None:
        """The label whose learned network this is a control of."""
        return parse(dict(self.options)["of"]) if self.name in FIXED else None

    @property
    def version(self) -> int:
        """The estimator's own version; of a control, that of the estimator it belongs to."""
        if (of := self.of) is not None:
            return of.version
        return 1 if self.name in BASELINES else int(getattr(estimators.factory(self.name), "version", 1))

    def make(self, sizes: Sequence[int]) -> Estimator:
        """The estimator. Raises ValueError where it cannot work."""
        return estimators.get(self.name, sizes=sizes, **dict(self.options))


def parse(text: str) -> Label:
    """A label from what was typed.

    Raises:
        ValueError: unknown name or option (with the nearest), or options that are not `name=literal, …`.
    """
    name, bracket, rest = text.partition("[")
    name = name.strip()
    if bracket and not rest.rstrip().endswith("]"):
        raise ValueError(f"estimator {text!r} lacks its closing bracket")
    if name in (PLAIN, RANDOM) and not bracket:
        return Label(name)
    if name not in FIXED:
        estimators.factory(name)
    options = {}
    if bracket:
        inside = rest.rstrip()[:-1]
        try:
            call = ast.parse(f"f({inside})", mode="eval").body
            assert isinstance(call, ast.Call) and not call.args
            options = {str(keyword.arg): _value(keyword.value) for keyword in call.keywords}
        except (SyntaxError, ValueError, AssertionError):
            raise ValueError(f"the options of {text!r} must read name=value, name=value, …") from None
    if name in FIXED:
        return _control(name, options)
    estimators.check_options(name, options)
    defaults = _defaults(name)
    full = {**defaults, **{key: _like(value, defaults[key]) for key, value in options.items()}}
    return Label(name, tuple(sorted(full.items())))


@functools.cache
def _defaults(name: str) -> dict[str, Any]:
    """Every option of a registered estimator with its default."""
    if name in BASELINES:
        return {}
    parameters = inspect.signature(estimators.factory(name)).parameters.values()
    return {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY}


def _like(value: Any, default: Any) -> Any:
    """A value in the type of the default: 1 where 1.0 is meant, a tuple where a list was written."""
    if isinstance(value, list | tuple):
        return tuple(float(each) if isinstance(each, int) else each for each in value) if default else tuple(value)
    return float(value) if isinstance(default, float) and type(value) is int else value


def _control(name: str, options: dict[str, Any]) -> Label:
    of = options.get("of")
    if set(options) != {"of"} or not isinstance(of, str) or parse(of).name in BASELINES:
        raise ValueError(f"{name} is a control of what an estimator learned, and must read {name}[of=ESTIMATOR]")
    return Label(name, (("of", str(parse(of))),))


def _value(node: ast.expr) -> Any:
    """A literal; a bare word is a string, and `true` and `false` are what they seem."""
    if isinstance(node, ast.Name):
        return {"true": True, "false": False}.get(node.id, node.id)
    return ast.literal_eval(node)
