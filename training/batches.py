"""Where batches come from: windows of a store for imitation, the replay for agents that learn from rewards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch

from onestride.datasets.windows import Windows
from onestride.training.replay import Replay


class Batches(Protocol):
    """Batches on the agent's device, and where in their order we are."""

    def sample(self, batch_size: int) -> dict[str, torch.Tensor]:
        """The next batch."""
        ...

    def drawn(self) -> torch.Tensor:
        """Steps of the data at which the last batch's windows begin (B,), on the device."""
        ...

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """What a checkpoint keeps as tensors."""
        ...

    def values(self) -> Mapping[str, Any]:
        """What a checkpoint keeps as JSON values."""
        ...

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """Go on where :meth:`tensors` and :meth:`values` were taken."""
        ...


class WindowBatches:
    """Windows of a store, gathered on the host in any of its modes."""

    def __init__(self, windows: Windows, device: torch.device) -> None:
        self._windows, self._device = windows, device

    def sample(self, batch_size: int) -> dict[str, torch.Tensor]:
        """The next batch."""
        batch = self._windows.sample(batch_size)
        return {name: torch.from_numpy(values).to(self._device) for name, values in batch.items()}

    def drawn(self) -> torch.Tensor:
        """Steps of the data at which the last batch's windows begin (B,)."""
        return torch.from_numpy(self._windows.starts).to(self._device)

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """Nothing: the order is JSON values."""
        return {}

    def values(self) -> Mapping[str, Any]:
        """Where the order is."""
        return self._windows.state_dict()

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """Go on where the order was."""
        del tensors
        self._windows.load_state_dict(dict(values))


class ReplayBatches:
    """Windows of the replay."""

    def __init__(self, replay: Replay) -> None:
        self.replay = replay

    def sample(self, batch_size: int) -> dict[str, torch.Tensor]:
        """The next batch."""
        return self.replay.sample(batch_size)

    def drawn(self) -> torch.Tensor:
        """Steps of the replay at which the last batch's windows begin (B,)."""
        return self.replay.starts

    def tensors(self) -> Mapping[str, torch.Tensor]:
        """The state of the draws."""
        return self.replay.state_dict()

    def values(self) -> Mapping[str, Any]:
        """Nothing: the state is a tensor."""
        return {}

    def load(self, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]) -> None:
        """Go on where the draws were."""
        del values
        self.replay.load_state_dict(tensors)
