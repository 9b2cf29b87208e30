"""Runs: domain → messages; states both ways."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from epochd.v1 import run_pb2 as pb
from epochd_server.codec.architectures import encode_model
from epochd_server.codec.events import encode_epoch_log, encode_failure
from epochd_server.codec.exact_fits import encode_fit
from epochd_server.codec.fits import encode_logging
from epochd_server.codec.losses import encode_loss
from epochd_server.codec.specs import encode_precision
from epochd_server.codec.times import encode_time
from epochd_server.codec.validation import encode_validation
from epochd_server.domain.errors import Violations
from epochd_server.domain.resources import model_name, run_name, version_name
from epochd_server.domain.runs import Run, RunState

_STATE_NUMBERS: Mapping[RunState, pb.RunState.ValueType] = MappingProxyType(
    {state: pb.RunState.Value(f"RUN_STATE_{state.name}") for state in RunState}
)
_STATES: Mapping[int, RunState] = MappingProxyType(
    {int(number): state for state, number in _STATE_NUMBERS.items()}
)


def encode_state(state: RunState) -> pb.RunState.ValueType:
    """The number of a state."""
    return _STATE_NUMBERS[state]


def decode_states(numbers: Iterable[int], violations: Violations) -> tuple[RunState, ...]:
    """The states asked for, each once; a violation at ``states[0]`` and the like for an unknown number."""
    states: dict[RunState, None] = {}
    for index, number in enumerate(numbers):
        state = _STATES.get(number)
        if state is not None:
            states[state] = None
        else:
            violations.add(f"states[{index}]", f"{number} is no known RunState")
    return tuple(states)


def encode_run(run: Run) -> pb.Run:
    """The message of a run."""
    spec = run.spec
    return pb.Run(
        name=run_name(run.run_id),
        state=_STATE_NUMBERS[run.state],
        model=model_name(run.model),
        model_version="" if run.version is None else version_name(run.model, run.version),
        failure=None if run.failure is None else encode_failure(run.failure),
        create_time=encode_time(run.create_time),
        start_time=None if run.start_time is None else encode_time(run.start_time),
        end_time=None if run.end_time is None else encode_time(run.end_time),
        epochs=spec.fit.epochs,
        latest_log=None if run.latest_log is None else encode_epoch_log(run.latest_log),
        latest_sequence=run.latest_sequence,
        spec=encode_model(spec.model, spec.init),
        loss=encode_loss(spec.loss),
        dtype=encode_precision(spec.precision),
        seed=spec.seed,
        logging=encode_logging(spec.logging),
        validation=encode_validation(spec.validation),
        labels=run.labels,
        **encode_fit(spec.fit),
    )
