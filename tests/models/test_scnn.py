"""The S-CNN: real weights, files that are none, never changed."""

from pathlib import Path

import pytest
import torch

from iqa_lightning.models.scnn import SCNN

IMAGES = torch.randint(
    0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    with pytest.warns(UserWarning, match="starts at random"):
        net = SCNN(None)
    return {
        f"module.features.{key}": tensor
        for key, tensor in net.features.state_dict().items()
        if "num" not in key
    }


def test_the_real_file_loads(shared_data: Path) -> None:
    path = shared_data / "weights" / "scnn.pkl"
    net, file = SCNN(str(path)), torch.load(path, map_location="cpu", weights_only=True)
    for key, tensor in net.features.state_dict().items():
        assert "num_batches" in key or torch.equal(tensor, file[f"module.features.{key}"])
    # the whole classifier, rebuilt by hand from the file, tells noise and blur from the clean
    # picture
    from skimage.data import astronaut
    from skimage.filters import gaussian

    clean = astronaut()[100:324, 100:324].astype(float)
    noisy = (
        clean + torch.randn(224, 224, 3, generator=torch.Generator().manual_seed(0)).numpy() * 60
    )
    blurred = gaussian(clean, sigma=4, channel_axis=2, preserve_range=True)
    batch = torch.stack(
        [
            torch.tensor(x.clip(0, 255)).permute(2, 0, 1).to(torch.uint8)
            for x in (clean, noisy, blurred)
        ]
    )
    x = net.stages(batch)[0][:, :, None, None]
    for i in (0, 3):
        x = torch.conv2d(
            x, file[f"module.projection.{i}.weight"], file[f"module.projection.{i}.bias"]
        )
        norm = [
            file[f"module.projection.{i + 1}.{key}"]
            for key in ("running_mean", "running_var", "weight", "bias")
        ]
        x = torch.relu(torch.nn.functional.batch_norm(x, *norm))
    classes = (
        x.flatten(1) @ file["module.classifier.weight"].T + file["module.classifier.bias"]
    ).argmax(dim=1)
    assert len(set(classes.tolist())) == 3


def test_shape_and_stride(state: dict[str, torch.Tensor]) -> None:
    with pytest.warns(UserWarning, match="random"):
        net = SCNN(None)
    assert net(torch.zeros(1, 3, 224, 224, dtype=torch.uint8)).shape == (1, 128, 14, 14)
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_training_mode_changes_nothing(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(state, tmp_path / "scnn.pkl")
    net = SCNN(str(tmp_path / "scnn.pkl"))
    before = {key: tensor.clone() for key, tensor in net.state_dict().items()}
    expected = net.eval()(IMAGES)
    assert torch.equal(net.train()(IMAGES), expected)
    assert all(torch.equal(tensor, before[key]) for key, tensor in net.state_dict().items())
    reference = (IMAGES / 255 - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor(
        [0.229, 0.224, 0.225]
    ).view(3, 1, 1)
    torch.testing.assert_close(net.eval().features(reference), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.stages(IMAGES)[0], expected.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "module.features.6.weight",
            torch.zeros(64, 48, 5, 5),
            r"features\.6\.weight.*\(64, 48, 3, 3\).*\(64, 48, 5, 5\)",
        ),
        ("module.features.6.weight", None, r"features\.6\.weight.*holds nothing"),
        ("module.features.27.weight", torch.zeros(3), r"no layer features\.27\.weight"),
    ],
)
def test_another_network_is_refused(
    state: dict[str, torch.Tensor],
    tmp_path: Path,
    key: str,
    value: torch.Tensor | None,
    message: str,
) -> None:
    state = {k: v for k, v in state.items() if k != key} | ({} if value is None else {key: value})
    torch.save(state, tmp_path / "scnn.pkl")
    with pytest.raises(ValueError, match=message):
        SCNN(str(tmp_path / "scnn.pkl"))


def test_no_file() -> None:
    with pytest.raises(ValueError, match=r"scnn_weights='gone\.pkl': no such file"):
        SCNN("gone.pkl")
