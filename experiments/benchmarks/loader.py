"""Training crops a second on one core: decoding in every epoch as the official code does, against the uint8 cache.

Both read the same JPEG files of 1024x768 pixels, made from photographs of scikit-image, and end in normalised float
crops of 384x384; the ratio is that of the slower kind of cache. A second table shows the memory of a process whose
cache lies on disk when its images grow tenfold. `python experiments/benchmarks/loader.py`
"""

import csv
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from skimage import data

from iqa_lightning.data.cache import ImageCache, build_cache
from iqa_lightning.data.decoding import ImageSource
from iqa_lightning.data.transforms import View, adaptive_resize, random_view

SIZE = (1024, 768)
CROP = 384
IMAGES = 24
REPEATS = 5
FEW, MANY = 10, 100
MEAN, STD = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def write_images(folder: Path, count: int) -> list[Path]:
    """JPEG files in which photographs are cut and mirrored differently."""
    photographs = [Image.fromarray(load()) for load in (data.astronaut, data.coffee, data.chelsea, data.rocket)]
    paths = [folder / f"{i:03d}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        photograph = photographs[i % len(photographs)]
        side = 0.6 + 0.4 * (i % 7) / 7
        box = (0, 0, int(photograph.width * side), int(photograph.height * side))
        image = photograph.resize(SIZE, Image.Resampling.BICUBIC, box=box)
        image.save(path, quality=90)
    return paths


def source_of(paths: list[Path]) -> ImageSource:
    """The files as the cache takes them."""
    sizes = [SIZE[::-1]] * len(paths)
    return ImageSource("bench", "\n".join(map(str, paths)), len(paths), sizes.__getitem__, lambda i: opened(paths[i]))


def opened(path: Path) -> Image.Image:
    """A file, decoded."""
    with Image.open(path) as image:
        return image.convert("RGB")


def as_official(path: Path, resize: int, draw: np.random.Generator) -> torch.Tensor:
    """Decode, adaptive resize, crop, flip, float, normalise: for each crop anew."""
    image = adaptive_resize(opened(path), resize)
    left, top = (int(draw.integers(0, side - CROP + 1)) for side in image.size)
    image = image.crop((left, top, left + CROP, top + CROP))
    image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if draw.random() < 0.5 else image
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 - MEAN) / STD


def from_cache(cache: ImageCache, i: int, view: View, draw: np.random.Generator) -> torch.Tensor:
    """Crop, flip, float, normalise."""
    return (random_view(cache[i], view, *draw.random(3)).float() / 255 - MEAN) / STD


def crops_a_second(crop: object, count: int) -> float:
    """Median over repeats of a pass over all images."""
    seconds = []
    for _ in range(REPEATS):
        start = perf_counter()
        for i in range(count):
            crop(i)  # type: ignore[operator]
        seconds.append(perf_counter() - start)
    return count / median(seconds)


def anonymous_memory() -> int:
    """Megabytes of this process that are not pages of a file, which the system may drop at any time."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) // 1024


def memory_child(folder: Path, count: int) -> None:
    """Build a cache on disk, crop every image twice, print the largest memory seen."""
    paths = sorted(folder.glob("*.jpg"))[:count]
    source, peak = source_of(paths), anonymous_memory()

    def watched(i: int) -> Image.Image:
        nonlocal peak
        image = source.load(i)
        peak = max(peak, anonymous_memory())
        return image

    watched_source = ImageSource(source.name, source.fingerprint, source.count, source.size, watched)
    cache = build_cache(watched_source, 0, "disk", folder / "cache")
    view, draw = View(0, CROP), np.random.default_rng(0)
    for i in list(range(count)) * 2:
        from_cache(cache, i, view, draw)
        peak = max(peak, anonymous_memory())
    print(peak)


def main() -> None:
    """Measure, print, write results/loader.csv."""
    torch.set_num_threads(1)
    draw, rows = np.random.default_rng(0), [["measure", "resize", "official", "in memory", "on disk", "ratio"]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = write_images(folder, MANY)
        for resize in (768, 512):
            view, source = View(resize, CROP), source_of(paths[:IMAGES])
            official = crops_a_second(lambda i, resize=resize: as_official(paths[i], resize, draw), IMAGES)
            ours = []
            for kind in ("memory", "disk"):
                cache = build_cache(source, resize, kind, folder / "cache")
                ours.append(crops_a_second(lambda i, c=cache, view=view: from_cache(c, i, view, draw), IMAGES))
            speeds = [f"{speed:.1f}" for speed in (official, *ours, min(ours) / official)]
            rows.append(["crops/s/core", str(resize), *speeds])
        child = [sys.executable, __file__, "--memory", name]
        few, many = (
            int(subprocess.run([*child, str(count)], stdout=subprocess.PIPE, text=True, check=True).stdout)  # noqa: S603
            for count in (FEW, MANY)
        )
    rows += [["measure", "images", "megabytes", "", "", ""]]
    rows += [["on disk", str(count), str(peak), "", "", ""] for count, peak in ((FEW, few), (MANY, many))]
    for row in rows:
        print("  ".join(cell.rjust(12) for cell in row).rstrip())
    file = Path(__file__).parent / "results" / "loader.csv"
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as text:
        csv.writer(text, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        memory_child(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
