"""Lists every setting: its type and range, its value at a preset, and its meaning."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from suites.settings import Preset

SIGNS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def listed(preset: Preset) -> list[dict[str, Any]]:
    """Name, type, value and meaning of each setting, as JSON, in the order of declaration."""
    found = []
    for name, group in preset.groups.items():
        properties = type(group).model_json_schema()["properties"]
        for field, info in type(group).model_fields.items():
            found.append(
                {
                    "name": f"{name}.{field}",
                    "type": _type(properties[field]),
                    "value": getattr(group, field),
                    "meaning": " ".join((info.description or "").split()),
                    "group": " ".join((type(group).__doc__ or "").split()),
                }
            )
    return found


def text(preset: Preset, width: int = 80) -> str:
    """The list as text."""
    return "\n".join(_lines(preset, width))


def _lines(preset: Preset, width: int) -> Iterator[str]:
    yield f"settings, with their values at the preset {preset.name} (--set NAME=VALUE):"
    group = None
    for one in listed(preset):
        if one["group"] != group:
            group = one["group"]
            yield ""
            yield from textwrap.wrap(group, width)
        yield f"  {one['name']}={one['value']}  ({one['type']})"
        yield from textwrap.wrap(one["meaning"], width, initial_indent=" " * 6, subsequent_indent=" " * 6)


def _type(schema: dict[str, Any]) -> str:
    """A JSON schema as text: `integer ≥ 1`, `adam or sgd`."""
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    if "anyOf" in schema:
        return " or ".join(_type(one) for one in schema["anyOf"])
    ranged = " and ".join(f"{sign} {schema[key]:g}" for key, sign in SIGNS.items() if key in schema)
    return f"{schema.get('type', 'text')} {ranged}".strip()
