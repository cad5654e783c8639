"""timm, without what importing it would import and nothing here needs: seconds that scoring need
not wait.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from importlib import import_module
from types import ModuleType
from typing import Any

COMPILER = ("torch._dynamo", "torch._dynamo.utils")
"""Of torch's compiler: its package, and the module of which torchvision takes a function."""


def import_timm() -> ModuleType:
    """Timm without wandb, which its training helpers would import, and without torch's compiler."""
    with without_wandb(), compiler_when_called():
        import timm  # noqa: PLC0415
    return timm


@contextmanager
def without_wandb() -> Iterator[None]:
    """Within it `import wandb` fails, which timm expects."""
    if "wandb" in sys.modules:
        yield
        return
    sys.modules["wandb"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["wandb"]


@contextmanager
def compiler_when_called() -> Iterator[None]:
    """Within it torch's compiler is imported when what is taken of it is called: timm and
    torchvision take two of its functions when they are imported, and call them only where one
    compiles.
    """
    if COMPILER[0] in sys.modules:
        yield
        return
    stand_ins = {name: ModuleType(name) for name in COMPILER}

    def leave() -> None:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]

    def imported(name: str, key: str) -> Any:
        leave()
        return getattr(import_module(name), key)

    def asked(name: str, key: str) -> Any:
        # `inspect` asks every module for its file; the import system the package for its path
        if key.startswith("__") and (name, key) != (COMPILER[0], "__path__"):
            raise AttributeError(key)
        return imported(name, key)

    def is_compile_supported(*words: Any) -> Any:
        return imported(COMPILER[1], "is_compile_supported")(*words)

    def disable(function: Callable[..., Any], *words: Any, **options: Any) -> Callable[..., Any]:
        @wraps(function)
        def disabled(*given: Any, **named: Any) -> Any:
            return imported(COMPILER[0], "disable")(function, *words, **options)(*given, **named)

        return disabled

    for name, module in stand_ins.items():
        module.__getattr__ = partial(asked, name)  # type: ignore[method-assign]
    vars(stand_ins[COMPILER[0]])["disable"] = disable
    vars(stand_ins[COMPILER[1]])["is_compile_supported"] = is_compile_supported
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        leave()


timm = import_timm()
