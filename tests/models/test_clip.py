"""CLIP: features, the memory of text features, weights from files, what is refused."""

import copy
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from safetensors.torch import save_file

from iqa_lightning.models.clip import CLIP
from tests.models.clips import OPTIONS, SIDE, openai_names, released, tiny

TEXTS = ("a photo with bad quality", "a photo with perfect quality")
IMAGES = torch.randint(
    0, 256, (3, 3, SIDE, SIDE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def fresh(clip: CLIP) -> torch.Tensor:
    """Features of the sentences by open_clip itself."""
    with torch.no_grad():
        tokens = open_clip.tokenize(list(TEXTS), clip.network.context_length)
        return torch.nn.functional.normalize(clip.network.encode_text(tokens), dim=-1)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often sentences have been encoded."""
    calls = [0]
    original = CLIP.encode

    def encode(self: CLIP, texts: tuple[str, ...]) -> torch.Tensor:
        calls[0] += 1
        return original(self, texts)

    monkeypatch.setattr(CLIP, "encode", encode)
    return calls


def test_images_are_normalised_as_clip_s() -> None:
    """Mean and standard deviation of specs/protocol.md, section 7."""
    mean, std = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    expected = (IMAGES.numpy() / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    clip = tiny()
    np.testing.assert_allclose(clip.prepare(IMAGES), expected, atol=1e-5)
    assert clip.images_forwarded == 3
    assert clip(IMAGES).shape == (3, clip.width) == (3, 64)
    with torch.no_grad():
        direct = clip.network.encode_image(torch.from_numpy(expected).float())
        torch.testing.assert_close(clip(IMAGES), direct, atol=1e-5, rtol=1e-4)


def test_similarity_is_a_scaled_cosine() -> None:
    clip = tiny()
    a, b = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(
        clip.similarity(a, b), np.exp(3.0) * torch.tensor([[0.6, 0.8]]), check_dtype=False
    )


def test_text_is_encoded_once_while_the_weights_stay(counted: list[int]) -> None:
    clip = tiny()
    with torch.no_grad():
        first = clip.encode_text(TEXTS)
        assert torch.equal(clip.encode_text(TEXTS), first)
    assert counted == [1]
    torch.testing.assert_close(first, fresh(clip))
    with torch.no_grad():
        clip.encode_text(TEXTS[:1])
    assert counted == [2], "other sentences"


def step_with(clip: CLIP, optimizer: Callable[..., Any], **options: Any) -> None:
    """A step that was prepared before the features were kept: no encoding with a gradient announces
    it.
    """
    optimizer = optimizer(clip.text_parameters(), lr=0.01, **options)
    clip.encode_text(TEXTS)[:, 0].sum().backward()
    with torch.no_grad():
        clip.encode_text(TEXTS)
    optimizer.step()


def overwrite(clip: CLIP) -> None:
    clip.network.transformer.resblocks[0].mlp.c_fc.weight.data.mul_(1.001)


CHANGES: dict[str, Callable[[CLIP], Any]] = {
    "adamw": lambda clip: step_with(clip, torch.optim.AdamW),
    "sgd": lambda clip: step_with(clip, torch.optim.SGD, foreach=False),
    "fused": lambda clip: step_with(clip, torch.optim.AdamW, fused=True),  # counts no version
    "load_state_dict": lambda clip: clip.load_state_dict(tiny(1).state_dict()),
    "data": overwrite,  # neither
    "double and back": lambda clip: (clip.double(), overwrite(clip), clip.float()),
}


@pytest.mark.parametrize("change", CHANGES)
def test_features_are_never_stale(change: str) -> None:
    clip = tiny()
    with torch.no_grad():
        before = clip.encode_text(TEXTS)
        before = before.clone()
    CHANGES[change](clip)
    with torch.no_grad():
        after = clip.encode_text(TEXTS)
    torch.testing.assert_close(after, fresh(clip))
    assert not torch.equal(after, before)


def test_with_gradient_text_is_encoded_at_each_step(counted: list[int]) -> None:
    clip = tiny()
    for _ in range(2):
        clip.encode_text(TEXTS)[:, 0].sum().backward()
    assert counted == [2]
    assert clip.network.token_embedding.weight.grad is not None


def test_a_frozen_text_encoder_reads_once_in_training_too(counted: list[int]) -> None:
    clip = tiny()
    clip.freeze(clip.text_parameters())
    with torch.inference_mode():
        clip.encode_text(TEXTS)
    for _ in range(2):
        clip.similarity(clip(IMAGES), clip.encode_text(TEXTS)).sum().backward()
    assert counted == [1]
    assert not set(map(id, clip.trainable())) & set(map(id, clip.text_parameters()))
    assert len(clip.trainable()) == len(clip.image_parameters())


def test_a_twin_goes_its_own_way() -> None:
    clip = tiny()
    with torch.no_grad():
        clip.encode_text(TEXTS)
    twin = clip.twin()
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    CHANGES["adamw"](clip)
    with torch.no_grad():
        assert not torch.equal(clip.encode_text(TEXTS), twin.encode_text(TEXTS))
        torch.testing.assert_close(twin.encode_text(TEXTS), fresh(twin))
    clip.freeze(clip.text_parameters())
    shared = {p.data_ptr() for p in clip.text_parameters()} & {
        p.data_ptr() for p in clip.twin().text_parameters()
    }
    assert len(shared) == len(clip.text_parameters()), "what nothing trains is there once"


def test_the_scale_is_never_trained() -> None:
    clip = tiny()
    assert not clip.network.logit_scale.requires_grad
    assert len(clip.trainable()) == len(list(clip.parameters())) - 1
    first, second = clip.projections()
    assert first is clip.network.visual.proj
    assert second is clip.network.text_projection


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_the_authors_format(tmp_path: Path, wrapped: bool, suffix: str) -> None:
    """A CLIP state dict with OpenAI's names, in fp16, as specs/liqe.md describes it, alone or in a
    checkpoint.
    """
    state, file = released(), tmp_path / f"LIQE.{suffix}"
    if suffix == "safetensors":
        save_file(state, file)
    else:
        numbers = {"input_resolution": torch.tensor(SIDE), "context_length": torch.tensor(32)}
        torch.save({"epoch": 3, "model_state_dict": state} if wrapped else state | numbers, file)
    clip = tiny(pretrained=str(file))
    loaded = clip.network.state_dict()
    assert loaded.keys() == state.keys()
    for name, tensor in state.items():
        assert loaded[name].dtype == torch.float32
        assert torch.equal(loaded[name], tensor.float()), name


def test_names_of_vit_b_32() -> None:
    """OpenAI's file of ViT-B/32 has these names and shapes, 302 with the scale."""
    names = openai_names(768, 512, 512, 12, 224, 32, 77)
    assert len(names) == 302
    with torch.device("meta"):
        network = open_clip.CLIP(**open_clip.get_model_config("ViT-B-32-quickgelu"))
    assert {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()} == names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("visual.proj"), "1 names missing, first 'visual.proj'"),
        (lambda state: state.update(extra=torch.zeros(1)), "1 names unknown, first 'extra'"),
        (
            lambda state: state.update(text_projection=torch.zeros(3, 3)),
            r"'text_projection' is \(3, 3\), the model has",
        ),
        (
            lambda state: state["ln_final.bias"].fill_(torch.nan),
            "'ln_final.bias' holds numbers that are not finite",
        ),
        (lambda state: state.update(name="LIQE"), "something else than tensors"),
    ],
)
def test_what_does_not_fit_is_refused(
    change: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path
) -> None:
    state = released()
    change(state)
    torch.save(state, tmp_path / "x.pt")
    with pytest.raises(ValueError, match=message):
        tiny(pretrained=str(tmp_path / "x.pt"))


def test_an_archive_with_code_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": copy.Error}, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="no state dict that can be read safely"):
        tiny(pretrained=str(tmp_path / "x.pt"))


def test_a_tag_needs_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is downloaded: the message says where the file goes, and there it is found."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("socket.socket", None)
    monkeypatch.setattr(
        "iqa_lightning.models.clip_weights.constants.HF_HUB_CACHE", str(tmp_path / "hub")
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(
        ValueError, match=r"nothing is downloaded(?s:.*)\.cache/clip/ViT-B-32\.pt"
    ) as error:
        tiny(pretrained="openai")
    assert "hf download timm/vit_base_patch32_clip_224.openai" in str(error.value)
    file = tmp_path / ".cache" / "clip" / "ViT-B-32.pt"
    file.parent.mkdir(parents=True)
    torch.save(released(), file)
    clip = tiny(pretrained="openai")
    assert torch.equal(clip.network.visual.proj, released()["visual.proj"].float())


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("ViT-B-23", None, r"'ViT-B-23' is not a model of open_clip \(near: .*ViT-B-32"),
        ("hf-hub:x/y", None, "not a model of open_clip"),
        ("roberta-ViT-B-32", None, "needs a text encoder or tokenizer from the Hugging Face hub"),
        (
            "ViT-B-32-quickgelu",
            "no/such.pt",
            r"is no file, nor a tag of ViT-B-32-quickgelu \(tags: .*openai",
        ),
        (
            "ViT-B-32",
            "openai",
            "another activation than ViT-B-32: backbone.name=ViT-B-32-quickgelu",
        ),
    ],
)
def test_unknown_models_and_weights(name: str, pretrained: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CLIP(name, pretrained, options=OPTIONS)


def test_wrong_sizes() -> None:
    clip = tiny()
    with pytest.raises(
        ValueError, match=r"reads images of 32x32 pixels and got 48x32: .*view\.crop=32"
    ):
        clip(torch.zeros(1, 3, 48, 32, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"is longer than the 32 tokens"):
        clip.tokenize(("a photo of " + "very " * 30 + "good quality",))
    assert clip.tokenize(("very " * 30,)).shape == (1, 32), "30 words and two marks just fit"


def test_nothing_is_logged() -> None:
    handlers = list(logging.getLogger().handlers)
    tiny()
    assert logging.getLogger().handlers == handlers
    assert logging.root.manager.disable == logging.NOTSET


def test_what_pads_the_sentences_is_left_out() -> None:
    """Features and gradients are those of open_clip over its whole context; "!" is token 0, as
    padding is.
    """
    texts = ("a photo!", "a photo of a cityscape with white noise artifacts!!")
    clip = tiny()
    assert (
        clip.network.context_length
        > clip.tokenize(texts).shape[1]
        == len(clip.tokenizer.encode(texts[1])) + 2
    )
    ours = clip.encode(texts)
    ours[:, 0].sum().backward()
    grads = {name: p.grad for name, p in clip.network.named_parameters() if p.grad is not None}
    other = tiny()
    whole = other.network.encode_text(
        open_clip.tokenize(list(texts), other.network.context_length), normalize=True
    )
    whole[:, 0].sum().backward()
    torch.testing.assert_close(ours, whole)
    assert grads.keys() == {
        name for name, p in other.network.named_parameters() if p.grad is not None
    }
    for name, gradient in grads.items():
        torch.testing.assert_close(
            gradient, other.network.get_parameter(name).grad, atol=1e-6, rtol=1e-4
        )


def test_the_image_encoder_may_start_from_imagenet() -> None:
    """`backbone=clip_lite0`: its features before the projection are those of the backbone of the
    other methods.
    """
    config = OmegaConf.load(Path(__file__).parents[2] / "conf" / "backbone" / "clip_lite0.yaml")
    clip = instantiate(
        OmegaConf.merge(config, {"options": {"vision_cfg": {"image_size": SIDE}}})
    ).eval()
    plain = instantiate(
        OmegaConf.load(Path(__file__).parents[2] / "conf" / "backbone" / "efficientnet_lite0.yaml")
    )
    with torch.no_grad():
        features = clip.network.visual.trunk(clip.prepare(IMAGES))
        torch.testing.assert_close(features, plain.eval()(IMAGES), atol=1e-4, rtol=1e-4)
        assert clip(IMAGES).shape == (3, 64)
    assert clip.projections()[0].shape == (64, features.shape[1])


def test_image_weights_need_a_timm_network() -> None:
    with pytest.raises(
        ValueError, match=r"image_weights='bundled' needs backbone\.options\.vision_cfg"
    ):
        tiny(image_weights="bundled")
