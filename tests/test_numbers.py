"""Nothing that is made faster or put in another place changes a number: what was stored before is found again.

`tests/stored` holds the SRCC matrices of every method in two budgets, the weights of small pre-trainings, and the
configs of every table, experiment and method; `tests/stored/record.py` makes them, and says of what. Synthetic targets,
small networks, one thread. Matrices and weights were made anew when seeds came to follow the names of tasks; up to that
step the code had given the numbers of the code before its rooms were cut anew, which commit effbe92 holds.
"""

import json
from pathlib import Path

import pytest

from tests.stored import record
from tests.stored.renamed import method_of, renamed, without_added
from tests.walks import each

SHOWN_FIRST = ("sh_cl", "lwf", "tsn_iqa", "liqa", "icarl_v2", "liqe", "qpt", "metaiqa")
MATRICES = [name for name in record.RECORDS if name.startswith("matrices")]
PRETRAINING = [name for name in record.RECORDS if name.startswith("pretraining")]
CONFIGS = [name for name in record.RECORDS if name not in {*MATRICES, *PRETRAINING}]


def test_every_stored_file_is_looked_at() -> None:
    files = {
        str(path.relative_to(record.HERE))
        for kind in ("csv", "json")
        for path in record.HERE.rglob(f"*.{kind}")
    }
    assert files == {*record.RECORDS, "processor.json"}


@pytest.mark.parametrize("name", CONFIGS)
def test_same_values(name: str) -> None:
    """Of the configs, and of the demo's table as committed, but for names."""
    kind, table = Path(name).parent.name, Path(name).stem
    stored = json.loads((record.HERE / name).read_text())
    now = json.loads(record.RECORDS[name]())
    if kind == "configs":
        now = {key: without_added(config) for key, config in now.items()}
        stored = {key: without_added(renamed(config, key)) for key, config in stored.items()}
    if table not in ("experiments", "methods"):
        stored = {method_of(table, key): content for key, content in stored.items()}
    assert now == stored


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:the S-CNN starts at random", "ignore:.*the replay of .* has collapsed"
)
@pytest.mark.parametrize("name", each([*MATRICES, *PRETRAINING], SHOWN_FIRST))
def test_same_matrices_and_weights(name: str) -> None:
    """To the bit, but for the last digits of a correlation. Another processor may round otherwise."""
    now, before = record.RECORDS[name](), (record.HERE / name).read_text()
    same = record.rounded(now).splitlines() == record.rounded(before).splitlines()
    made_on, here = json.loads((record.HERE / "processor.json").read_text()), record.processor()
    if not same and here != made_on:
        pytest.skip(f"the numbers were made on {made_on}, and {here} rounds otherwise")
    assert record.rounded(now).splitlines() == record.rounded(before).splitlines()
