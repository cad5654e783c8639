"""The rehearsal in its small form: some presets of papers from end to end, two sets of the stream in their official
layouts; all of them, all sets: `make rehearsal`.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
import torch

from iqa_lightning.pretrain import pretrain
from iqa_lightning.train import run
from tests import rehearsal
from tests.walks import ROOT, composed


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rehearsal.write_all(tmp_path_factory.mktemp("rehearsal"))


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """One thread, no pictures of matrices."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with patch("iqa_lightning.report.figures.heat_maps", return_value=b"no picture"):
        yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def test_every_preset_is_rehearsed() -> None:
    """All of the papers whose codes were compared; others have no code or are rehearsed elsewhere."""
    found = {
        str(path.relative_to(ROOT / "conf" / "experiment").with_suffix(""))
        for path in (ROOT / "conf" / "experiment").rglob("*.yaml")
        if "\n# code: " in path.read_text()
    }
    assert found == set(rehearsal.EXPERIMENTS)
    methods = {composed(f"experiment={name}").method._target_ for name in rehearsal.EXPERIMENTS}
    assert len(methods) >= 18


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["zhang2022/sh_cl", "zhang2022/icarl_v2", "liqe/joint"])
def test_preset(name: str, data: Path, tmp_path: Path) -> None:
    order = "[[live,bid]]" if "joint" in name else "[live,bid]"
    words = [*rehearsal.reduced(name, data, small=True), f"stream.order={order}"]
    run(composed(*words, f"paths.output={tmp_path}", "trainer=cpu"))
    folder = rehearsal.run_folder(tmp_path)
    assert json.loads((folder / "summary.json").read_text())["finished"]
    latest = {path.name for path in folder.glob("latest/*.ckpt")}
    assert latest == ({"1_live.ckpt", "2_bid.ckpt"} if name.endswith("sh_cl") else set())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metaiqa_released", "reiqa_content"])
def test_pretraining(name: str, data: Path, tmp_path: Path) -> None:
    words = [*rehearsal.reduced_pretraining(name, data), "backbone.name=test_resnet"]
    pretrain(composed(*words, f"paths.output={tmp_path}", config="pretrain"))
    assert list(tmp_path.rglob("weights.safetensors"))
