"""What each filter and row claims, on what it rests, and what happens when it cannot be kept."""

from __future__ import annotations

from typing import NamedTuple

from onestride.deploy.certify.report import Claim, Level
from onestride.deploy.contract import Contract
from onestride.hardware.description import DampingStop, RobotDescription
from onestride.hardware.model import Model
from onestride.hardware.safety.chain import ProjectionFilter


class Statement(NamedTuple):
    """One claim, whatever its settings."""

    level: Level
    claim: str
    assumes: str
    otherwise: str


STOP = "safe stop"
SENSED = "the sample is from the joint it names"

#: By the name of the filter in YAML. `proved` is by construction, and of the commands.
FILTERS: dict[str, Statement] = {
    "finite": Statement(
        "proved", "no command of the wrong shape, and none that is not a number, is sent", "nothing", STOP
    ),
    "fresh_streams": Statement(
        "monitored", "no command is computed from measurements older than declared", "stamps are of one clock", STOP
    ),
    "policy_alive": Statement("monitored", "no command is sent long after a chunk was due", "the clock is right", STOP),
    "clock": Statement(
        "monitored", "the clock neither ran backwards nor jumped", "ticks come more often than the jump", STOP
    ),
    "envelope": Statement(
        "monitored",
        "the policy is asked about observations within the ranges of its data, element by element",
        "the ranges in the contract are those of the data",
        "warns or stops, as declared",
    ),
    "frozen": Statement("monitored", "no joint is driven on a position that no longer changes", SENSED, STOP),
    "frozen_imu": Statement(
        "monitored",
        "no robot on legs is driven on an inertial sensor of which orientation, turning or force no longer changes",
        "a live sensor trembles, or the robot it sits on moves, while commands do",
        "the declared safe stop: every joint is damped",
    ),
    "sign": Statement("monitored", "no joint is driven that is measured with the wrong sign", SENSED, STOP),
    "rate": Statement("monitored", "no joint was measured to jump further than its speed allows", SENSED, STOP),
    "overspeed": Statement("monitored", "no joint is measured to move faster than it may", SENSED, STOP),
    "tracking": Statement(
        "monitored",
        "every joint is where its drive should have taken it",
        "drives follow as a lag of damping over stiffness",
        STOP,
    ),
    "tilt": Statement(
        "monitored",
        "no command is sent while the base leans further than its robot's tilt",
        "the inertial sensor tells which way is up",
        "the declared safe stop: every joint is damped",
    ),
    "region": Statement(
        "proved",
        "control begins and goes on only where the certificate holds, as far as the commands tell",
        "the certificate's system and period",
        STOP,
    ),
    "decrease": Statement(
        "monitored",
        "a learnt Lyapunov function does not grow for longer than declared",
        "the function says something about the task",
        "warns or stops, as declared",
    ),
    "projection": Statement(
        "proved",
        "the command sent keeps all rows at once, checked again on the value to be sent",
        "what each row assumes",
        STOP,
    ),
}

#: By the name of the row in YAML. All are of the commands: the measured robot lags behind them.
ROWS: dict[str, Statement] = {
    "impedance": Statement(
        "proved",
        "joint targets are within the position limits, and ask no drive for more than its effort",
        "the measured positions and velocities, and the drive's own stiffness and damping",
        STOP,
    ),
    "joints": Statement(
        "proved",
        "commands keep position, speed, acceleration and jerk limits, and the way to stop before the position limits",
        "a command is sent every period, and the drives follow it",
        "jerk yields to other rows, then acceleration; position, speed and stopping never",
    ),
    "workspace": Statement(
        "proved",
        "commands, and the safe stop from each of them, keep frames where they may be",
        "the model's kinematics are the robot's; the margin holds what the robot lags",
        STOP,
    ),
    "collision": Statement(
        "proved",
        "commands, and the safe stop from each of them, keep links apart, and from what stands still in the model",
        "shapes are convex hulls, as in the model; the margin holds what the robot lags; nothing that moves counts",
        STOP,
    ),
    "tank": Statement(
        "proved",
        "the net energy through each port stays below initial - minimum + refills, from activation on",
        "commands are applied as metered; positions are as old as their messages; declared stiffness is true, "
        "and declared damping not above the true one",
        STOP,
    ),
    "lyapunov": Statement(
        "proved",
        "every joint's V decreases, as far as the commands tell, from within the certificate's level",
        "the certificate's system and period",
        "yields to position, speed, collision and the tank",
    ),
    "barrier": Statement(
        "proved",
        "every joint stays in its certified region, h falling by its rate at most, as far as the commands tell",
        "the certificate's system and period",
        STOP,
    ),
}

DAMPING = Statement(
    "proved",
    "from the fault on, drives take energy out of every joint and put none in; where the robot comes to lie is open",
    "drives damp as they declare; the robot stays switched on",
    "the emergency stop, which is not ours",
)

SAFE_STOP = Statement(
    "proved",
    "from the last command sent, every joint's command comes to rest within its limits and within the declared time, "
    "braking no harder than declared; within the jerk limit, unless that had yielded before",
    "commands go out; it needs no measurement",
    "brakes or the emergency stop, which are not ours",
)

#: What is not claimed where a row or filter is missing.
WITHOUT: dict[str, str] = {
    "workspace": "workspace: no row keeps frames inside it",
    "collision": "collision: no row keeps links apart, or from the surroundings",
    "tank": "energy: no tank bounds what the drives deliver",
    "lyapunov": "stability: no row makes a Lyapunov function decrease",
    "barrier": "region: no row keeps the joints in a certified region",
    "envelope": "familiarity: nothing watches whether observations are like the training data",
    "frozen": "frozen sensors are not detected",
    "sign": "flipped sensors are not detected",
    "tracking": "blocked or switched off drives are not detected",
}

#: What is not claimed of a robot on legs.
LEGS = (
    "balance: nothing keeps the robot from falling, a fall is stopped by damping",
    "speed and acceleration of targets: soft drives stay behind them, and the effort at the measured state is limited",
)

#: What no chain claims.
NEVER = (
    "the measured motion: rows bound commands, and the drives follow them with a lag",
    "contact forces, and objects that move",
    "the success of the task",
    "anything when this computer fails: the emergency stop is hardware",
)


def claims_of(robot: RobotDescription, contract: Contract) -> tuple[Claim, ...]:
    """The chain that a robot declares, filter by filter and row by row, then the policy file's own numbers."""
    found: list[Claim] = []
    for terms in robot.safety:
        if terms.filter in FILTERS:
            found.append(_claim(terms.filter, FILTERS[terms.filter], terms))
        if isinstance(terms, ProjectionFilter):
            found.extend(_claim(f"projection.{row.row}", ROWS[row.row], row) for row in terms.rows)
    stop = robot.safe_stop
    settings = {name: str(value) for name, value in stop.model_dump(mode="json", exclude={"kind"}).items()}
    statement = DAMPING if isinstance(stop, DampingStop) else SAFE_STOP
    found.append(Claim(name="safe_stop", **statement._asdict(), settings=settings))
    return (*found, *_of_the_file(contract))


def _claim(name: str, statement: Statement, terms: Model) -> Claim:
    values = terms.model_dump(mode="json", exclude={"filter", "row", "rows", "certificate"})
    settings = {key: str(value) for key, value in values.items() if not isinstance(value, dict | list)}
    return Claim(name=name, **statement._asdict(), settings=settings)


def _of_the_file(contract: Contract) -> list[Claim]:
    """Monitors that were trained, and the bound of the policy's slope."""
    found = [
        Claim(
            name=f"policy.{monitor.name}",
            level="trained",
            claim=f"{monitor.meaning}: at most {monitor.threshold:g}",
            assumes="the critic is right where the policy goes",
            otherwise="reported beside every action",
        )
        for monitor in contract.policy.monitors
    ]
    if contract.policy.lipschitz is not None:
        bound = contract.policy.lipschitz.bound
        words = f"a chunk moves by at most {bound:.3g} times the observation (both normalised, at held noise)"
        found.append(
            Claim(name="policy.lipschitz", level="proved", claim=words, assumes="exact arithmetic", otherwise="none")
        )
    return found


def not_claimed(robot: RobotDescription, contract: Contract) -> tuple[str, ...]:
    """What the chain says nothing about, in words."""
    names: set[str] = {terms.filter for terms in robot.safety}
    for terms in robot.safety:
        names |= {row.row for row in terms.rows} if isinstance(terms, ProjectionFilter) else set()
    missing = [words for name, words in WITHOUT.items() if name not in names]
    if contract.policy.lipschitz is None:
        missing.append("smoothness: no Lipschitz constant was measured for this policy")
    return (*missing, *(LEGS if robot.base is not None else ()), *NEVER)
