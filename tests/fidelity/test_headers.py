"""Every preset of a paper says in its header which paper, which state of its code, and what differs."""

import re

import pytest

from tests.rehearsal import EXPERIMENTS, PRETRAININGS
from tests.walks import ROOT

FILES = [
    *(ROOT / "conf" / "experiment" / f"{name}.yaml" for name in EXPERIMENTS),
    *(ROOT / "conf" / "pretraining" / f"{name}.yaml" for name in PRETRAININGS),
]
CODES = {  # the state that was compared
    "BIQA_CL": "55f850b",
    "TSN-IQA": "f16a48f",
    "LIQE": "a64655f",
    "UNIQUE": "908f528",
    "MetaIQA": "30eeeb1",
    "ARNIQA": "f60c0f2",
    "ReIQA": "290632a",
}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_header(file: object) -> None:
    text = file.read_text()  # type: ignore[attr-defined]
    header = [line for line in text.splitlines() if line.startswith("#")]
    said = {
        key: next((line for line in header if line.startswith(f"# {key}: ")), "")
        for key in ("paper", "code", "differs")
    }
    paper = header[header.index(said["paper"]) : header.index(said["code"])]
    assert re.search(r"https://(arxiv\.org|doi\.org)/", " ".join(paper)), "the paper's address"
    found = re.search(r"https://github\.com/[\w-]+/([\w-]+) at ([0-9a-f]{7})", said["code"])
    assert found, "the code and its commit"
    assert CODES[found[1]] == found[2]
    assert len(said["differs"]) > len("# differs: as "), "what differs"
    if as_other := re.search(r"as (zhang2022/\w+)", said["differs"]):
        assert as_other[1] in EXPERIMENTS
    if found[1] in ("ARNIQA", "ReIQA"):
        assert "after it" in " ".join(header), "not from it, where it is not the same"
