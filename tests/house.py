"""What is beyond the guides of size, and how the rooms of the package import each other.

`python -m tests.house` lists files over 400 lines, functions over 60 lines and lines over 100
columns, in the package and in conf/, each with its reason from `tests/beyond_guides.yaml`, in which
`<file or folder>:lines` stands for all its long lines (`make check` runs it; nothing fails).
`python -m tests.house rooms` prints the diagram of `docs/architecture.md`.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
FILE, FUNCTION, LINE = 400, 60, 100
REASONS = ROOT / "tests" / "beyond_guides.yaml"
SINGLE = ("distributed", "files", "predictions", "records", "seeds")
"""Modules that are rooms by themselves."""


DIRECTIVES = ("# noqa", "# type: ignore", "http://", "https://")
"""What makes a line long that cannot be broken: directives of linters, links."""


def beyond(root: Path = ROOT) -> Iterator[tuple[str, int]]:
    """Each place beyond a guide, as `file`, `file::function` or `file:line`, and its size."""
    yield from beyond_in_code(root)
    for path in sorted((root / "conf").rglob("*.yaml")):
        yield from long_lines(path.relative_to(root).as_posix(), path.read_text().splitlines())


def long_lines(name: str, lines: list[str]) -> Iterator[tuple[str, int]]:
    """Each line of a file over 100 columns that could be broken."""
    for number, line in enumerate(lines, 1):
        if len(line) > LINE and not any(word in line for word in DIRECTIVES):
            yield f"{name}:{number}", len(line)


def beyond_in_code(root: Path) -> Iterator[tuple[str, int]]:
    """Each place of the package beyond a guide."""
    for path in sorted((root / "iqa_lightning").rglob("*.py")):
        name, text = path.relative_to(root).as_posix(), path.read_text()
        lines = text.splitlines()
        if len(lines) > FILE:
            yield name, len(lines)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or 0) - node.lineno + 1
                if size > FUNCTION:
                    yield f"{name}::{node.name}", size
        yield from long_lines(name, lines)


def report(root: Path = ROOT) -> list[str]:
    """One line for each place beyond a guide, with its reason; long lines that share a reason are
    counted in one.
    """
    reasons: dict[str, str] = yaml.safe_load(REASONS.read_text())
    found, shared = [], Counter[str]()
    for place, size in beyond(root):
        file, _, line = place.rpartition(":")
        if line.isdigit():
            above = [file, *(parent.as_posix() for parent in Path(file).parents)]
            key = next((one for one in above if f"{one}:lines" in reasons), None)
            if key is not None:
                shared[key] += 1
                continue
        unit = "columns" if line.isdigit() else "lines"
        found.append(f"{place}: {size} {unit}: {reasons.get(place, 'no reason is given')}")
    return found + [
        f"{key}: {count} lines over {LINE} columns: {reasons[f'{key}:lines']}"
        for key, count in shared.items()
    ]


def room_of(module: str) -> str:
    """The room of a dotted module: its package, or `commands`, or the module itself."""
    parts = module.split(".")
    if len(parts) > 2:
        return parts[1]
    single = parts[-1]
    return single if single in SINGLE else "commands"


def imports_between_rooms(root: Path = ROOT) -> Counter[tuple[str, str]]:
    """How many modules of one room import from another, deferred imports included."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in sorted((root / "iqa_lightning").rglob("*.py")):
        if path.name == "__init__.py":
            continue
        here = room_of(".".join(path.relative_to(root).with_suffix("").parts))
        seen = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                "iqa_lightning."
            ):
                package = (root / Path(*str(node.module).split("."))).is_dir()
                targets = [f"{node.module}.{alias.name}" for alias in node.names] if package else []
                seen |= {room_of(target) for target in targets or [str(node.module)]}
        for there in seen - {here}:
            counts[here, there] += 1
    return counts


def rooms(root: Path = ROOT) -> str:
    """The rooms and who imports from whom, as a mermaid diagram."""
    edges = sorted(imports_between_rooms(root).items())
    lines = [f"    {here} -->|{count}| {there}" for (here, there), count in edges]
    return "\n".join(["```mermaid", "flowchart TD", *lines, "```"])


if __name__ == "__main__":
    print(rooms() if sys.argv[1:] == ["rooms"] else "\n".join(["beyond the guides:", *report()]))
