"""Settings: frozen, typed groups of numbers, and the presets that choose their values.

A *group* holds the settings of one thing, such as `train` or `overhead`, under a name that the command line uses:
`--set train.epochs=2`. Every suite and every task declares its groups in its own file, with their values at each
preset. The code of a cell is *handed* a model whose fields are views of groups:

    class Timing(Settings): ...                  # the part of `train` that decides what a step takes
    class Train(Timing, Group, name="train"): ...

    class TimedSettings(Settings):               # what a role is handed
        train: Timing

A view has the fields of a base class of the group, and no others. A cell's hash is made of exactly what was handed
over, so that a number that is not in the identity cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from estimators.options import nearest


class Settings(BaseModel):
    """Frozen and typed; unknown fields, infinities and NaN are refused. The docstring of a field is its meaning."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, validate_default=True
    )


class Group(Settings):
    """Settings under a name of their own. The defaults are those of the preset `quick`."""

    group: ClassVar[str]
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Values that differ from the defaults, by the name of the preset."""

    def __init_subclass__(cls, name: str | None = None, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if name is not None:
            cls.group = name

    @classmethod
    def at(cls, preset: str) -> Group:
        """The values of a preset; a preset that the group does not know has the defaults."""
        return cls(**cls.presets.get(preset, {}))

    @classmethod
    def impossible(cls, preset: str) -> Mapping[str, Any]:
        """What a preset asks for and this machine cannot do, with what it becomes."""
        return {}


Handed = TypeVar("Handed", bound=Settings)

SEPARATOR = "."


@dataclass(frozen=True)
class Preset:
    """The values of all groups, under the name of the preset that chose them.

    Attributes:
        name: of the preset.
        groups: by name.
        changed: dotted names and values of what differs from the preset of that name.
    """

    name: str
    groups: Mapping[str, Group]
    changed: Mapping[str, Any] = field(default_factory=dict)

    def hand(self, kind: type[Handed]) -> Handed:
        """What code that asks for `kind` is handed: a view of a group for each of its fields."""
        views = ((name, info.annotation) for name, info in kind.model_fields.items())
        return kind(**{name: narrow(self.groups[name], cast(Any, view)) for name, view in views})

    def label(self, names: Iterable[str]) -> tuple[str, dict[str, Any]]:
        """`quick`, or `quick[train.epochs=2]` where some of the dotted `names` were changed; and what was changed."""
        wanted = set(names)
        changed = {name: value for name, value in sorted(self.changed.items()) if name in wanted}
        inside = ", ".join(f"{name}={value!r}" for name, value in changed.items())
        return (f"{self.name}[{inside}]" if inside else self.name), changed

    def with_(self, assignments: Mapping[str, Any]) -> Preset:
        """The same with other values under dotted names.

        Raises:
            ValueError: no such group or field (with the nearest), or a value of the wrong type or out of range.
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
        ValueError: see `Preset.with_`; a group of a name that another has; something that is no assignment.
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
    """The part of settings that a view has."""
    return view(**{name: getattr(settings, name) for name in view.model_fields})


def parse(assignments: Sequence[str]) -> dict[str, str]:
    """Dotted names and the text of their values. Raises ValueError for what is no assignment or is given twice."""
    values: dict[str, str] = {}
    for text in assignments:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"a setting must read GROUP.FIELD=VALUE, got {text!r}")
        if key in values:
            raise ValueError(f"setting {key} is given twice: {values[key]} and {value}")
        values[key] = value
    return values


def identity(handed: Iterable[Settings]) -> dict[str, dict[str, Any]]:
    """Group, field, value of all that was handed over, as plain JSON types."""
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
    """One line: which setting, what is wrong with it, and what was given."""
    first = error.errors()[0]
    what = first["msg"].removeprefix("Value error, ")
    where = ".".join([group, *(str(part) for part in first["loc"])])
    given = f", got {first['input']!r}" if first["loc"] else ""
    return f"setting {where}: {what[:1].lower()}{what[1:]}{given}"
