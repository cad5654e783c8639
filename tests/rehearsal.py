"""The rehearsal: every preset of every paper from its first to its last step, on generated pictures in the official
layouts, with nothing reduced but epochs, pairs and the size of pictures; `make rehearsal`.

Networks are the presets' own with random weights, since no weights can be fetched. What a preset is called with is
what its header says: `python -m iqa_lightning.train experiment=zhang2022/ewc paths.data=<dir>`.

    python -m tests.rehearsal [zhang2022/lwf ...]      these, or all
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace

import numpy as np
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image

from iqa_lightning.datasets.base import IQADataModule
from iqa_lightning.images.transforms import View
from tests.datasets import layouts
from tests.datasets.folders import write_clive
from tests.walks import ROOT, call, command, composed, environment, results

CONF = ROOT / "conf"
SIX = ("live", "csiq", "bid", "clive", "koniq10k", "kadid10k")
HEIGHT, WIDTH = 72, 96
SCENES, DISTORTIONS = ("animal", "night", "plant"), ("noise_", "white noise", "gaussian blur")

EXPERIMENTS = sorted(
    [f"zhang2022/{path.stem}" for path in (CONF / "experiment" / "zhang2022").glob("*.yaml")]
    + ["liqe/joint", "liqe/single", "unique/paper", "metaiqa_finetune"]
)
PRETRAININGS = ("metaiqa_released", "arniqa", "reiqa", "reiqa_content")


# --- six sets, their lists and photographs


def write_all(root: Path) -> Path:
    """All that the presets read, where their headers say it goes: `paths.data`."""
    references = [f"img{n}.bmp" for n in range(1, 15)]
    dmos = {f"jp2k/{name}": 10.0 + 7 * k for k, name in enumerate(references)}
    names = {f"jp2k/{name}": f"ref{k // 2}.bmp" for k, name in enumerate(references)}
    layouts.write_live(root / "databaserelease2", dmos, names)
    layouts.write_csiq(root / "CSIQ")
    layouts.write_bid(root / "BID")
    write_clive(root / "clive" / "ChallengeDB_release", count=20)
    write_koniq10k(root / "koniq-10k")
    layouts.write_kadid10k(root / "kadid10k")
    layouts.write_tid2013(root / "tid2013")
    for name in (*SIX, "tid2013"):
        data = data_set(root, name)
        draw_pictures(data)
        if name in SIX:
            write_lists(root / "splits", name, data)
    photographs = root / "photographs"
    photographs.mkdir()
    for i in range(8):
        picture(i, 0.0, 160, 192).save(photographs / f"{i}.jpg")
    return root


def write_koniq10k(root: Path) -> None:
    """Eighteen photographs and the table with the owners' sets."""
    header = "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set"
    parts = ["training"] * 10 + ["validation"] * 4 + ["test"] * 4
    rows = [f"{i}.jpg,{i},2,3,4,5,{14 + i},50,0.5,{part}" for i, part in enumerate(parts)]
    layouts.write_text(root / "koniq10k_distributions_sets.csv", header, *rows)
    layouts.draw(root, [f"1024x768/{i}.jpg" for i in range(len(parts))])


def data_set(root: Path, name: str) -> IQADataModule:
    """A set as its config builds it."""
    node = OmegaConf.load(CONF / "data" / f"{name}.yaml")
    config = OmegaConf.create({"paths": {"data": str(root)}, "data": node})
    data: IQADataModule = instantiate(config.data)(name=name, view=View(0, 32))
    table = data.read_table().reset_index(drop=True)
    data.samples = SimpleNamespace(table=table)  # type: ignore[assignment]  # a dozen may have no split
    return data


def picture(seed: int, noise: float, height: int = HEIGHT, width: int = WIDTH) -> Image.Image:
    """A smooth picture with noise on it."""
    rng = np.random.default_rng(seed)
    smooth = np.cumsum(rng.normal(0, 3, (height, width, 3)), axis=1) + 128
    pixels = smooth + rng.normal(0, 1 + 60 * noise, smooth.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def draw_pictures(data: IQADataModule) -> None:
    """Pictures in the place of the layout's, noisier where the score is lower."""
    ranks = data.samples.table["mos"].rank(pct=True)
    for i in range(len(ranks)):
        picture(i, 1 - ranks[i]).save(data.image_path(i))


def write_lists(folder: Path, name: str, data: IQADataModule) -> None:
    """The lists of session 1 as BIQA_CL has them, and of 1 and 2 as LIQE has them."""
    table = data.samples.table
    reference = table.get("reference", table["image"])
    contents = list(dict.fromkeys(reference))
    for session in (1, 2):
        order = np.random.default_rng(session).permutation(len(contents))
        cut = [0, round(0.6 * len(order)), round(0.8 * len(order)), len(order)]
        for k, part in enumerate(("train", "val", "test")):
            chosen = {contents[i] for i in order[cut[k] : cut[k + 1]]}
            rows = [i for i in range(len(table)) if reference[i] in chosen]
            scores = [f"{table['image'][i]}\t{float(table['mos'][i])!r}" for i in rows]
            what = [(DISTORTIONS[1 + i % 2], SCENES[i % 3]) for i in rows]
            labels = [
                f"{score}\t{distortion}\t{scene}\tinvalid\tinvalid"
                for score, (distortion, scene) in zip(scores, what, strict=True)
            ]
            place = folder / "liqe" / "IQA_Database" / name / "splits2" / str(session)
            layouts.write_text(place / f"{name}_{part}_clip.txt", *labels)
            if session == 1:
                place = folder / "biqa_cl" / "IQA_Database" / name / "splits2" / "1"
                file = f"{name}_{'train_score' if part == 'train' else part}.txt"
                layouts.write_text(place / file, *(f"{score}\t0.5" for score in scores))


# --- what is reduced


def reduced(experiment: str, data: Path, small: bool = False) -> list[str]:
    """The words of a rehearsal: of each phase one epoch, a few pairs, small pictures.

    Args:
        experiment: the preset.
        data: of `write_all`.
        small: whether CLIP is a random one of two layers; its own takes minutes on a CPU.
    """
    words = [f"experiment={experiment}", f"paths.data={data}", "logger=none"]
    clip = experiment.startswith("liqe")
    words += [] if clip else ["view.crop=64"]
    if clip and small:
        text = "{context_length: 24, vocab_size: 49408, width: 16, heads: 1, layers: 1}"
        words += ["backbone=clip_tiny", "view.crop=32", f"backbone.options.text_cfg={text}"]
    elif clip:
        words += ["backbone.pretrained=null"]
    else:
        words += ["backbone.weights=null"]
    if experiment == "metaiqa_finetune":
        words += ["view.squeeze=72"]
    cfg = composed(*words)
    scnn = ROOT.parent / "shared" / "data" / "weights" / "scnn.pkl"
    if "scnn_weights" in cfg.backbone:
        words += [f"backbone.scnn_weights={scnn if scnn.is_file() else 'null'}"]
    words += [f"schedule.{key}.epochs=1" for key, phase in cfg.schedule.items() if phase.epochs]
    if "count" in cfg.pairs:
        words += ["pairs.count=8", "~pairs.counts"]
    if "steps" in cfg.pairs:
        words += ["pairs.steps=2", "pairs.images=2", "~pairs.by_set"]
    return words


def reduced_pretraining(name: str, data: Path) -> list[str]:
    """The words of the rehearsal of a pre-training."""
    words = [f"pretraining={name}", f"paths.data={data}", "epochs=2", "trainer=cpu"]
    words += ["trainer.precision=32-true", "data.num_workers=0", "backbone.weights=null"]
    if name == "metaiqa_released":
        two = {"tid2013": "[white_noise,sparse_sampling]", "kadid10k": "[gaussian_blur]"}
        groups = [f"stream.sets.{key}.groups={value}" for key, value in two.items()]
        return [*words, *groups, "method.classifier=random", "data.resize=72", "data.crop=64"]
    small = ["method.patch=48", "data.batch_size=8", f"data.folders=[{data / 'photographs'}]"]
    queue = [] if name == "arniqa" else ["method.queue=128"]
    versions = ["method.versions=2"] if name == "reiqa" else []
    return [*words, *small, *queue, *versions]


# --- the command


def run_all(names: Sequence[str], folder: Path) -> dict[str, str]:
    """Each preset as a command of its own; what became of it."""
    data, said = write_all(folder / "data"), {}
    for name in names:
        start = perf_counter()
        pretraining = name in PRETRAININGS
        words = reduced_pretraining(name, data) if pretraining else reduced(name, data)
        done = call(
            *words,
            f"paths.output={folder / 'out'}",
            module="pretrain" if pretraining else "train",
            check=False,
        )
        state = "ok" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
        said[name] = state
        print(f"{perf_counter() - start:7.1f} s  {name:32} {state}", flush=True)
    extra = {"two ranks": partial(two_ranks, data), "kill and resume": partial(kill, data)}
    for what, check in extra.items():
        start = perf_counter()
        said[what] = check(folder / what.replace(" ", "_"))
        print(f"{perf_counter() - start:7.1f} s  {what:32} {said[what]}", flush=True)
    return said


def run_folder(output: Path) -> Path:
    """The folder of the only run below."""
    return next(output.rglob("summary.json")).parent


TWO_SETS = "stream.order=[live,csiq]"


def two_ranks(data: Path, output: Path) -> str:
    """LwF-KG on two processes, as two devices would have it."""
    ranks = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    words = [*reduced("zhang2022/lwf", data), *ranks, TWO_SETS, f"paths.output={output}"]
    done = call(*words, check=False)
    return "ok" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def kill(data: Path, output: Path) -> str:
    """LwF-KG killed in its second set, the same command once more: the same bytes."""
    words = [*reduced("zhang2022/lwf", data), TWO_SETS, "trainer=cpu"]
    call(*words, f"paths.output={output / 'whole'}")
    again = [*words, f"paths.output={output / 'killed'}"]
    process = subprocess.Popen(
        command(*again), env=environment(), cwd=ROOT, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 300
    while not list(output.glob("killed/**/tasks/1_live.ckpt")):
        if process.poll() is not None or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    call(*again)
    one, other = (results(run_folder(output / k)) for k in ("whole", "killed"))
    return "ok" if one == other else "the resumed run differs"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        told = run_all(sys.argv[1:] or [*EXPERIMENTS, *PRETRAININGS], Path(place))
    print(json.dumps(told, indent=1))
    sys.exit(any(state != "ok" for state in told.values()))
