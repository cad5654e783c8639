"""The published numbers beside a table: `published.csv` in its folder."""

import math
from pathlib import Path

import pandas as pd

from iqa_lightning.report.text.terminal import MEASURES

PUBLISHED = ["method", "readout", "dataset", "metric", "value", "protocol", "source", "certainty"]
"""Columns of the file. `protocol` is empty where it is that of the table, else says which it is:
such a number is shown apart, and there is no verdict on it.
"""


OTHER_PROTOCOL = "other protocol"


UNCERTAIN = ("not certified", "doubtful")


def read_published(file: Path) -> pd.DataFrame:
    """Published numbers: `measure` as in a summary, `value` NaN where no trustworthy number is
    known.

    A file without the column `protocol` holds numbers of the table's own protocol.

    Raises:
        ValueError: The file is missing, has other columns, or a row holds a metric or a value that
            cannot be read.
    """
    header = ",".join(PUBLISHED)
    if not file.is_file():
        raise ValueError(
            f"{file} is missing: give it the header {header}, and rows where there are any"
        )
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    if "protocol" not in table:
        table.insert(min(5, table.shape[1]), "protocol", "")
    if list(table.columns) != PUBLISHED:
        raise ValueError(f"{file}: the columns are {','.join(table.columns)}, expected {header}")
    known = {label.lower(): key for key, label in MEASURES.items()}
    measures, values = [], []
    for row, (dataset, metric, value) in enumerate(
        zip(table["dataset"], table["metric"], table["value"], strict=True), 1
    ):
        if metric.lower() != "srcc" and metric.lower() not in known:
            raise ValueError(
                f"{file}, row {row}: metric '{metric}' is not SRCC, {', '.join(MEASURES.values())}"
            )
        measures.append(f"srcc/{dataset}" if metric.lower() == "srcc" else known[metric.lower()])
        try:
            values.append(float(value) if value.strip() else math.nan)
        except ValueError:
            raise ValueError(
                f"{file}, row {row}: value '{value}' is not a number; empty where unknown"
            ) from None
    table = table.assign(measure=measures, value=values)
    table.loc[table["certainty"].str.startswith(UNCERTAIN), "value"] = math.nan
    twice = table.duplicated(["method", "readout", "measure", "protocol"])
    if twice.any():
        raise ValueError(
            f"{file}, row {int(twice.to_numpy().argmax()) + 1}: this number is there twice; keep "
            "one row"
        )
    return table
