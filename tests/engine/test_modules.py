"""Registered modules: how they are found, constructed and trained."""

from __future__ import annotations

import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from epochd_server.domain.errors import EpochdError, InvalidInput, Reason
from epochd_server.domain.specs import ModuleModel, OptimizerKind, Precision
from epochd_server.engine.cohort import MemberState, train_cohort
from epochd_server.engine.inference import Predictor
from epochd_server.engine.inspection import output_size, parameter_shapes
from epochd_server.engine.modules import ModuleRegistry, ModuleSourceError
from epochd_server.engine.tracing import chain_of_module

SOURCE = """
import torch
from torch import nn

class LinearRegressionModel(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(1, 1)

    def forward(self, x):
        return self.linear(x)

class Hooked(LinearRegressionModel):
    seen = []

    def __init__(self):
        super().__init__()
        self.register_forward_hook(lambda module, inputs, output: self.seen.append(tuple(output.shape)))

class Gated(nn.Module):
    epochd_name = "gated-unit"

    def __init__(self, width: int, features: int = 3):
        super().__init__()
        self.gate = nn.Linear(features, width)
        self.lift = nn.Linear(features, width)
        self.out = nn.Linear(width, 1)

    def forward(self, x):
        return self.out(torch.sigmoid(self.gate(x)) * self.lift(x))

class Noisy(nn.Module):
    def __init__(self, p: float = 0.3):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(p), nn.Linear(6, 1))

    def forward(self, x):
        return self.layers(x)

class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.linear.bias.requires_grad_(False)
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, x):
        return self.linear(x)[:, 0] * self.scale

class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.act = nn.Linear(3, 4), nn.Linear(4, 1), nn.LeakyReLU(0.2)

    def forward(self, x):
        return self.second(torch.tanh(self.act(self.first(x))))

class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x):
        if x.sum() > 1e6:
            raise RuntimeError("secret detail")
        return self.linear(x)

class _Hidden(nn.Module):
    pass
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("modules") / "my_modules.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture(scope="module")
def registry(source: Path) -> ModuleRegistry:
    return ModuleRegistry.load([str(source)])


def model(name: str, **arguments: Any) -> ModuleModel:
    return ModuleModel(name=name, arguments=arguments)


def data(rows: int = 24) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    return rng.normal(size=(rows, 3)), rng.normal(size=rows)


def train(registry: ModuleRegistry, task: Any, lab: Any, **options: Any) -> tuple[Any, Any]:
    recorder = lab.Recorder(**options)
    return train_cohort(task, recorder, modules=registry), recorder


def test_public_classes_of_a_file_are_registered_under_their_names(registry: ModuleRegistry) -> None:
    names = ("Chain", "Failing", "Frozen", "Hooked", "LinearRegressionModel", "Noisy", "gated-unit")
    assert registry.names == names


def test_an_importable_module_is_a_source_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "epochd_test_source.py").write_text(textwrap.dedent(SOURCE))
    monkeypatch.syspath_prepend(tmp_path)
    assert "Noisy" in ModuleRegistry.load(["epochd_test_source"]).names


@pytest.mark.parametrize("text", ["import nothing_of_that_name", "x = 1", "def broken(:"])
def test_a_source_that_cannot_be_used_is_told_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.py"
    path.write_text(text)
    with pytest.raises(ModuleSourceError) as caught:
        ModuleRegistry.load([str(path)])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_two_classes_of_one_name_are_refused(source: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(SOURCE)
    with pytest.raises(ModuleSourceError, match="two modules"):
        ModuleRegistry.load([str(source), str(other)])


def test_an_unknown_module_is_not_found_and_the_known_are_named(registry: ModuleRegistry) -> None:
    with pytest.raises(EpochdError, match="gated-unit") as caught:
        registry.instantiate("Gated", {})
    assert caught.value.reason is Reason.MODULE_NOT_FOUND


def test_wrong_missing_and_refused_arguments_are_named(registry: ModuleRegistry) -> None:
    with pytest.raises(InvalidInput) as caught:
        registry.instantiate("gated-unit", {"size": 3})
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["model.module.arguments.size", "model.module.arguments.width"]
    with pytest.raises(InvalidInput, match="cannot be constructed"):
        registry.instantiate("gated-unit", {"width": -1})


def test_shapes_and_outputs_are_known_without_training(registry: ModuleRegistry) -> None:
    shapes = parameter_shapes(model("gated-unit", width=5), modules=registry)
    assert {slot.name: slot.shape for slot in shapes.parameters}["out.weight"] == (1, 5)
    assert shapes.count == 2 * (3 * 5 + 5) + 6
    assert output_size(model("gated-unit", width=5), 3, modules=registry) == 1
    assert output_size(model("Frozen"), 3, modules=registry) == 1
    with pytest.raises(InvalidInput, match="does not take rows of 7"):
        output_size(model("gated-unit", width=5), 7, modules=registry)


def test_the_tutorials_module_prints_what_plain_pytorch_prints(lab: Any, registry: ModuleRegistry) -> None:
    task = lab.make_task(
        [[1], [2], [3]], [[2], [4], [6]], model=model("LinearRegressionModel"), epochs=2001, log_every=100,
        seeds=1,
    )  # fmt: skip
    result, recorder = train(registry, task, lab)
    torch.manual_seed(1)
    parameters, losses = lab.plain_loop(task, module=registry.instantiate("LinearRegressionModel", {}))
    printed = [f"{loss:.6f}" for _, loss, _ in recorder.points(0)]
    assert printed == [f"{loss:.6f}" for loss in losses[::100]]
    assert printed[0] == "13.103541"
    assert f"{result.parameters['linear.weight'].item():.5f}" == "1.99937"
    assert lab.distance(lab.member(result), parameters) <= 1e-6


@pytest.mark.parametrize("name", ["gated-unit", "Frozen", "Chain"])
@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("precision", Precision)
def test_modules_train_as_in_the_plain_loop(
    lab: Any, registry: ModuleRegistry, name: str, batch_size: int | None, precision: Precision
) -> None:
    arguments = {"width": 4} if name == "gated-unit" else {}
    task = lab.make_task(
        *data(), model=model(name, **arguments), optimizer=OptimizerKind.ADAM, epochs=60, seeds=[9],
        batch_size=batch_size, precision=precision, weight_decay=0.1,
    )  # fmt: skip
    result, _ = train(registry, task, lab)
    dtype = torch.float32 if precision is Precision.FLOAT32 else torch.float64
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        torch.manual_seed(9)
        plain = registry.instantiate(name, arguments).to(dtype)
    finally:
        torch.set_default_dtype(before)
    if name == "Frozen":
        plain.register_forward_hook(lambda module, inputs, output: output[:, None])
    want, _ = lab.plain_loop(task, module=plain)
    limit = 1e-6 if precision is Precision.FLOAT32 else 1e-12
    assert lab.distance(lab.member(result), want) <= limit


def test_hooks_fire_with_real_rows_at_every_step(lab: Any, registry: ModuleRegistry) -> None:
    seen = registry.instantiate("Hooked", {}).seen
    seen.clear()
    task = lab.make_task(np.ones((7, 1)), np.ones(7), sizes=[3, 4], model=model("Hooked"), epochs=5)
    result, _ = train(registry, task, lab)
    assert seen == [(3, 1)] * 5 + [(4, 1)] * 5
    assert (result.states == MemberState.FINISHED).all()


@pytest.mark.parametrize("name", ["gated-unit", "Noisy", "Frozen", "Chain"])
def test_a_modules_bits_do_not_depend_on_its_neighbours(
    lab: Any, registry: ModuleRegistry, name: str
) -> None:
    arguments = {"width": 4} if name == "gated-unit" else {}
    task = lab.make_task(
        *data(40), sizes=[10, 12, 10, 8], model=model(name, **arguments), epochs=[9, 4, 6, 6], batch_size=4,
        seeds=[1, 2, 3, 1], lr=[0.1, 0.01, 0.02, 0.03], momentum=0.9,
    )  # fmt: skip
    together, _ = train(registry, task, lab)
    for order in ([0], [1], [2], [3], [3, 1], [2, 0, 1]):
        some, _ = train(registry, lab.subset(task, order), lab)
        for place, k in enumerate(order):
            for parameter, value in together.parameters.items():
                assert some.parameters[parameter][place].tobytes() == value[k].tobytes()
            assert some.final_loss[place].tobytes() == together.final_loss[k].tobytes()


def test_running_statistics_are_trained_and_served(lab: Any, registry: ModuleRegistry) -> None:
    task = lab.make_task(*data(), model=model("Noisy", p=0.0), epochs=10)
    result, _ = train(registry, task, lab)
    assert np.abs(result.parameters["layers.1.running_mean"]).max() > 0
    predictor = Predictor(task.model, lab.member(result), modules=registry)
    whole = predictor.predict(task.data.features)
    alone = np.concatenate([predictor.predict(row[None]) for row in task.data.features])
    assert whole.tobytes() == alone.tobytes()


def test_an_error_in_forward_fails_that_member_without_its_text(lab: Any, registry: ModuleRegistry) -> None:
    x, y = data(20)
    x[12] = 1e8
    task = lab.make_task(x, y, sizes=[10, 10], model=model("Failing"), epochs=3)
    result, _ = train(registry, task, lab)
    assert list(result.states) == [MemberState.FINISHED, MemberState.FAILED]
    assert "secret" not in str(result.messages[1])
    assert "epoch 0" in str(result.messages[1])


def test_stopping_and_divergence_of_modules(lab: Any, registry: ModuleRegistry, monkeypatch: Any) -> None:
    monkeypatch.setattr("epochd_server.engine.reporting.POLL_INTERVAL", 0.0)
    monkeypatch.setattr("epochd_server.engine.reporting.LOG_INTERVAL", 0.0)
    x, y = data(30)
    y[5] = np.nan
    task = lab.make_task(x, y, sizes=[10, 10, 10], model=model("gated-unit", width=2), epochs=50)
    result, _ = train(registry, task, lab, stop_when=lambda r: {1} if len(r.batches) >= 3 else ())
    assert list(result.states) == [MemberState.DIVERGED, MemberState.STOPPED, MemberState.FINISHED]
    assert list(result.epochs_done) == [0, 3, 50]


def test_only_plain_chains_are_taken_over(registry: ModuleRegistry) -> None:
    chains = {
        name: chain_of_module(registry.instantiate(name, {"width": 2} if name == "gated-unit" else {}))
        for name in registry.names
    }
    assert {name for name, chain in chains.items() if chain} == {"Chain", "LinearRegressionModel"}


def test_a_module_whose_call_can_be_noticed_is_not_taken_over() -> None:
    class Counting(torch.nn.Sequential):
        calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return super().forward(x)

    class Printing(torch.nn.Sequential):
        def forward(self, x: Any) -> Any:
            print("called")
            return super().forward(x)

    layer = torch.nn.Linear(2, 2)
    assert chain_of_module(torch.nn.Sequential(layer)) is not None
    assert chain_of_module(Counting(layer)) is None
    assert chain_of_module(Printing(layer)) is None
    assert chain_of_module(torch.nn.Sequential(layer, layer)) is None  # shared parameters


def test_calls_at_one_time_each_have_their_members_parameters(tmp_path: Path) -> None:
    path = tmp_path / "meeting.py"
    path.write_text(
        "import threading\nfrom torch import nn\nmeeting = threading.Barrier(2)\n\n"
        "class Meeting(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.linear = nn.Linear(1, 1)\n\n"
        "    def forward(self, x):\n"
        "        assert x.sum() > 0  # nothing that can be traced\n"
        "        meeting.wait(10)\n        y = self.linear(x)\n        meeting.wait(10)\n        return y\n"
    )
    parameters = {
        "linear.weight": np.float32([[[2.0]], [[3.0]]]),
        "linear.bias": np.zeros((2, 1), np.float32),
    }
    predictor = Predictor(ModuleModel(name="Meeting"), parameters, modules=ModuleRegistry.load((str(path),)))
    rows = np.ones((5, 1), np.float32)
    with ThreadPoolExecutor(2) as threads:
        both = threads.map(lambda member: predictor.predict(rows, np.full(5, member)), (0, 1))
    assert [outputs.tolist() for outputs in both] == [[[2.0]] * 5, [[3.0]] * 5]
