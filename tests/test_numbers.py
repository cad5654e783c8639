"""Nothing that makes the walk faster changes a number: SRCC matrices that were stored before are
found again.

`tests/stored/<method>.csv` were made by the walk as it was before its evaluations, its input and
its networks were made faster (commit cdb93b6): two to four tasks of the embedded stream (synthetic
targets), a small network, one thread.
"""

from pathlib import Path

import pandas as pd
import pytest

from tests.walks import walk

STORED = Path(__file__).parent / "stored"
SMALL = (
    "stream=demo",
    "pairs=paper",
    "pairs.count=24",
    "schedule.finetune.epochs=1",
    "method.optimizer.lr=0.0005",
)
WORDS = {
    "tsn_iqa": ("method=tsn_iqa",),
    "lwf": ("method=lwf", "stream.order=[blur,noise,tone]"),
    "lwf_dbcnn": ("method=lwf", "backbone=dbcnn_tiny", "stream.order=[blur,noise]"),
    "mh_cl": ("method=mh_cl", "stream.order=[blur,noise,tone]"),
}


def matrices(folder: Path) -> pd.DataFrame:
    """All SRCC matrices of a run below one another, the readout in front."""
    parts = [
        pd.read_csv(path).assign(readout=path.stem[5:])
        for path in sorted(folder.glob("srcc_*.csv"))
    ]
    return pd.concat(parts, ignore_index=True).set_index(["readout", "after"])


def small_walk(output: Path, name: str) -> pd.DataFrame:
    """The matrices of a walk made now."""
    return matrices(walk(output, *SMALL, *WORDS[name]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the S-CNN starts at random")
@pytest.mark.parametrize("name", WORDS)
def test_same_seed_same_matrix(name: str, tmp_path: Path) -> None:
    stored = pd.read_csv(STORED / f"{name}.csv").set_index(["readout", "after"])
    pd.testing.assert_frame_equal(small_walk(tmp_path, name), stored, rtol=0, atol=1e-6)
