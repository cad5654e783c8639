"""Task orders by name: one order for `stream.order=`, or a list of orders for a sweep.

| name | orders |
|---|---|
| `default` | the tasks as they stand in the stream |
| `reverse` | the same from the last to the first |
| `random:<seed>` | a permutation drawn from a whole number |
| `all` | every permutation; at most 5 tasks |
| `williams` | a Williams design: T orders of T tasks, 2 T where T is odd |
| `all:<k>`, `williams:<k>` | the k-th of these, from 1 |

`all` and `williams` are lists and cannot be the order of one run.
"""

import random
import re
from collections.abc import Collection, Sequence
from itertools import permutations
from typing import Any

Order = str | Sequence[str | Sequence[str]]


SINGLE = "default, reverse, random:<seed>, williams:<k>, all:<k>"


DESIGNS = ("all", "williams")


LONGEST = 5  # 120 permutations; six tasks already have 720


def named_order(name: str, tasks: Sequence[str]) -> list[str]:
    """The one order that `name` stands for.

    Raises:
        ValueError: The name is not known, or stands for a list of orders.
    """
    if name == "default":
        return list(tasks)
    if name == "reverse":
        return list(reversed(tasks))
    if match := re.fullmatch(r"random:(\d+)", name):
        draw = random.Random(int(match[1]))  # noqa: S311  # an order is no secret
        return sorted(
            tasks, key=lambda _: draw.random()
        )  # of Python's draws only `random()` never changes
    if name in DESIGNS:
        raise ValueError(
            f"stream.order={name} is a list of orders, and a run takes one: sweep over them "
            f"(`-m`), or choose {SINGLE} "
            f"or a list of {list(tasks)}"
        )
    design, _, place = name.partition(":")
    if design in DESIGNS and place.isdecimal():
        orders = expand_orders(design, tasks)
        if not 1 <= int(place) <= len(orders):
            raise ValueError(
                f"stream.order={name}: there are {len(orders)} orders of this kind, counted from 1"
            )
        return orders[int(place) - 1]
    raise ValueError(
        f"stream.order={name} is not known: choose {SINGLE} or a list of {list(tasks)}"
    )


def expand_orders(name: str, tasks: Sequence[str]) -> list[list[str]]:
    """All orders that `name` stands for; a list of one for the name of a single order.

    Raises:
        ValueError: The name is not known, or `all` is asked of a long stream.
    """
    if name == "williams":
        return williams(tasks)
    if name != "all":
        return [named_order(name, tasks)]
    if len(tasks) > LONGEST:
        raise ValueError(
            f"order 'all' takes {LONGEST} tasks at most and there are {len(tasks)}: use williams "
            "or random:<seed>"
        )
    return [list(order) for order in permutations(tasks)]


def single_names(name: str, tasks: Sequence[str]) -> list[str]:
    """The same as names of single orders: `williams:1`, `williams:2`, ... for `williams`.

    Raises:
        ValueError: as `expand_orders`.
    """
    orders = expand_orders(name, tasks)
    return [f"{name}:{place}" for place in range(1, len(orders) + 1)] if name in DESIGNS else [name]


def williams(tasks: Sequence[str]) -> list[list[str]]:
    """Orders in which each task stands once (T odd: twice) at each position and directly after each
    other task.

    The first order is `tasks` itself. E. J. Williams, Australian Journal of Chemistry 2 (1949),
    https://doi.org/10.1071/CH9490149: neighbours in 0, T-1, 1, T-2, ... have all differences modulo
    T once each when T is even, so its T cyclic shifts are balanced; when T is odd, they are
    together with their mirror images.
    """
    count = len(tasks)
    zigzag = [i // 2 if i % 2 == 0 else count - 1 - i // 2 for i in range(count)]
    label = {
        place: tasks[i] for i, place in enumerate(zigzag)
    }  # so that the first order is the given one
    shifts = [[label[(place + shift) % count] for place in zigzag] for shift in range(count)]
    return (
        shifts
        if count % 2 == 0 or count == 1
        else shifts + [list(reversed(order)) for order in shifts]
    )


def checked_order(order: Order, tasks: Collection[str]) -> list[str | list[str]]:
    """The order as plain lists, or an error that names what is wrong in it."""
    order = named_order(order, list(tasks)) if isinstance(order, str) else order
    plain: list[Any] = [list(item) if isinstance(item, list | tuple) else item for item in order]
    names = [name for item in plain for name in (item if isinstance(item, list) else [item])]
    unknown = [name for name in names if not isinstance(name, str) or name not in tasks]
    if unknown:
        raise ValueError(
            f"stream.order names {unknown[0]!r}, which is not in the stream: choose from "
            f"{list(tasks)}"
        )
    if not names or [] in plain:
        raise ValueError(f"stream.order={plain} holds no data set: choose from {list(tasks)}")
    for item in plain:
        if not isinstance(item, str) and len(set(item)) < len(item):
            raise ValueError(f"stream.order: the joint task {item} names a data set twice")
    return plain


def numbered(order: list[str | list[str]]) -> tuple[list[tuple[str, ...]], dict[str, str]]:
    """Unique data-set names of each task, and for each name the data set behind it."""
    tasks: list[tuple[str, ...]] = []
    sources: dict[str, str] = {}
    given = {name for item in order for name in ([item] if isinstance(item, str) else item)}
    for item in order:
        names = []
        for source in [item] if isinstance(item, str) else item:
            candidates = (
                source,
                *(f"{source}_{again}" for again in range(2, 3 + len(given) + len(sources))),
            )
            names.append(
                next(
                    name
                    for name in candidates
                    if name not in sources and name not in given - {source}
                )
            )
            sources[names[-1]] = source
        tasks.append(tuple(names))
    return tasks, sources
