"""The options of an estimator: keyword-only parameters whose types and ranges are declared in its signature.

    def __init__(self, sizes: Sequence[int], *, samples: Several = 2, temperature: Temperatures = 1.0) -> None

Options are checked against the signature and converted to one form before the estimator is made.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import operator
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Range:
    """The allowed range of a number, or of every number of a tuple."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def __contains__(self, x: float) -> bool:
        above = (self.gt is None or x > self.gt) and (self.ge is None or x >= self.ge)
        return above and (self.lt is None or x < self.lt) and (self.le is None or x <= self.le)

    def __str__(self) -> str:
        ends = (("> ", self.gt), ("≥ ", self.ge), ("< ", self.lt), ("≤ ", self.le))
        return " and ".join(f"{sign}{end:g}" for sign, end in ends if end is not None)


class Inner:
    """Marks the label of another estimator."""


Positive = Annotated[float, Range(gt=0)]
Decay = Annotated[float, Range(ge=0, lt=1)]
"""The decay of a moving average, per step."""
Count = Annotated[int, Range(ge=1)]
Several = Annotated[int, Range(ge=2)]
Temperatures = Annotated[float | tuple[float, float] | tuple[float, float, Literal["linear", "entropy"]], Range(gt=0)]
"""A temperature or its schedule, see `estimators.base.Temperature`."""
Of = Annotated[str, Inner()]


def resolve(name: str, make: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of an estimator in one form: the given values, and defaults for the rest.

    An integer given for a real number becomes a float, and a list becomes a tuple.

    Args:
        name: the estimator's name, for messages.
        make: its class.
        given: options by name.

    Raises:
        ValueError: an unknown option (the message suggests the nearest), a wrong type or a value out of range. The
            message is one line with the estimator, the option, its range and the value.
    """
    known = _declared(make)
    for option in given:
        if option not in known:
            hint = f"its options are {', '.join(known)}" if known else "it has no options"
            raise ValueError(f"estimator {name!r} has no option {option!r}{nearest(option, known)}; {hint}")
    return {
        option: _canonical(name, option, hint, given.get(option, default)) for option, (hint, default) in known.items()
    }


def defaults(make: Callable[..., Any]) -> dict[str, Any]:
    """The options of an estimator and their defaults."""
    return resolve("", make, {})


def inner(make: Callable[..., Any]) -> tuple[str, ...]:
    """The options that are labels of other estimators."""
    hints = ((option, get_args(hint)) for option, (hint, _) in _declared(make).items())
    return tuple(option for option, marks in hints if any(isinstance(mark, Inner) for mark in marks))


def nearest(name: str, names: Iterable[str]) -> str:
    """The text `, did you mean 'x'?`, or an empty text if no name is close."""
    close = difflib.get_close_matches(name, list(names), n=1)
    return f", did you mean {close[0]!r}?" if close else ""


@functools.cache
def _declared(make: Callable[..., Any]) -> dict[str, tuple[Any, Any]]:
    """Type hint and default of each option. An option without a hint is not checked."""
    parameters = inspect.signature(make).parameters.values()
    source = make.__init__ if inspect.isclass(make) else make
    try:
        hints = get_type_hints(source, include_extras=True)
    except Exception:  # names that only a type checker sees
        hints = {}
    return {p.name: (hints.get(p.name, Any), p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}


def _canonical(name: str, option: str, hint: Any, value: Any) -> Any:
    marks: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *found = get_args(hint)
        marks = tuple(found)
    arms = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    for arm in arms:
        accepted, result = _as(arm, value)
        if accepted and all(_within(mark, result) for mark in marks if isinstance(mark, Range)):
            return result
    limits = " ".join(str(mark) for mark in marks if isinstance(mark, Range))
    wanted = " or ".join(_described(arm) for arm in arms) + (f" {limits}" if limits else "")
    raise ValueError(f"{name}: {option} must be {wanted}, got {value!r}")


def _as(arm: Any, value: Any) -> tuple[bool, Any]:
    """Whether a value fits a type, and the value converted to that type."""
    if arm is Any:
        return True, value
    if arm is None or arm is type(None):
        return value is None, None
    if get_origin(arm) is Literal:
        return value in get_args(arm), value
    if arm is bool or arm is str:
        return isinstance(value, arm), value
    if isinstance(value, bool):
        return False, value
    if arm is int:
        return hasattr(value, "__index__"), operator.index(value) if hasattr(value, "__index__") else value
    if arm is float:
        number = isinstance(value, int | float) or (hasattr(value, "__float__") and not isinstance(value, str))
        return (math.isfinite(value), float(value)) if number else (False, value)
    if get_origin(arm) in (tuple, Sequence):
        return _as_tuple(get_args(arm), value)
    return True, value


def _as_tuple(kinds: tuple[Any, ...], value: Any) -> tuple[bool, Any]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False, value
    of = kinds if len(kinds) > 1 and kinds[1] is not Ellipsis else kinds[:1] * len(value)
    pairs = [_as(kind, one) for kind, one in zip(of, value, strict=False)]
    return len(of) == len(value) and all(fits for fits, _ in pairs), tuple(one for _, one in pairs)


def _within(limits: Range, value: Any) -> bool:
    numbers = value if isinstance(value, tuple) else (value,)
    return all(one in limits for one in numbers if one is not None and not isinstance(one, str))


def _described(arm: Any) -> str:
    if arm is None or arm is type(None):
        return "None"
    if get_origin(arm) is Literal:
        return " or ".join(map(repr, get_args(arm)))
    if get_origin(arm) in (tuple, Sequence):
        kinds = get_args(arm)
        if Ellipsis in kinds or len(kinds) == 1:
            return "several whole numbers"
        return "a pair of numbers" + "".join(f" and {_described(kind)}" for kind in kinds[2:])
    return {int: "a whole number", float: "a number", bool: "true or false", str: "a word"}.get(arm, str(arm))
