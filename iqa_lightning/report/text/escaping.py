"""Text that stays text: names and sources of users in Markdown, LaTeX, figures and a terminal."""

import re

LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
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
    line = "".join(LATEX.get(sign, sign) for sign in " ".join(text.split()))
    # after the end of a row these would be its option
    return f"{{}}{line}" if line.startswith(("[", "*")) else line


def figure_text(text: str) -> str:
    r"""Text for matplotlib: no dollar begins mathematics, and no legend leaves a name out.

    >>> figure_text("a_b$x$"), figure_text("_ab")
    ('a_b\\$x\\$', ' _ab')
    """
    line = text.replace("$", r"\$")
    return f" {line}" if line.startswith("_") else line


def terminal_text(text: str) -> str:
    r"""Text for a terminal: what would steer it (colours, the title, the way text runs) is written
    out.

    >>> terminal_text("a\x1b[31mb\u202ec")
    'a\\x1b[31mb\\u202ec'
    """
    return "".join(
        sign
        if sign.isprintable() or sign in "\n\t"
        else sign.encode("unicode_escape").decode("ascii")
        for sign in text
    )
