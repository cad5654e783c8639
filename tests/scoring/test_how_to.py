"""docs/how-to/score-your-pictures.md, as it is typed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.walks import ROOT, environment, write_folder

TEXT = (ROOT / "docs" / "how-to" / "score-your-pictures.md").read_text()


@pytest.mark.slow
def test_the_page_is_executed(tmp_path: Path) -> None:
    for seed, name in enumerate(("phones", "drones", "new")):
        write_folder(tmp_path / "photos" / name, seed, images=60)
    new = tmp_path / "photos" / "new"
    (new / "ratings.csv").unlink()
    for picture in (new / "images").iterdir():
        shutil.move(picture, new / picture.name)
    own = environment() | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    said = ""
    for language, block in re.findall(r"```(bash|python)\n(.*?)```", TEXT, re.DOTALL):
        command = f"{sys.executable} -m iqa_lightning."
        words = ["bash", "-ec", re.sub(r"^iqa-lightning ", command, block, flags=re.MULTILINE)]
        if language == "python":
            words = [sys.executable, "-c", block]
        done = subprocess.run(
            words, capture_output=True, text=True, cwd=tmp_path, env=own, timeout=300, check=False
        )
        assert done.returncode == 0, block + done.stdout + done.stderr
        said += done.stdout
    table = pd.read_csv(tmp_path / "scores.csv")
    assert len(table) == 60
    assert table["score"].between(0, 100).all()
    assert (tmp_path / "scores.html").stat().st_size > 10_000
    assert (
        "| phones | 42 / 6 / 12 | that of the folder's owner |"
        in (tmp_path / "card.md").read_text()
    )
    assert "verdict: " in said
