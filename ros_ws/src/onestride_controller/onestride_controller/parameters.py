"""The node's parameters: declared once, with types, descriptions and bounds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rclpy.node import Node

from onestride.hardware.errors import OneStrideError

#: Nodes that may read the command topics, in the node's namespace unless absolute.
READERS = ("onestride_plant", "onestride_recorder")

#: Stands in `cpu_affinity` for no choice: a parameter cannot default to an empty list of integers.
EVERY_CPU = -1


@dataclass(frozen=True)
class Settings:
    """The parameters' values.

    Attributes:
        policy: the exported ONNX file; None where only a person acts.
        robot: robot description, an id or a YAML file.
        scene: folder with the MuJoCo model for kinematics.
        seed: noise seed of the first activation; the k-th after it uses `seed + k`.
        nfe: network evaluations per action; None takes the contract's first.
        soft_start: time over which the speed limits open after activation [s].
        simulated: the robot is a plant on this machine.
        declared_peers: nodes that may subscribe to the command topics.
        declared_writers: nodes that may publish on them, besides this one.
        watchdog: node that stops the robot when this one dies; empty for none.
        dry_run: send nothing: no publisher of commands is made.
        permit: file that a real run's gate wrote; None for none.
        cmd_vel_topic: of the velocity that somebody asks of a robot on legs.
        publish_ticks: publish every tick even while nobody listens.
        contract: a contract in a file of its own: of a policy that carries none, or without a policy of a
            demonstration.
        teleop: the device by which a person acts; empty without one.
        teleop_mapping: YAML file of its sticks and buttons; None takes the defaults.
        teleop_topic: of the device; empty takes the device's own.
        teleop_buttons: topic of the joystick with the deadman.
        teleop_stale: oldest message of the person that counts [s]; 0 takes the mapping's.
        chunk_blend: policy steps before a chunk's end at which the next is asked for, and over which both are blended.
        adaptive_nfe: take fewer network evaluations while inference is late.
        use_sim_time: the loop keeps the time of /clock; rclpy declares it.
        realtime_priority: of the control thread, where the system permits it; 0 for the usual scheduling.
        cpu_affinity: processors of the control thread; empty for all.
    """

    policy: Path | None
    robot: str
    scene: Path
    seed: int
    nfe: int | None
    soft_start: float
    simulated: bool
    declared_peers: tuple[str, ...]
    declared_writers: tuple[str, ...]
    watchdog: str = ""
    dry_run: bool = False
    permit: Path | None = None
    cmd_vel_topic: str = "cmd_vel"
    publish_ticks: bool = False
    contract: Path | None = None
    teleop: str = ""
    teleop_mapping: Path | None = None
    teleop_topic: str = ""
    teleop_buttons: str = "/joy"
    teleop_stale: float = 0.0
    chunk_blend: int = 0
    adaptive_nfe: bool = False
    use_sim_time: bool = False
    realtime_priority: int = 0
    cpu_affinity: tuple[int, ...] = ()


def declare(node: Node) -> None:
    """Declare every parameter; all but the seed are fixed when the process starts."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    def one(name: str, default: Any, description: str, *, read_only: bool = True, **bounds: Any) -> None:
        descriptor = ParameterDescriptor(description=description, read_only=read_only, **bounds)
        node.declare_parameter(name, default, descriptor)

    def between(low: int, high: int) -> list[Any]:
        return [IntegerRange(from_value=low, to_value=high, step=1)]

    one("policy", "", "ONNX policy file, with its contract or with parameter contract")
    one("robot", "ur5e_2f85", "robot description: an id or a YAML file")
    one("scene", "", "folder of the exported scene, whose MuJoCo model serves kinematics")
    one("seed", 0, "noise seed; each activation adds 1", read_only=False, integer_range=between(0, 2**31 - 1))
    one("nfe", 0, "network evaluations per action; 0 takes the policy's first", integer_range=between(0, 64))
    seconds = [FloatingPointRange(from_value=0.0, to_value=10.0)]
    one("soft_start", 0.2, "time over which the speed limits open [s]", floating_point_range=seconds)
    one("simulated", True, "the robot is a plant on this machine; a real one needs a permit")
    one("dry_run", False, "send nothing: no publisher of commands is made")
    one("permit", "", "file that the gate of a real run wrote, good once; see onestride run --real")
    one("declared_peers", list(READERS), "nodes that may subscribe to the command topics")
    one("declared_writers", [""], "nodes that may publish on the command topics besides this one")
    one("watchdog", "", "node that stops the robot when this one dies; empty for none, which no real robot is run with")
    one("cmd_vel_topic", "cmd_vel", "geometry_msgs/Twist with the velocity that somebody asks of a robot on legs")
    one("publish_ticks", False, "publish ~/ticks even while nobody listens")
    one("contract", "", "contract file of a policy that carries none; without a policy, of a demonstration")
    one("teleop", "", "device by which a person acts: joy, twist, leader; empty for none")
    one("teleop_mapping", "", "YAML file: what sticks and buttons mean; empty for the defaults")
    one("teleop_topic", "", "topic of that device; empty for /joy, /cmd_vel or /leader/joint_states")
    one("teleop_buttons", "/joy", "sensor_msgs/Joy with the deadman and the other buttons")
    stale = [FloatingPointRange(from_value=0.0, to_value=2.0)]
    one("teleop_stale", 0.0, "oldest message that counts [s]; 0 takes the mapping's", floating_point_range=stale)
    blend = "policy steps before a chunk's end at which the next is asked for, and over which both are blended"
    one("chunk_blend", 0, blend, integer_range=between(0, 1000))
    one("adaptive_nfe", False, "take fewer network evaluations while inference is late, where the policy offers fewer")
    fifo = "priority of the control thread under SCHED_FIFO where the system permits it, inference 10 below; 0 for none"
    one("realtime_priority", 40, fifo, integer_range=between(0, 99))
    one("cpu_affinity", [EVERY_CPU], "processors of the control thread; -1 for all")


def settings(node: Node) -> Settings:
    """The parameters as they are now.

    Raises:
        OneStrideError: a required one is missing.
    """

    def value(name: str) -> Any:
        return node.get_parameter(name).value

    def path(name: str) -> Path | None:
        return Path(value(name)) if value(name) else None

    for name in ("scene",) if value("contract") else ("policy", "scene"):
        if not value(name):
            raise OneStrideError(f"parameter {name}: expected a path, got none; start with -p {name}:=PATH")
    return Settings(
        policy=path("policy"),
        robot=value("robot"),
        scene=Path(value("scene")),
        seed=value("seed"),
        nfe=value("nfe") or None,
        soft_start=value("soft_start"),
        simulated=value("simulated"),
        declared_peers=tuple(filter(None, value("declared_peers"))),
        declared_writers=tuple(filter(None, value("declared_writers"))),
        watchdog=value("watchdog"),
        dry_run=value("dry_run"),
        permit=path("permit"),
        cmd_vel_topic=value("cmd_vel_topic"),
        publish_ticks=value("publish_ticks"),
        contract=path("contract"),
        teleop=value("teleop"),
        teleop_mapping=path("teleop_mapping"),
        teleop_topic=value("teleop_topic"),
        teleop_buttons=value("teleop_buttons"),
        teleop_stale=value("teleop_stale"),
        chunk_blend=value("chunk_blend"),
        adaptive_nfe=value("adaptive_nfe"),
        use_sim_time=value("use_sim_time"),
        realtime_priority=value("realtime_priority"),
        cpu_affinity=tuple(cpu for cpu in value("cpu_affinity") if cpu != EVERY_CPU),
    )
