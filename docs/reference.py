"""The API reference: the docstrings of the package as Markdown, read without importing it.

They are Markdown already (tables, code in single backticks). Only sections such as `Args:` become
lists, and examples code. One page a room.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

SECTIONS = ("Args:", "Returns:", "Raises:", "Yields:", "Attributes:")
WIDTH = 90
Function = ast.FunctionDef | ast.AsyncFunctionDef


def write(root: Path) -> None:
    """Write `docs/api` anew from the package of a checkout.

    Args:
        root: of the checkout.
    """
    rooms: dict[str, list[Path]] = {}
    for path in sorted((root / "iqa_lightning").rglob("*.py")):
        parts = path.relative_to(root / "iqa_lightning").parts
        if path.name != "__init__.py":
            rooms.setdefault(parts[0] if len(parts) > 1 else "commands", []).append(path)
    pages = {
        room: "\n\n".join([f"# {room}", *(page_of(path, root) for path in paths)])
        for room, paths in sorted(rooms.items())
    }
    listed = "\n".join(pages)
    pages["index"] = (
        "# API reference\n\nFrom the docstrings, one page a room of the package; the rooms are those "
        f"of the [architecture](../architecture.md).\n\n```{{toctree}}\n:maxdepth: 2\n\n{listed}\n```"
    )
    folder = root / "docs" / "api"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.md"):
        if old.stem not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.is_file() or path.read_text() != text:  # Sphinx reads again what is newer
            path.write_text(text)


def page_of(path: Path, root: Path) -> str:
    """The part of one module: its docstring, then its public classes and functions."""
    tree = ast.parse(path.read_text())
    name = ".".join(path.relative_to(root / "iqa_lightning").with_suffix("").parts)
    parts = [f"## {name}", markdown(ast.get_docstring(tree))]
    for node in public(tree.body):
        kind = "class " if isinstance(node, ast.ClassDef) else ""
        parts.append(f"### {kind}{node.name}")
        parts += class_of(node) if isinstance(node, ast.ClassDef) else function_of(node)
    return "\n\n".join(part for part in parts if part)


def public(body: list[ast.stmt]) -> Iterator[ast.ClassDef | Function]:
    """Classes and functions whose name does not begin with an underscore."""
    for node in body:
        if isinstance(node, ast.ClassDef | Function) and not node.name.startswith("_"):
            yield node


def class_of(node: ast.ClassDef) -> list[str]:
    """A class: how it is built, its docstring, its public methods."""
    made = [one for one in node.body if isinstance(one, Function) and one.name == "__init__"]
    bases = f"({', '.join(map(ast.unparse, node.bases))})" if node.bases else ""
    code = f"class {node.name}{bases}"
    if made:
        code += f"\n{node.name}{signature(made[0], True)}"
    parts = [f"```python\n{code}\n```", markdown(ast.get_docstring(node))]
    for one in public(node.body):
        if isinstance(one, Function):
            parts += function_of(one, in_class=True)
    return parts


def function_of(node: Function, in_class: bool = False) -> list[str]:
    """A function or a method: its signature and docstring."""
    marks = [f"@{ast.unparse(one)}" for one in node.decorator_list if in_class]
    bound = in_class and "@staticmethod" not in marks
    code = "\n".join([*marks, f"{node.name}{signature(node, bound)}"])
    return [f"```python\n{code}\n```", markdown(ast.get_docstring(node))]


def signature(node: Function, bound: bool = False) -> str:
    """Arguments and what is returned, on one line or one a line; without `self` where it is bound."""
    arguments = node.args
    if bound:
        first = "posonlyargs" if arguments.posonlyargs else "args"
        kept = {key: getattr(arguments, key) for key in arguments._fields}
        arguments = ast.arguments(**kept | {first: kept[first][1:]})
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    returns = "" if node.name == "__init__" else returns
    text = f"({ast.unparse(arguments)}){returns}"
    if len(node.name + text) <= WIDTH:
        return text
    return "\n".join(["(", *(f"    {one}," for one in each(arguments)), f"){returns}"])


def each(arguments: ast.arguments) -> Iterator[str]:
    """Arguments one by one, as they are written."""
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + arguments.defaults
    for argument, default in zip(plain, defaults, strict=True):
        yield written(argument, default)
        if arguments.posonlyargs and argument is arguments.posonlyargs[-1]:
            yield "/"
    if arguments.vararg or arguments.kwonlyargs:
        yield f"*{written(arguments.vararg) if arguments.vararg else ''}"
    for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
        yield written(argument, default)
    if arguments.kwarg:
        yield f"**{written(arguments.kwarg)}"


def written(argument: ast.arg, default: ast.expr | None = None) -> str:
    """One argument with its type and default."""
    value = "" if default is None else f" = {ast.unparse(default)}"
    return f"{ast.unparse(argument)}{value}"


def markdown(docstring: str | None) -> str:
    """A docstring as Markdown."""
    blocks = re.split(r"\n\s*\n", docstring or "")
    return "\n\n".join(map(block_of, blocks))


def block_of(text: str) -> str:
    """One paragraph: a section as a list, an example as code, the rest as it stands."""
    head, _, rest = text.partition("\n")
    if head.startswith(">>>"):
        return f"```pycon\n{text}\n```"
    if head not in SECTIONS:
        return plain(text)
    items: list[str] = []
    for line in rest.splitlines():
        if line.startswith(" " * 8) and items:  # goes on with the item above
            items[-1] += f" {line.strip()}"
        else:
            items.append(line.strip())
    rows = [re.sub(r"^(\*{0,2}\w[\w.]*):", r"`\1`:", item) for item in items]
    return "\n".join([f"**{head[:-1]}**", "", *(f"- {plain(row)}" for row in rows)])


def plain(text: str) -> str:
    """Text whose angle brackets are not tags and whose addresses are links, outside of code."""
    pieces = re.split(r"(`[^`]*`)", text)
    for i, piece in enumerate(pieces):
        if not piece.startswith("`"):
            pieces[i] = re.sub(r"(https://[^\s<>()]*[\w/])", r"<\1>", piece.replace("<", "&lt;"))
    return "".join(pieces)
