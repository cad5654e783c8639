"""The sentences of LIQE and their order."""

from iqa_lightning.methods.liqe import QUALITIES, prompts
from iqa_lightning.metrics.liqe_labels import DISTORTIONS, SCENES


def test_golden_enumeration() -> None:
    """specs/golden.json: 99 q + 11 s + d, 256 for fair, night, blur."""
    full = prompts(SCENES, DISTORTIONS)
    assert len(full) == len(set(full)) == 495
    assert full[256] == "a photo of a night with blur artifacts, which is of fair quality"
    for q, quality in enumerate(QUALITIES):
        for s, scene in enumerate(SCENES):
            for d, distortion in enumerate(DISTORTIONS):
                sentence = f"a photo of a {scene} with {distortion} artifacts, which is of {quality} quality"
                assert full[99 * q + 11 * s + d] == sentence


def test_without_an_axis() -> None:
    scenes, distortions, neither = prompts(SCENES, []), prompts([], DISTORTIONS), prompts([], [])
    assert (len(scenes), len(distortions), len(neither)) == (45, 55, 5)
    assert scenes[2 * 9 + 7] == "a photo of a still_life, which is of fair quality"
    assert (
        distortions[11] == "a photo with jpeg2000 compression artifacts, which is of poor quality"
    )
    assert neither == tuple(
        f"a photo with {word} quality" for word in ("bad", "poor", "fair", "good", "perfect")
    )
