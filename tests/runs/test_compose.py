"""What a config may build, and what an experiment changed."""

from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from iqa_lightning.runs.building import build_method, build_stream
from iqa_lightning.runs.compose import ALLOW, changes_of_experiment, describe, instantiate
from tests.walks import ROOT, composed

FORBIDDEN = (
    "os.system",
    "subprocess.Popen",
    "builtins.eval",
    "torch.load",
    "torch.hub.load",
    "torch.utils.cpp_extension.load",
    "torch.ops.load_library",
    "torch.optim.os.system",
    "torch.nn.modules.module.os.system",
    "hydra.utils.get_method",
    "iqa_lightning.datasets.base.os.system",
    "iqa_lightning.runs.process.train",
    "iqa_lightning.images.cache.remove_caches",
    "pytorch_lightning.utilities.seed.seed_everything",
    "numpy.load",
)


@pytest.mark.parametrize("target", FORBIDDEN)
def test_nothing_else_is_called(
    target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever in the config it stands."""
    monkeypatch.delenv(ALLOW, raising=False)
    words = ["touch", str(tmp_path / "called")]
    evil: dict[str, Any] = {"_target_": target, "_args_": [" ".join(words)]}
    honest = {"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 1}
    for place, node in {
        "method._target_": evil,
        "method.optimizer._target_": honest | {"optimizer": evil | {"_partial_": True}},
        "method.parts[1].inner[0]._target_": honest | {"parts": [1, {"inner": [evil]}]},
    }.items():
        cfg = OmegaConf.create({"method": node})
        with pytest.raises(ValueError, match=r"is not allowed|is not there") as error:
            instantiate(cfg.method)
        assert str(error.value).startswith(f"{place}={target} ")
        assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_reference_and_an_argument_are_looked_at_too() -> None:
    cfg = OmegaConf.create({"word": "os.getcwd", "method": {"_target_": "${word}"}})
    with pytest.raises(ValueError, match=r"method\._target_=os\.getcwd is not allowed"):
        instantiate(cfg.method)
    layer = {"_target_": "torch.nn.Linear", "in_features": 2}
    with pytest.raises(ValueError, match=r"os\.getcwd is not allowed"):
        instantiate(layer, out_features={"_target_": "os.getcwd"})


def test_what_is_allowed_is_built() -> None:
    layer = instantiate({"_target_": "torch.nn.Linear", "in_features": 2, "out_features": 3})
    assert layer.weight.shape == (3, 2)
    build = instantiate({"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.5})
    assert build(layer.parameters()).param_groups[0]["lr"] == 0.5


def test_a_package_that_the_user_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plugin_of_a_user.py").write_text("import os\n\n\ndef one(x):\n    return x + 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    node = {"_target_": "plugin_of_a_user.one", "x": 1}
    monkeypatch.delenv(ALLOW, raising=False)
    with pytest.raises(ValueError, match="is not allowed"):
        instantiate(node)
    monkeypatch.setenv(ALLOW, "another,plugin_of_a_user")
    assert instantiate(node) == 2
    with pytest.raises(ValueError, match="is not allowed"):
        instantiate({"_target_": "plugin_of_a_user.os.getcwd"})
    monkeypatch.delenv(ALLOW)
    composed("allow=[plugin_of_a_user]")
    assert instantiate(node) == 2
    composed()


def test_a_config_cannot_allow_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ALLOW, raising=False)
    cfg = composed()
    cfg.allow = ["os"]
    cfg.method._target_ = "os.getcwd"
    with pytest.raises(ValueError, match="is not allowed"):
        build_method(cfg, build_stream(cfg))


def test_what_has_no_value_and_what_is_refused_are_named() -> None:
    with pytest.raises(ValueError, match=r"stream\.folders has no value"):
        build_stream(composed("stream=folders"))
    cfg = composed("view.crop=-1")
    with pytest.raises(ValueError, match="view"):
        instantiate(cfg.view, colour=1)
    with pytest.raises(ValueError, match=r"NoSuchClass is not there"):
        instantiate({"_target_": "iqa_lightning.methods.lwf.NoSuchClass"})


def test_changes_of_an_experiment() -> None:
    cfg = composed("experiment=open4_orders", "seed=3", "view.crop=64", "logger=none")
    changes = changes_of_experiment()
    assert changes.groups == {"stream": ("demo", "open4"), "trainer": ("default", "cpu")}
    assert changes.values == {
        "view.resize": (224, 160),
        "schedule.finetune.epochs": (4, 2),
        "pairs.min_images": (400, 200),
    }, "what the user typed is not the experiment's"
    lines = describe(cfg, HydraConfig.get().runtime.choices, changes)
    text = "\n".join(lines)
    assert lines[0].split() == ["method", "tsn_iqa_cpu"]
    assert "warmup 1 x 16 (heads), finetune 2 x 16 (all)" in lines[2]
    assert "at least 200 images an epoch" in lines[2]
    assert "view.resize" in text
    assert "160 (without it 224)" in text
    assert "view.crop" not in text


def test_a_part_that_only_the_experiment_has_counts_once() -> None:
    composed("experiment=metaiqa_finetune")
    changes = changes_of_experiment()
    assert changes.groups["method"] == ("tsn_iqa_cpu", "metaiqa")
    assert changes.groups["schedule"] == ("cpu", "metaiqa_paper")
    assert changes.values["method.label_range"] == (None, [0, 100])
    assert changes.values["pairs.min_images"] == (400, 0)
    assert not any(key.startswith("schedule.") for key in changes.values), (
        "they come with its schedule"
    )


def test_a_choice_inside_the_method_of_an_experiment() -> None:
    composed("experiment=liqe/open4", "method/weighting=equal")
    assert "method/weighting" not in changes_of_experiment().values
    composed("experiment=demo", "method=lwf_cpu", "method/gate=expert")
    assert "method" not in changes_of_experiment().groups, "the user chose it"


def test_without_an_experiment_nothing_is_changed() -> None:
    cfg = composed("method=lwf_cpu")
    changes = changes_of_experiment()
    assert not changes.groups
    assert not changes.values
    assert len(describe(cfg, HydraConfig.get().runtime.choices, changes)) == 3


def test_there_is_no_other_way_to_build() -> None:
    for path in (ROOT / "iqa_lightning").rglob("*.py"):
        if path.name != "compose.py":
            assert "hydra.utils" not in path.read_text(), path
