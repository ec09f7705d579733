"""Render one recorded episode headless, in a process of its own: EGL must be chosen before MuJoCo is loaded.

`python -m onestride.training.demo.film SCENE FILM.npz OUT.gif EPISODE`
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 320, 240
FRAME_MS, LAST_FRAME_MS = 50, 1500


def render(scene: Path, film: Path, output: Path, episode: int) -> str:
    """Render `episode` of a plant's film as a GIF.

    Returns:
        Why there is no film; empty if there is one.
    """
    output.unlink(missing_ok=True)
    command = [sys.executable, "-m", __name__, str(scene), str(film), str(output), str(episode)]
    try:
        done = subprocess.run(
            command,
            env={**os.environ, "MUJOCO_GL": "egl"},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return "no film: rendering took longer than 120 s"
    if done.returncode == 0 and output.exists():
        return ""
    last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
    return f"no film: headless rendering needs EGL ({last})"


def _frames(scene: Path, film: Path, episode: int) -> list[Any]:
    import mujoco
    import numpy as np
    from PIL import Image

    from onestride.hardware.scene import Scene

    known = Scene.load(scene)
    model = mujoco.MjModel.from_xml_path(str(known.model_path))
    model.vis.global_.offwidth, model.vis.global_.offheight = WIDTH, HEIGHT
    model.vis.quality.offsamples = 0  # without a GPU antialiasing costs most of the time
    data = mujoco.MjData(model)
    with np.load(film) as recorded:
        states = recorded["qpos"][recorded["episode"] == episode]
    renderer = mujoco.Renderer(model, HEIGHT, WIDTH)
    try:
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            renderer.scene.flags[flag] = 0
        return [Image.fromarray(_picture(renderer, model, data, qpos, known.description.camera)) for qpos in states]
    finally:
        renderer.close()


def _picture(renderer: Any, model: Any, data: Any, qpos: Any, camera: str | None) -> Any:
    import mujoco

    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    renderer.update_scene(data, camera=camera or -1)
    return renderer.render()


def main(arguments: list[str]) -> int:
    """Render and write the GIF."""
    scene, film, output, episode = Path(arguments[0]), Path(arguments[1]), Path(arguments[2]), int(arguments[3])
    first, *rest = _frames(scene, film, episode)
    durations = [FRAME_MS] * len(rest) + [LAST_FRAME_MS]
    first.save(output, save_all=True, append_images=rest, duration=durations, loop=0, optimize=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
