"""Which methods have a reader: those of the package, and what is made of them without other scores."""

import json
import pkgutil
from collections.abc import Iterator
from importlib import import_module

from jaxtyping import Float
from torch import Tensor

from iqa_lightning import methods
from iqa_lightning.methods.base import ContinualMethod
from iqa_lightning.methods.finetune import MultiHead, SingleHead
from iqa_lightning.methods.tsn_iqa import TSNIQA
from iqa_lightning.scoring.describe import kind_of
from tests.walks import ROOT

STORED = json.loads((ROOT / "tests" / "stored" / "configs" / "methods.json").read_text())
NAMES = {cfg["method"]["_target_"].rpartition(".")[2] for cfg in STORED.values()}
"""Classes of the recorded methods; modules have been renamed since."""


def below(kind: type[ContinualMethod]) -> Iterator[type[ContinualMethod]]:
    for one in kind.__subclasses__():
        yield one
        yield from below(one)


def test_every_recorded_method_can_be_exported() -> None:
    for module in pkgutil.iter_modules(methods.__path__):
        import_module(f"iqa_lightning.methods.{module.name}")
    found = {one.__name__: one for one in below(ContinualMethod)}
    assert len(NAMES) > 20
    assert [name for name in sorted(NAMES) if kind_of(found[name]) is None] == []


def test_a_method_that_scores_in_a_way_of_its_own_cannot() -> None:
    """Its base's reader would give other scores without a word."""

    class Penalised(MultiHead):
        def head(self) -> int:
            return super().head()

    class Doubled(MultiHead):
        def all_heads(self, feature: Float[Tensor, "batch width"]) -> Float[Tensor, "batch heads"]:
            return 2 * super().all_heads(feature)

    class Below(Doubled):
        pass

    assert kind_of(Penalised) is SingleHead
    assert kind_of(TSNIQA) is TSNIQA
    assert kind_of(Doubled) is None
    assert kind_of(Below) is None
