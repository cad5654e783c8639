"""A diffusion model as a backbone: against plain calls of diffusers, from folders, without the
package.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from iqa_lightning.models.diffusion import BANK, Diffusion, TextAdapter, read_bank, squares
from iqa_lightning.models.dp_iqa import Decoder, resized
from tests.models.pipelines import OPTIONS, diffusion, write_pipeline
from tests.walks import ROOT, environment

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed (extra dp_iqa)")


def images(seed: int = 0, height: int = 64, width: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 3, height, width), generator=generator).to(torch.uint8)


def plain_maps(network: Diffusion, latent: torch.Tensor, context: torch.Tensor) -> list[Any]:
    """Outputs of the up-blocks of a plain call, without an adapter."""
    found: list[Any] = []
    hooks = [
        block.register_forward_hook(lambda _, __, output: found.append(output))
        for block in network.network.up_blocks
    ]
    network.network(latent, 1, encoder_hidden_states=context)
    for hook in hooks:
        hook.remove()
    return found


def test_without_adapters_it_is_the_plain_denoiser() -> None:
    network, image = diffusion().eval(), images()
    with torch.no_grad():
        network.text_adapter.gamma.zero_()
        for parameter in network.image_adapter.parameters():
            parameter.zero_()
        assert torch.equal(network.text_adapter(), network.text_adapter.bank)
        posterior = network.vae.encode(image.float() / 255).latent_dist
        latent = network.frozen_output(image)
        torch.testing.assert_close(latent, 0.18215 * posterior.mean)
        bank = network.text_adapter.bank
        wanted = plain_maps(network, latent, torch.stack([bank] * 3))
        for found, expected in zip(network.maps_of(image), wanted, strict=True):
            torch.testing.assert_close(found, expected)
        pooled = torch.cat([x.mean(dim=(2, 3)) for x in wanted], dim=1)
        torch.testing.assert_close(network(image), pooled)
    assert network.width == pooled.shape[1] == sum(network.map_channels) == 56
    assert network.stage_widths == [56]
    with torch.no_grad():
        feature, stages = network.with_stages(image)
        torch.testing.assert_close(feature, pooled)
        torch.testing.assert_close(network.stages(image)[0], stages[0])
        both = torch.cat(
            [s for x in wanted for s in (x.mean((2, 3)), x.std((2, 3), correction=0))], 1
        )
        torch.testing.assert_close(network.statistics(image), both, atol=1e-5, rtol=1e-4)
        wide = diffusion(features="stages").eval()
        assert wide(image).shape[1] == wide.width == network.gate_widths("stages")[0] == 112


def test_adapters_change_the_maps_and_what_is_learnt() -> None:
    network, image = diffusion().eval(), images()
    with torch.no_grad():
        wanted = plain_maps(
            network, network.frozen_output(image), torch.stack([network.text_adapter()] * 3)
        )
        found = network.maps_of(image)
    assert not torch.allclose(found[0], wanted[0], atol=1e-4)
    network.train()
    network(image).square().sum().backward()
    without = {name for name, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert not without
    assert all(p.grad is None for p in network.vae.parameters())


def test_text_adapter_against_its_formula() -> None:
    bank = torch.randn(5, 8)
    adapter = TextAdapter(bank)
    with torch.no_grad():
        adapter.gamma.normal_()
        first, _, second = adapter.layers
        hidden = bank @ first.weight.T + first.bias
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        expected = bank + adapter.gamma * (hidden @ second.weight.T + second.bias)
        torch.testing.assert_close(adapter(), expected)
    assert float(TextAdapter(bank).gamma.detach().max()) == pytest.approx(1e-4)


def test_a_mode_is_deterministic_and_a_sample_is_not() -> None:
    network, image = diffusion(), images()
    network.train()
    assert not torch.equal(network.frozen_output(image), network.frozen_output(image))
    network.eval()
    with torch.no_grad():
        assert torch.equal(network(image), network(image))
        assert torch.equal(network(image, network.frozen_output(image)), network(image))
    noisy = diffusion(evaluation_posterior="sample").eval()
    assert not torch.equal(noisy.frozen_output(image), noisy.frozen_output(image))
    centred = diffusion(centred=True).eval()
    with torch.no_grad():
        expected = centred.vae.encode(image.float() / 127.5 - 1).latent_dist.mode() * 0.18215
    torch.testing.assert_close(centred.frozen_output(image), expected)


def test_images_of_any_size_become_squares() -> None:
    network, image = diffusion().eval(), images(0, 50, 90)
    square = F.interpolate(image.float(), (64, 64), mode="bilinear", antialias=True)
    torch.testing.assert_close(squares(image, 64), square)
    assert squares(images(), 64).dtype == torch.uint8
    with torch.no_grad():
        torch.testing.assert_close(network(image), network(square))
    before = network.images_forwarded
    with torch.no_grad():
        network(image)
    assert network.images_forwarded == before + 3


def test_decoder_takes_maps_of_any_height_and_width() -> None:
    decoder = Decoder([16, 16, 16, 8], 8, width=32)
    maps = [
        torch.randn(2, c, h, w) for c, h, w in ((16, 2, 3), (16, 4, 6), (16, 8, 12), (8, 8, 12))
    ]
    score, narrow = decoder(maps)
    assert (tuple(score.shape), tuple(narrow.shape)) == ((2,), (2, 8, 8, 8))
    assert float(narrow.detach().min()) >= 0
    for x in maps:
        wanted = F.interpolate(x, (8, 8), mode="bicubic", align_corners=False)
        torch.testing.assert_close(resized(x, 8), wanted, atol=1e-5, rtol=1e-4)
    whole = torch.randn(2, 3, 8, 8)
    assert resized(whole, 8) is whole


def test_twin_shares_what_nothing_trains() -> None:
    network = diffusion(trains="adapters")
    twin = network.twin()
    assert not any(p.requires_grad for p in twin.parameters())
    assert twin.network.conv_in.weight is network.network.conv_in.weight
    assert twin.text_adapter.gamma is not network.text_adapter.gamma
    image = images()
    with torch.no_grad():
        assert torch.equal(twin.eval()(image), network.eval()(image))
        twin.text_adapter.gamma.fill_(9.0)
        assert not torch.equal(twin(image), network(image)), "a pass of a copy is its own"
    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"image_adapter", "text_adapter"}


def test_a_folder_of_the_layout_of_stable_diffusion(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path / "sd", seed=3)
    save_file({BANK: torch.randn(7, 24)}, tmp_path / "bank.safetensors")
    network = diffusion(folder=str(folder), sizes=None, bank=str(tmp_path / "bank.safetensors"))
    for part, module in (("unet", network.network), ("vae", network.vae)):
        stored = load_file(folder / part / "diffusion_pytorch_model.safetensors")
        own = module.state_dict()
        assert own.keys() <= stored.keys()
        assert all(torch.equal(own[key], stored[key]) for key in own)
    assert network.network.training
    assert {k.split(".")[0] for k in network.vae.state_dict()} == {"encoder", "quant_conv"}
    with torch.no_grad():
        assert network.eval()(images()).shape == (3, 56)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    folder = write_pipeline(tmp_path / "sd")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"folder": None, "sizes": None}, r"backbone\.folder=null"),
        ({"folder": str(tmp_path / "none")}, r"none/vae/config\.json is not there"),
        ({"bank": None}, r"backbone\.bank=None: name a safetensors file"),
        ({"bank": str(tmp_path / "none")}, r"docs/methods/dp_iqa\.md says how it is made"),
        ({"side": 100}, r"backbone\.side=100: give a multiple of 64"),
        ({"trains": "lora"}, r"backbone\.trains='lora'"),
        ({"posterior": "mean"}, r"backbone\.posterior='mean'"),
    ]
    for options, message in cases:
        with pytest.raises(ValueError, match=message):
            diffusion(**options)
    save_file({BANK: torch.randn(7, 23)}, tmp_path / "bank.safetensors")
    with pytest.raises(
        ValueError, match=r"is \(7, 23\), the cross-attention reads \(prompts, 24\)"
    ):
        read_bank(str(tmp_path / "bank.safetensors"), 24)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match="unet cannot be read"):
        diffusion(folder=str(folder), sizes=None)
    weights.unlink()
    with pytest.raises(ValueError, match=r"unet/diffusion_pytorch_model\.safetensors is not there"):
        diffusion(folder=str(folder), sizes=None)
    three = {
        "down_block_types": ["CrossAttnDownBlock2D"] * 2 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 2,
        "block_out_channels": [8, 16, 16],
    }
    unet = OPTIONS["sizes"]["unet"] | three
    with pytest.raises(ValueError, match=r"unet and vae have \(3, 4\) levels"):
        diffusion(sizes=OPTIONS["sizes"] | {"unet": unet})


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(ValueError, match=r"pip install 'iqa-lightning\[dp_iqa\]'"):
        diffusion()


@pytest.mark.slow
def test_nothing_else_loads_the_package() -> None:
    code = (
        "import sys; import iqa_lightning.methods.dp_iqa, iqa_lightning.models.dp_iqa;"
        "assert not {'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT, env=environment())


def test_checkpointing_changes_no_number() -> None:
    found = []
    for checkpointing in (False, True):
        network = diffusion(posterior="mode", checkpointing=checkpointing).train()
        network(images()).square().sum().backward()
        found.append(network.network.conv_in.weight.grad)
    torch.testing.assert_close(*found)
