"""Write a run's contract draft from what the run learns from."""

from __future__ import annotations

from onestride.training import contracts
from onestride.training.checkpoint import RunConfig, RunDirectory
from onestride.training.contracts import Asked
from onestride.training.material import Material
from onestride.training.options import TrainOptions
from onestride.training.replay import Replay
from onestride.training.starting import Start


def write_draft(
    directory: RunDirectory,
    material: Material,
    options: TrainOptions,
    request: RunConfig,
    step: int,
    replay: Replay | None,
    start: Start | None,
) -> None:
    """Replace the contract's draft in a run directory.

    Raises:
        OneStrideError: No contract fits the data, or the disk refuses.
    """
    asked = _asked(options, request, step)
    if material.store is not None:
        draft = contracts.draft(
            material.store,
            [*material.observations, *material.pictures],
            **asked,
            normaliser=start.normaliser if start else None,
            environment=request.env or None,
            rate=material.environment.policy_rate if material.environment else None,
        )
    else:
        draft = contracts.draft_online(request.env, material.lived(replay), **asked)
    directory.write_contract(draft.model_dump_json(indent=2))


def _asked(options: TrainOptions, request: RunConfig, step: int) -> Asked:
    config = options.config
    return Asked(
        algorithm=request.agent,
        nfe=config.nfe,
        horizon=config.horizon,
        n_action_steps=config.n_action_steps,
        config=request.settings,
        seed=options.seed,
        step=step,
        history=config.history,
        candidates=config.candidates,
    )
