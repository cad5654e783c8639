"""Linear probes against scikit-learn, and what they may test by."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import t
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from iqa_lightning.audit.contents import content_of
from iqa_lightning.datasets.csv import CSVData
from iqa_lightning.images.transforms import View
from iqa_lightning.models.backbones import Backbone
from iqa_lightning.pretraining.probe import (
    ALPHAS,
    features,
    probe_start,
    ridge_scores,
    seen_by,
    summarise,
)


@pytest.mark.parametrize(("n", "width"), [(30, 8), (12, 40)])
def test_ridge_is_that_of_scikit_learn(n: int, width: int) -> None:
    generator = np.random.default_rng(n)
    x, y, new = (
        generator.normal(3, 2, (n, width)),
        generator.normal(50, 9, n),
        generator.normal(3, 2, (7, width)),
    )
    x[:, 0], new[:, 0] = 4.0, 4.0  # a constant feature
    scaler = StandardScaler().fit(x)
    scores = ridge_scores(x, y, new)
    for k in (0, 10, 20, 32):
        expected = Ridge(alpha=ALPHAS[k]).fit(scaler.transform(x), y).predict(scaler.transform(new))
        np.testing.assert_allclose(scores[k], expected, rtol=1e-6, atol=1e-6)


def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone("test_efficientnet").eval()


def splits(folder: Path) -> dict[int, CSVData]:
    found = {split: CSVData(folder, split=split, view=View(0, 32)) for split in (1, 2, 3)}
    for data in found.values():
        data.prepare_data()
    return found


def test_features_are_those_of_each_image_in_the_order_of_the_table(folders: list[Path]) -> None:
    data = splits(folders[0])[1]
    data.setup()
    network = backbone()
    found = features(network, data, [1.0, 0.5])
    assert found.shape == (40, 2 * network.width)
    for row in (0, 17, 39):
        image = torch.from_numpy(np.array(data.load_image(row))).permute(2, 0, 1)[None]
        with torch.no_grad():
            np.testing.assert_allclose(
                found[row, : network.width], network(image)[0], rtol=0, atol=1e-4
            )


def test_ridge_is_chosen_without_the_test_images(folders: list[Path]) -> None:
    by_split = splits(folders[0])
    frame = probe_start("random", backbone(), by_split, [1.0])
    assert list(frame["split"]) == [1, 2, 3]
    assert list(frame["test"]) == [8, 8, 8]
    assert set(frame["alpha"]) <= set(ALPHAS)
    for split, data in by_split.items():
        mos = data.samples.table["mos"].to_numpy().copy()
        data.samples.table.loc[data.parts.test, "mos"] = mos[data.parts.test][::-1]
        assert data.samples.table["mos"].iloc[data.parts.test[0]] == mos[data.parts.test[-1]], split
    again = probe_start("random", backbone(), {1: by_split[1]}, [1.0])
    assert again["alpha"].iloc[0] == frame["alpha"].iloc[0]
    assert again["val_srcc"].iloc[0] == frame["val_srcc"].iloc[0]


def test_seen_images_are_left_out(folders: list[Path], tmp_path: Path) -> None:
    by_split = splits(folders[0])
    first = by_split[1]
    seen = {content_of(first, int(row)): "x" for row in first.parts.train}
    (tmp_path / "card.json").write_text(json.dumps({"images": seen}))
    known = seen_by([None, "imagenet", str(tmp_path / "weights.safetensors")])
    assert known == set(seen)
    frame = probe_start("a", backbone(), by_split, [1.0], known)
    for split, count in zip(frame["split"], frame["test"], strict=True):
        fresh = set(by_split[split].parts.test.tolist()) - set(first.parts.train.tolist())
        assert count == len(fresh)
    assert frame["test"].iloc[0] == 8


def test_summary_has_the_corrected_interval_of_the_mean() -> None:
    values = np.array([0.5, 0.7, 0.6, 0.9, 0.8])
    frame = pd.DataFrame({"start": "a", "dataset": "d", "split": range(5), "test": 5})
    _, summary = summarise([frame.assign(train=10, test_srcc=values)])
    row, z = summary.iloc[0], np.arctanh(values)
    half = t.ppf(0.975, 4) * z.std(ddof=1) * np.sqrt(1 / 5 + 0.5)
    assert (row["median"], row["mean"]) == pytest.approx((0.7, 0.7))
    assert np.arctanh([row["low"], row["high"]]) == pytest.approx(
        [z.mean() - half, z.mean() + half]
    )
    _, few = summarise([frame[:4].assign(train=10, test_srcc=values[:4])])
    assert few[["low", "high"]].isna().all(axis=None)
