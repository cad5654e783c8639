"""Every yaml of every group composes and builds what it names."""

from functools import cache
from pathlib import Path

import pytest
import yaml
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from iqa_lightning.methods.feature_generators import FeatureGenerator
from iqa_lightning.runs.building import build_method, build_stream
from iqa_lightning.runs.compose import instantiate
from tests.models.pipelines import write_pipeline
from tests.walks import ROOT, composed, small_towers, stream_of_folders, walk, write_folder

CONF = ROOT / "conf"


def yamls(group: str) -> list[str]:
    """What can be chosen of a group: the yamls of its folder; of experiments those of folders in it
    too.
    """
    found = (CONF / group).glob("**/*.yaml" if group == "experiment" else "*.yaml")
    return sorted(str(path.relative_to(CONF / group).with_suffix("")) for path in found)


METHODS = yamls("method")
BUDGETS = [name for name in METHODS if name.endswith(("_cpu", "_demo"))]


def has_gate(name: str) -> bool:
    """Whether the yaml of a method, or one that it is made of, chooses a gate; the last one counts."""
    chosen = False
    for one in yaml.safe_load((CONF / "method" / f"{name}.yaml").read_text()).get("defaults", []):
        if isinstance(one, str):
            base = (Path(name).parent / one.partition("@")[0]).as_posix()
            chosen = chosen or (one != "_self_" and has_gate(base))
        else:
            ((group, value),) = one.items()
            if group.removeprefix("override ").partition("@")[0] in ("gate", "/method/gate"):
                chosen = value is not None
    return chosen


SEVERAL_HEADS = [name for name in METHODS if name not in BUDGETS and has_gate(name)]


NAMED_BY_HAND = {
    "folders": ["stream.folders=[x/a,x/b]"],
    "sets": ["+data@stream.tasks.bid=bid", "+data@stream.tasks.demo=demo_blur"],
}
"""What streams that hold no data set need."""


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
    }


@pytest.mark.parametrize("name", yamls("stream"))
def test_stream(name: str) -> None:
    words = NAMED_BY_HAND.get(name, [])
    stream = build_stream(composed(f"stream={name}", *words))
    assert stream.num_epochs == sum(phase.epochs for phase in stream.phases) * len(stream.tasks)


@pytest.mark.parametrize("name", yamls("stream"))
def test_split_source_of_a_stream(name: str) -> None:
    """Every stream takes the two keys from the command line."""
    words = NAMED_BY_HAND.get(name, [])
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
    if any(
        word in name for word in ("liqe", "grmp_iqa", "dp_iqa", "metaiqa")
    ):  # no heads, no warm-up
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
        cfg = composed(f"method={method}", f"method/gate={name}")
        gate = instantiate(cfg.method.gate)
        assert gate([4], 2).widths == [4]
    assert composed(f"method={method}", "method.gate.clusters=5").method.gate.clusters == 5
    assert composed("method=mh_cl", "method.gate=null").method.gate is None


@pytest.mark.parametrize("name", yamls("method/weighting"))
def test_weighting(name: str) -> None:
    weighting = instantiate(composed("method=liqe", f"method/weighting={name}").method.weighting)(3)
    assert weighting.tasks == 3


@pytest.mark.parametrize("name", yamls("method/feature_generator"))
def test_feature_generator(name: str) -> None:
    cfg = composed("method=liqa", f"method/feature_generator={name}")
    assert isinstance(instantiate(cfg.method.feature_generator)(8, 2), FeatureGenerator)


@pytest.mark.parametrize("budget", ["", "_cpu"])
def test_a_generator_by_name_and_by_choice_is_the_same(budget: str) -> None:
    by_name = composed(f"method=liqa_gaussian{budget}").method
    assert by_name == composed(f"method=liqa{budget}", "method/feature_generator=gaussian").method


@pytest.mark.parametrize("name", yamls("logger"))
def test_logger(name: str, tmp_path: Path) -> None:
    words = [f"logger.{name}=false"] if name in ("wandb", "trackio") else []
    loggers = instantiate(
        composed(f"logger={name}", *words).logger, folder=tmp_path, name="run", group="test"
    )
    assert len(loggers) == (name != "none")


@pytest.mark.parametrize("name", yamls("pretraining"))
def test_pretraining(name: str) -> None:
    first = (CONF / "pretraining" / f"{name}.yaml").read_text().splitlines()[1]
    assert f"iqa_lightning.pretrain pretraining={name}" in first
    network = "clip_tiny" if name in ("grmp_iqa", "grepq_high") else "tiny"
    words = ["method.classifier=random"] if name == "metaiqa_released" else []
    cfg = composed(f"pretraining={name}", f"backbone={network}", *words, config="pretrain")
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


# what users run: methods with the values of their files, and experiments with their own method


def build(cfg: DictConfig) -> None:
    """The stream and the method of a config."""
    stream = build_stream(cfg)
    assert stream.num_epochs > 0
    assert list(build_method(cfg, stream).parameters())


@cache
def with_method(name: str) -> DictConfig:
    """The config of a method, over a small network."""
    return composed(
        f"method={name}", f"backbone={'clip_tiny' if 'liqe' in name else 'tiny'}", *towers(name)
    )


def towers(name: str) -> list[str]:
    """Small networks for methods, and experiments of methods, that need towers of their own."""
    if name in ("dp_iqa/teacher", "dp_iqa/student"):
        name = {"teacher": "dp_iqa_teacher", "student": "dp_iqa"}[name.partition("/")[2]]
    return small_towers(name) if name.startswith(("grmp_iqa", "dp_iqa")) else []


def test_default() -> None:
    cfg = composed()
    assert cfg == composed("method=tsn_iqa_cpu", "schedule=cpu", "stream=demo")
    build(cfg)


@pytest.mark.parametrize("name", METHODS)
def test_method(name: str) -> None:
    cfg = with_method(name)
    assert (cfg.method.get("gate") is not None) == has_gate(name)
    build(cfg)


@pytest.mark.parametrize("name", BUDGETS)
def test_a_budget_changes_rates_and_sizes_alone(name: str) -> None:
    one, other = with_method(name.rpartition("_")[0]).method, with_method(name).method
    free = {"optimizer", "head_lr_factor", "bn_stats", "gate", "feature_generator"}
    free |= {"importance_batches", "continue_from"}
    assert one.keys() == other.keys()
    assert {key for key in one if one[key] != other[key]} <= free
    assert one != other


@pytest.mark.parametrize("name", yamls("experiment"))
def test_experiment(name: str) -> None:
    first = (CONF / "experiment" / f"{name}.yaml").read_text().splitlines()[1]
    assert f"experiment={name}" in first, "the first line after the package is the command"
    small = f"backbone={'clip_tiny' if 'liqe' in name else 'tiny'}"
    without = ["method.high.pretrained=null"] if name == "grepq/paper" else []
    build(composed(f"experiment={name}", small, *towers(name), *without))


def test_budgets_meet_their_methods() -> None:
    """A schedule for a CPU goes with a method for a CPU, a paper's with its authors' values."""
    for name in yamls("experiment"):
        cfg = composed(f"experiment={name}")
        chosen = HydraConfig.get().runtime.choices
        small = chosen["schedule"] in ("cpu", "demo")
        for_small = (*BUDGETS, "tsn_ridge")  # which has no other setting
        assert (chosen["method"] in for_small) == small, name
        assert cfg.method.head_lr_factor == 1.0 or small, name


# any gate with any method that has several heads, any generator of features with LIQA


@pytest.fixture(scope="module")
def small_folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("small")
    return [write_folder(root / name, seed, images=20) for seed, name in enumerate("ab")]


def learn_one_epoch(output: Path, folders: list[Path], *words: str) -> None:
    """`experiment=open4` as a user types it, on other images and in another size."""
    size = ["backbone=tiny", "view.crop=32", "view.resize=0", "logger=none", "pairs.min_images=0"]
    size += ["schedule.warmup.epochs=0", "schedule.finetune.epochs=1", "select_best=false"]
    words = ("experiment=open4", *size, *words, *stream_of_folders(folders))
    folder = walk(output, *words, base=())
    assert (folder / "summary.json").is_file()


WITH_GATES = [
    pytest.param(
        *(method, gate),
        marks=[] if gate == "lda" or method == "tsn_iqa" else pytest.mark.exhaustive,
    )
    for method in SEVERAL_HEADS
    for gate in yamls("method/gate")
]
"""Every method with one gate and every gate with one method; the rest is for `make test-all`."""


@pytest.mark.slow
@pytest.mark.parametrize(("method", "gate"), WITH_GATES)
def test_any_gate(method: str, gate: str, small_folders: list[Path], tmp_path: Path) -> None:
    name = f"{method}_cpu" if f"{method}_cpu" in METHODS else method
    kept = ["method.cache=ram"] if method == "ridge" else []
    words = [f"method={name}", f"method/gate={gate}", *towers(method), *kept]
    learn_one_epoch(tmp_path, small_folders, *words)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*the replay of .* has collapsed")
@pytest.mark.parametrize("generator", yamls("method/feature_generator"))
def test_any_generator(generator: str, small_folders: list[Path], tmp_path: Path) -> None:
    words = ["method=liqa_cpu", f"method/feature_generator={generator}"]
    learn_one_epoch(tmp_path, small_folders, *words, "method.generator_phase.epochs=1")
