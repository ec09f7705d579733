"""Crops against plain slicing, encoders that look at one picture at a time, and what networks are conditioned on."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onestride.policies.conditioning import Observer, Seeing, join
from onestride.policies.exportable import Exportable
from onestride.policies.normaliser import Affine
from onestride.policies.plain_flow import PlainFlow
from onestride.policies.policy import ChunkPolicy
from onestride.policies.vision import ImageEncoder, Picture, ResidualBlock, centre_crop, crop_at, random_crop

HISTORY, VECTOR, FEATURES = 2, 3, 8
PICTURES = {"front": Picture(20, 16), "wrist": Picture(20, 24, 1)}


def pictures(batch: int, picture: Picture, seed: int = 0, history: int = HISTORY) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, history, *picture), generator=generator, dtype=torch.uint8)


def observer(seed: int = 0) -> Observer:
    torch.manual_seed(seed)
    vector = Affine(torch.arange(HISTORY * VECTOR).float(), torch.full((HISTORY * VECTOR,), 2.0))
    return Observer(vector, PICTURES, history=HISTORY, features=FEATURES, widths=(8, 16))


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 30),
    width=st.integers(1, 30),
    channels=st.sampled_from([1, 3]),
    history=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_crop_is_a_slice_and_follows_a_shift(height: int, width: int, channels: int, history: int, seed: int) -> None:
    whole = Picture(height, width, channels)
    crop, images = whole.cropped(), pictures(4, whole, seed, history)
    room = height - crop.height, width - crop.width
    generator = torch.Generator().manual_seed(seed)
    top, left = (torch.randint(free + 1, (4,), generator=generator) for free in room)
    found = crop_at(images, crop, top, left)
    assert found.dtype == torch.uint8 and found.shape == (4, history, *crop)
    for row, (y, x) in enumerate(zip(top.tolist(), left.tolist(), strict=True)):
        assert torch.equal(found[row], images[row, :, y : y + crop.height, x : x + crop.width])
    if room[0]:  # what is seen moves with the picture
        high, moved = top.clamp(max=room[0] - 1), torch.roll(images, 1, dims=2)
        assert torch.equal(crop_at(images, crop, high, left), crop_at(moved, crop, high + 1, left))
    middle = crop_at(images, crop, *(torch.full((4,), free // 2) for free in room))
    assert torch.equal(centre_crop(images, crop), middle)


def test_random_crops_are_everywhere_alike_and_repeat_with_the_seed() -> None:
    """Pixels that say where they are tell where each window was cut: chi-square below its 99.9 % quantile."""
    whole = Picture(30, 20, 1)
    rows, columns = torch.meshgrid(torch.arange(30), torch.arange(20), indexing="ij")
    image = (rows * 8 + columns).to(torch.uint8)[None, None, ..., None]
    images = image.expand(6000, 1, 30, 20, 1)
    cut = random_crop(images, whole.cropped(), torch.Generator().manual_seed(3))
    assert torch.equal(cut, random_crop(images, whole.cropped(), torch.Generator().manual_seed(3)))
    places = cut[:, 0, 0, 0, 0].long()
    counts = torch.bincount(places, minlength=256).reshape(-1, 8)[:4, :3].float()
    assert counts.sum() == 6000, "4 x 3 places: 27 of 30 rows, 18 of 20 columns"
    assert ((counts - 500) ** 2 / 500).sum() < 31.3


def test_84_rows_become_76() -> None:
    assert Picture(84, 84).cropped() == Picture(76, 76)
    assert Picture(5, 1).cropped() == Picture(5, 1)


def test_an_encoder_sees_each_picture_alone() -> None:
    """Features do not depend on the rest of the batch, nor on whether the picture is of bytes or of floats."""
    torch.manual_seed(0)
    encoder = ImageEncoder(Picture(20, 16), features=8, widths=(8, 16))
    images = pictures(5, Picture(20, 16))
    together = encoder(images)
    assert together.shape == (5, HISTORY * 8)
    alone = torch.cat([encoder(image[None]) for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoder(images.float()), together, rtol=0, atol=0)
    oldest = encoder(images[:, :1])
    torch.testing.assert_close(together[:, :8], oldest, rtol=1e-5, atol=1e-6)
    assert together.std(0).min() > 1e-3, "different pictures, different features"


def test_every_weight_of_an_encoder_learns() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(Picture(20, 16), features=8, widths=(8, 16))
    optimiser = torch.optim.SGD(encoder.parameters(), 0.1)
    for step in range(2):  # a residual block begins as the identity: its first layers learn from the second step on
        optimiser.zero_grad()
        (encoder(pictures(4, Picture(20, 16), step)) * torch.arange(16)).square().sum().backward()
        optimiser.step()
    assert [name for name, one in encoder.named_parameters() if one.grad is None or not one.grad.any()] == []


def test_a_residual_block_begins_as_the_identity() -> None:
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(ResidualBlock(8)(x), x, rtol=0, atol=0)


@pytest.mark.parametrize("widths", [(), (12,), (0,), (8, -8)])
def test_encoders_that_cannot_be_are_refused(widths: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected positive sizes and widths that are multiples of 8"):
        ImageEncoder(Picture(20, 16), features=8, widths=widths)
    with pytest.raises(ValueError, match="expected positive sizes"):
        ImageEncoder(Picture(20, 0), features=8)


def test_an_observer_gives_the_normalised_vector_then_each_cameras_features() -> None:
    seen = observer()
    vector = torch.randn(4, HISTORY, VECTOR)
    cut = [centre_crop(pictures(4, one), one.cropped()) for one in PICTURES.values()]
    flat = join(vector, cut)
    assert flat.shape == (4, HISTORY, VECTOR + sum(one.cropped().size for one in PICTURES.values()))
    s = seen(flat.flatten(1))
    assert s.shape == (4, seen.dim) == (4, HISTORY * (VECTOR + 2 * FEATURES))
    expected = [seen.vector(vector.flatten(1)), *(one(image) for one, image in zip(seen.encoders, cut, strict=True))]
    torch.testing.assert_close(s, torch.cat(expected, dim=1))


def test_an_exported_policy_cuts_the_middle_out_of_whole_pictures() -> None:
    seen = observer()
    flow = PlainFlow(seen.dim, 2, 2, (16,))
    policy = Exportable(ChunkPolicy(seen, Affine.identity(2), flow), nfe=(3,))
    vector, noise = torch.randn(1, HISTORY, VECTOR), torch.randn(1, 2, 2)
    whole = [pictures(1, one, seed=5) for one in PICTURES.values()]
    cut = [centre_crop(image, one.cropped()) for image, one in zip(whole, PICTURES.values(), strict=True)]
    (found,) = Seeing(policy, PICTURES)(vector.flatten(1), noise, *whole)
    (expected,) = policy(join(vector, cut).flatten(1), noise)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    for image in whole:
        image[:, :, 0] = 255 - image[:, :, 0]  # beyond the middle
    (beyond,) = Seeing(policy, PICTURES)(vector.flatten(1), noise, *whole)
    assert torch.equal(beyond, found)
    whole[0][:, -1, 10, 8] = 255 - whole[0][:, -1, 10, 8]
    (within,) = Seeing(policy, PICTURES)(vector.flatten(1), noise, *whole)
    assert not torch.equal(within, found)
