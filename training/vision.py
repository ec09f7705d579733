"""Pictures in training: what a run keeps of them, the encoder it is built with, and batches cut at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from onestride.datasets.columns import scalar
from onestride.datasets.schema import Feature
from onestride.datasets.store import Store
from onestride.datasets.windows import Windows
from onestride.hardware.errors import OneStrideError
from onestride.policies.conditioning import Conditioning, Observer, join
from onestride.policies.normaliser import Affine
from onestride.policies.vision import CHANNELS_PER_GROUP, Picture, random_crop
from onestride.training.batches import WindowBatches
from onestride.training.experience import executed

SEEING = ("mvp", "bc_flow", "qc", "bfn")
"""Agents that learn from pictures. In fql and fmq, two optimisers would step one encoder."""


@dataclass(frozen=True)
class Vision:
    """How pictures are encoded, each camera by an encoder of its own, trained with the policy."""

    features: int = 64
    """Numbers that stand for each picture."""
    widths: tuple[int, ...] = (16, 32, 32)
    """Channels of each stage of an encoder; each stage halves the picture."""

    def __post_init__(self) -> None:
        """Refuse values that no encoder can be built with, by field name."""
        if self.features < 1:
            raise OneStrideError(f"features: expected >= 1, got {self.features}")
        if not self.widths or any(one < 1 or one % CHANNELS_PER_GROUP for one in self.widths):
            raise OneStrideError(f"widths: expected multiples of {CHANNELS_PER_GROUP}, got {self.widths}")


def sight(pictures: Mapping[str, Picture], vision: Vision) -> dict[str, Any]:
    """What a run keeps of its pictures and encoders, as JSON values; empty without pictures."""
    if not pictures:
        return {}
    sizes = {name: list(picture) for name, picture in pictures.items()}
    return {"pictures": sizes, "features": vision.features, "widths": list(vision.widths)}


def pictures_of(sight: Mapping[str, Any]) -> dict[str, Picture]:
    """The pictures of :func:`sight`, in order."""
    return {name: Picture(*size) for name, size in sight.get("pictures", {}).items()}


def conditioning(vector: Affine, sight: Mapping[str, Any], history: int, seed: int) -> Conditioning:
    """What an agent's networks are conditioned by: the normaliser alone, or with fresh encoders of the pictures.

    Args:
        vector: Normaliser over (To * Dv,).
        sight: Of :func:`sight`.
        history: To.
        seed: Of the encoders' initial weights.
    """
    if not sight:
        return vector
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoders = {"features": sight["features"], "widths": tuple(sight["widths"])}
        return Observer(vector, pictures_of(sight), history=history, **encoders)


def check_sight(agent: str, pictures: list[Feature], vector: list[Feature]) -> dict[str, Picture]:
    """The pictures among the chosen observations, where the agent can learn from them.

    Raises:
        OneStrideError: It cannot, or there is nothing but pictures.
    """
    if pictures and agent not in SEEING:
        raise OneStrideError(
            f"{agent}: expected observations without pictures, got {', '.join(one.name for one in pictures)}, "
            f"available with pictures: {', '.join(SEEING)}"
        )
    if pictures and not vector:
        raise OneStrideError("observations: expected at least one that is no picture beside them, got pictures only")
    if wrong := [one for one in pictures if one.shape[2] not in (1, 3)]:
        raise OneStrideError(f"{wrong[0].name}: expected a picture of 1 or 3 channels, got shape {wrong[0].shape}")
    return {one.name: Picture(*one.shape) for one in pictures}


class PictureBatches(WindowBatches):
    """Windows whose pictures are cut at random and joined to the vector, on the device.

    Args:
        windows: With pictures.
        pictures: Their sizes, in the windows' order.
        device: Where to train.
        seed: Of the cuts.
    """

    def __init__(self, windows: Windows, pictures: Mapping[str, Picture], device: torch.device, seed: int) -> None:
        super().__init__(windows, device)
        self._cuts = {name: picture.cropped() for name, picture in pictures.items()}
        self._generator = torch.Generator().manual_seed(seed)

    def sample(self, batch_size: int) -> dict[str, torch.Tensor]:
        """The next batch; ``observations`` and ``next_observations`` as of :func:`~...conditioning.join`."""
        batch = super().sample(batch_size)
        for prefix in ("", "next_"):
            if f"{prefix}observations" in batch:
                whole = [batch.pop(prefix + name) for name in self._cuts]
                cut = [random_crop(*pair, self._generator) for pair in zip(whole, self._cuts.values(), strict=True)]
                batch[f"{prefix}observations"] = join(batch[f"{prefix}observations"], cut)
        return batch

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Where the cuts are."""
        return {"cuts": self._generator.get_state()}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """Go on where the order and the cuts were."""
        super().load(tensors, values)
        self._generator.set_state(tensors["cuts"])


def picture_batches(
    store: Store,
    windows: Mapping[str, Any],
    pictures: Mapping[str, Picture],
    needs: Sequence[str],
    device: torch.device,
) -> PictureBatches:
    """Batches with pictures, of imitation or with outcomes.

    Args:
        store: The data.
        windows: Arguments of `Windows`; the seed is that of the cuts, too.
        pictures: Sizes of the pictures among the observations, in order.
        needs: What the agent asks of a batch beyond imitation's keys.
        device: Where to train.

    Raises:
        OneStrideError: The agent needs what the store does not have.
    """
    if "rewards" in needs and scalar(store, "reward") is None:
        raise OneStrideError(f"{store.path}: expected rewards, because this agent learns from them, got none recorded")
    if needs and executed(store).name != store.schema.label:
        raise OneStrideError(
            f"{store.path}: expected labels that were executed, because this agent learns what they led to, got "
            f"{executed(store).name!r} beside {store.schema.label!r}; available with such pictures: imitation"
        )
    outcomes = bool(needs)
    drawn = Windows(store, **windows, successors=outcomes, outcomes=outcomes)
    return PictureBatches(drawn, pictures, device, windows["seed"])
