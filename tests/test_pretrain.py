"""The pretrain command: weights and card, resuming to the same bytes, starts for every method, two
ranks, probes.
"""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file

from iqa_lightning import signals
from iqa_lightning.pretrain import pretrain, probe
from tests.walks import IN_BATCH, call, composed, stream_of_folders, walk

QPT = (
    "pretraining=qpt",
    "backbone=tiny",
    "trainer=cpu",
    "epochs=3",
    "method.patch=24",
    "method.width=8",
    "method.queue=16",
)
QPT = (*QPT, "data.embedded=false", "data.batch_size=8", "data.resize=0")
META = (
    "pretraining=metaiqa",
    "backbone=tiny",
    "trainer=cpu",
    "epochs=3",
    "data.visits=2",
    "data.resize=36",
    "data.crop=32",
)
META = (*META, "data.support_batch=8", "data.query_batch=4", "data.tasks=2", "view.crop=32")


def words(kind: str, folders: list[Path]) -> list[str]:
    """Overrides of a small pre-training on the folders."""
    return [*(QPT if kind == "qpt" else META), *stream_of_folders(folders)]


def run(output: Path, *overrides: str, start: Callable = pretrain) -> Path:
    """The command in this process, on one thread; its folder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start(composed(*overrides, f"paths.output={output}", config="pretrain"))
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(False)
    return next(iter(output.glob("pretrain/*/*/split*/seed*")), output)


def signal_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """Let SIGTERM come in the middle of an epoch."""
    seen = [0]

    def hook(self: pl.LightningModule, batch: object, batch_idx: int) -> None:
        seen[0] += 1
        if seen[0] == steps:
            monkeypatch.setattr(signals._State, "received", signal.SIGTERM)

    monkeypatch.setattr(pl.LightningModule, "on_train_batch_start", hook)


@pytest.mark.parametrize("kind", ["qpt", "metaiqa"])
def test_resumes_to_the_same_bytes_and_starts_a_method(
    kind: str,
    folders: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = run(tmp_path / "whole", *words(kind, folders))
    with monkeypatch.context() as patch:
        signal_after(patch, {"qpt": 10, "metaiqa": 4}[kind])
        with pytest.raises(signals.Interrupted, match=r"in epoch 2 of 3; the same") as end:
            run(tmp_path / "broken", *words(kind, folders))
    assert end.value.status == 143
    assert not list((tmp_path / "broken").rglob("weights.safetensors"))
    broken = run(tmp_path / "broken", *words(kind, folders))
    assert (broken / "weights.safetensors").read_bytes() == (
        whole / "weights.safetensors"
    ).read_bytes()
    check_card(json.loads((whole / "card.json").read_text()), kind)

    start = f"backbone.weights='{whole / 'weights.safetensors'}'"
    output = walk(
        tmp_path / "train",
        "method=sh_cl",
        IN_BATCH,
        *stream_of_folders(folders),
        start,
        "stream.order=[a]",
    )
    summary = json.loads((output / "summary.json").read_text())
    assert summary["finished"]
    capsys.readouterr()
    before = (whole / "weights.safetensors").stat().st_mtime_ns
    run(tmp_path / "whole", *words(kind, folders))
    assert (whole / "weights.safetensors").stat().st_mtime_ns == before, (
        "a finished one does nothing"
    )
    with pytest.raises(ValueError, match=r"test parts.*allow_leakage=true"):
        walk(
            tmp_path / "leak",
            "method=sh_cl",
            IN_BATCH,
            *stream_of_folders(folders),
            start,
            "split=2",
        )
    allowed = ["split=2", "allow_leakage=true", "stream.order=[a]"]
    with pytest.warns(UserWarning, match="test images of this stream"):
        walk(
            tmp_path / "leak2",
            "method=sh_cl",
            IN_BATCH,
            *stream_of_folders(folders),
            start,
            *allowed,
        )


def check_card(card: dict, kind: str) -> None:
    """It names what was seen: the training images of both folders."""
    assert card["experiment"] == kind
    assert (card["network"], card["started_from"], card["known"]) == (
        "test_efficientnet",
        "random",
        True,
    )
    assert len(card["images"]) == 56
    assert all(content.startswith("sha256:") for content in card["images"])
    assert {name.split("/")[0] for name in card["images"].values()} == {"a", "b"}


def test_cards_are_handed_on(folders: list[Path], tmp_path: Path) -> None:
    first = run(tmp_path / "first", *QPT, *stream_of_folders(folders[:1]), "epochs=1")
    start = f"backbone.weights='{first / 'weights.safetensors'}'"
    second = run(tmp_path / "second", *QPT, *stream_of_folders(folders[1:]), "epochs=1", start)
    cards = [json.loads((folder / "card.json").read_text())["images"] for folder in (first, second)]
    assert cards[0].items() < cards[1].items()
    assert len(cards[1]) == 56


def test_arniqa_and_released_metaiqa_run(folders: list[Path], tmp_path: Path) -> None:
    arniqa = [
        "pretraining=arniqa",
        "backbone=tiny",
        "trainer=cpu",
        "trainer.precision=32-true",
        "epochs=1",
        "method.patch=24",
    ]
    arniqa += ["data.batch_size=8", "data.num_workers=0", *stream_of_folders(folders)]
    assert (run(tmp_path / "arniqa", *arniqa) / "card.json").is_file()
    for outer in ("drift", "interpolate", "second_order"):
        extra = [
            f"method.outer={outer}",
            "epochs=1",
            "method.shared_state=true",
            "method.output=worker",
        ]
        assert (
            run(tmp_path / outer, *META, *stream_of_folders(folders), *extra)
            / "weights.safetensors"
        ).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["qpt", "metaiqa"])
def test_two_ranks(kind: str, folders: list[Path], tmp_path: Path) -> None:
    """Of MetaIQA without dropout the ranks share the tasks of one process; QPT's ranks hold one
    queue.
    """
    extra = [*words(kind, folders), "epochs=1"] + (
        ["method.dropout=0.0"] if kind == "metaiqa" else []
    )
    call(
        *extra,
        "trainer=ddp",
        "trainer.accelerator=cpu",
        "trainer.devices=2",
        f"paths.output={tmp_path}",
        module="pretrain",
    )
    (two,) = tmp_path.glob("pretrain/*/*/split*/seed*")
    shared = load_file(two / "weights.safetensors")
    alone = load_file(run(tmp_path / "one", *extra) / "weights.safetensors")
    assert shared.keys() == alone.keys()
    assert all(tensor.isfinite().all() for tensor in shared.values() if tensor.is_floating_point())
    if kind == "metaiqa":
        for key, tensor in alone.items():
            assert (shared[key].double() - tensor.double()).abs().mean() < 2e-3, key
    else:
        index = torch.load(two / "last.ckpt", weights_only=True)["state_dict"]["queue_index"]
        assert len(set(index.tolist())) == 8, (
            "the keys of both ranks: the last batch of eight images, twice each"
        )


def test_probe_writes_its_table(
    folders: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = [
        "pretraining=probe",
        "backbone=tiny",
        "~probe.starts.imagenet",
        "probe.splits=[1,2]",
        "view.resize=0",
    ]
    run(
        tmp_path,
        *extra,
        f"probe.output={tmp_path / 'probes'}",
        *stream_of_folders(folders),
        start=probe,
    )
    text = (tmp_path / "probes" / "table.md").read_text()
    assert "| random |" in text
    assert "| start | a | b |" in text
    lines = (tmp_path / "probes" / "results" / "splits.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 2
    assert "table.md" in capsys.readouterr().out
