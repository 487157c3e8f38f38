"""Settings: frozen, typed groups of values, and the presets that choose these values.

A *group* is a named set of settings, for example `train` or `overhead`. The command line uses its name:
`--set train.epochs=2`. Every suite and task declares its groups in its own file, with their values at each preset. The
code of a cell is *handed* a model whose fields are views of groups:

    class Timing(Settings): ...                  # the part of `train` that determines the cost of a step
    class Train(Timing, Group, name="train"): ...

    class TimedSettings(Settings):               # handed to a role
        train: Timing

A view is a base class of the group and has only its fields. The hash of a cell covers exactly what was handed over. So
code cannot read a setting that is not in the hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from estimators.options import nearest


class Settings(BaseModel):
    """Frozen and typed. Unknown fields, infinities and NaN are rejected. A field's docstring is its help text."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )


class Group(Settings):
    """A named set of settings. The defaults are the values of the preset `quick`."""

    group: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Values that differ from the defaults, by preset."""

    def __init_subclass__(cls, name: str | None = None, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if name is not None:
            cls.group = name

    @classmethod
    def at(cls, preset: str) -> Group:
        """The values at a preset; the defaults if the group does not mention it."""
        return cls(**cls.presets.get(preset, {}))

    @classmethod
    def impossible(cls, preset: str) -> Mapping[str, Any]:
        """Replacements for values of a preset that this machine does not support."""
        return {}


Handed = TypeVar("Handed", bound=Settings)

SEPARATOR = "."


@dataclass(frozen=True)
class Preset:
    """The values of all groups.

    Attributes:
        name: the name of the preset.
        groups: the groups by name.
        changed: settings that differ from the preset, by dotted name.
    """

    name: str
    groups: Mapping[str, Group]
    changed: Mapping[str, Any] = field(default_factory=dict)

    def hand(self, kind: type[Handed]) -> Handed:
        """An instance of `kind`: for each of its fields a view of the group of that name."""
        views = ((name, info.annotation) for name, info in kind.model_fields.items())
        return kind(**{name: narrow(self.groups[name], cast(Any, view)) for name, view in views})

    def label(self, names: Iterable[str]) -> tuple[str, dict[str, Any]]:
        """`quick`, or `quick[train.epochs=2]` if some of the dotted `names` were changed; and these changes."""
        wanted = set(names)
        changed = {name: value for name, value in sorted(self.changed.items()) if name in wanted}
        inside = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        return (f"{self.name}[{inside}]" if inside else self.name), changed

    def with_(self, assignments: Mapping[str, Any]) -> Preset:
        """The same preset with other values for dotted names.

        Raises:
            ValueError: unknown group or field (the message suggests the nearest), wrong type or value out of range.
        """
        groups = dict(self.groups)
        for group, values in _by_group(assignments, groups).items():
            groups[group] = _validated(groups[group], values)
        made = {name: getattr(groups[(at := name.split(SEPARATOR))[0]], at[1]) for name in assignments}
        base = {name: value for name, value in self.changed.items() if name not in made}
        own = {n: v for n, v in made.items() if v != getattr(self._original(n), n.split(SEPARATOR)[1])}
        return Preset(self.name, MappingProxyType(groups), MappingProxyType({**base, **own}))

    def _original(self, name: str) -> Group:
        return type(self.groups[name.split(SEPARATOR)[0]]).at(self.name)

    def __reduce__(self) -> Any:  # a mapping proxy cannot be sent to another process
        return Preset, (self.name, dict(self.groups), dict(self.changed))


def resolve(name: str, groups: Iterable[type[Group]], assignments: Sequence[str] = ()) -> Preset:
    """A preset of these groups, with `group.field=value` overrides.

    Raises:
        ValueError: see `Preset.with_`; two groups with one name; a text that is not an assignment.
    """
    found: dict[str, type[Group]] = {}
    for group in groups:
        if found.setdefault(group.group, group) is not group:
            raise ValueError(f"two groups of settings have the name {group.group!r}")
    preset = Preset(name, MappingProxyType({key: kind.at(name) for key, kind in found.items()}))
    forced = {
        f"{key}{SEPARATOR}{of}": value for key, kind in found.items() for of, value in kind.impossible(name).items()
    }
    return preset.with_({**forced, **parse(assignments)})


def narrow(settings: Settings, view: type[Handed]) -> Handed:
    """The fields of a view, taken from settings."""
    return view(**{name: getattr(settings, name) for name in view.model_fields})


def parse(assignments: Sequence[str]) -> dict[str, str]:
    """Dotted names and the text of their values. Raises ValueError for a malformed or repeated assignment."""
    values: dict[str, str] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"a setting must be written as GROUP.FIELD=VALUE, got {text!r}")
        if key in values:
            raise ValueError(f"setting {key} is given twice: {values[key]} and {value}")
        values[key] = value
    return values


def identity(handed: Iterable[Settings]) -> dict[str, dict[str, Any]]:
    """Everything that was handed over, by group and field, as plain JSON types."""
    found: dict[str, dict[str, Any]] = {}
    for model in handed:
        for group, values in model.model_dump(mode="json").items():
            found.setdefault(group, {}).update(values)
    return {group: dict(sorted(values.items())) for group, values in sorted(found.items()) if values}


def dotted(settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The dotted names of an identity."""
    return [f"{group}{SEPARATOR}{name}" for group, values in settings.items() for name in values]


def _by_group(assignments: Mapping[str, Any], groups: Mapping[str, Group]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    known = [f"{key}{SEPARATOR}{name}" for key, group in groups.items() for name in type(group).model_fields]
    for key, value in assignments.items():
        if key not in known:
            same = [name for name in known if name.split(SEPARATOR)[1] == key]
            near = f", did you mean {' or '.join(map(repr, same))}?" if same else nearest(key, known)
            raise ValueError(f"no setting {key!r}{near}; --help lists every setting")
        group, _, name = key.partition(SEPARATOR)
        found.setdefault(group, {})[name] = value
    return found


def _validated(group: Group, values: Mapping[str, Any]) -> Group:
    try:
        return type(group)(**{**group.model_dump(), **values})
    except ValidationError as error:
        raise ValueError(explained(error, group.group)) from None


def explained(error: ValidationError, group: str) -> str:
    """One line: the setting, what is wrong, and the given value."""
    first = error.errors()[0]
    what = first["msg"].removeprefix("Value error, ")
    where = ".".join([group, *(str(part) for part in first["loc"])])
    given = f", got {first['input']!r}" if first["loc"] else ""
    return f"setting {where}: {what[:1].lower()}{what[1:]}{given}"
