"""A pre-training on 20,000 photographs of 256x192 pixels, 2.9 GB once they are decoded, in a fraction of that memory.

The pictures are generated in a temporary folder, decoded once into a cache on disk by several processes, and gone
through once; ARNIQA's first steps are made on a small network. Memory is that of the process without what it maps
from files, which the system takes back when it likes. `python experiments/benchmarks/photographs.py`
"""

import csv
import io
import tempfile
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image

from iqa_lightning.images.degradations.chain import ChainSpace
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.pretraining.arniqa import ARNIQA
from iqa_lightning.pretraining.photographs import Photographs
from iqa_lightning.runs.compose import CONF

COUNT, HEIGHT, WIDTH, STEPS = 20_000, 192, 256, 3
LIMIT = 1.5e9


def write(folder: Path) -> None:
    """Pictures of a hundred kinds; every file is another, by what follows its end."""
    rng = np.random.default_rng(0)
    kinds = []
    for _ in range(100):
        pixels = np.cumsum(rng.normal(0, 3, (HEIGHT, WIDTH, 3)), axis=1) + 128
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
        kinds.append(file.getvalue())
    for i in range(COUNT):
        (folder / f"{i:05d}.jpg").write_bytes(kinds[i % 100] + i.to_bytes(4, "big"))


def memory() -> int:
    """Bytes of this process that are not of files, now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("RssAnon")).split()[1])


def main() -> None:
    """Measure, print, write."""
    with tempfile.TemporaryDirectory() as place:
        pictures = Path(place) / "pictures"
        pictures.mkdir()
        write(pictures)
        start = perf_counter()
        data = Photographs(
            folders=[str(pictures)],
            embedded=False,
            batch_size=32,
            cache="disk",
            cache_dir=str(Path(place) / "cache"),
        )
        data.setup()
        rows = [("found and decoded", perf_counter() - start, "s"), ("memory then", memory(), "B")]
        data.trainer = SimpleNamespace(current_epoch=0, global_rank=0, world_size=1)  # type: ignore[assignment]
        node = OmegaConf.to_container(OmegaConf.load(CONF / "degradations" / "arniqa.yaml"))
        space = ChainSpace(**{k: v for k, v in node.items() if k != "_target_"})  # type: ignore[union-attr,arg-type]
        method = ARNIQA(
            backbone=Backbone("test_resnet"),
            optimizer=lambda p: torch.optim.SGD(p, lr=1e-3),
            chains=space,
            patch=96,
        )
        type(method).current_epoch = 0  # type: ignore[method-assign,assignment]  # there is no trainer
        most, seen, start = memory(), 0, perf_counter()
        for k, batch in enumerate(data.train_dataloader()):
            if k < STEPS:
                method.loss(batch["image"], batch["index"]).backward()
            seen += len(batch["index"])
            most = max(most, memory())
        rows += [("a pass over all", perf_counter() - start, "s"), ("most memory", most, "B")]
        rows += [("pictures", seen, ""), ("decoded", 3 * HEIGHT * WIDTH * COUNT, "B")]
    with (Path(__file__).parent / "results" / "photographs.csv").open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("what", "value", "unit"))
        table.writerows((what, f"{value:.4g}", unit) for what, value, unit in rows)
    for row in rows:
        print(*row)
    if most > LIMIT:
        raise SystemExit(f"{most:,} bytes exceed {LIMIT:,.0f}")


if __name__ == "__main__":
    main()
