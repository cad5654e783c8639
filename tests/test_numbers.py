"""Nothing that is made faster or put in another place changes a number: what was stored before is found again.

`tests/stored` holds the SRCC matrices of every method in two budgets, the weights of small pre-trainings, and the
configs of every table, experiment and method; `tests/stored/record.py` makes them, and says of what. The matrices in
`matrices/first` are of the walk as it was at commit cdb93b6. Synthetic targets, small networks, one thread.
"""

import pytest
import torch

from tests.stored import record

MATRICES = [name for name in record.RECORDS if name.startswith("matrices")]
PRETRAINING = [name for name in record.RECORDS if name.startswith("pretraining")]
CONFIGS = [name for name in record.RECORDS if name not in {*MATRICES, *PRETRAINING}]


def test_every_stored_file_is_looked_at() -> None:
    files = {str(path.relative_to(record.HERE)) for kind in ("csv", "json") for path in record.HERE.rglob(f"*.{kind}")}
    assert files == set(record.RECORDS)


@pytest.mark.parametrize("name", CONFIGS)
def test_same_values(name: str) -> None:
    """Of the configs, and of the demo's table as committed."""
    assert record.RECORDS[name]().splitlines() == (record.HERE / name).read_text().splitlines()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the S-CNN starts at random", "ignore:.*the replay of .* has collapsed")
@pytest.mark.parametrize("name", MATRICES)
def test_same_matrices(name: str) -> None:
    now, before = record.RECORDS[name](), (record.HERE / name).read_text()
    assert record.rounded(now).splitlines() == record.rounded(before).splitlines(), torch.__version__


@pytest.mark.slow
@pytest.mark.parametrize("name", PRETRAINING)
def test_same_weights(name: str) -> None:
    """To the bit."""
    assert record.RECORDS[name]().splitlines() == (record.HERE / name).read_text().splitlines(), torch.__version__
