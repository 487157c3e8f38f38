"""A colour and a marker for every estimator, the same in every figure, and none of them from a list.

The hue, the lightness and the marker come from a hash of the name, so that a new estimator has its own without anyone
choosing it and without moving the others. The salt of that hash was searched for: among six million it keeps the names
known when it was chosen furthest apart (see ``tests/test_results_plots.py``). A label with options has the hue of
its name, a lightness apart from it and a marker of its own. Colours are OKLCH (Ottosson 2020), where equal steps
look equal, dark enough to print.
"""

from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

_SALT = "891968"
_LIGHTNESS = (0.42, 0.56, 0.70)
_DARKEST, _LIGHTEST, _APART = 0.3, 0.78, 0.08
_CHROMA = 0.15
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p", "<", ">")
# What is no estimator but a reference to compare them with is grey.
_REFERENCES = {"plain": 0.36, "zero": 0.68, "random": 0.5, "uniform": 0.6, "scratch": 0.45}


class Look(NamedTuple):
    """How an estimator is drawn: its label, as rows have it, and its name without options."""

    label: str
    name: str

    @property
    def colour(self) -> str:
        """As ``#rrggbb``."""
        return colour(self.label, self.name)

    @property
    def marker(self) -> str:
        """A name that matplotlib knows."""
        return marker(self.label)


def looks(rows: pd.DataFrame) -> dict[str, Look]:
    """The look of every estimator of some rows, by its label."""
    pairs = rows[["estimator", "name"]].drop_duplicates("estimator")
    return {str(label): Look(str(label), str(name)) for label, name in pairs.itertuples(index=False)}


def colour(label: str, name: str) -> str:
    """The colour of an estimator's label and name, as ``#rrggbb``."""
    first, second, third, *_ = _hash(name)
    lightness = _REFERENCES.get(name, _LIGHTNESS[third % 3])
    if name != label:  # anywhere on the scale but near that of the name alone
        below, above = max(0.0, lightness - _APART - _DARKEST), max(0.0, _LIGHTEST - lightness - _APART)
        at = _hash(label)[6] / 256 * (below + above)
        lightness = _DARKEST + at if at < below else lightness + _APART + at - below
    if name in _REFERENCES:
        return _oklch(lightness, 0.0, 0.0)
    return _oklch(lightness, _CHROMA, 2 * np.pi * (256 * first + second) / 65536)


def marker(label: str) -> str:
    """The marker of an estimator's label, a name that matplotlib knows."""
    return "o" if label in ("plain", "zero") else MARKERS[_hash(label)[3] % len(MARKERS)]


def _hash(name: str) -> bytes:
    return blake2b(name.encode(), salt=_SALT.encode(), digest_size=8).digest()


def oklab(hexadecimal: str) -> np.ndarray:
    """(3,) coordinates in which the Euclidean distance is about what the eye sees; a step just visible is 0.02."""
    srgb = np.array([int(hexadecimal[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.linalg.inv(_TO_LMS) @ np.cbrt(np.linalg.inv(_TO_RGB) @ linear)


_TO_LMS = np.array(
    [[1, 0.3963377774, 0.2158037573], [1, -0.1055613458, -0.0638541728], [1, -0.0894841775, -1.2914855480]]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def _oklch(lightness: float, chroma: float, hue: float) -> str:
    """The colour, with the chroma lowered until the screen can show it."""
    for part in np.linspace(1, 0, 21):
        lab = lightness, part * chroma * np.cos(hue), part * chroma * np.sin(hue)
        linear = _TO_RGB @ (_TO_LMS @ lab) ** 3
        if (linear >= -1e-6).all() and (linear <= 1 + 1e-6).all():
            break
    linear = linear.clip(0, 1)
    return to_hex(np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055).clip(0, 1))


def on_dark(hexadecimal: str) -> str:
    """The same hue, light enough for a dark page: lightness from 0.3 to 0.78 becomes one from 0.6 to 0.88."""
    lightness, a, b = oklab(hexadecimal)
    lifted = 0.6 + (lightness - _DARKEST) * (0.88 - 0.6) / (_LIGHTEST - _DARKEST)
    return _oklch(lifted, float(np.hypot(a, b)), float(np.arctan2(b, a)))


def shade(name: str, position: float) -> str:
    """A shade of the hue of an estimator's name, from light at 0 to dark at 1."""
    a, b = oklab(colour(name, name))[1:]
    return _oklch(0.75 - 0.4 * position, _CHROMA, float(np.arctan2(b, a)))
