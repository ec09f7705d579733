"""The plant process: a simulation, its topics and its two services."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.utilities import remove_ros_args, try_shutdown
from std_srvs.srv import Trigger

from onestride.hardware.description import load_robot
from onestride.hardware.errors import OneStrideError
from onestride.hardware.film import Film
from onestride.hardware.plant import Plant
from onestride.hardware.realtime import Realtime
from onestride.hardware.scene import Scene, load_starts
from onestride_plant.faults import Faults
from onestride_plant.plants import add_realism, make_plant
from onestride_plant.simulation import Simulation
from onestride_plant.topics import PlantClock, Readings, Targets, way_us
from onestride_plant.walk import Walk

NODE_NAME = "onestride_plant"
PUBLISH_RATE = 500.0  # [Hz]


class PlantNode(Node):
    """Serves `~/reset` and `~/progress`; topics are in `topics`, physics in `simulation`, faults in `faults`."""

    def __init__(self, plant: Plant, simulation: Simulation) -> None:
        super().__init__(NODE_NAME)
        self._simulation = simulation
        self.targets, readings = Targets(self, plant.robot), Readings(self, plant)
        self.faults = Faults(self, plant.robot, readings, self.targets)
        self.create_service(Trigger, "~/reset", self._reset)
        self.create_service(Trigger, "~/progress", self._progress)

    def _reset(self, request: Any, response: Any) -> Any:
        del request
        self.targets.refuse_older(time.time_ns())
        return _answer(response, self._simulation.reset)

    def _progress(self, request: Any, response: Any) -> Any:
        del request
        return _answer(response, self.progress)

    def progress(self) -> dict[str, Any]:
        """How the episode stands, and what came in."""
        return {**self._simulation.progress(), **self._heard()}

    def _heard(self) -> dict[str, Any]:
        targets = self.targets
        return {"commands": targets.taken, "ignored": targets.ignored, "command_way_us": way_us(list(targets.way))}


def _answer(response: Any, ask: Callable[[], dict[str, Any]]) -> Any:
    try:
        response.success, response.message = True, json.dumps(ask())
    except (OneStrideError, OSError) as error:
        response.success, response.message = False, str(error)
    return response


def arguments(command_line: Sequence[str]) -> argparse.Namespace:
    """The command line without its ROS part."""
    parser = argparse.ArgumentParser(prog="onestride_plant", description=__doc__)
    parser.add_argument("--scene", type=Path, required=True, help="folder of an exported scene")
    parser.add_argument("--robot", default="ur5e_2f85", help="robot description: an id or a YAML file")
    parser.add_argument("--starts", type=Path, help="episode starts; without them every episode begins at the default")
    parser.add_argument("--publish-rate", type=float, default=PUBLISH_RATE, help="of all readings [Hz]")
    parser.add_argument("--horizon", type=int, help="steps of an episode; default the environment's own")
    parser.add_argument("--record", type=Path, help="keep configurations for a film in this .npz file")
    parser.add_argument(
        "--cmd-vel-topic", default="cmd_vel", help="what is asked of a robot on legs, geometry_msgs/Twist"
    )
    parser.add_argument("--clock", action="store_true", help="publish its time on /clock, for use_sim_time")
    parser.add_argument("--realtime-priority", type=int, default=0, help="of physics under SCHED_FIFO, if permitted")
    add_realism(parser)
    return parser.parse_args(list(command_line))


def run(options: argparse.Namespace, stopping: threading.Event) -> None:
    """Simulate until `stopping` is set.

    Raises:
        OneStrideError: the scene, the robot, the starts or the rate is refused.
    """
    plant = make_plant(options, _scene(options), load_robot(options.robot))
    starts = None if options.starts is None else load_starts(options.starts)
    film = None if options.record is None else Film(options.record)
    simulation = Simulation(plant, starts, film)
    every = steps_between(options.publish_rate, plant.scene.physics_timestep)
    node = PlantNode(plant, simulation)
    if plant.robot.base is not None:
        simulation.walk = Walk(plant, node, options.cmd_vel_topic)
    realtime = Realtime(options.realtime_priority)
    if options.clock:
        simulation.show = PlantClock(node).show
    with _served(node):  # whose thread goes on as usual
        realtime.keep_deadlines("physics")
        realtime.lock_memory()
        for what, said in realtime.granted.items():
            node.get_logger().info(f"realtime: {what} {said}")
        node.get_logger().info(f"{plant.scene.environment} in {options.scene}, readings at {options.publish_rate:g} Hz")
        simulation.run(node.faults.take, node.faults.publish, every, stopping)
    node.get_logger().info(f"stopped: {json.dumps(node.progress())}")
    node.destroy_node()
    if film is not None:
        film.write()


def _scene(options: argparse.Namespace) -> Scene:
    scene = Scene.load(options.scene)
    if options.horizon is None:
        return scene
    if options.horizon < 1:
        raise OneStrideError(f"--horizon: expected at least 1 step, got {options.horizon}")
    return Scene(scene.folder, scene.description.model_copy(update={"horizon": options.horizon}))


def steps_between(rate: float, timestep: float) -> int:
    """Physics steps between two measurements.

    Raises:
        OneStrideError: the rate is not positive, or physics is slower.
    """
    fastest = 1.0 / timestep
    if not 0 < rate <= fastest + 1e-6:
        raise OneStrideError(f"--publish-rate: expected more than 0 and at most {fastest:g} Hz, got {rate:g}")
    return max(1, round(fastest / rate))


@contextlib.contextmanager
def _served(node: Node) -> Any:
    """The node's services answered from a thread of their own; topics are left to the physics loop."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=_spin, args=(executor,), name="services", daemon=True)
    thread.start()
    try:
        yield
    finally:
        executor.shutdown(timeout_sec=1.0)
        thread.join(timeout=1.0)


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()


def main() -> int:
    """Entry point of the process; its exit code."""
    stopping = threading.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stopping.set())
    options = arguments(remove_ros_args(sys.argv)[1:])
    sys.setswitchinterval(5e-4)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        run(options, stopping)
    except OneStrideError as error:
        get_logger(NODE_NAME).fatal(str(error))
        return 1
    finally:
        try_shutdown()
    return 0
