"""Fixtures that every test may use."""

from pathlib import Path

import pytest

from tests.stored import KERNELS  # before torch is imported
from tests.walks import ROOT, write_folder

assert KERNELS


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The pack of real human-rated images that may lie beside the checkout."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the pack of real images (../shared/data) is not on this machine")
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two small data sets, `a` and `b`, of a user's kind."""
    root = tmp_path_factory.mktemp("folders")
    return [write_folder(root / name, seed) for seed, name in enumerate("ab")]
