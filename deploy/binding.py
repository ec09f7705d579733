"""A session with inputs and outputs at fixed places on its device: three steps that can be told apart and timed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Where the memory of a provider is; the others work in the processor's.
DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}


class Binding:
    """Fixed memory for every input and output of a session, on the device that computes.

    Nothing is allocated from call to call, and a GPU's copies are steps of their own. On the processor the session
    reads and writes our arrays where they are.

    Args:
        session: of onnxruntime.
        provider: that it runs on.
        inputs: name -> array whose shape and dtype the input has; filled by the caller before `copy_in`.
        outputs: name -> shape, float32.
    """

    def __init__(
        self, session: Any, provider: str, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, tuple[int, ...]]
    ) -> None:
        device = DEVICES.get(provider, "cpu")
        self._session, self._binding, self._waits = session, session.io_binding(), device != "cpu"
        self._inputs = [_Place(array, device) for array in inputs.values()]
        self._outputs = [_Place(np.zeros(shape, np.float32), device) for shape in outputs.values()]
        for name, place in zip(inputs, self._inputs, strict=True):
            self._binding.bind_ortvalue_input(name, place.value)
        for name, place in zip(outputs, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, place.value)
        self._elsewhere = [place for place in self._inputs if not place.shared]

    def copy_in(self) -> None:
        """Bring the inputs to the device."""
        for place in self._elsewhere:
            place.value.update_inplace(place.array)

    def evaluate(self) -> None:
        """Run the graph to its end."""
        self._session.run_with_iobinding(self._binding)
        if self._waits:
            self._binding.synchronize_outputs()

    def copy_out(self) -> list[NDArray[np.float32]]:
        """The outputs, in order, in memory that the next call leaves alone."""
        return [place.array.copy() if place.shared else np.array(place.value.numpy()) for place in self._outputs]


class _Place:
    """Memory that a session reads or writes.

    Attributes:
        array: on our side.
        value: on the session's side.
        shared: whether both are the same bytes.
    """

    def __init__(self, array: NDArray[Any], device: str) -> None:
        from onnxruntime import OrtValue

        self.array = array
        self.value: Any = OrtValue.ortvalue_from_numpy(array, device, 0)
        self.shared = device == "cpu" and self.value.data_ptr() == array.ctypes.data
