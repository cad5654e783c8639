"""Every figure that a README under experiments gives is what the stored results give."""

from pathlib import Path

import pytest

from iqa_lightning.report.numbers.claims import broken_claims, evaluated
from tests.walks import ROOT

TABLES = ROOT / "experiments"
CLAIMS = {file: file.with_name("claims.yaml") for file in sorted(TABLES.glob("*/README.md"))}
CLAIMS |= {TABLES / "README.md": TABLES / "claims.yaml"}
CLAIMS |= {ROOT / "README.md": TABLES / "readme_claims.yaml"}


@pytest.mark.parametrize("readme", CLAIMS, ids=lambda file: file.parent.name)
def test_readmes_say_what_the_results_give(readme: Path) -> None:
    assert broken_claims(readme, CLAIMS[readme]) == []


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
    assert broken_claims(small / "README.md", small / "claims.yaml")[0].startswith(
        "no claim holds .50 of"
    )
    good = "- {text: a reaches .50, is: \"mean_of('summary', 'mean', method='a')\", value: 0.50}\n"
    good += "- {text: more than b at its worst, is: \"0.5 > least_of('summary', 'mean')\"}\n"
    (small / "claims.yaml").write_text(good)
    assert broken_claims(small / "README.md", small / "claims.yaml") == []
    (small / "claims.yaml").write_text(good.replace("0.50}", "0.51}").replace("0.5 >", "0.1 >"))
    assert [line[1:7] for line in broken_claims(small / "README.md", small / "claims.yaml")] == [
        "a reac",
        "more t",
    ]
    (small / "claims.yaml").write_text(good.replace("text: a", "text: it"))
    assert "is not in " in broken_claims(small / "README.md", small / "claims.yaml")[0]
