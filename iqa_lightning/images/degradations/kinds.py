"""All kinds of degradation, each with five levels from hardly visible to severe."""

from collections.abc import Callable
from dataclasses import dataclass

from iqa_lightning.images.degradations import blur, colour, compression, noise, spatial
from iqa_lightning.images.degradations.draws import Draws, Images, Strengths

Apply = Callable[[Images, Strengths, Draws], Images]


@dataclass(frozen=True)
class Kind:
    """A degradation: what does it, and its strength at the levels 0 (`none`: the image stays as it
    is) and 1 to 5.
    """

    apply: Apply
    none: float
    levels: tuple[float, float, float, float, float]

    def strength(self, level: float) -> float:
        """Strength at any level in [0, 5], linear between whole ones.

        Raises:
            ValueError: the level lies outside.
        """
        return strength_at(level, (self.none, *self.levels))


def strength_at(level: float, table: tuple[float, ...]) -> float:
    """The entry of a table from level 0 on, linear between whole levels.

    Raises:
        ValueError: the level lies outside.
    """
    last = len(table) - 1
    if not 0 <= level <= last:
        raise ValueError(
            f"a degradation has no level {level}: give a number from 0 (no damage) to {last}"
        )
    below = min(int(level), last - 1)
    return table[below] + (level - below) * (table[below + 1] - table[below])


# Strengths of our own choice, from looking at photographs of 500 pixels; tables of papers stand in
# conf/degradations.
KINDS: dict[str, Kind] = {
    "gaussian_blur": Kind(blur.gaussian_blur, 0.0, (0.6, 1.0, 1.6, 2.4, 3.6)),
    "motion_blur": Kind(blur.motion_blur, 1.0, (3, 5, 7, 11, 15)),
    "lens_blur": Kind(blur.lens_blur, 0.0, (1, 1.75, 2.75, 4, 6)),
    "defocus_blur": Kind(blur.defocus_blur, 0.0, (0.8, 1.5, 2.5, 3.5, 5)),
    "median_filter": Kind(blur.median_filter, 1.0, (3, 5, 7, 9, 11)),
    "gaussian_noise": Kind(noise.gaussian_noise, 0.0, (0.0008, 0.0025, 0.006, 0.015, 0.035)),
    "colour_noise": Kind(noise.colour_noise, 0.0, (0.0004, 0.0012, 0.003, 0.008, 0.02)),
    "impulse_noise": Kind(noise.impulse_noise, 0.0, (0.002, 0.008, 0.02, 0.05, 0.12)),
    "multiplicative_noise": Kind(noise.multiplicative_noise, 0.0, (0.004, 0.012, 0.03, 0.08, 0.2)),
    "iso_noise": Kind(noise.iso_noise, 0.0, (0.002, 0.006, 0.015, 0.035, 0.08)),
    "jpeg": Kind(compression.jpeg, 100.0, (60, 35, 20, 10, 5)),
    "jpeg2000": Kind(compression.jpeg2000, 1.0, (16, 32, 60, 100, 160)),
    "webp": Kind(compression.webp, 100.0, (50, 25, 12, 5, 0)),
    "brighten": Kind(colour.brighten, 0.0, (0.4, 0.8, 1.2, 1.8, 2.5)),
    "darken": Kind(colour.darken, 0.0, (0.6, 1.2, 2, 3, 4.5)),
    "mean_shift": Kind(colour.mean_shift, 0.0, (0.06, 0.12, 0.18, 0.26, 0.36)),
    "contrast": Kind(colour.contrast, 0.0, (-0.2, -0.35, -0.5, -0.65, -0.8)),
    "contrast_curve": Kind(colour.contrast_curve, 0.0, (4, 6, 9, 14, 25)),
    "saturation": Kind(colour.saturation, 1.0, (0.75, 0.5, 0.3, 0.15, 0.0)),
    "lab_saturation": Kind(colour.lab_saturation, 1.0, (1.4, 1.8, 2.5, 4, 7)),
    "quantisation": Kind(colour.quantisation, 256.0, (24, 14, 9, 6, 4)),
    "colour_shift": Kind(colour.colour_shift, 0.0, (1, 2, 4, 7, 11)),
    "colour_diffusion": Kind(blur.colour_diffusion, 0.0, (1, 3, 6, 8, 12)),
    "affine": Kind(spatial.affine, 0.0, (0.01, 0.025, 0.05, 0.09, 0.15)),
    "jitter": Kind(spatial.jitter, 0.0, (0.3, 0.6, 1, 1.7, 3)),
    "pixelation": Kind(spatial.pixelation, 0.0, (0.4, 0.6, 0.72, 0.8, 0.87)),
    "rescale": Kind(spatial.rescale, 0.0, (0.4, 0.55, 0.68, 0.78, 0.86)),
    "patches": Kind(spatial.patches, 0.0, (20, 40, 60, 80, 100)),
    "colour_blocks": Kind(spatial.colour_blocks, 0.0, (2, 4, 6, 8, 10)),
    "sharpen": Kind(blur.sharpen, 0.0, (1, 2, 3, 6, 12)),
}
