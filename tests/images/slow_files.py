"""Builds a cache in a process of its own: `python -m tests.images.slow_files <images> <folder>
<log> <seconds>`.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from iqa_lightning.images.cache import build_cache
from iqa_lightning.images.decoding import ImageReader
from iqa_lightning.images.opening import Rule

RULE = Rule(min_side=1)


@dataclass(frozen=True)
class SlowFiles:
    """The PNG files of a folder, each decoded in so many seconds, its name added to a log."""

    folder: Path
    log: Path
    seconds: float = 0.0
    ballast: bytes = bytes(300_000)  # more than a pipe holds, as the names of many images are

    def __call__(self, i: int) -> Image.Image:
        with self.log.open("a") as log:
            log.write(f"{i}\n")
        time.sleep(self.seconds)
        return RULE.load(self.folder / f"{i}.png", "set")

    def size(self, i: int) -> tuple[int, int]:
        """Height and width."""
        return RULE.size(self.folder / f"{i}.png", "set")

    def source(self) -> ImageReader:
        """All of them."""
        return ImageReader("set", "files", len(list(self.folder.glob("*.png"))), self.size, self)


if __name__ == "__main__":
    images, folder, log, seconds = sys.argv[1:]
    try:
        files = SlowFiles(Path(images), Path(log), float(seconds))
        build_cache(files.source(), 24, "disk", Path(folder), processes=2)
    except ValueError as error:
        sys.exit(str(error))
