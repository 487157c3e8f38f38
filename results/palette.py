"""A colour and a marker for every estimator, the same in every figure.

A family of estimators has a hue and a marker, and its members have tints of that hue, so that a figure shows the
family before one reads a name. The hues stay apart in every common kind of colour blindness, and the markers in grey.
A label with options has a tint of its own, from a hash of the label; so has a name that is in no list. The salt of
that hash was searched for: it keeps apart the variants that stand in one figure (see
``tests/test_results_palette.py``). Colours are OKLCH (Ottosson 2020), where equal steps look equal, dark enough to
print.
"""

from hashlib import blake2b
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from results import families

CONTEXT = "#c9c9c9"
"""Of what a figure shows and does not name."""
_SALT = "127713"
_DARKEST, _LIGHTEST, _APART = 0.36, 0.80, 0.08
_INK = 0.58
# hue in degrees, chroma, marker, and the lightness of the darkest and the lightest member
_LOOKS = {
    "score function": (255, 0.15, "o", 0.36, 0.69),
    "control variates": (158, 0.14, "s", 0.56, 0.78),
    "antithetic, coupled": (335, 0.15, "D", 0.44, 0.68),
    "sweep, enumeration": (85, 0.15, "^", 0.52, 0.81),
    "biased, through the sample": (38, 0.16, "v", 0.31, 0.79),
    "others": (300, 0.06, "P", 0.36, 0.60),
    "baselines": (0, 0.0, "X", 0.30, 0.66),
}


class Look(NamedTuple):
    """How an estimator is drawn: its label, as rows have it, and its name without options."""

    label: str
    name: str

    @property
    def family(self) -> str:
        """One of `families.FAMILIES`."""
        return families.family(self.label, self.name)

    @property
    def colour(self) -> str:
        """As ``#rrggbb``."""
        return colour(self.label, self.name)

    @property
    def marker(self) -> str:
        """A name that matplotlib knows."""
        return _LOOKS[self.family][2]

    @property
    def ink(self) -> str:
        """The colour of its name."""
        return _ink(self.colour)

    @property
    def text(self) -> str:
        """The label in words: ``sweep, rate 0.5, no slopes``."""
        return text(self.label)


def looks(rows: pd.DataFrame) -> dict[str, Look]:
    """The look of every estimator of some rows, by its label."""
    pairs = rows[["estimator", "name"]].drop_duplicates("estimator")
    return {str(label): Look(str(label), str(name)) for label, name in pairs.itertuples(index=False)}


def text(label: str) -> str:
    """A label as figures write it, its options in words."""
    name = label.partition("[")[0]
    return ", ".join([name, *(_option(*option.partition("=")) for option in options(label))])


def options(label: str) -> list[str]:
    """What stands between the outer brackets of a label, taken apart at the commas that are in no bracket."""
    parts, depth = [""], 0
    for letter in label.partition("[")[2].removesuffix("]"):
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts if part.strip()]


def _option(key: str, _: str, value: str) -> str:
    key = key.replace("_", " ")
    return {"True": key, "False": f"no {key}"}.get(value, f"{key} {value.strip(chr(39))}")


def family_colour(family: str) -> str:
    """The colour of a family as a whole."""
    hue, chroma, _, darkest, lightest = _LOOKS[family]
    return _oklch((darkest + lightest) / 2, chroma, np.radians(hue))


def family_ink(family: str) -> str:
    """The colour of the name of a family."""
    return _ink(family_colour(family))


def _ink(hexadecimal: str) -> str:
    """The same hue, dark enough for letters."""
    lightness, a, b = oklab(hexadecimal)
    return _oklch(min(float(lightness), _INK), float(np.hypot(a, b)), float(np.arctan2(b, a)))


def colour(label: str, name: str) -> str:
    """The colour of an estimator's label and name, as ``#rrggbb``."""
    family = families.family(label, name)
    hue, chroma, _, darkest, lightest = _LOOKS[family]
    members = families.FAMILIES[family]
    if name in members:
        lightness = darkest + (lightest - darkest) * members.index(name) / max(1, len(members) - 1)
        if name != label:  # anywhere on the scale but near that of the name alone
            lightness = _elsewhere(lightness, _hash(label))
    else:
        lightness = darkest + (lightest - darkest) * _hash(label)
    return _oklch(lightness, chroma, np.radians(hue))


def _elsewhere(lightness: float, at: float) -> float:
    """A lightness apart from the given one; ``at`` from 0 to 1 says which."""
    below, above = max(0.0, lightness - _APART - _DARKEST), max(0.0, _LIGHTEST - lightness - _APART)
    at *= below + above
    return _DARKEST + at if at < below else lightness + _APART + at - below


def _hash(label: str) -> float:
    """A number from 0 to 1."""
    digest = blake2b(label.encode(), salt=_SALT.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") / 2**32


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
    return _oklch(0.75 - 0.4 * position, 0.15, float(np.arctan2(b, a)))
