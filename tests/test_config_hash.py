"""Which configs are one: by hand."""

from iqa_lightning.configs import FREE, NAMES_OF_RUN, config_changes, config_hash

CONFIG = {
    "split": 1,
    "seed": 0,
    "stream": {"order": ["a", "b"], "num_workers": 0, "tasks": {"a": {"root": "x"}}},
    "method": {"lr": 0.1, "gate": {"seed": 0}},
    "paths": {"output": "here"},
}


def changed(**values: object) -> dict:
    """The config with other values by dotted key (`__` for the dots)."""
    copy: dict = {k: dict(v) if isinstance(v, dict) else v for k, v in CONFIG.items()}
    for key, value in values.items():
        first, _, last = key.partition("__")
        if last:
            copy[first][last] = value
        else:
            copy[first] = value
    return copy


def test_runs_of_one_row_share_the_hash() -> None:
    same = changed(split=7, seed=3, stream__order=["b", "a"], stream__num_workers=8)
    assert config_hash(same) == config_hash(CONFIG)
    moved = changed(paths={"output": "there"}, logger={"wandb": True})
    assert config_hash(moved) == config_hash(CONFIG)


def test_what_changes_results_changes_the_hash() -> None:
    others = [
        changed(method__lr=0.2),
        changed(method__gate={"seed": 1}),  # a setting of a gate, not the seed of the run
        changed(select_best=False),
    ]
    assert len({config_hash(config) for config in (CONFIG, *others)}) == 4


def test_changes_are_named_by_dotted_key() -> None:
    found = config_changes(CONFIG, changed(method__lr=0.2, split=2, stream__num_workers=9))
    assert found == {"method.lr": (0.1, 0.2), "split": (1, 2)}
    assert config_changes(CONFIG, changed(split=2), NAMES_OF_RUN) == {}
    assert not set(FREE) & set(NAMES_OF_RUN)
