"""Time of all metrics and 1,000 bootstraps by content of a 6x6 matrix with the test sets of the
six-set protocol.

The promise is under 30 seconds on two cores; it uses one. `python
experiments/benchmarks/report_statistics.py`
"""

import csv
import math
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd

from iqa_lightning.metrics.matrices import derive
from iqa_lightning.report.numbers.results import run_tables

# test images and contents of session 1 of the six-set protocol; in-the-wild images are contents of
# their own
SETS = {
    "live": (160, 6),
    "csiq": (172, 6),
    "bid": (117, 117),
    "clive": (233, 233),
    "koniq10k": (2015, 2015),
    "kadid10k": (2000, 16),
}
RESAMPLES = 1000
LIMIT = 30.0


def predictions() -> dict[str, pd.DataFrame]:
    """Made-up predictions of one readout after each of six tasks."""
    rng, parts = np.random.default_rng(0), []
    for name, (images, contents) in SETS.items():
        part = pd.DataFrame(
            {"dataset": name, "split": "test", "image": [f"{i:04d}" for i in range(images)]}
        )
        part["mos"], part["image/reference"] = (
            rng.uniform(0, 100, images),
            [f"{i % contents}" for i in range(images)],
        )
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    noise = (rng.normal(0, 20, len(table)) for _ in range(7))
    return {after: table.assign(single=table["mos"] + next(noise)) for after in ("start", *SETS)}


def main() -> None:
    """Measure, print, write results/report_statistics.csv."""
    frames = predictions()
    start = perf_counter()
    derive(frames)
    middle = perf_counter()
    cells, measures = run_tables(frames, RESAMPLES)
    seconds = perf_counter() - start
    assert {(cell["dataset"], cell["contents"]) for cell in cells} == {
        (name, SETS[name][1]) for name in SETS
    }
    assert all(math.isfinite(cell["srcc_low"]) for cell in cells), "an interval is missing"
    rows = [["cells", "measures", "resamples", "metrics_seconds", "seconds", "limit"]]
    counts = [str(len(cells)), str(len(measures)), str(RESAMPLES)]
    rows.append([*counts, f"{middle - start:.1f}", f"{seconds:.1f}", f"{LIMIT:.0f}"])
    for row in rows:
        print("  ".join(cell.rjust(9) for cell in row))
    file = Path(__file__).parent / "results" / "report_statistics.csv"
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as text:
        csv.writer(text, lineterminator="\n").writerows(rows)
    if seconds > LIMIT:
        raise SystemExit(f"{seconds:.1f} s is more than the promised {LIMIT:.0f} s")


if __name__ == "__main__":
    main()
