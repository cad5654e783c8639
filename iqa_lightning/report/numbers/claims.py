"""Sentences with figures and what they say of the results: `claims.yaml` beside a README.

A claim has `text`, words of the README that hold the figures; `is`, an expression over the CSV
files of results; and where that is a number its `value` and, if it is not half of the last digit
written, its `tolerance`. An expression is made of numbers, + - * /, comparisons, `and`, and

    mean_of(file, column, key=value, ...)    likewise least_of, most_of, count_of

over the rows of `results/<file>.csv` in which every key has its value (or one of a list); `_` in a
key stands for a blank. Nothing else is evaluated.
"""

import ast
import operator
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from iqa_lightning.configs import read_yaml

Number = float | bool


BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
}


STATISTICS: dict[str, Callable[[pd.Series], float]] = {
    "mean_of": lambda column: float(column.mean()),
    "least_of": lambda column: float(column.min()),
    "most_of": lambda column: float(column.max()),
    "count_of": lambda column: float(column.count()),
}


FIGURE = re.compile(r"(?<![\w.])-?\.\d+")
"""A figure of results as READMEs write it, without the 0; settings are written with it."""


def read_claims(file: Path) -> list[dict[str, Any]]:
    """The claims in a file; none where it is not there.

    Raises:
        ValueError: A claim lacks `text` or `is`, or has a key that is not known.
    """
    claims: Any = read_yaml(file) if file.is_file() else []
    for i, claim in enumerate(claims, 1):
        unknown = sorted(claim.keys() - {"text", "is", "value", "tolerance"})
        if unknown or not {"text", "is"} <= claim.keys():
            raise ValueError(f"{file}, claim {i}: keys are text, is, value, tolerance; {unknown}")
    return list(claims)


def broken_claims(readme: Path, file: Path) -> list[str]:
    """What a README says that the results do not: a line for each claim that fails, whose words are
    not there, and for each figure of the README that no claim holds.

    Args:
        readme: The text.
        file: Its claims; the results are in the folder `results` beside it.
    """
    text = " ".join(readme.read_text().split())
    found, claimed = [], []
    for claim in read_claims(file):
        words = " ".join(str(claim["text"]).split())
        claimed.append(words)
        if words not in text:
            found.append(f"'{words}' is not in {readme}")
        said = evaluated(str(claim["is"]), file.parent / "results")
        if "value" not in claim:
            if said is not True:
                found.append(f"'{words}': {claim['is']} is {said}")
        elif abs(said - claim["value"]) > tolerance(claim) + 1e-9:
            found.append(f"'{words}': {claim['is']} is {said:.4f}")
    for words in sorted(claimed, key=len, reverse=True):
        text = text.replace(words, "")
    return found + [f"no claim holds {figure} of {readme}" for figure in FIGURE.findall(text)]


def tolerance(claim: dict[str, Any]) -> float:
    """How far a figure may be off: half of its last digit where nothing is said."""
    if "tolerance" in claim:
        return float(claim["tolerance"])
    digits = str(claim["value"]).partition(".")[2]
    return 0.5 * 10.0 ** -len(digits)


def evaluated(expression: str, results: Path) -> Number:
    """The value of an expression over the CSV files in `results`.

    Raises:
        ValueError: It holds something else than the docstring of this module lists, or a filter
            leaves no row.
    """
    return _value(ast.parse(expression, mode="eval").body, results)


def _value(node: ast.expr, results: Path) -> Number:
    match node:
        case ast.Constant(value=float() | int() as number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand, results)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
            return float(BINARY[type(op)](_value(left, results), _value(right, results)))
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [_value(side, results) for side in (left, *others)]
            pairs = zip(sides, ops, sides[1:], strict=False)
            return all(BINARY[type(op)](one, other) for one, op, other in pairs)
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_value(value, results) for value in values)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if name in STATISTICS:
            file, column = (ast.literal_eval(argument) for argument in args)
            wanted = {str(word.arg): ast.literal_eval(word.value) for word in keywords}
            return STATISTICS[name](_column(results / f"{file}.csv", column, wanted))
    raise ValueError(f"'{ast.unparse(node)}' is no part of a claim; see report/numbers/claims.py")


def _column(file: Path, column: str, wanted: dict[str, Any]) -> pd.Series:
    table = pd.read_csv(os.path.normpath(file), keep_default_na=False, na_values=[""])
    for key, value in wanted.items():
        key = key if key in table else key.replace("_", " ")  # noqa: PLW2901
        table = table[table[key].isin(value if isinstance(value, list) else [value])]
    if table.empty:
        raise ValueError(f"{file} has no row with {wanted}")
    return pd.to_numeric(table[column])
