"""What the owner of a run is told of an error."""

from __future__ import annotations

import pytest
import torch

from epochd_server.domain.errors import EpochdError, Reason
from epochd_server.domain.specs import LinearModel, ModuleModel
from epochd_server.executor.training import error_report

LINE = LinearModel(in_features=1, out_features=1)
MODULE = ModuleModel(name="Net")


def allocation_error():
    """PyTorch's own, of an allocation that no machine can make."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    ("error", "model", "reason"),
    [
        (MemoryError("secret"), LINE, "OUT_OF_MEMORY"),
        (MemoryError("secret"), MODULE, "OUT_OF_MEMORY"),
        (allocation_error(), LINE, "OUT_OF_MEMORY"),
        (ValueError("secret"), MODULE, "MODULE_FAILED"),
        (SystemExit("secret"), MODULE, "MODULE_FAILED"),
        (KeyboardInterrupt("secret"), MODULE, "MODULE_FAILED"),
        (ValueError("secret"), LINE, "INTERNAL"),
    ],
)
def test_an_error_is_reported_by_its_kind_with_a_hint_and_without_its_text(error, model, reason):
    told, message, hint = error_report(error, model)
    assert told == reason
    assert message
    assert hint
    assert "secret" not in message + hint


def test_an_error_meant_for_clients_keeps_its_words():
    error = EpochdError(Reason.DATASET_NOT_FOUND, "No dataset abc.")
    assert error_report(error, LINE) == ("DATASET_NOT_FOUND", "No dataset abc.", "")
