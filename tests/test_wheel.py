"""What an installed package holds and finds: built as `pip wheel` builds it, unpacked, called from
elsewhere.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.walks import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    builders = pytest.importorskip(
        "hatchling.builders.wheel", reason="hatchling is not installed: pip install hatchling"
    )
    return Path(
        next(builders.WheelBuilder(str(ROOT)).build(directory=str(tmp_path_factory.mktemp("dist"))))
    )


def files(folder: str, prefix: str) -> set[str]:
    """The files of a folder of the checkout, as a wheel names them."""
    found = [
        path
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    return {f"{prefix}{path.relative_to(ROOT / folder).as_posix()}" for path in found}


@pytest.mark.slow
def test_it_holds_the_package_its_page_and_its_configs(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names - {"iqa_lightning/built_from.txt"} == files(
        "iqa_lightning", "iqa_lightning/"
    ) | files("conf", "iqa_lightning/conf/")
    assert {
        f"iqa_lightning/report/page/{name}"
        for name in ("page.html", "page.js", "charts.js", "style.css")
    } <= names
    assert "iqa_lightning/conf/method/tsn_iqa.yaml" in names


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "words", "said"),
    [
        ("reproduce", ["--info", "searchpath"], "{}/iqa_lightning/conf"),
        ("train", ["experiment=demo", "hydra/launcher=slurm", "--cfg", "all"], "SlurmLauncher"),
    ],
)
def test_its_commands_work_from_anywhere(
    wheel: Path, tmp_path: Path, module: str, words: list[str], said: str
) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    (tmp_path / "work").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", f"iqa_lightning.{module}", *words],
        cwd=tmp_path / "work",
        env=os.environ | {"PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.format(tmp_path / "site") in done.stdout + done.stderr
    assert list((tmp_path / "work").iterdir()) == []
