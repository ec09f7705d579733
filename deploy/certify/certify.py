"""All evidence about one policy on one robot: claims, attacks on the kinematic model, the closed loop on a plant."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from onestride.deploy.certify.attacks import ATTACKS, Target
from onestride.deploy.certify.batches import SAME_ENERGY, attack_joints, attack_tank
from onestride.deploy.certify.claims import claims_of, not_claimed
from onestride.deploy.certify.legs import LegArena, jumping
from onestride.deploy.certify.limits import JointBounds
from onestride.deploy.certify.plant_runs import NOISY, OUTWARD, POLICY, ClosedLoop
from onestride.deploy.certify.report import (
    BatchedJoints,
    Claim,
    KeptCertificate,
    Played,
    Rollout,
    SafetyReport,
    Settings,
    Spent,
)
from onestride.deploy.certify.rollouts import Arena
from onestride.deploy.certify.trace import Judge, Trace
from onestride.deploy.contract import Contract
from onestride.deploy.kinematics import ForwardKinematics
from onestride.deploy.safety.apart import Clearing
from onestride.deploy.safety.build import Parts, build_chain
from onestride.deploy.safety.collision import Collision
from onestride.deploy.safety.lyapunov import JointCertificate
from onestride.deploy.safety.tank import make_tank
from onestride.deploy.safety.workspace import Workspace
from onestride.hardware.description import RobotDescription
from onestride.hardware.errors import OneStrideError
from onestride.hardware.safety.certificates import BarrierRow, LyapunovRow
from onestride.hardware.safety.chain import ProjectionFilter, RowTerms
from onestride.hardware.safety.energy import TankRow
from onestride.hardware.safety.geometry import CollisionRow, WorkspaceRow
from onestride.hardware.scene import Scene

#: States of the joints' rows that are attacked at once, and for how many ticks.
BATCH, BATCH_TICKS = 512, 200

#: Worlds that a tank is emptied by, and for how long [s].
WORLDS, WORLD_SECONDS = 64, 4.0

#: States of each attack that the report keeps for the picture of a certified region.
STATES = 200

#: Relative error of the simulated forces' work over a physics step.
WORK_ERROR = 0.01


@dataclass(frozen=True)
class Request:
    """What is to be certified, and how hard it is tried.

    Attributes:
        policy: the exported file.
        sha256: of it.
        contract: in it.
        robot: the robot found.
        scene: its plant; None = the closed loop is left out, and rows of geometry have no model.
        rollouts: runs of each attack.
        seconds: of each run [s].
        episodes: of each way to drive the plant.
        noise: on the observation, in halves of each element's range in the training data.
        seed: of everything random.
    """

    policy: Path
    sha256: str
    contract: Contract
    robot: RobotDescription
    scene: Scene | None = None
    rollouts: int = 3
    seconds: float = 2.0
    episodes: int = 2
    noise: float = 0.05
    seed: int = 0

    @property
    def steps(self) -> int:
        """What a progress bar counts to."""
        return len(ATTACKS) * self.rollouts + 3 * self.episodes + 2


class Certification:
    """Gathers the evidence for one request.

    Raises:
        OneStrideError: the contract names no control rate, or the chain cannot be made for this robot.
    """

    def __init__(self, request: Request, advance: Callable[[], None] = lambda: None) -> None:
        rate = request.contract.execution.control_rate
        if rate is None:
            raise OneStrideError("the contract names no control rate: there is no chain to certify")
        self._request, self._advance, self.period = request, advance, 1.0 / rate
        self.robot, self.contract = request.robot, request.contract
        scene = request.scene
        self._forward = ForwardKinematics.load(scene.model_path, self.robot) if scene else None
        self._legs = self.robot.command_mode == "impedance"
        bounds = JointBounds.of(self.robot, self.contract)
        self._bounds = jumping(bounds) if self._legs else bounds
        self._chain = build_chain(self.contract, self.robot, self._forward)

    @cached_property
    def rows(self) -> dict[str, RowTerms]:
        """The rows of the chain by name, numbered where one stands more than once."""
        projections = (terms for terms in self.robot.safety if isinstance(terms, ProjectionFilter))
        found: dict[str, RowTerms] = {}
        for row in (row for terms in projections for row in terms.rows):
            same = sum(name.split()[0] == row.row for name in found)
            found[f"{row.row} {same + 1}" if same else row.row] = row
        return found

    @cached_property
    def near(self) -> dict[str, Clearing]:
        """What measures the distances that rows of geometry are about, apart from the chain's own."""
        found: dict[str, Clearing] = {}
        for name, row in self.rows.items():
            if isinstance(row, WorkspaceRow):
                found[name] = Workspace(row, self._parts.frames)
            elif isinstance(row, CollisionRow):
                found[name] = Collision(row, self._parts.frames)
        return found

    @cached_property
    def _parts(self) -> Parts:
        return Parts(self.robot, self.contract, self._forward)

    @cached_property
    def judge(self) -> Judge:
        """Holds commands against the claims."""
        kept = {name: row for name, row in self.rows.items() if isinstance(row, LyapunovRow | BarrierRow)}
        certificates = {name: (row, JointCertificate(row, self.robot, self.period)) for name, row in kept.items()}
        drives, deceleration = "impedance" if self._legs else "joints", self.robot.safe_stop.deceleration
        return Judge(self._bounds, self.near, certificates, drives, deceleration)

    def gather(self) -> SafetyReport:
        """Everything, in order."""
        began, request = time.monotonic(), self._request
        traces = self._attack()
        rollouts = tuple(
            Rollout(result=self.judge.attacked(name, runs), trail=self.judge.trail(runs[0]))
            for name, runs in traces.items()
        )
        joints, energy = self._batches()
        differences = tuple(self.contract.differences(self.robot))
        plant, skipped = self._on_plant(bool(differences))
        claims = self._claims(rollouts, joints, energy, plant)
        failures = _failures(differences, rollouts, joints, energy, plant)
        policy = self.contract.policy
        return SafetyReport(
            passed=not failures,
            failures=failures,
            policy={"sha256": request.sha256, "name": policy.name, "algorithm": policy.algorithm},
            robot={"id": self.robot.id, "title": self.robot.title},
            environment=self.contract.environment or "",
            differences=differences,
            monitors=policy.monitors,
            lipschitz=policy.lipschitz,
            claims=claims,
            not_claimed=not_claimed(self.robot, self.contract),
            rollouts=rollouts,
            joints=joints,
            energy=energy,
            certificates=self._certificates(traces),
            plant=plant,
            plant_skipped=skipped,
            settings=self._settings(),
            wall_seconds=time.monotonic() - began,
        )

    def _settings(self) -> Settings:
        one = self._request
        return Settings(
            seed=one.seed,
            rollouts=one.rollouts,
            seconds=one.seconds,
            episodes=one.episodes,
            noise=one.noise,
            period=self.period,
        )

    @property
    def _target(self) -> Target:
        return Target(self.robot, self.period, self.near)

    def _attack(self) -> dict[str, list[Trace]]:
        arena = self._arena()
        ticks, found = round(self._request.seconds / self.period), dict[str, list[Trace]]()
        for index, (name, make) in enumerate(ATTACKS.items()):
            for run in range(self._request.rollouts):
                self._advance()
                if name == "nearest" and not self.near:
                    continue
                rng = np.random.default_rng([self._request.seed, index, run])
                found.setdefault(name, []).append(arena.run(make(self._target, rng), ticks, rng))
        return found

    def _arena(self) -> Arena | LegArena:
        """Arms are attacked on the kinematic model; what legs keep depends on what is measured of them."""
        if not self._legs:
            return Arena(self.robot, self.contract, self.period, self._chain)
        if self._request.scene is None:
            raise OneStrideError(f"robot {self.robot.id}: attacks on legs run on a plant, expected a scene")
        return LegArena(self.robot, self.contract, self.period, self._chain, self._request.scene)

    def _batches(self) -> tuple[BatchedJoints | None, tuple[Spent, ...]]:
        rng = np.random.default_rng([self._request.seed, 99])
        joints: BatchedJoints | None = None
        energy: tuple[Spent, ...] = ()
        if "joints" in self.rows:
            joints = attack_joints(self.robot, self._bounds, self.period, BATCH, BATCH_TICKS, rng)
        self._advance()
        tank = self.rows.get("tank")
        if isinstance(tank, TankRow):
            ticks = round(WORLD_SECONDS / self.period)
            energy = attack_tank(make_tank(tank, self.robot), self.robot, self.period, WORLDS, ticks, rng)
        self._advance()
        return joints, energy

    def _on_plant(self, differs: bool) -> tuple[tuple[Played, ...], str]:
        request, tank = self._request, self.rows.get("tank")
        if request.scene is None:
            return (), "no scene was given, so that the policy itself did not run"
        if self._legs:
            return (), "the attacks above ran on the plant; the policy itself did not (onestride run walks it)"
        if request.episodes == 0:
            return (), "no episodes were asked for"
        if differs:
            return (), "the policy does not fit the robot, so that no controller runs it"
        ports = tank.ports if isinstance(tank, TankRow) else ()
        loop = ClosedLoop(
            request.policy,
            self.robot,
            request.scene,
            self._target,
            self.judge,
            {port.name: self.robot.indices(port.joints) for port in ports},
            request.noise,
            request.seed,
        )
        names = (POLICY, NOISY, OUTWARD)
        return tuple(loop.play(name, request.episodes, self._advance) for name in names), ""

    def _certificates(self, traces: dict[str, list[Trace]]) -> tuple[KeptCertificate, ...]:
        firsts = [runs[0] for runs in traces.values()]
        return tuple(self._kept(name, firsts) for name in self.judge.certificates)

    def _kept(self, name: str, firsts: list[Trace]) -> KeptCertificate:
        (row, joints), values = self.judge.certificates[name], self.judge.values(name, firsts[0])
        largest = values.max(axis=1)
        return KeptCertificate(
            name=name,
            certificate=row.certificate,
            goal=tuple(joints.goal.tolist()),
            states=tuple(state for trace in firsts for state in self._worst_states(name, trace)),
            value=tuple(largest.tolist()),
            time=tuple((np.arange(len(values)) * self.period).tolist()),
        )

    def _worst_states(self, name: str, trace: Trace) -> list[tuple[float, float]]:
        """Distance to the goal and speed of the joint with the largest V, at some of a run's commands."""
        sent, worst = trace.sent, self.judge.values(name, trace).argmax(axis=1)
        speed = np.diff(sent, axis=0, prepend=sent[:1]) / self.period
        away = sent - self.judge.certificates[name][1].goal
        at = np.unique(np.linspace(0, len(sent) - 1, min(len(sent), STATES)).astype(int))
        return [(float(away[tick, worst[tick]]), float(speed[tick, worst[tick]])) for tick in at]

    def _claims(
        self,
        rollouts: tuple[Rollout, ...],
        joints: BatchedJoints | None,
        energy: tuple[Spent, ...],
        plant: tuple[Played, ...],
    ) -> tuple[Claim, ...]:
        """The chain's claims, each with how often it was held and broken."""
        attacked = [*(one.result for one in rollouts), *(one.commands for one in plant)]
        commands = sum(one.ticks for one in attacked)
        broken: dict[str, int] = {}
        for one in attacked:
            for rule, count in one.violations.items():
                name = _claim_of(rule)
                broken[name] = broken.get(name, 0) + count
        held = {"finite": commands, **{f"projection.{name.split()[0]}": commands for name in self.near}}
        held |= {f"projection.{name.split()[0]}": commands for name in self.judge.certificates}
        held["projection.joints"] = commands + (joints.states if joints else 0)
        broken["projection.joints"] = broken.get("projection.joints", 0) + (joints.violations if joints else 0)
        held["safe_stop"] = sum(one.refusals for one in attacked)
        held["projection.tank"] = sum(one.runs * one.ticks for one in energy)
        broken["projection.tank"] = len([*_overdrawn(energy), *_overdrawn_on_plant(energy, plant)])
        held |= {"tilt": commands, "projection.impedance": commands, "projection": commands}
        broken["projection"] = sum(count for name, count in broken.items() if name.startswith("projection."))
        counted = claims_of(self.robot, self.contract)
        return tuple(
            one.model_copy(update={"held": held.get(one.name, 0), "violations": broken.get(one.name, 0)})
            for one in counted
        )


def _claim_of(rule: str) -> str:
    """The claim that a violated rule belongs to: `joints.jerk` -> `projection.joints`."""
    name = rule.split(".")[0].split()[0]
    return name if name in ("finite", "safe_stop", "tilt") else f"projection.{name}"


def _overdrawn(energy: tuple[Spent, ...]) -> list[str]:
    """Ports that the attacks took more from than is claimed, one sentence each."""
    over = (one for one in energy if one.over > SAME_ENERGY)
    return [f"tank {one.port}: {one.most:.4g} J left it, {one.over:.4g} J more than it claims" for one in over]


def _overdrawn_on_plant(energy: tuple[Spent, ...], plant: tuple[Played, ...]) -> list[str]:
    """The same of the plant's drives, as far as their work is known."""
    bounds = {spent.port: spent.bound for spent in energy}
    return [
        f"on the plant, {played.name}: tank {port}: {most:.4g} J left it, expected at most {bounds[port]:.4g} J"
        for played in plant
        for port, most in played.energy.items()
        if most > bounds[port] * (1.0 + WORK_ERROR)
    ]


def _failures(
    differences: tuple[str, ...],
    rollouts: tuple[Rollout, ...],
    joints: BatchedJoints | None,
    energy: tuple[Spent, ...],
    plant: tuple[Played, ...],
) -> tuple[str, ...]:
    """Why the report does not pass, one sentence each."""
    lines = [f"the policy does not fit: {line}" for line in differences]
    for where, one in [("", rollout.result) for rollout in rollouts] + [("on the plant, ", p.commands) for p in plant]:
        lines.extend(f"{where}{one.name}: {rule} violated by {n} commands" for rule, n in one.violations.items() if n)
    if joints and joints.violations:
        lines.append(f"joints' rows, corner by corner: {joints.violations} commands beyond a limit")
    return (*lines, *_overdrawn(energy), *_overdrawn_on_plant(energy, plant))
