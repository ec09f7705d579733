# mujoco's binary modules carry no types that pyright can read.
from typing import Any

def __getattr__(name: str) -> Any: ...
