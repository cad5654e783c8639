"""Training crops a second on one core: decoding in every epoch as the official code does, against
the uint8 cache.

Both read the same JPEG files of 1024x768 pixels, made from photographs of scikit-image, and end in
normalised float crops of 384x384; the ratio is that of the slower kind of cache. Then the crops
alone, as unsigned bytes, which is what leaves the loader: the network makes floats of them and
normalises. How the time of a crop grows with the image, what mirroring, stacking and loader workers
cost, and the memory of a process whose cache lies on disk when its images grow tenfold. `python
experiments/benchmarks/loader.py`
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from types import SimpleNamespace

import numpy as np
import torch
from measuring.noise import noise_files
from measuring.sides import in_turns, show, slope
from PIL import Image
from skimage import data

from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.images.cache import ImageCache, build_cache
from iqa_lightning.images.decoding import ImageReader
from iqa_lightning.images.transforms import View, adaptive_resize, random_view
from iqa_lightning.stream.schedule import Phase
from iqa_lightning.stream.stream import TaskStream

SIZE = (1024, 768)
CROP = 384
IMAGES = 24
REPEATS = 5
FEW, MANY = 10, 100
SIDES = (448, 896, 1792)
MEAN, STD = (
    torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
)


def write_images(folder: Path, count: int, size: tuple[int, int] = SIZE) -> list[Path]:
    """JPEG files of `size` (width, height) in which photographs are cut differently."""
    photographs = [
        Image.fromarray(load()) for load in (data.astronaut, data.coffee, data.chelsea, data.rocket)
    ]
    paths = [folder / f"{i:03d}.jpg" for i in range(count)]
    for i, path in enumerate(paths):
        photograph = photographs[i % len(photographs)]
        side = 0.6 + 0.4 * (i % 7) / 7
        box = (0, 0, int(photograph.width * side), int(photograph.height * side))
        image = photograph.resize(size, Image.Resampling.BICUBIC, box=box)
        image.save(path, quality=90)
    return paths


def source_of(paths: list[Path], size: tuple[int, int] = SIZE) -> ImageReader:
    """The files as the cache takes them."""
    sizes = [size[::-1]] * len(paths)
    return ImageReader(
        "bench",
        "\n".join(map(str, paths)),
        len(paths),
        sizes.__getitem__,
        lambda i: opened(paths[i]),
    )


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


def as_bytes(cache: ImageCache, i: int, view: View, draw: np.random.Generator) -> torch.Tensor:
    """Crop and flip."""
    return random_view(cache[i], view, *draw.random(3))


def crops_a_second(crop: object, count: int) -> float:
    """Median over repeats of a pass over all images."""
    seconds = []
    for _ in range(REPEATS):
        start = process_time()
        for i in range(count):
            crop(i)  # type: ignore[operator]
        seconds.append(process_time() - start)
    return count / median(seconds)


def anonymous_memory() -> int:
    """Megabytes of this process that are not pages of a file, which the system may drop at any
    time.
    """
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

    watched_source = ImageReader(
        source.name, source.fingerprint, source.count, source.size, watched
    )
    cache = build_cache(watched_source, 0, "disk", folder / "cache")
    view, draw = View(0, CROP), np.random.default_rng(0)
    for i in list(range(count)) * 2:
        from_cache(cache, i, view, draw)
        peak = max(peak, anonymous_memory())
    print(peak)


def speeds(folder: Path, draw: np.random.Generator) -> list[list[str]]:
    """Crops a second by either way."""
    rows = [["measure", "resize", "official", "in memory", "on disk", "ratio", "promised", "kept"]]
    paths = write_images(folder, MANY)[:IMAGES]
    for resize in (768, 512):
        view, source = View(resize, CROP), source_of(paths)
        caches = [build_cache(source, resize, kind, folder / "cache") for kind in ("ram", "disk")]
        official = crops_a_second(
            lambda i, resize=resize: as_official(paths[i], resize, draw), IMAGES
        )
        ours = [
            crops_a_second(lambda i, c=c, view=view: from_cache(c, i, view, draw), IMAGES)
            for c in caches
        ]
        ratio = min(ours) / official
        limit = [">= 10", "yes" if ratio >= 10 else "no"]
        rows.append(
            [
                "float crops/s/core",
                str(resize),
                *(f"{x:.1f}" for x in (official, *ours, ratio)),
                *limit,
            ]
        )
        ours = [
            crops_a_second(lambda i, c=c, view=view: as_bytes(c, i, view, draw), IMAGES)
            for c in caches
        ]
        limit = [">= 3000", "yes" if min(ours) >= 3000 else "no"]
        cells = ["", *(f"{x:.1f}" for x in ours), f"{min(ours) / official:.1f}"]
        rows.append(["uint8 crops/s/core", str(resize), *cells, *limit])
    return rows


def growth(folder: Path, draw: np.random.Generator) -> list[list[str]]:
    """Milliseconds of a crop by the side of a square image, and slopes over the number of its
    pixels.
    """
    times: list[list[float]] = []
    for side in SIDES:
        (folder / str(side)).mkdir()
        paths = write_images(folder / str(side), 6, (side, side))
        cache, view = build_cache(source_of(paths, (side, side)), 0, "ram"), View(0, CROP)
        ways = (
            lambda i, paths=paths: as_official(paths[i], 0, draw),
            lambda i, c=cache, view=view: as_bytes(c, i, view, draw),
        )
        times.append([1000 / crops_a_second(way, len(paths)) for way in ways])
    rows = [["ms a crop", "side", "official", "in memory", "", "", "", ""]]
    rows += [
        ["", str(side), *(f"{x:.2f}" for x in row), "", "", "", ""]
        for side, row in zip(SIDES, times, strict=True)
    ]
    slopes = [
        slope([side**2 for side in SIDES], list(column)) for column in zip(*times, strict=True)
    ]
    return [*rows, ["slope over pixels", "", *(f"{x:.2f}" for x in slopes), "", "", "", ""]]


def batches(draw: np.random.Generator) -> list[list[str]]:
    """Milliseconds of a batch of 16 crops of 384 pixels, and where they go."""
    image = torch.randint(0, 256, (3, *SIZE[::-1]), dtype=torch.uint8)
    crops = [as_bytes({0: image}, 0, View(0, CROP), draw) for _ in range(16)]  # type: ignore[arg-type]  # looked up
    whole, mirrored = torch.stack(crops), torch.arange(16)[:, None, None, None] % 2 == 0
    cut = image[:, 100 : 100 + CROP, 200 : 200 + CROP]
    ways = {
        "16 crops copied": lambda: [
            cut.clone(memory_format=torch.contiguous_format) for _ in range(16)
        ],
        "16 crops copied and mirrored": lambda: [cut.flip(-1) for _ in range(16)],
        "half a batch mirrored afterwards": lambda: torch.where(mirrored, whole, whole.flip(-1)),
        "stacked to a batch": lambda: torch.stack(crops),
        "float and normalised": lambda: (whole.float() / 255 - MEAN) / STD,
    }
    found = in_turns(ways, 15)
    return [
        ["ms a batch", name, f"{1000 * median(times):.2f}", *[""] * 5]
        for name, times in found.items()
    ]


def workers(folder: Path) -> list[list[str]]:
    """Milliseconds by the clock from an epoch's start to its first batch, and of each further one."""
    sets = {"x": partial(CSVData, noise_files(folder / "x", 400, 448, 0))}
    rows = [["ms by the clock", "workers", "first batch", "a batch", "", "", "", ""]]
    for count in (0, 1, 2):
        stream = TaskStream(
            sets, [Phase("x", 1, 16)], view=View(0, CROP), cache="ram", num_workers=count
        )
        stream.setup()
        stream.trainer = SimpleNamespace(current_epoch=0, global_rank=0, world_size=1)  # type: ignore[assignment]
        first, rest = [], []
        for _ in range(REPEATS):
            start = perf_counter()
            epoch = iter(stream.train_dataloader())
            next(epoch)
            first.append(perf_counter() - start)
            start = perf_counter()
            rest.append((sum(1 for _ in epoch), perf_counter() - start))
        each = median(1000 * seconds / steps for steps, seconds in rest)
        rows.append(["", str(count), f"{1000 * median(first):.0f}", f"{each:.2f}", "", "", "", ""])
    return rows


def main() -> None:
    """Measure, print, write results/loader.csv."""
    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [*speeds(folder, draw), *growth(folder, draw), *batches(draw), *workers(folder)]
        child = [sys.executable, __file__, "--memory", name]
        few, many = (
            int(
                subprocess.run(  # noqa: S603  # ours
                    [*child, str(count)], stdout=subprocess.PIPE, text=True, check=True
                ).stdout
            )
            for count in (FEW, MANY)
        )
    rows += [["measure", "images", "megabytes", "", "", "", "", ""]]
    rows += [
        ["on disk", str(count), str(peak), "", "", "", "", ""]
        for count, peak in ((FEW, few), (MANY, many))
    ]
    show("loader", rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        memory_child(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
