"""Reads names, summaries and options from source code, because importing the modules would import torch, for seconds.

A registry is a module-level dict from names to "module:class"; that of the estimators is a file. Entries that were
registered at run time, or by another package's entry point, are listed too.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from results import registry as listed


class Described(NamedTuple):
    """A class in the source.

    Attributes:
        summary: the first line of the docstring of its module.
        own: the first line of its own docstring.
        options: the default of each option, as written.
        meanings: what its docstring says of each argument.
        constants: its attributes that are literals.
    """

    summary: str
    own: str
    options: Mapping[str, str]
    meanings: Mapping[str, str]
    constants: Mapping[str, Any]


NOTHING = Described("", "", {}, {}, {})


def registry(module: str) -> dict[str, Any]:
    """The entries of `module._REGISTRY`: where each name is defined."""
    loaded = sys.modules.get(module)
    return dict(loaded._REGISTRY) if loaded is not None else dict(constant(module, "_REGISTRY"))


def estimators() -> dict[str, Any]:
    """Where each estimator is defined, including those of other packages, sorted by name."""
    outside = {point.name: point.value for point in entry_points(group="estimators.registry")}
    loaded = sys.modules.get("estimators")
    own = {name: entry["class"] for name, entry in listed.estimators().items()} if loaded is None else loaded._REGISTRY
    return dict(sorted((outside | own).items()))


def tasks() -> dict[str, Any]:
    """Where each task is defined."""
    return registry("suites.tasks")


def suites() -> dict[str, Any]:
    """Where each suite is defined."""
    return registry("suites.suite")


def rivals() -> dict[str, Any]:
    """Where each rival of VMO is defined."""
    return registry("suites.rivals")


def presets() -> dict[str, str]:
    """Each preset and its description."""
    return dict(constant("suites.presets", "PRESETS"))


def datasets() -> tuple[str, ...]:
    """The data sets known by name."""
    return tuple(constant("vmo.sources", "NAMES"))


def parts() -> tuple[str, ...]:
    """The names of the parts of the study."""
    return tuple(_keys(ast.Name("PARTS"), "results.study_design"))


def constant(module: str, name: str) -> Any:
    """A literal constant of a module. A dict that is unpacked into a sequence contributes its keys."""
    tree = _tree(module)
    if tree is None:
        raise ValueError(f"module {module} has no source")
    return _value(_assigned(tree.body)[name], module)


def describe(place: str | Callable[..., Any]) -> Described:
    """Describe a registered class without importing it."""
    if not isinstance(place, str):
        return _inspected(place)
    module, _, name = place.partition(":")
    tree = _tree(module)
    found = None if tree is None else _class(tree, name)
    if tree is None or found is None:
        return NOTHING
    own, text = (_first_line(ast.get_docstring(node)) for node in (found, tree))
    constants = {}
    for key, node in _assigned(found.body).items():
        try:
            constants[key] = ast.literal_eval(node)
        except ValueError:
            continue
    meanings = _meanings(ast.get_docstring(found) or "")
    return Described(text or own, own, _options(module, name), meanings, constants)


def _inspected(made: Callable[..., Any]) -> Described:
    options = {
        parameter.name: repr(parameter.default)
        for parameter in inspect.signature(made).parameters.values()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    constants = {key: value for key, value in vars(made).items() if not key.startswith("_")}
    text = inspect.getdoc(made) or ""
    return Described(_first_line(text), _first_line(text), options, _meanings(text), constants)


def _first_line(text: str | None) -> str:
    return (text or "").strip().partition("\n")[0]


def _meanings(docstring: str) -> dict[str, str]:
    """What the section "Args" of a docstring says of each argument, in one line."""
    section = re.search(r"^Args:\n((?: +.*\n?|\n)*)", docstring, re.MULTILINE)
    found = re.findall(r"^ {4}(\w+): ((?:.*\n?)(?: {8,}.*\n?)*)", section[1] if section else "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}


def _options(module: str, name: str) -> dict[str, str]:
    """The keyword-only parameters of a class's `__init__`, which may be inherited."""
    tree = _tree(module)
    found = None if tree is None else _class(tree, name)
    if tree is None or found is None:
        return {}
    for node in found.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            pairs = zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
            return {argument.arg: "" if default is None else ast.unparse(default) for argument, default in pairs}
    for base in found.bases:
        if isinstance(base, ast.Name):
            inherited = _options(*_imported(tree, module, base.id))
            if inherited:
                return inherited
    return {}


def _imported(tree: ast.Module, module: str, name: str) -> tuple[str, str]:
    """Where a name of a module is defined."""
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return node.module, alias.name
    return module, name


def _class(tree: ast.Module, name: str) -> ast.ClassDef | None:
    return next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)


def _assigned(body: Sequence[ast.stmt]) -> dict[str, ast.expr]:
    """Assigned values, by name."""
    found: dict[str, ast.expr] = {}
    for node in body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            found[node.target.id] = node.value
        elif isinstance(node, ast.Assign):
            found.update({target.id: node.value for target in node.targets if isinstance(target, ast.Name)})
    return found


def _value(node: ast.expr, module: str) -> Any:
    """A literal, in which dicts may be unpacked for their keys."""
    if isinstance(node, ast.Tuple | ast.List):
        items: list[Any] = []
        for item in node.elts:
            items += _keys(item.value, module) if isinstance(item, ast.Starred) else [_value(item, module)]
        return tuple(items)
    return ast.literal_eval(node)


def _keys(node: ast.expr, module: str) -> list[Any]:
    """The keys of a dict of this module or of an imported one."""
    tree = _tree(module)
    assert tree is not None
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        package, name = _imported(tree, module, node.value.id)
        return _keys(ast.Name(node.attr), f"{package}.{name}")
    assert isinstance(node, ast.Name)
    found = _assigned(tree.body)[node.id]
    assert isinstance(found, ast.Dict)
    return [ast.literal_eval(key) for key in found.keys if key is not None]


@functools.cache
def _tree(module: str) -> ast.Module | None:
    """The syntax tree of a module. Does not import its parent packages, which `find_spec` of a dotted name would."""
    top, *inside = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    if inside:
        path = path.parent.joinpath(*inside)
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else None
