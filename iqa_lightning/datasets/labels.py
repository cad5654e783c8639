"""Scene and distortion labels of images, read from the lists of LIQE
(https://github.com/zwx8981/LIQE).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from iqa_lightning.datasets.samples import Samples
from iqa_lightning.datasets.split_files import FORMATS, ImageIndex, Row, find_list, read_rows
from iqa_lightning.metrics.liqe_labels import CLASS_OF, JOIN, SCENES

ABSENT = "invalid"  # what the lists write in the place of a second or third scene


class Labels(NamedTuple):
    """A row of a list, the fine label of its distortion and its scenes."""

    row: Row
    distortion: str
    scenes: tuple[str, ...]


@dataclass(frozen=True)
class LabelLists:
    """Labels for the images of a data set, which take the place of those of its own table.

    Args:
        folder: the folder that holds the lists
            (`IQA_Database/<set>/splits2/<split>/<name>_train_clip.txt` ...).
        correct_fast_fading: the lists call the 145 fast-fading images of LIVE `white noise`; true
            reads `fastfading`, which is of the class of JPEG 2000, false keeps what the authors
            trained and tested with.
    """

    folder: str | Path
    correct_fast_fading: bool = False

    def label(self, samples: Samples, tags: Sequence[str], split: int) -> Samples:
        """The data set with the columns `distortion` and `scene` of its lists; empty for an image
        in none of them.

        Raises:
            ValueError: there are no lists, they name an image that the table does not hold, or hold
                an unknown label.
        """
        files = self.files(samples.name, tags, split)
        index = ImageIndex(samples.name, list(samples.table["image"]))
        table = samples.table.assign(distortion="", scene="")
        for file in files:
            for row, distortion, scenes in read_labels(file, self.correct_fast_fading):
                table.loc[index.find(row), ["distortion", "scene"]] = distortion, JOIN.join(scenes)
        return Samples(samples.name, table)

    def files(self, name: str, tags: Sequence[str], split: int) -> list[Path]:
        """The three lists of a split, which together name every image."""
        folder = Path(self.folder).expanduser()
        for tag in dict.fromkeys(tags):
            files = [
                path
                for part in FORMATS[0]
                for path in find_list(folder, part.format(tag=tag), split)
            ]
            if files:
                return files
        raise ValueError(
            f"data set {name!r}: no lists {tags[-1]}_train_clip.txt of split {split} with labels "
            f"under {folder}; get "
            f"them from https://github.com/zwx8981/LIQE (IQA_Database), or set labels=null to go without"
        )


def as_lists(labels: LabelLists | str | Path | None) -> LabelLists | None:
    """A folder stands for its lists as they are."""
    return LabelLists(labels) if isinstance(labels, str | Path) else labels


def read_labels(file: Path, correct_fast_fading: bool = False) -> list[Labels]:
    """The labels in a list: image, MOS, distortion, three scenes.

    Raises:
        ValueError: the file cannot be read, or a row has an unknown distortion or scene, or none.
    """
    return [labels_of(row, correct_fast_fading) for row in read_rows(file, 6)]


def labels_of(row: Row, correct_fast_fading: bool) -> Labels:
    """The labels in a row, checked."""
    distortion, *cells = (cell.strip() for cell in row.cells[2:6])
    if correct_fast_fading and "fastfading" in row.cells[0].split("/"):
        distortion = "fastfading"
    scenes = tuple(cell for cell in cells if cell != ABSENT)
    if distortion not in CLASS_OF:
        raise ValueError(
            f"{row}: the distortion {distortion!r} is not one of LIQE's 33; get the list again"
        )
    if unknown := [scene for scene in scenes if scene not in SCENES] or (
        [] if scenes else ["none"]
    ):
        raise ValueError(
            f"{row}: the scene {unknown[0]!r} is not one of {', '.join(SCENES)}; get the list again"
        )
    return Labels(row, distortion, scenes)
