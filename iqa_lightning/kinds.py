"""Kinds of values: what a person typed against what an argument takes, by its annotation."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

PLAIN = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
}
"""Kinds that can be judged, in words; an annotation with another member takes anything."""


def check_arguments(build: Callable[..., Any], given: Mapping[str, Any], place: str) -> None:
    """Refuse arguments of another kind than the annotations of a function or constructor say.

    Only plain values are judged (texts, numbers, true and false), and only against plain
    annotations; null is left to whoever takes it.

    Args:
        build: the function or class.
        given: arguments by name; those that it does not have are left to the call.
        place: their dotted key in a config, for messages; may be empty.

    Raises:
        ValueError: naming key, value and what is expected.
    """
    for name, hint in annotations(build).items():
        if name in given and not fits(given[name], hint):
            key, kinds = f"{place}.{name}" if place else name, members(hint)
            said = [PLAIN[kind] for kind in PLAIN if kind in kinds and kind is not bool]
            said = [PLAIN[bool], *said] if bool in kinds else said
            said += [repr(kind) for kind in kinds if isinstance(kind, str)]
            raise ValueError(f"{key} is {given[name]!r}; it is {' or '.join(said)}")


def annotations(build: Callable[..., Any]) -> dict[str, Any]:
    """The annotation of each argument; of a constructor that hands the rest on (`**options`), also
    those of the class above it.
    """
    found: dict[str, Any] = {}
    constructors = (
        [vars(parent)["__init__"] for parent in build.__mro__ if "__init__" in vars(parent)]
        if inspect.isclass(build)
        else [build]
    )
    for call in constructors:
        try:
            hints, parameters = get_type_hints(call), inspect.signature(call).parameters
        except (TypeError, ValueError, NameError):  # of another package, written in C or for mypy
            break
        found = {name: hints[name] for name in parameters if name in hints} | found
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            break
    return found


def members(hint: Any) -> tuple[Any, ...]:
    """The kinds that an annotation names; of a `Literal` its values."""
    if get_origin(hint) in (Union, UnionType):
        return tuple(kind for part in get_args(hint) for kind in members(part))
    return get_args(hint) if get_origin(hint) is Literal else (hint,)


def fits(value: Any, hint: Any) -> bool:
    """Whether a plain value is of a kind that an annotation names."""
    if not isinstance(value, str | bool | int | float):
        return True
    kinds = members(hint)
    if not all(kind in (*PLAIN, NoneType) or isinstance(kind, str) for kind in kinds):
        return True
    if isinstance(value, str):
        literal = [kind for kind in kinds if isinstance(kind, str)]
        return bool({str, Path} & {*kinds}) or value in literal
    if isinstance(value, bool):
        return bool in kinds
    if isinstance(value, int) or value.is_integer():
        return bool({int, float} & {*kinds})
    return float in kinds
