"""A table of small runs written by hand, with its dashboard."""

from pathlib import Path

import pytest

from iqa_lightning.records import RunFolder
from iqa_lightning.report.numbers.results import collect, write_results
from tests.report.page.pages import EVIL, METHODS, with_gate, write
from tests.test_reproduce import HEADER, ORDER, write_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    """Three methods, two orders, two splits; one method has a gate, in the last an image has a
    wicked name.
    """
    output = tmp_path_factory.mktemp("outputs")
    made = []
    for method in METHODS:
        for order in (ORDER, ORDER[::-1]):
            for split in (1, 2):
                made.append(
                    write_run(output, method, order, split, noise=10 if method == "tsn_iqa" else 40)
                )
                if method == "tsn_iqa":
                    with_gate(made[-1])
    for run in made[8:]:
        for t, (task, frame) in enumerate(run.predictions().items()):
            row = frame.index[(frame["dataset"] == "noise") & (frame["split"] == "test")][0]
            frame.loc[row, "image"] = EVIL
            if task == run.read_summary()["order"][-1]:  # forgotten by all
                readouts = [
                    name for name in ("single", "latest", "gated", "oracle") if name in frame
                ]
                frame.loc[row, readouts] = 1e6 if frame.loc[row, "mos"] < 50 else -1e6
            run.write_predictions(t, task, frame)
    return made


@pytest.fixture(scope="session")
def folder(runs: list[RunFolder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The table of these runs, with its page."""
    home = tmp_path_factory.mktemp("experiments") / "tiny"
    home.mkdir()
    (home / "published.csv").write_text(
        f"{HEADER}\nsh_cl,single,,mSRCC,0.5,a <paper>,second-hand\n"
    )
    write_results(home / "results", collect(runs, 50))
    write(home, runs)
    return home
