"""Specs come back from storage as they were, and damaged ones are told apart."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epochd.v1 import trainer_pb2
from epochd_server.codec.specs import decode_spec, encode_spec
from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.specs import ModuleModel, TrainingSpec


@given(st.from_type(TrainingSpec))
def test_a_spec_survives_storage(spec: TrainingSpec) -> None:
    decoded = decode_spec(encode_spec(spec))
    assert decoded == spec
    if isinstance(spec.model, ModuleModel):  # 1 == 1.0 == True, but not to a module
        assert isinstance(decoded.model, ModuleModel)
        kinds = {name: type(value) for name, value in spec.model.arguments.items()}
        assert {name: type(value) for name, value in decoded.model.arguments.items()} == kinds


@given(st.from_type(TrainingSpec))
def test_equal_specs_have_equal_bytes(spec: TrainingSpec) -> None:
    assert encode_spec(decode_spec(encode_spec(spec))) == encode_spec(spec)


@given(st.binary(max_size=100))
def test_other_bytes_are_corrupt(data: bytes) -> None:
    try:
        decode_spec(data)
    except EpochdError as error:
        assert error.reason is Reason.ARTIFACT_CORRUPT  # noqa: PT017


def test_a_spec_with_a_part_missing_is_corrupt() -> None:
    with pytest.raises(EpochdError) as caught:
        decode_spec(trainer_pb2.TrainRequest(seed=1).SerializeToString())
    assert caught.value.reason is Reason.ARTIFACT_CORRUPT
