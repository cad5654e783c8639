"""Scores of a user's own pictures: what is in the table, what broken files cost, what is imported."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from safetensors.torch import save_file

from iqa_lightning import score
from iqa_lightning.scoring.images import find_images
from iqa_lightning.scoring.scorer import COLUMNS, Scorer
from iqa_lightning.scoring.words import read_words, value_of
from tests.walks import ROOT, call, environment

pytestmark = pytest.mark.slow


def values(**given: Any) -> dict[str, Any]:
    """What `score` is told, with its defaults."""
    return read_words("score", []) | given


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> Scorer:
    return Scorer.load(bundle, "cpu")


@pytest.fixture(scope="module")
def files(places: list[Path]) -> list[str]:
    return [str(path) for place in places for path in sorted(place.glob("images/*.png"))[:8]]


def test_the_table_has_its_columns_and_the_scale_by_hand(
    scorer: Scorer, run: Path, files: list[str]
) -> None:
    table = scorer(files)
    heads = [f"{kind}/{task}" for kind in ("score", "gate") for task in "ab"]
    assert list(table) == [*COLUMNS, *heads]
    assert table["image"].tolist() == files
    stored = load_file(run / "scale.safetensors")
    for row in table.to_dict("records"):
        total = 0.0
        for task in "ab":
            x, y = stored[f"common/{task}/x"], stored[f"common/{task}/y"]
            value = np.float64(np.float32(row[f"score/{task}"]))
            slope = (y[-1] - y[0]) / (x[-1] - x[0])
            mapped = np.interp(value, x, y)
            mapped += slope * (min(value - x[0], 0) + max(value - x[-1], 0))
            total += row[f"gate/{task}"] * mapped
        expected = min(max(total, 0.0), 100.0)
        radius = float(stored.get(f"radius/{row['task']}", stored["radius/pooled"])[0])
        assert row["score"] == pytest.approx(expected, abs=1e-5)
        assert row["low"] == pytest.approx(max(expected - radius, 0), abs=1e-5)
        assert row["high"] == pytest.approx(min(expected + radius, 100), abs=1e-5)
        assert row["task"] == max("ab", key=lambda task: row[f"gate/{task}"])


def test_a_picture_is_the_same_in_every_form(scorer: Scorer, files: list[str]) -> None:
    image = Image.open(files[0])
    pixels = np.array(image)
    forms = [files[0], Path(files[0]), image, pixels, torch.from_numpy(pixels).permute(2, 0, 1)]
    table = scorer(forms)
    assert table["score"].nunique() == 1
    assert table["image"].tolist() == [files[0], files[0], "[2]", "[3]", "[4]"]
    assert scorer(image)["score"].tolist() == table["score"].tolist()[:1]
    odd = scorer([pixels.astype(np.float32), pixels[..., :2], "nowhere.png", files[0]])
    assert (odd["error"] != "").tolist() == [True, True, True, False]
    assert "uint8 array (height, width, 3)" in odd["error"][0]
    assert scorer([])["score"].tolist() == []


def test_an_opened_picture_is_what_its_file_is(
    scorer: Scorer, files: list[str], tmp_path: Path
) -> None:
    image = Image.open(files[0])
    turned = Image.Exif()
    turned[274] = 6
    image.save(tmp_path / "turned.jpg", exif=turned)
    clear = image.convert("RGBA")
    clear.putalpha(90)
    clear.save(tmp_path / "clear.png")
    image.quantize(16).save(tmp_path / "palette.png")
    deep = np.asarray(image.convert("L")).astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "deep.png")
    saved = sorted(map(str, tmp_path.iterdir()))
    by_file, opened = scorer(saved), scorer([Image.open(file) for file in saved])
    assert (by_file["error"] == "").all()
    assert by_file["score"].nunique() == 4
    assert opened["score"].tolist() == by_file["score"].tolist()
    small = scorer(image.resize((8, 8)))
    assert "a PIL image is too small (8 x 8 pixels" in small["error"][0]


def test_the_unit_of_a_data_set(scorer: Scorer, places: list[Path], files: list[str]) -> None:
    table = scorer(files[:8], scale="native", task="a")
    mos = pd.read_csv(places[0] / "ratings.csv").set_index("image")["mos"]
    own = mos[[f"images/{Path(file).name}" for file in files[:8]]]
    assert table["score"].between(-60, 160).all()
    assert np.corrcoef(table["score"], own)[0, 1] > 0.5
    assert ((table["low"] < table["score"]) & (table["score"] < table["high"])).all()
    with pytest.raises(ValueError, match="scale=native needs task=, one of a, b"):
        scorer(files[:1], scale="native")


def test_ten_broken_files_of_a_thousand_cost_ten_rows(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    names = [f"{i:03d}.png" for i in range(1000)]
    for name in names:
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
    broken = set(names[3::100])
    whole = (tmp_path / names[0]).read_bytes()
    for i, name in enumerate(sorted(broken)):
        (tmp_path / name).write_bytes((b"", b"not an image", whole[: len(whole) // 2])[i % 3])
    (tmp_path / names[103]).unlink()  # one is not there at all
    pd.DataFrame({"image": names}).to_csv(tmp_path / "list.csv", index=False)
    given = values(run=bundle, images=str(tmp_path / "list.csv"), output=tmp_path / "scores.csv")
    assert score.main(given) == 3
    assert "10 of 1000 images could not be read" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "scores.csv")
    assert table["image"].tolist() == [str(tmp_path / name) for name in names]
    failed = table["error"].fillna("") != ""
    assert {Path(name).name for name in table.loc[failed, "image"]} == broken
    for column in ("score", "low", "high", "outside", "gate/a", "score/b"):
        assert table[column].isna().tolist() == failed.tolist()


def test_every_kind_of_table_says_the_same(bundle: Path, files: list[str], tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not an image")
    names = [*files[:3], str(tmp_path / "broken.png"), files[3]]
    tables = []
    for suffix in ("csv", "parquet", "json"):
        output = tmp_path / f"scores.{suffix}"
        assert score.main(values(run=bundle, images=names, output=output)) == 3
        read = {"csv": pd.read_csv, "parquet": pd.read_parquet, "json": pd.read_json}[suffix]
        tables.append(read(output))
    for table in tables:
        assert table["image"].tolist() == names
        assert (table["error"].fillna("") != "").tolist() == [False, False, False, True, False]
        np.testing.assert_allclose(table["score"], tables[0]["score"], rtol=1e-12)
        assert table["score"].isna().sum() == 1


def test_where_pictures_are_looked_for(places: list[Path], tmp_path: Path) -> None:
    folder = places[0] / "images"
    every = sorted(map(str, folder.glob("*.png")))
    assert find_images(str(places[0])) == every
    assert find_images(f"{folder}/00*.png") == every[:10]
    (tmp_path / "list.txt").write_text("b.png\n\na.png\n")
    assert find_images(str(tmp_path / "list.txt")) == [
        str(tmp_path / n) for n in ("b.png", "a.png")
    ]
    assert find_images([every[1], every[0]]) == [every[1], every[0]]
    for nothing in (tmp_path, f"{tmp_path}/*.jpg"):
        with pytest.raises(ValueError, match="no image there"):
            find_images(str(nothing))


def test_words() -> None:
    assert value_of("images", "[a,'b c']", None) == ["a", "b c"]
    assert [value_of("run", text, None) for text in ("null", "7", "x=1")] == [None, "7", "x=1"]
    assert value_of("batch", "7", 16) == 7
    for wrong in ("0", "-1", "1.5", "many", "\u0667"):
        with pytest.raises(ValueError, match=r"batch is '.*'; it is a whole number above 0"):
            value_of("batch", wrong, 16)
    with pytest.raises(ValueError, match="imges is not known; did you mean images"):
        read_words("score", ["imges=x"])
    with pytest.raises(ValueError, match="'folder' is no key=value"):
        read_words("score", ["folder"])
    with pytest.raises(ValueError, match="run= is missing"):
        score.main(values(images="x"))


def test_mistakes_leave_nothing(bundle: Path, files: list[str], tmp_path: Path) -> None:
    for wrong, said in (
        ({"output": tmp_path / "s.xlsx"}, "choose .csv"),
        ({"output": tmp_path / "none" / "s.csv"}, "there is no folder"),
        ({"run": tmp_path / "gone"}, "does not exist"),
        ({"run": tmp_path}, "is not a finished run"),
        ({"run": files[0]}, "no bundle of iqa-lightning"),
        ({"device": "toaster"}, "device=toaster"),
        ({"scale": "mine"}, "choose common or native"),
    ):
        given = values(run=bundle, images=files[:1], output=tmp_path / "s.csv")
        with pytest.raises(ValueError, match=said):
            score.main(given | wrong)
    assert not list(tmp_path.iterdir())


def test_the_command_by_its_words(bundle: Path, files: list[str], tmp_path: Path) -> None:
    done = call(
        f"run={bundle}", f"images=[{files[0]}]", f"output={tmp_path}/s.json", module="score"
    )
    assert "written" in done.stdout
    assert json.loads((tmp_path / "s.json").read_text())[0]["image"] == files[0]
    wrong = call("run=nowhere", "images=x", f"output={tmp_path}/t.csv", module="score", check=False)
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: ")
    assert len(wrong.stderr.strip().splitlines()) == 1


LOOK = """
import sys, iqa_lightning
assert not {"torch", "numpy", "pandas"} & set(sys.modules), "importing the package is not cheap"
from iqa_lightning import Scorer
table = Scorer.load(sys.argv[1], "cpu")(sys.argv[2])
assert len(table) == 1
heavy = {"hydra", "omegaconf", "pytorch_lightning", "lightning", "wandb", "torch._dynamo"}
print(heavy & set(sys.modules))
"""


def test_a_bundle_needs_no_hydra_lightning_wandb_or_compiler(
    bundle: Path, files: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOK, str(bundle), files[0]],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
        check=False,
    )
    assert done.stdout.strip() == "set()", done.stderr


def changed(bundle: Path, path: Path, **reader: Any) -> Path:
    """A copy of a bundle that says something else of its network."""
    from safetensors import safe_open

    with safe_open(bundle, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        content = json.loads(file.metadata()["iqa_lightning"])
    content["reader"] |= reader
    save_file(tensors, path, {"iqa_lightning": json.dumps(content)})
    return path


def test_a_strangers_bundle_runs_nothing(bundle: Path, tmp_path: Path) -> None:
    timm = {"class": "Backbone", "name": "test_efficientnet"}
    for reader, said in (
        ({"reader": "os.system"}, "is not one of affine"),
        ({"backbone": {"class": "Popen", "args": "x"}}, "is not one of Backbone"),
        ({"backbone": timm | {"options": {"checkpoint_path": "x"}}}, "no option of a bundle"),
        ({"backbone": timm | {"options": {"pretrained": True}}}, "no option of a bundle"),
        ({"backbone": timm | {"name": "hf-hub:a/b"}}, "no option of a bundle"),
        ({"gate": {"class": "eval"}}, "is not one of ExpertGate"),
        ({"heads": ["a"]}, "no bundle"),
    ):
        with pytest.raises(ValueError, match=said):
            Scorer.load(changed(bundle, tmp_path / "model.iqa", **reader))
    (tmp_path / "cut.iqa").write_bytes(bundle.read_bytes()[:5000])
    with pytest.raises(ValueError, match="or damaged"):
        Scorer.load(tmp_path / "cut.iqa")
