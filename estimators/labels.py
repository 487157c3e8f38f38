"""Labels: the written form of an estimator and its options.

    rloo    rloo[samples=4]    concrete[temperature=(0.5, 0.1)]    averaged[of=rloo[samples=4], samples=2]

A value is a number, `true` or `false`, `None`, a word with or without quotes, a tuple of these in parentheses, or the
label of another estimator. An omitted option has its default, so `rloo` and `rloo[samples=2]` are equal.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import estimators
from estimators import options
from estimators.base import Estimator

Options = tuple[tuple[str, Any], ...]

_WORDS = {"true": True, "True": True, "false": False, "False": False, "None": None}
_QUOTES = "'\""
_PAIRS = {"[": "]", "(": ")"}


@dataclass(frozen=True)
class Label:
    """A registered estimator with all of its options, sorted by name.

    As text it shows only the options that differ from their defaults.
    """

    name: str
    options: Options = ()

    def __str__(self) -> str:
        usual = options.defaults(estimators.factory(self.name))
        own = [f"{key}={value!r}" for key, value in self.options if usual[key] != value]
        return f"{self.name}[{', '.join(own)}]" if own else self.name

    @property
    def version(self) -> int:
        """The version of this estimator, not of estimators inside it."""
        return int(getattr(estimators.factory(self.name), "version", 1))

    @property
    def inside(self) -> tuple[Label, ...]:
        """The estimators nested inside it, outermost first."""
        of = dict(self.options).get("of")
        if of is None:
            return ()
        inner = parse(of)
        return inner, *inner.inside

    def make(self, sizes: Sequence[int]) -> Estimator:
        """The estimator. Raises ValueError if it cannot work on these sizes."""
        return estimators.get(self.name, sizes=sizes, **dict(self.options))


def parse(text: str) -> Label:
    """Read a label from text.

    Raises:
        ValueError: a text that is not a label, an unknown name or option (the message suggests the nearest), an option
            given twice, of the wrong type or out of range. The message is one line.
    """
    name, given = split(text)
    make = estimators.factory(name)
    resolved = options.resolve(name, make, given)
    resolved |= {option: str(parse(resolved[option])) for option in options.inner(make)}
    return Label(name, tuple(sorted(resolved.items())))


def split(text: str) -> tuple[str, dict[str, Any]]:
    """The name and the options of a label as written, without checking that they exist."""
    name, bracket, rest = text.strip().partition("[")
    if not bracket:
        return name, {}
    if not rest.endswith("]"):
        raise ValueError(f"estimator {text!r} lacks its closing bracket")
    given: dict[str, Any] = {}
    for part in _parts(rest[:-1], text):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals or not key.isidentifier() or not value:
            raise ValueError(f"the options of {text!r} must be written as name=value, name=value, …")
        if key in given:
            raise ValueError(f"option {key!r} of {text!r} is given twice")
        given[key] = _value(value, text)
    return name.strip(), given


def _parts(inside: str, text: str) -> Iterator[str]:
    """Split at commas that are not inside brackets, parentheses or quotes."""
    open_: list[str] = []
    quote, part = "", ""
    for sign in inside:
        if quote:
            quote = "" if sign == quote else quote
        elif sign in _QUOTES:
            quote = sign
        elif sign in _PAIRS:
            open_.append(_PAIRS[sign])
        elif sign in _PAIRS.values() and (not open_ or open_.pop() != sign):
            raise ValueError(f"estimator {text!r} has a {sign!r} without its opening partner")
        if sign == "," and not open_ and not quote:
            yield part
            part = ""
        else:
            part += sign
    if open_ or quote:
        raise ValueError(f"estimator {text!r} lacks a closing {open_[-1] if open_ else quote!r}")
    if part.strip():
        yield part


def _value(word: str, text: str) -> Any:
    if word in _WORDS:
        return _WORDS[word]
    if word[0] in "'\"([+-." or word[0].isdigit():
        try:
            return ast.literal_eval(word)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise ValueError(f"{word!r} in {text!r} is not a valid value") from None
    return word
