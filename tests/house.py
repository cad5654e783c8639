"""What is beyond the guides of size, and how the rooms of the package import each other.

`python -m tests.house` lists files over 400 lines, functions over 60 lines and lines over 100
columns, each with its reason from `tests/beyond_guides.yaml` (`make check` runs it; nothing fails).
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
DIRECTIVES = ("# noqa", "# type: ignore", "http://", "https://")
"""What makes a line long that cannot be broken: directives of linters, links."""


def beyond(root: Path = ROOT) -> Iterator[tuple[str, int]]:
    """Each place beyond a guide, as `file`, `file::function` or `file:line`, and its size."""
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
        for number, line in enumerate(lines, 1):
            if len(line) > LINE and not any(word in line for word in DIRECTIVES):
                yield f"{name}:{number}", len(line)


def report(root: Path = ROOT) -> list[str]:
    """One line for each place beyond a guide, with its reason."""
    reasons: dict[str, str] = yaml.safe_load(REASONS.read_text()) or {}
    found = []
    for place, size in beyond(root):
        parts = place.split("::") if "::" in place else place.rsplit(":", 1)
        is_line = "::" not in place and len(parts) == 2
        reason = reasons.get(parts[0] + ":lines" if is_line else place)
        unit = "columns" if is_line else "lines"
        found.append(f"{place}: {size} {unit}: {reason or 'no reason is given'}")
    return found


def room_of(module: str) -> str:
    """The room of a dotted module: its package, or `commands`, or the module itself."""
    parts = module.split(".")
    if len(parts) > 2:
        return parts[1]
    single = parts[-1]
    return single if single in ("records", "distributed", "seeds") else "commands"


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
