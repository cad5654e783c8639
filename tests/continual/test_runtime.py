"""Each preset of conf/trainer makes the run that the plain trainer makes, but for rounding."""

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch._dynamo.utils import counters

from iqa_lightning.methods.tsn_iqa import TSNIQA
from tests.methods.steps import FINETUNE, at, build, images, start, step
from tests.walks import stream_of_folders, walk

WORDS = ("pairs.min_images=0", "schedule.finetune.epochs=1", "backbone.name=test_resnet")
EAGER = "trainer.callbacks.0.compiler=aot_eager"  # all of torch.compile but the C++ compiler
PRESETS = {  # largest difference of a score, a cosine in [-1, 1]
    "channels_first": (("trainer=channels_first",), 1e-4),
    "compile": (("trainer=compile", EAGER), 1e-4),
    "bf16": (("trainer=bf16",), 0.1),  # 8 bits of mantissa in each step
}

FAULTS = """
import resource, torch
from iqa_lightning.continual.runtime import keep_freed_memory
kept = keep_freed_memory() if {keep} else None
for _ in range(20):
    torch.ones(2**23)  # 32 MB
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""
"""Blocks that are freed at once, and how often the system had to hand out a page."""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the C library of Linux alone can be told")
def test_freed_memory_is_used_again() -> None:
    pages = 2**25 // resource.getpagesize()
    found = {}
    for keep in (False, True):
        code = FAULTS.format(keep=keep)
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        assert said[0] == str(keep or None)
        found[keep] = int(said[1])
    assert (
        found[False] - found[True] > 15 * pages
    )  # of 20 blocks all but the first, whose pages are the process's


def scores(folder: Path) -> pd.DataFrame:
    """The scores after the last task."""
    frame = pd.read_parquet(sorted(folder.glob("predictions/*"))[-1])
    return frame[[name for name in frame if name.startswith("score/")]]


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_scores_as_the_plain_run(preset: str, folders: list[Path], tmp_path: Path) -> None:
    words, tolerance = PRESETS[preset]
    common = [*WORDS, *stream_of_folders(folders)]
    plain = scores(walk(tmp_path / "plain", *common))
    other = scores(walk(tmp_path / "other", *common, *words, "trainer.accelerator=cpu"))
    np.testing.assert_allclose(other.to_numpy(), plain.to_numpy(), rtol=0, atol=tolerance)
    if preset == "bf16":
        assert not other.equals(plain), "the training was in half precision"


@pytest.mark.slow
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_gpu_preset_scores_as_the_plain_run(folders: list[Path], tmp_path: Path) -> None:
    common = [*WORDS, *stream_of_folders(folders)]
    plain = scores(walk(tmp_path / "plain", *common, "trainer.accelerator=gpu"))
    other = scores(walk(tmp_path / "other", *common, "trainer=gpu"))
    np.testing.assert_allclose(other.to_numpy(), plain.to_numpy(), rtol=0, atol=0.1)


def test_compiled_steps_equal_plain_ones_and_names_stay() -> None:
    """Also for a frozen copy of the network, which keeps weights of its own."""
    plain, compiled = build(TSNIQA, "test_resnet"), build(TSNIQA, "test_resnet")
    compiled.backbone.compiler = "aot_eager"
    torch.compiler.reset()
    counters["stats"].clear()
    for method in (plain, compiled):
        start(method, 1)
        method.on_phase_start(at(FINETUNE))
        step(method, images(0))
    assert counters["stats"]["unique_graphs"] == 1
    assert list(plain.state_dict()) == list(compiled.state_dict())
    for key, tensor in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[key], tensor, rtol=0, atol=1e-5, msg=key)
    twin, image = compiled.backbone.twin().train(), images(1)["image"]
    before = twin(image)
    for parameter in compiled.sets.parameters(1):
        parameter.data.zero_()
    torch.testing.assert_close(twin(image), before, rtol=0, atol=1e-6)
    assert not torch.equal(compiled.backbone(image), before)
