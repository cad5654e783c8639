"""One small finished run for all tests of scoring."""

from pathlib import Path

import pytest

from iqa_lightning import export
from tests.walks import IN_BATCH, stream_of_folders, walk, write_folder


@pytest.fixture(scope="session")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two folders of rated pictures; thirteen validation pictures each."""
    root = tmp_path_factory.mktemp("places")
    return [write_folder(root / name, seed, images=130) for seed, name in enumerate("ab")]


@pytest.fixture(scope="session")
def run(places: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a method with a gate."""
    words = ("method=ridge", "method.cache=ram", "method.gate.features=last")
    return walk(tmp_path_factory.mktemp("run"), *words, IN_BATCH, *stream_of_folders(places))


@pytest.fixture(scope="session")
def bundle(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as one file."""
    path = tmp_path_factory.mktemp("bundle") / "model.iqa"
    assert export.main({"run": run, "output": path, "size": None}) == 0
    return path
