"""Every yaml of every group composes and builds what it names."""

from pathlib import Path

import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf

from iqa_lightning.methods.feature_generators import FeatureGenerator
from iqa_lightning.train import build_stream
from tests.models.pipelines import write_pipeline
from tests.walks import ROOT, composed

CONF = ROOT / "conf"


def yamls(group: str) -> list[str]:
    """Names of the yamls of a group."""
    return sorted(
        str(path.relative_to(CONF / group).with_suffix(""))
        for path in (CONF / group).rglob("*.yaml")
    )


def test_every_group_is_covered_here() -> None:
    covered = {
        "data",
        "stream",
        "method",
        "backbone",
        "schedule",
        "view",
        "pairs",
        "trainer",
        "logger",
        "paths",
    }
    assert {path.name for path in CONF.iterdir() if path.is_dir()} == covered | {
        "experiment",
        "degradations",
        "hydra",
        "pretraining",
        "tuned",
        "tuned_method",
    }


@pytest.mark.parametrize("name", yamls("stream"))
def test_stream(name: str) -> None:
    words = ["stream.folders=[x/a,x/b]"] if name == "folders" else []
    stream = build_stream(composed(f"stream={name}", *words))
    assert stream.num_epochs == sum(phase.epochs for phase in stream.phases) * len(stream.tasks)


@pytest.mark.parametrize("name", yamls("stream"))
def test_split_source_of_a_stream(name: str) -> None:
    """Every stream takes the two keys from the command line."""
    words = ["stream.folders=[x/a,x/b]"] if name == "folders" else []
    stream = build_stream(
        composed(f"stream={name}", *words, "stream.splits=files", "stream.split_files=lists")
    )
    assert {data.splits for data in stream.data.values()} == {"files"}
    assert {data.split_files for data in stream.data.values()} == {Path("lists")}


@pytest.mark.parametrize("name", yamls("data"))
def test_data(name: str) -> None:
    node = OmegaConf.create(
        {"paths": {"data": "somewhere"}, "data": OmegaConf.load(CONF / "data" / f"{name}.yaml")}
    )
    assert instantiate(node.data)(name=name).name == name


def test_where_the_data_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable, the key that goes before it, and a root of one set that goes before both."""

    def roots(*words: str) -> list[str]:
        tasks = OmegaConf.to_container(composed("stream=zhang2022", *words).stream, resolve=True)[
            "tasks"
        ]
        return [tasks[name]["root"] for name in ("bid", "koniq10k")]

    monkeypatch.delenv("IQA_DATA", raising=False)
    assert roots() == ["data/BID", "data/koniq-10k"]
    monkeypatch.setenv("IQA_DATA", "elsewhere")
    assert roots() == ["elsewhere/BID", "elsewhere/koniq-10k"]
    assert roots("paths.data=given") == ["given/BID", "given/koniq-10k"]
    assert roots("stream.tasks.bid.root=own") == ["own", "elsewhere/koniq-10k"]


@pytest.mark.parametrize("name", yamls("schedule"))
def test_schedule(name: str) -> None:
    phases = build_stream(composed(f"schedule={name}")).phases
    if any(word in name for word in ("liqe", "grmp_iqa", "dp_iqa")):  # no heads, no warm-up
        assert {phase.trains for phase in phases} == {"all"}
    else:
        assert phases[0].trains == "heads"
        assert all(phase.trains == "all" for phase in phases[1:])


@pytest.mark.parametrize("group", ["view", "pairs", "trainer"])
def test_small_groups(group: str) -> None:
    for name in yamls(group):
        words = ["pairs.folder=somewhere"] if (group, name) == ("pairs", "files") else []
        node = composed(f"{group}={name}", *words)[group]
        if group == "trainer":  # whatever devices there are
            node.devices, node.accelerator = 1, "cpu"
        options = {"logger": False} if group == "trainer" else {}
        assert type(instantiate(node, **options)).__name__ in str(node._target_)


@pytest.mark.filterwarnings("ignore:the S-CNN starts at random")
@pytest.mark.parametrize("name", yamls("backbone"))
def test_backbone(name: str, tmp_path: Path) -> None:
    """Without weights, since those of timm are downloaded; the bundled ones have a test of their
    own.
    """
    if "diffusion" in name:
        pytest.importorskip("diffusers", reason="diffusers is not installed (extra dp_iqa)")
        words = [] if name == "diffusion_tiny" else [f"backbone.folder={write_pipeline(tmp_path)}"]
        cfg = composed(f"backbone={name}", *words, "backbone.bank=5")
        assert instantiate(cfg.backbone).width > 0
        return
    words = ["backbone.pretrained=null"] if "clip" in name else ["backbone.weights=null"]
    words += ["backbone.scnn_weights=null"] if "dbcnn" in name else []
    assert instantiate(composed(f"backbone={name}", *words).backbone).width > 0


@pytest.mark.parametrize("method", ["mh_cl", "tsn_iqa"])
def test_gate(method: str) -> None:
    for name in yamls("method/gate"):
        cfg = composed(f"method={method}", f"method/gate={name}", "schedule=tsn_paper")
        gate = instantiate(cfg.method.gate)
        assert gate([4], 2).widths == [4]
    assert composed(f"method={method}", "method.gate.clusters=5").method.gate.clusters == 5
    assert composed("method=mh_cl", "method.gate=null").method.gate is None


@pytest.mark.parametrize("name", yamls("method/weighting"))
def test_weighting(name: str) -> None:
    weighting = instantiate(composed("method=liqe", f"method/weighting={name}").method.weighting)(3)
    assert weighting.tasks == 3


@pytest.mark.parametrize("name", yamls("method/feature_generator"))
def test_replay(name: str) -> None:
    cfg = composed("method=liqa", f"method/feature_generator={name}", "schedule=tsn_paper")
    assert isinstance(instantiate(cfg.method.feature_generator)(8, 2), FeatureGenerator)
    other = composed("method=liqa_gaussian", "schedule=tsn_paper").method
    assert (
        other
        == composed("method=liqa", "method/feature_generator=gaussian", "schedule=tsn_paper").method
    )


@pytest.mark.parametrize("name", yamls("logger"))
def test_logger(name: str, tmp_path: Path) -> None:
    words = ["logger.wandb=false"] if name == "wandb" else []
    loggers = instantiate(
        composed(f"logger={name}", *words).logger, folder=tmp_path, name="run", group="test"
    )
    assert len(loggers) == (name != "none")


PRETRAINING = ("arniqa", "metaiqa", "probe", "qpt", "reiqa")


@pytest.mark.parametrize("name", PRETRAINING)
def test_experiment_of_the_pretraining(name: str) -> None:
    first = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()[1]
    assert f"iqa_lightning.pretrain experiment={name}" in first
    cfg = composed(f"experiment={name}", "backbone=tiny", config="pretrain")
    if name == "probe":
        assert list(cfg.probe.starts) == ["random", "imagenet"]
        return
    method = instantiate(cfg.method, backbone=instantiate(cfg.backbone), _convert_="all")
    assert method.configure_optimizers().param_groups
    assert instantiate(cfg.data, _partial_=True, _convert_="all")(data=[]).seed == 0


@pytest.mark.parametrize("name", yamls("degradations"))
def test_degradations(name: str) -> None:
    assert (
        instantiate(OmegaConf.load(CONF / "degradations" / f"{name}.yaml"), _convert_="all").size
        > 100
    )


@pytest.mark.parametrize("name", [name for name in yamls("experiment") if name not in PRETRAINING])
def test_experiment(name: str) -> None:
    first = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()[1]
    assert f"experiment={name}" in first, "the first line after the package is the command"
    assert build_stream(composed(f"experiment={name}")).num_epochs > 0


@pytest.mark.parametrize("name", [*yamls("tuned"), *yamls("tuned_method")])
def test_tuned(name: str) -> None:
    """A method that is unlike the others has values of its own, all others those of the schedule."""
    schedule, _, method = name.partition("/")
    group = "tuned_method" if method else "tuned"
    cfg = composed(f"schedule={schedule}", f"method={method or 'mh_cl'}")
    assert OmegaConf.merge(cfg, OmegaConf.load(CONF / group / f"{name}.yaml")) == cfg, (
        "its values arrive in the run"
    )
