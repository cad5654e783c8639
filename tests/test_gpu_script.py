"""`experiments/benchmarks/gpu.py` in its form for a processor: two methods, one preset."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.walks import ROOT, environment


@pytest.mark.slow
def test_the_script_on_a_processor(tmp_path: Path) -> None:
    script = ROOT / "experiments" / "benchmarks" / "gpu.py"
    words = ["--device", "cpu", "--small", "--methods", "lwf", "metaiqa"]
    done = subprocess.run(
        [sys.executable, str(script), *words, "--output", str(tmp_path / "gpu.csv")],
        env=environment() | {"PYTHONPATH": os.pathsep.join([str(ROOT)])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    rows = list(csv.DictReader((tmp_path / "gpu.csv").read_text().splitlines()))
    found = {(row["what"], row["subject"]): row for row in rows}
    for method in ("lwf", "metaiqa"):
        assert float(found["loss float32", method]["value"]) == 0.0
        assert 0 < float(found["scores bfloat16", method]["value"]) < 0.1
        assert found["tensors placed", method]["note"] == "ok"
    assert float(found["step plain", "zhang2022/tsn_iqa"]["value"]) > 0
    assert float(found["crops of one core", "384 pixels"]["value"]) > 0
