"""Every figure that a README under experiments gives is what the stored results give."""

from pathlib import Path

import pytest

from iqa_lightning.report.numbers.claims import broken_claims, evaluated
from tests.walks import ROOT

FOLDERS = sorted(file.parent for file in (ROOT / "experiments").glob("*/README.md"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_readmes_say_what_the_results_give(folder: Path) -> None:
    assert broken_claims(folder) == []


@pytest.fixture
def small(tmp_path: Path) -> Path:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "summary.csv").write_text("method,mean\na,0.5\nb,0.25\nb,0.75\n")
    (tmp_path / "README.md").write_text("a reaches .50, more\nthan b at its worst.\n")
    return tmp_path


def test_expressions(small: Path) -> None:
    results = small / "results"
    assert evaluated("mean_of('summary', 'mean', method='b') - 0.1 * 2", results) == 0.3
    assert evaluated("least_of('summary', 'mean', method=['a', 'b'])", results) == 0.25
    assert evaluated("0 < most_of('summary', 'mean') < 1 and 1 == 1", results) is True
    assert evaluated("count_of('summary', 'mean', method='b')", results) == 2
    for wrong in ("__import__('os')", "x", "open('a')", "[1]", "'a'", "2 ** 9"):
        with pytest.raises(ValueError, match="no part of a claim"):
            evaluated(wrong, results)
    with pytest.raises(ValueError, match="has no row"):
        evaluated("mean_of('summary', 'mean', method='c')", results)


def test_a_claim_that_does_not_hold_is_named(small: Path) -> None:
    assert broken_claims(small)[0].endswith("no claim holds .50")
    good = "- {text: a reaches .50, is: \"mean_of('summary', 'mean', method='a')\", value: 0.50}\n"
    good += "- {text: more than b at its worst, is: \"0.5 > least_of('summary', 'mean')\"}\n"
    (small / "claims.yaml").write_text(good)
    assert broken_claims(small) == []
    (small / "claims.yaml").write_text(good.replace("0.50}", "0.51}").replace("0.5 >", "0.1 >"))
    assert [line.partition(": '")[2][:6] for line in broken_claims(small)] == ["a reac", "more t"]
    (small / "claims.yaml").write_text(good.replace("text: a", "text: it"))
    assert "is not in the README" in broken_claims(small)[0]
