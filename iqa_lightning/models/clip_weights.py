"""Weights of CLIP from files: where a tag's file lies, and state dicts that fit by name and shape
or not at all.
"""

import warnings
import zipfile
from pathlib import Path
from typing import Any

import open_clip
import torch
from huggingface_hub import constants, try_to_load_from_cache
from safetensors.torch import load_file
from torch import Tensor

NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)  # of open_clip's weights on the hub


FOLDER = "~/.cache/clip"  # where open_clip keeps files from other places


WRAPPERS = (
    "model_state_dict",
    "state_dict",
)  # keys of training checkpoints under which the weights may lie


METADATA = (
    "input_resolution",
    "context_length",
    "vocab_size",
)  # numbers among the weights in OpenAI's files


def find_weights(name: str, pretrained: str) -> Path:
    """The file that `pretrained` means, a path or a tag of open_clip.

    Raises:
        ValueError: it is neither, or the file of the tag is not here; saying where it goes and
            whence it comes.
    """
    path = Path(pretrained).expanduser()
    if path.is_file():
        return path
    config = open_clip.get_pretrained_cfg(name, pretrained)
    if not config:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise ValueError(
            f"backbone.pretrained={pretrained!r} is no file, nor a tag of {name} (tags: {tags})"
        )
    check_activation(name, pretrained, config)
    places = []
    if hub := config.get("hf_hub"):
        repository, _, file = hub.rpartition("/")
        for candidate in [file] if file else NAMES:
            found = try_to_load_from_cache(repository, candidate)
            if isinstance(found, str):
                return Path(found)
        shelf = f"{constants.HF_HUB_CACHE}/models--{repository.replace('/', '--')}"
        places.append(f"{shelf} (hf download {repository} {file or NAMES[0]})")
    if url := config.get("url"):
        local: Path = Path(FOLDER).expanduser() / url.rpartition("/")[2]
        if local.is_file():
            return local
        places.append(f"{local} (from {url})")
    raise ValueError(
        f"the weights {pretrained!r} of {name} are not on this machine, and nothing is downloaded "
        "here. They are "
        f"looked for in {' and in '.join(places)}. Put them there, or name a file with "
        "backbone.pretrained=<file>; "
        "backbone.pretrained=null starts at random"
    )


def check_activation(name: str, tag: str, config: dict[str, Any]) -> None:
    """Refuse weights that were trained with another activation than the model has; they would fit
    by name.
    """
    model = open_clip.get_model_config(name) or {}
    wanted, given = (bool(source.get("quick_gelu", False)) for source in (config, model))
    if wanted != given:
        other = f"{name}-quickgelu" if wanted else name.removesuffix("-quickgelu")
        raise ValueError(
            f"the weights {tag!r} were trained with another activation than {name}: "
            f"backbone.name={other}"
        )


def read_clip_weights(file: Path, wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in a file as float32, which must have exactly the wanted names and shapes.

    Files are those that the authors of LIQE release (a CLIP state dict, most tensors in float16,
    alone or under `model_state_dict`), state dicts of OpenAI's CLIP and of open_clip, `.pt`,
    `.pth`, `.bin` or `.safetensors`, and TorchScript archives, in which OpenAI distributes CLIP.

    Raises:
        ValueError: the file cannot be read safely, or a name is missing, unknown, of another shape
            or not finite.
    """
    found = unwrapped(file)
    where = f"backbone.pretrained={str(file)!r}"
    missing, unknown = (
        [key for key in a if key not in b] for a, b in ((wanted, found), (found, wanted))
    )
    if missing or unknown:
        both = ((missing, "missing"), (unknown, "unknown"))
        words = [f"{len(keys)} names {kind}, first {keys[0]!r}" for keys, kind in both if keys]
        raise ValueError(
            f"{where} does not fit the model: {'; '.join(words)}; choose the backbone.name it "
            "belongs to"
        )
    for key, tensor in wanted.items():
        if found[key].numel() == tensor.numel() == 1:
            found[key] = found[key].reshape(tensor.shape)  # a number may be stored as a list of one
        if found[key].shape != tensor.shape:
            raise ValueError(
                f"{where}: {key!r} is {tuple(found[key].shape)}, the model has "
                f"{tuple(tensor.shape)}"
            )
        if not torch.isfinite(found[key]).all():
            raise ValueError(
                f"{where}: {key!r} holds numbers that are not finite; get the file again"
            )
    return {key: found[key].float() for key in wanted}


def is_torchscript(file: Path) -> bool:
    """Whether a file is a TorchScript archive: a zip with code in it."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    return any(name.partition("/")[2] == "constants.pkl" for name in names)


def unwrapped(file: Path) -> dict[str, Tensor]:
    """The tensors by name in a file, without what is not a weight."""
    try:
        content: Any
        if file.suffix == ".safetensors":
            content = load_file(file)
        elif is_torchscript(file):  # as OpenAI distributes CLIP; its code is not run
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that torch would have another format
                read: Any = torch.jit.load
                content = dict(read(file, map_location="cpu").state_dict())
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each reader has errors of its own
        raise ValueError(
            f"backbone.pretrained={str(file)!r} holds no state dict that can be read safely "
            f"({error}); get the file again"
        ) from error
    for key in WRAPPERS:
        content = content.get(key, content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(
        isinstance(value, Tensor) for value in content.values()
    ):
        raise ValueError(
            f"backbone.pretrained={str(file)!r} holds something else than tensors by name"
        )
    return {key: value for key, value in content.items() if key not in METADATA}
