"""The safety report as data: everything that its page shows, and nothing that was not measured or declared."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from onestride.deploy.contract import LipschitzTerms, MonitorTerms
from onestride.hardware.model import Model
from onestride.hardware.safety.certificates import CertificateTerms

Level = Literal["proved", "monitored", "trained"]
Curve = tuple[float | None, ...]


class Claim(Model):
    """What one part of the chain claims.

    Attributes:
        name: `filter`, `projection.row`, or a monitor of the policy file.
        level: `proved` on the model that the row names, `monitored` and reacted to, `trained` into the policy.
        claim: in words.
        assumes: what it rests on.
        otherwise: what happens when it cannot be kept.
        settings: of the robot's YAML.
        held: against how many commands or states it was checked; 0 = by none of the attacks.
        violations: how many of them broke it.
    """

    name: str
    level: Level
    claim: str
    assumes: str
    otherwise: str
    settings: dict[str, str] = Field(default_factory=dict)
    held: int = 0
    violations: int = 0


class Attacked(Model):
    """What commands made of one attack, or of one way to drive a plant.

    Attributes:
        name: of the attack.
        ticks: certified and stopping.
        interventions: share of certified ticks in which the chain changed the command.
        by_rows: share of them in which a row of the projection did; the rest only made the command reachable.
        refusals: ticks in which it found no command, and stopped the robot.
        reasons: of the refusals, and how many each.
        used: largest share of each limit that any command used [1]; `position` is of half the range, from its middle.
        margins: smallest distance left: `position` to a limit [rad], `workspace` and `collision` [m].
        yielded: ticks in which a claim that may yield was reported to have yielded.
        violations: commands that broke a claim, by the claim's name and rule.
        active: ticks in which each rule was active.
    """

    name: str
    ticks: int
    interventions: float
    by_rows: float
    refusals: int
    reasons: dict[str, int]
    used: dict[str, float]
    margins: dict[str, float]
    yielded: int
    violations: dict[str, int]
    active: dict[str, int]


class Trail(Model):
    """Of one run, over time: what the page draws.

    Attributes:
        time: [s].
        curves: by name, as long as the time; None where there is no value.
        changed: whether rows of the projection changed the command.
    """

    time: tuple[float, ...]
    curves: dict[str, Curve]
    changed: tuple[bool, ...]


class Rollout(Model):
    """An attack on the kinematic model: drives that follow as they declare, and touch nothing.

    Attributes:
        result: of all runs.
        trail: of the first.
    """

    result: Attacked
    trail: Trail


class BatchedJoints(Model):
    """Random choices of the joints' rows alone, many states at once: the corners of what they permit.

    Attributes:
        states: commands chosen.
        used: as in `Attacked`.
        empty: states in which no command was permitted.
        violations: commands beyond a limit.
    """

    states: int
    used: dict[str, float]
    empty: int
    violations: int


class Spent(Model):
    """Energy that left one port of the tank, in a world that moves the joints to take as much as it can.

    Attributes:
        port: its name.
        bound: the most that the tank claims [J].
        most: the most that left in any run [J].
        over: by how much it was ever more than what the tank claims up to then [J]; negative if it never was.
        runs: how many.
        ticks: of each.
        time: of the run with the most [s].
        delivered: in that run [J].
        left: in its tank [J].
    """

    port: str
    bound: float
    most: float
    over: float
    runs: int
    ticks: int
    time: tuple[float, ...]
    delivered: tuple[float, ...]
    left: tuple[float, ...]


class KeptCertificate(Model):
    """A certificate of the joints in the chain, and states that the attacks took a joint to.

    Attributes:
        name: of the row or filter.
        certificate: as the robot declares it.
        goal: of each joint [rad].
        states: the worst joint's distance to its goal [rad] and speed [rad/s], some of them.
        value: the largest V of any joint in the first run, over time.
        time: [s].
    """

    name: str
    certificate: CertificateTerms
    goal: tuple[float, ...]
    states: tuple[tuple[float, float], ...]
    value: tuple[float, ...]
    time: tuple[float, ...]


class Played(Model):
    """Episodes on the simulated plant, through the shipped controller.

    Attributes:
        name: `policy`, `noisy observation` or `outward at full speed`.
        episodes: how many.
        solved: of them.
        faults: what stopped the others, and how many each.
        commands: what was sent.
        joint_excess: how far a joint was measured outside its limits, at most [rad]; negative = inside.
        speed: largest measured share of a joint's speed limit.
        energy: largest net energy that the drives of each tank's port delivered, by the simulated forces [J].
        trail: of the first episode.
    """

    name: str
    episodes: int
    solved: int
    faults: dict[str, int]
    commands: Attacked
    joint_excess: float
    speed: float
    energy: dict[str, float]
    trail: Trail


class Settings(Model):
    """What the report was made with.

    Attributes:
        seed: of everything random.
        rollouts: runs of each attack.
        seconds: of each run, simulated [s].
        episodes: of each way to drive the plant.
        noise: deviation of the noise on the observation, in halves of each element's range in the training data.
        period: of the commands [s].
    """

    seed: int
    rollouts: int
    seconds: float
    episodes: int
    noise: float
    period: float


class SafetyReport(Model):
    """What is claimed of a policy on a robot, how far, and what became of it under attack. All of it simulated.

    Attributes:
        schema_version: version of this format.
        simulated: nothing here was measured on a machine.
        passed: the policy fits the robot, and no proved claim was violated.
        failures: why not, one sentence each.
        policy: its file's SHA-256, name and algorithm.
        robot: id and title.
        environment: where the policy was trained, and whose plant was used; empty if none.
        differences: between the robot promised in the contract and the one found.
        monitors: that the policy file computes.
        lipschitz: how strongly the policy follows its observation; None where it was not measured.
        claims: of the chain, in its order, then of the policy file.
        not_claimed: in words.
        rollouts: attacks on the kinematic model.
        joints: attacks on the joints' rows alone; None where the chain has none.
        energy: attacks on the tank; empty without one.
        certificates: that the chain keeps.
        plant: the closed loop; empty without a scene, or where the policy does not fit.
        plant_skipped: why.
        settings: of this report.
        wall_seconds: it took [s].
    """

    schema_version: Literal[1] = 1
    simulated: Literal[True] = True
    passed: bool
    failures: tuple[str, ...]
    policy: dict[str, str]
    robot: dict[str, str]
    environment: str
    differences: tuple[str, ...]
    monitors: tuple[MonitorTerms, ...]
    lipschitz: LipschitzTerms | None
    claims: tuple[Claim, ...]
    not_claimed: tuple[str, ...]
    rollouts: tuple[Rollout, ...]
    joints: BatchedJoints | None
    energy: tuple[Spent, ...]
    certificates: tuple[KeptCertificate, ...]
    plant: tuple[Played, ...]
    plant_skipped: str
    settings: Settings
    wall_seconds: float
