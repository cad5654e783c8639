"""Text that stays text: names and sources of users in Markdown and LaTeX."""

import re

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def markdown_text(text: str) -> str:
    r"""Text for a cell of a Markdown table, one line: nothing in it is a link, markup or HTML.

    >>> markdown_text("a|b <i> *c* [d](e) tsn_iqa")
    'a\\\\|b &lt;i> \\\\*c\\\\* [d]\\\\(e) tsn_iqa'
    """
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;")
    line = re.sub(r"([\\`*|~])", r"\\\1", line)
    line = re.sub(r"\]([(\[:])", r"]\\\1", line)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", line)


def latex_text(text: str) -> str:
    r"""Text for LaTeX.

    >>> latex_text("50 % of a_b & $x$")
    '50 \\\\% of a\\\\_b \\\\& \\\\$x\\\\$'
    """
    return "".join(LATEX.get(sign, sign) for sign in " ".join(text.split()))
