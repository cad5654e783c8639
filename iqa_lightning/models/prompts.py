"""The sentences of LIQE: one for each combination of quality, scene and distortion.

Source: the official code, https://github.com/zwx8981/LIQE (arXiv 2303.14968); the article is always "a".
"""

from collections.abc import Sequence

QUALITIES = ("bad", "poor", "fair", "good", "perfect")  # scored 1 to 5


def prompts(scenes: Sequence[str], distortions: Sequence[str]) -> tuple[str, ...]:
    """All sentences: quality varies slowest, then scene, distortion fastest; an empty axis is left out of them."""
    what = [f" of a {scene}" for scene in scenes] or [""]
    how = [f" with {distortion} artifacts" for distortion in distortions] or [""]
    link = ", which is of" if scenes or distortions else " with"
    return tuple(f"a photo{w}{h}{link} {quality} quality" for quality in QUALITIES for w in what for h in how)
