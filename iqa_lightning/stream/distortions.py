"""Streams whose tasks are the distortions of one data set."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from iqa_lightning.datasets.base import IQADataModule
from iqa_lightning.stream.stream import TaskStream


def distortion_stream(
    data: Callable[..., IQADataModule],
    groups: Sequence[str] | Mapping[str, Sequence[str]],
    **options: Any,
) -> TaskStream:
    """A stream that learns one distortion, or group of distortions, after another.

    The split is that of the whole data set: a reference is in the same part of every task, so
    nothing that is tested has been seen in training under another distortion.

    Args:
        data: what builds the data set (a partial of its class); its table names the distortions.
        groups: distortions, each of which is a task; or the names of tasks with the distortions of
            each.
        options: see `TaskStream`.

    Raises:
        ValueError: no group, or a distortion in two groups.
    """
    tasks = grouped(groups)
    return TaskStream(
        {name: partial(data, distortions=group) for name, group in tasks.items()}, **options
    )


def distortion_streams(sets: Mapping[str, Callable[..., TaskStream]], **options: Any) -> TaskStream:
    """The distortions of several data sets, one set after the other, as tasks `<set>_<distortion>`.

    Args:
        sets: by name, what builds the stream of a set alone (a partial of `distortion_stream`), of
            which data and groups are used.
        options: see `TaskStream`.
    """
    tasks = {}
    for name, build in sets.items():
        given: dict[str, Any] = getattr(build, "keywords", {})
        for task, group in grouped(given["groups"]).items():
            tasks[f"{name}_{task}"] = partial(given["data"], distortions=group)
    return TaskStream(tasks, **options)


def grouped(groups: Sequence[str] | Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Distortions by task.

    Raises:
        ValueError: no group, or a distortion in two groups.
    """
    tasks = (
        {name: list(group) for name, group in groups.items()} if isinstance(groups, Mapping) else {}
    )
    tasks = tasks or {str(name): [str(name)] for name in groups}
    if not tasks:
        raise ValueError(
            "stream.groups is empty: name the distortions, as in "
            "'stream.groups=[jpeg,gaussian_blur]'"
        )
    named = [distortion for group in tasks.values() for distortion in group]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise ValueError(
            f"stream.groups: the distortion {twice!r} is in two tasks; take it out of one"
        )
    return tasks
