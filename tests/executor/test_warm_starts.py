"""Runs that continue a version, trained by real workers beside others that begin afresh."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from epochd_server.domain.work import RunTrained

START = {
    "linear.weight": np.float32([[1.5]]),
    "linear.bias": np.float32([-0.5]),
}


async def trained(executor, train, work) -> dict[str, list[float]]:
    messages = await train(executor, work)
    return {
        message.run_id: [value for array in message.parameters.values() for value in array.ravel().tolist()]
        for message in messages
        if isinstance(message, RunTrained)
    }


async def test_a_run_ends_in_the_same_bits_beside_runs_with_and_without_a_start(
    executor, train, cohort, run_work
):
    warm, fresh = replace(run_work("warm"), initial=START), run_work("fresh")
    alone = await trained(executor, train, cohort(warm)) | await trained(executor, train, cohort(fresh))
    together = await trained(executor, train, cohort(fresh, warm))
    assert together == alone
    assert together["warm"] != together["fresh"]


async def test_a_run_of_one_epoch_moves_a_step_from_its_start(executor, train, cohort, run_work):
    work = replace(run_work("warm", epochs=1), initial=START)
    weight, bias = (await trained(executor, train, cohort(work)))["warm"]
    x, y, lr = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0]), work.spec.fit.optimizer.lr
    error = 1.5 * x - 0.5 - y
    np.testing.assert_allclose(weight, 1.5 - lr * 2 * np.mean(error * x), rtol=1e-6)
    np.testing.assert_allclose(bias, -0.5 - lr * 2 * np.mean(error), rtol=1e-6)
