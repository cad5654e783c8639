"""A better start: `python -m iqa_lightning.pretrain pretraining=qpt` writes weights that any method
can start from.

`backbone.weights=<folder>/weights.safetensors` takes them. `card.json` beside them says what they
have seen; training refuses them where that is in a test part. The same command resumes.
`pretraining=probe` measures starts instead.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from iqa_lightning.runs.compose import CONF, instantiate
from iqa_lightning.runs.folder import is_first_process, keep_config, sole_owner
from iqa_lightning.runs.mistakes import run_command
from iqa_lightning.train import git_commit, silence_hints, to_dict

if TYPE_CHECKING:
    import pytorch_lightning as pl

    from iqa_lightning.datasets.base import IQADataModule
    from iqa_lightning.models.backbones import Backbone


WEIGHTS = "weights.safetensors"


@hydra.main(config_path=str(CONF), config_name="pretrain", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Pre-train, go on with it, or probe."""
    try:
        if cfg.probe is None:
            pretrain(cfg)
        else:
            probe(cfg)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error


def pretrain(cfg: DictConfig) -> None:
    """One pre-training in its folder: nothing to do if it is finished, go on if it was interrupted,
    start otherwise.
    """
    import pytorch_lightning as pl  # noqa: PLC0415  # torch stays out of --help

    silence_hints()
    pl.seed_everything(cfg.seed, verbose=False)
    choices = HydraConfig.get().runtime.choices
    names = (choices["pretraining"], choices["backbone"], f"split{cfg.split}", f"seed{cfg.seed}")
    folder = Path(cfg.paths.output).joinpath("pretrain", *names)
    with sole_owner(folder):
        keep_config(folder, to_dict(cfg))
        if not (folder / WEIGHTS).is_file():
            method: pl.LightningModule = instantiate(
                cfg.method, backbone=instantiate(cfg.backbone), _convert_="all"
            )
            data: pl.LightningDataModule = instantiate(cfg.data, _partial_=True, _convert_="all")(
                data=rated(cfg, cfg.split)
            )
            trainer = fit(cfg, method, data, folder)
            if trainer.is_global_zero:
                write(cfg, method, data, folder, names[0])
        if is_first_process():
            print(f"start a method from it: backbone.weights={folder / WEIGHTS}")


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


def fit(
    cfg: DictConfig, method: pl.LightningModule, data: pl.LightningDataModule, folder: Path
) -> pl.Trainer:
    """Train from the last checkpoint, or from the start."""
    from pytorch_lightning.callbacks import LambdaCallback, ModelCheckpoint  # noqa: PLC0415  # torch
    from pytorch_lightning.loggers import CSVLogger  # noqa: PLC0415

    from iqa_lightning.continual.checkpoints import AtomicCheckpointIO, seed_epoch  # noqa: PLC0415
    from iqa_lightning.continual.runtime import keep_freed_memory  # noqa: PLC0415

    keep_freed_memory()
    last = folder / "last.ckpt"
    keep = ModelCheckpoint(
        folder, "last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    seeds = LambdaCallback(
        on_train_epoch_start=lambda trainer, _: seed_epoch(
            cfg.seed, trainer.current_epoch, trainer.global_rank
        )
    )
    build = instantiate(cfg.trainer, _partial_=True)
    trainer: pl.Trainer = build(
        max_epochs=cfg.epochs,
        callbacks=[*build.keywords.get("callbacks", []), seeds, keep],
        logger=CSVLogger(folder, name="log"),
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
    )
    trainer.fit(
        method, datamodule=data, ckpt_path=last if last.is_file() else None, weights_only=True
    )
    if trainer.interrupted:
        raise SystemExit(f"interrupted; the same command goes on from {last}")
    return trainer


def write(cfg: DictConfig, method: Any, data: Any, folder: Path, name: str) -> None:
    """The weights and their card; the weights last, since they say that all is done."""
    from safetensors.torch import save  # noqa: PLC0415  # torch

    from iqa_lightning.audit.contents import CARD, card_of  # noqa: PLC0415
    from iqa_lightning.records import write_bytes  # noqa: PLC0415  # pandas

    before = card_of(cfg.backbone.get("weights"))
    card = {
        "experiment": name,
        "network": cfg.backbone.name,
        "started_from": cfg.backbone.get("weights") or "random",
        "epochs": cfg.epochs,
        "split": cfg.split,
        "seed": cfg.seed,
        "git": git_commit(),
        "known": cfg.backbone.get("weights") in (None, "imagenet", "bundled") or bool(before),
        "images": before.get("images", {}) | data.contents,
        "config": to_dict(cfg),
    }
    write_bytes(folder / CARD, f"{json.dumps(card, indent=1, ensure_ascii=False)}\n".encode())
    tensors = {key: value.detach().cpu().contiguous() for key, value in method.weights().items()}
    write_bytes(folder / WEIGHTS, save(tensors))
    print(f"written: {folder / WEIGHTS}, {folder / CARD} ({len(card['images'])} images seen)")


def probe(cfg: DictConfig) -> None:
    """Ridge regression on frozen features of each start: table and results."""
    import pytorch_lightning as pl  # noqa: PLC0415  # torch stays out of --help

    from iqa_lightning.pretraining.probe import probe_start, seen_by, summarise, table  # noqa: PLC0415
    from iqa_lightning.records import write_bytes  # noqa: PLC0415

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
    run_command(main, "pretrain")
