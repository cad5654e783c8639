"""The contract of all data sets: each `conf/data/*.yaml`, in the layout of its owners, gives a sound
table with a declared direction, splits that keep contents together, a closed test part and a
fingerprint of its files; three data sets that do not are found out.
"""

import math
import os
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from iqa_lightning.datasets.base import IQADataModule, unlocked_test_set
from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.datasets.splits import Split
from iqa_lightning.images.transforms import View
from tests.contract import ContractError
from tests.datasets import layouts
from tests.datasets.folders import write_clive, write_csv
from tests.walks import ROOT

Build = Callable[..., IQADataModule]

NAMES = sorted(path.stem for path in (ROOT / "conf" / "data").glob("*.yaml"))
COLUMNS = ["image", "mos", "mos_std", "reference", "distortion", "level", "official", "scene"]
ROWS = [f"images/{i}.png,{1 + i / 5},0.5" for i in range(20)]
FOLDER = partial(write_csv, text="\n".join(["image,mos,mos_std", *ROWS]))

BETTER = {  # a better image and a worse one, by the scores that the layout is written with
    "agiqa3k": ("AttnGAN_normal_007.jpg", "AttnGAN_normal_000.jpg"),  # 3.5, 0
    "bid": ("ImageDatabase/DatabaseImage0590.JPG", "ImageDatabase/DatabaseImage0003.JPG"),  # 4.5
    "clive": ("14.JPG", "1.bmp"),  # in the order of the table
    "csiq": ("dst_imgs/awgn/1600.AWGN.1.png", "dst_imgs/awgn/1600.AWGN.3.png"),  # DMOS .1, .3
    "flive": ("voc_emotic_ava/AVA__11.jpg", "blur_dataset/out_of_focus__0.jpg"),  # 61, 50
    "kadid10k": ("I01_01_01.png", "I01_01_05.png"),  # 4.45, 2.45; the column is called dmos
    "koniq10k": ("0.jpg", "10.jpg"),  # none and ten ratings of 1
    "live": ("jp2k/img2.bmp", "fastfading/img174.bmp"),  # DMOS 0.1, 98.1
    "pipal": ("A0001_06_02.bmp", "A0001_00_00.bmp"),  # 1451, 1401
    "spaq": ("00012.jpg", "00001.jpg"),  # 88, 0
    "tid2013": ("i01_01_1.bmp", "i01_01_5.bmp"),  # 5.9, 1.9
    "uhd_iqa": ("11.jpg", "0.jpg"),  # 0.75, 0.2
    **dict.fromkeys(("avt_ai", "mmp2k", "ttl"), ("images/19.png", "images/0.png")),  # 4.8, 1
}
NOT_DECODABLE = ("live",)
"""Its layout has a thousand empty files."""


def written(name: str, root: Path) -> Path:
    """The data set in the layout of its owners."""
    return {"clive": write_clive, **dict.fromkeys(("avt_ai", "mmp2k", "ttl"), FOLDER)}.get(
        name, getattr(layouts, f"write_{name}", FOLDER)
    )(root)


def of_its_test(name: str) -> tuple[Callable[[Path], Path], tuple[str, str]]:
    """How a set that is not named above is written, and `BETTER`, as its own test says."""
    module = import_module(f"tests.datasets.test_{name}")
    return getattr(module, f"write_{name}"), module.BETTER


def configured(name: str) -> Build:
    """What builds a data set, as its config says."""
    node = OmegaConf.load(ROOT / "conf" / "data" / f"{name}.yaml")
    build: Build = instantiate(OmegaConf.create({"paths": {"data": "x"}, "data": node}).data)
    return partial(build, view=View(0, 32))


# --- the checks


def demand(holds: object, words: str) -> None:
    """Raise `ContractError` with these words unless something holds."""
    if not holds:
        raise ContractError(words)


def check_declared(data: IQADataModule) -> None:
    """Range and direction of the study are declared; a folder's range may be what occurs in it."""
    direction = getattr(data, "native_higher_is_better", None)
    demand(isinstance(direction, bool), "it does not declare native_higher_is_better")
    low, high = data.native_range
    demand(math.isfinite(low) and math.isfinite(high) and low < high, "native_range is no range")


def check_table(data: IQADataModule) -> None:
    """Columns, kinds, names that occur once, scores in range."""
    table = data.samples.table
    demand(list(table.columns) == COLUMNS, f"columns {list(table.columns)}")
    for column in ("image", "reference", "distortion", "official", "scene"):
        demand(table[column].map(type).eq(str).all(), f"{column} is not text")
    for column in ("mos", "mos_std", "level"):
        demand(table[column].dtype == np.float64, f"{column} is not float64")
    demand(table["image"].is_unique and table["image"].ne("").all(), "an image has no own name")
    demand(table["reference"].ne("").all(), "an image has no reference")
    demand(table["official"].isin(["", "train", "val", "test"]).all(), "an official part")
    demand(table["mos"].between(*data.native_range).all(), "a mos is outside of native_range")
    for column in ("mos_std", "level"):
        demand((table[column].dropna() >= 0).all(), f"{column} is negative")


def check_direction(data: IQADataModule, better: str, worse: str) -> None:
    """A higher score is a better image: of two that are told, and of the same content and
    distortion at rising levels.
    """
    table = data.samples.table
    image = "/" + table["image"].str.lower()
    first, second = (
        table.loc[image.str.endswith(f"/{name.lower()}"), "mos"] for name in (better, worse)
    )
    demand(len(first) == len(second) == 1, f"{better} or {worse} is not in the table")
    demand(first.item() > second.item(), f"{better} is better than {worse} and has the lower mos")
    for key, group in table[table["level"].notna()].groupby(["reference", "distortion"]):
        falls = group.sort_values("level")["mos"].is_monotonic_decreasing
        demand(falls, f"mos rises with the level of {key}")


def check_splits(build: Callable[..., IQADataModule]) -> None:
    """Parts are disjoint and complete, contents stay together, another number is another split."""
    seen = set()
    for number in (1, 2, 3):
        data = build(split=number)
        data.tabulate()
        rows = np.concatenate(data.parts)
        demand(sorted(rows) == list(range(len(data.samples))), "an image is in no part or in two")
        reference = data.samples.table["reference"].to_numpy()
        owners = pd.concat(
            [
                pd.Series(label, reference[part])
                for label, part in zip("abc", data.parts, strict=True)
            ]
        )
        apart = owners.groupby(level=0).nunique()
        demand((apart == 1).all(), f"the reference {apart.idxmax()!r} is in {apart.max()} parts")
        seen.add(data.split_hash)
    demand(len(seen) > 1, "all splits are the same")


def check_test_part(data: IQADataModule, decodable: bool) -> None:
    """The test part opens in an evaluation alone."""
    if decodable:
        data.setup()
    try:
        data.part("test")
    except PermissionError:
        pass
    else:
        raise ContractError("its test part is open to everybody")
    if decodable:
        with unlocked_test_set():
            demand(len(data.part("test")) == len(data.parts.test), "the test part is not whole")
            image = data.part("test")[0]["image"]
        demand(
            image.shape[0] == 3 and str(image.dtype) == "torch.uint8", "images are not uint8 RGB"
        )


def check_fingerprint(data: IQADataModule) -> None:
    """A fingerprint stays, and changes with any file; what has no files has one of its own."""
    before = data.fingerprint()
    demand(before == data.fingerprint(), "its fingerprint changes by itself")
    for row in (0, len(data.samples) - 1):
        if not (file := data.image_path(row)).is_file():
            demand(data.synthetic, f"{file} is no file")
            return
        state = file.stat()
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
        demand(data.fingerprint() != before, f"{file.name} has changed, its fingerprint has not")
        before = data.fingerprint()


def check_data_set(build: Build, better: tuple[str, str] | None, decodable: bool = True) -> None:
    """All of the contract.

    Args:
        build: makes the data module, given a `split`.
        better: a better image and a worse one; null where levels alone tell.
        decodable: whether its images can be read.

    Raises:
        ContractError: what does not hold.
    """
    data = build(split=1)
    data.prepare_data()
    check_declared(data)
    check_table(data)
    if better is not None:
        check_direction(data, *better)
    check_splits(build)
    check_test_part(data, decodable)
    check_fingerprint(data)


@pytest.mark.parametrize("name", NAMES)
def test_the_contract(name: str, tmp_path: Path) -> None:
    build = configured(name)
    if not name.startswith("demo_"):
        write, better = (
            (partial(written, name), BETTER[name]) if name in BETTER else of_its_test(name)
        )
        build = partial(build, root=write(tmp_path / "set"))
        check_data_set(build, better, name not in NOT_DECODABLE)
        return
    check_data_set(build, None)
    data = build()
    data.tabulate()
    assert data.synthetic
    other = "demo_blur" if name != "demo_blur" else "demo_noise"
    assert data.fingerprint() != configured(other)().fingerprint()


# --- three that must fail it


class Leaks(CSVData):
    """Images of one content go to any part."""

    def make_split(self, samples: object) -> Split:
        order = np.random.default_rng(self.split).permutation(len(samples))  # type: ignore[arg-type]
        return Split(order[:14], order[14:16], order[16:])


class UpsideDown(CSVData):
    """Its scores are turned, though higher is better already."""

    def read_table(self) -> pd.DataFrame:
        table = super().read_table()
        return table.assign(mos=sum(self.native_range) - table["mos"])


class SaysNothing(CSVData):
    """It does not say which way is better."""

    def read_table(self) -> pd.DataFrame:
        table = super().read_table()
        del self.native_higher_is_better
        return table


@pytest.fixture
def grouped(tmp_path: Path) -> Path:
    """A folder of ten contents, two images each."""
    rows = [f"images/{i}.png,{1 + i / 5},{i // 2}" for i in range(20)]
    return write_csv(tmp_path / "set", text="\n".join(["image,mos,group", *rows]))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Leaks, "is in 2 parts"),
        (UpsideDown, "has the lower mos"),
        (SaysNothing, "does not declare native_higher_is_better"),
    ],
)
def test_what_breaks_it_is_found_out(kind: type[CSVData], said: str, grouped: Path) -> None:
    better = ("images/19.png", "images/0.png")
    check_data_set(partial(CSVData, grouped, view=View(0, 32)), better)
    with pytest.raises(ContractError, match=said):
        check_data_set(partial(kind, grouped, view=View(0, 32)), better)
