"""The model in other programs: the same scores from onnxruntime and from torch.export."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from iqa_lightning import export
from iqa_lightning.metrics.scale import Knots
from iqa_lightning.scoring.deployed import OUTPUTS, Line
from iqa_lightning.scoring.images import shown
from iqa_lightning.scoring.scorer import Scorer

PARITY, SAME = 1e-4, 1e-9
"""On the scale from 0 to 100: where sums are taken in another order, and where in the same."""


def compare(bundle: Path, places: list[Path], call: Any, tolerance: float) -> None:
    """Outputs of `call` for pictures of two sizes, and those of the scorer."""
    scorer = Scorer.load(bundle, "cpu")
    files = sorted(map(str, places[1].glob("images/*.png")))[:4]
    table = scorer(files)
    for file, row in zip(files, table.to_dict("records"), strict=True):
        found = dict(zip(OUTPUTS, call(shown(file, scorer.model.view)[None]), strict=True))
        for name in ("score", "low", "high"):
            assert float(found[name][0]) == pytest.approx(row[name], abs=tolerance)
        assert float(found["outside"][0]) == pytest.approx(row["outside"], abs=tolerance)
        weights = [row["gate/a"], row["gate/b"]]
        np.testing.assert_allclose(np.asarray(found["gate"])[0], weights, atol=1e-4)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_onnx_in_onnxruntime(bundle: Path, places: list[Path], tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed (extra export)")
    path = tmp_path / "model.onnx"
    assert export.main({"run": bundle, "output": path, "size": None}) == 0
    session = ort.InferenceSession(path)
    (given,) = session.get_inputs()
    assert (given.name, given.type) == ("image", "tensor(uint8)")

    def call(image: torch.Tensor) -> Any:
        return session.run(None, {"image": image.numpy()})

    compare(bundle, places, call, PARITY)
    content = json.loads(session.get_modelmeta().custom_metadata_map["iqa_lightning"])
    assert content["card"]["tasks"] == ["a", "b"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_torch_export(run: Path, bundle: Path, places: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "model.pt2"
    assert export.main({"run": run, "output": path, "size": None}) == 0
    extra = {"iqa_lightning": ""}
    program = torch.export.load(path, extra_files=extra).module()
    compare(bundle, places, program, SAME)
    assert json.loads(extra["iqa_lightning"])["heads"] == ["a", "b"]


def test_a_line_of_ramps_is_the_map() -> None:
    knots = Knots(np.array([0.0, 1.0, 3.0]), np.array([10.0, 30.0, 31.0]))
    values = np.linspace(-2, 6, 41)
    expected = np.interp(values, knots.x, knots.y)
    expected += 7.0 * (np.minimum(values, 0) + np.maximum(values - 3, 0))  # (31 - 10) / 3
    np.testing.assert_allclose(Line(knots)(torch.from_numpy(values)), expected, atol=1e-12)
