"""A better start: `python -m iqa_lightning.pretrain pretraining=qpt` writes weights that any method
can start from.

`backbone.weights=<folder>/weights.safetensors` takes them. `card.json` beside them says what they
have seen; training refuses them where that is in a test part. The same command resumes.
`pretraining=probe` measures starts instead.
"""

from __future__ import annotations

from iqa_lightning import signals

if __name__ == "__main__":  # before anything that takes time
    signals.install()

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from iqa_lightning.configs import without_places
from iqa_lightning.files import write_bytes
from iqa_lightning.runs.compose import CONF, check_kinds, instantiate, to_dict
from iqa_lightning.runs.folder import (
    check_config,
    is_first_process,
    keep_config,
    method_name,
    sole_owner,
    variant_of,
)
from iqa_lightning.runs.mistakes import quoted, run_command
from iqa_lightning.runs.package import package
from iqa_lightning.runs.process import follow_parent, lead_children
from iqa_lightning.runs.start import (
    Begun,
    check_ranges,
    check_values,
    check_writable,
    one_line,
    whole_number,
)

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from iqa_lightning.datasets.base import IQADataModule
    from iqa_lightning.models.backbones import Backbone


WEIGHTS = "weights.safetensors"


@hydra.main(config_path=str(CONF), config_name="pretrain", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Pre-train, go on with it, or probe."""
    with one_line() as begun:
        check_kinds("pretrain")
        if cfg.probe is None:
            pretrain(cfg, begun)
        else:
            probe(cfg)


def pretrain(cfg: DictConfig, begun: Begun | None = None) -> None:
    """One pre-training in its folder: nothing to do if it is finished, go on if it was interrupted,
    start otherwise.
    """
    check_values(cfg)
    hydra = HydraConfig.get()
    choices, words = hydra.runtime.choices, list(hydra.overrides.task or [])
    typed = [word for word in words if word.partition("=")[0] != "backbone"]  # it has its place
    backbone = method_name(str(choices["backbone"]), variant_of(typed, to_dict(cfg), choices))
    names = (str(choices["pretraining"]), backbone, f"split{cfg.split}", f"seed{cfg.seed}")
    folder = Path(cfg.paths.output).joinpath("pretrain", *names)
    done = (folder / WEIGHTS).is_file()
    if is_first_process():
        print(f"{'finished' if done else 'pre-training'}: {' '.join(names)}", flush=True)
    check_config(folder, to_dict(cfg))
    if not done:
        check_writable(folder)
        learn(cfg, folder, names[0], begun or Begun())
    if is_first_process():
        start = f"backbone.weights={quoted(str(folder / WEIGHTS))}"
        print(f"start a method from it: {shlex.quote(start)}")


def learn(cfg: DictConfig, folder: Path, name: str, begun: Begun) -> None:
    """Build, hold the folder, train, write the weights."""
    from iqa_lightning.runs.walking import prepare  # noqa: PLC0415  # torch stays out of --help

    prepare(cfg.seed)
    method: pl.LightningModule = instantiate(
        cfg.method, backbone=instantiate(cfg.backbone), _convert_="all"
    )
    data: pl.LightningDataModule = instantiate(cfg.data, _partial_=True, _convert_="all")(
        data=rated(cfg, cfg.split)
    )
    trainer = build_trainer(cfg, folder)
    signals.move_to(signals.RAISE)
    data.prepare_data()
    data.setup("fit")  # which finds all that can be wrong with them
    with sole_owner(folder):
        keep_config(folder, to_dict(cfg))
        begun.yes = True
        fit(trainer, method, data, folder)
        if trainer.is_global_zero:
            write(cfg, method, data, folder, name)


def rated(cfg: DictConfig, split: int) -> list[IQADataModule]:
    """The data sets of the stream, of which only training images are used."""
    from iqa_lightning.stream.schedule import Phase  # noqa: PLC0415  # torch

    if cfg.get("stream") is None:
        return []
    build = instantiate(cfg.stream, _partial_=True, _convert_="all")
    stream = build(
        phases=[Phase("pretrain", 1, 2)], split=split, seed=cfg.seed, view=instantiate(cfg.view)
    )
    return list({data.name: data for data in stream.data.values()}.values())


def build_trainer(cfg: DictConfig, folder: Path) -> pl.Trainer:
    """The trainer of a pre-training, which writes nothing yet."""
    from pytorch_lightning.callbacks import LambdaCallback, ModelCheckpoint  # noqa: PLC0415  # torch

    from iqa_lightning.continual.checkpoints import AtomicCheckpointIO, seed_epoch  # noqa: PLC0415
    from iqa_lightning.continual.stopping import Stopping  # noqa: PLC0415

    keep = ModelCheckpoint(
        folder, "last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    seeds = LambdaCallback(
        on_train_epoch_start=lambda trainer, _: seed_epoch(
            cfg.seed, ("", "pretrain", trainer.current_epoch), trainer.global_rank
        )
    )

    def in_epoch(trainer: pl.Trainer) -> str:
        return f"in epoch {min(trainer.current_epoch + 1, cfg.epochs)} of {cfg.epochs}"

    build = instantiate(cfg.trainer, _partial_=True)
    stopping = Stopping(in_epoch, str(folder / "last.ckpt"))
    trainer: pl.Trainer = build(
        max_epochs=cfg.epochs,
        callbacks=[stopping, *build.keywords.get("callbacks", []), seeds, keep],
        logger=False,
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
    )
    return trainer


def fit(
    trainer: pl.Trainer, method: pl.LightningModule, data: pl.LightningDataModule, folder: Path
) -> None:
    """Train from the last checkpoint, or from the start, which a damaged one leaves."""
    from pytorch_lightning.loggers import CSVLogger  # noqa: PLC0415  # torch

    from iqa_lightning.continual.checkpoints import read_checkpoint  # noqa: PLC0415

    last: Path | None = folder / "last.ckpt"
    try:
        read_checkpoint(folder / "last.ckpt", folder)
    except ValueError as error:
        if (folder / "last.ckpt").exists() and is_first_process():
            print(f"note: {error}; going on from the start", flush=True)
        last = None
    trainer.loggers = [CSVLogger(folder, name="log")]
    try:
        with lead_children():
            trainer.fit(method, datamodule=data, ckpt_path=last, weights_only=True)
    finally:
        signals.move_to(signals.NOTE)  # what is left takes a moment


def write(cfg: DictConfig, method: Any, data: Any, folder: Path, name: str) -> None:
    """The weights and their card; the weights last, since they say that all is done."""
    from safetensors.torch import save  # noqa: PLC0415  # torch

    from iqa_lightning.audit.contents import CARD, card_of  # noqa: PLC0415

    before = card_of(cfg.backbone.get("weights"))
    card = {
        "experiment": name,
        "network": cfg.backbone.name,
        "started_from": without_places(cfg.backbone.get("weights")) or "random",
        "epochs": cfg.epochs,
        "split": cfg.split,
        "seed": cfg.seed,
        "git": package()["commit"],
        "known": cfg.backbone.get("weights") in (None, "imagenet", "bundled") or bool(before),
        "images": before.get("images", {}) | data.contents,
        "config": without_places(to_dict(cfg)),
    }
    write_bytes(folder / CARD, f"{json.dumps(card, indent=1, ensure_ascii=False)}\n".encode())
    tensors = {key: value.detach().cpu().contiguous() for key, value in method.weights().items()}
    write_bytes(folder / WEIGHTS, save(tensors))
    print(f"written: {folder / WEIGHTS}, {folder / CARD} ({len(card['images'])} images seen)")


def probe(cfg: DictConfig) -> None:
    """Ridge regression on frozen features of each start: table and results."""
    import pytorch_lightning as pl  # noqa: PLC0415  # torch stays out of --help

    from iqa_lightning.pretraining.probe import probe_start, seen_by, summarise, table  # noqa: PLC0415
    from iqa_lightning.runs.walking import silence_hints  # noqa: PLC0415

    check_ranges(cfg)
    for split in cfg.probe.splits:
        whole_number("probe.splits", split, 1, 10)
    check_writable(cfg.probe.output, "probe.output")
    signals.move_to(signals.RAISE)
    silence_hints()
    starts = {str(name): weights for name, weights in cfg.probe.starts.items()}
    seen = frozenset() if cfg.probe.seen_images else seen_by(starts.values())
    partitions = {int(split): rated(cfg, int(split)) for split in cfg.probe.splits}
    for data in (data for sets in partitions.values() for data in sets):
        data.prepare_data()
    frames = []
    for name, weights in starts.items():
        pl.seed_everything(cfg.seed, verbose=False)
        backbone: Backbone = instantiate(OmegaConf.merge(cfg.backbone, {"weights": weights}))
        for sets in zip(*partitions.values(), strict=True):
            by_split = dict(zip(partitions, sets, strict=True))
            frames.append(
                probe_start(name, backbone.eval(), by_split, list(cfg.probe.scales), seen)
            )
            print(f"{name}: {sets[0].name} done", flush=True)
    results, folder = summarise(frames), Path(cfg.probe.output)
    for file, frame in zip(("splits", "summary"), results, strict=True):
        text = frame.to_csv(index=False, lineterminator="\n", float_format="%.6g")
        write_bytes(folder / "results" / f"{file}.csv", text.encode())
    shown = table(results[1], to_dict(cfg))
    write_bytes(folder / "table.md", shown.encode())
    print(f"{shown}\nwritten: {folder / 'table.md'}")


if __name__ == "__main__":
    follow_parent()
    run_command(main, "pretrain")
