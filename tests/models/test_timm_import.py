"""timm as it is imported: without torch's compiler, which is there as soon as it is called."""

import subprocess
import sys

import pytest

from tests.walks import ROOT

CODE = """
import sys
from iqa_lightning.models.backbones import timm
assert not {"torch._dynamo", "wandb"} & sys.modules.keys()
taken = sys.modules["torchvision.ops.roi_align"].is_compile_supported
"""


def check(code: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE + code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_function_taken_of_the_compiler_is_its_own_when_it_is_called() -> None:
    check("""
answer = taken("cpu"), taken("mps")
import torch._dynamo
from torch._dynamo.utils import is_compile_supported
assert torch._dynamo is sys.modules["torch._dynamo"] and hasattr(torch._dynamo, "optimize")
assert answer == (is_compile_supported("cpu"), is_compile_supported("mps"))
import wandb
""")


@pytest.mark.slow
def test_what_is_marked_as_not_to_be_compiled_works() -> None:
    check("""
import torch
from timm.models.naflexvit import NaFlexRopeIterator as Turns
turns = Turns.__new__(Turns)
turns._depth_idx = turns.depth = 1
try:
    next(turns)
except StopIteration:
    pass
else:
    raise AssertionError
assert torch.compile(lambda x: x + 1, backend="eager")(torch.ones(1)) == 2
""")
