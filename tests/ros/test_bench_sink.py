"""The bench's commands through real DDS, to a listener in another process."""

from __future__ import annotations

import numpy as np

from onestride.deploy.bench.bench import BenchOptions, bench
from onestride.deploy.bench.full_tick import Cell
from onestride.hardware.description import load_robot
from onestride.hardware.scene import Scene
from onestride_controller.bench_sink import dds_sink


def test_every_tick_publishes(ground):
    robot, scene = load_robot("ur5e_2f85"), Scene.load(ground.scene)
    options = BenchOptions(ground.policy, calls=5, seconds=0.5, nfe=(1,))
    with dds_sink(robot) as send:
        send(np.array([joint.default for joint in robot.joints]))
        measured = bench(options, Cell(robot, scene, send)).full_tick
    kept = bench(options, Cell(robot, scene)).full_tick
    assert measured is not None and kept is not None
    assert (measured.sink, kept.sink) == ("dds", "memory")
    assert measured.paced.stages["publish"].n == 100
    # Through serialisation and a socket or shared memory, against a copy of a few numbers.
    assert measured.paced.stages["publish"].min > kept.paced.stages["publish"].min
