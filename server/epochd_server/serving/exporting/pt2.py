"""``torch.export`` archives, made in a process of their own: tracing would hold the server's interpreter for seconds.

The process reads a JSON line (the model's message in base64, the number of features) and a safetensors file from its
standard input, and writes the archive to its standard output.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import warnings
from asyncio.subprocess import PIPE
from collections.abc import Sequence

import structlog

from epochd.v1 import spec_pb2
from epochd_server.codec.architectures import decode_model, encode_model
from epochd_server.domain.errors import EpochdError, Reason, Violations
from epochd_server.domain.models import VersionCard
from epochd_server.domain.runs import Parameters
from epochd_server.storage import weights

_TIMEOUT_S = 120.0
_NICE = 10

_logger = structlog.get_logger(__name__)


class Pt2Maker:
    """Makes archives, one process each, one at a time.

    Args:
        modules: Where registered modules come from, as for ``--modules``.
    """

    def __init__(self, modules: Sequence[str] = ()) -> None:
        self._modules = tuple(modules)
        self._one_at_a_time = asyncio.Lock()

    async def make(self, card: VersionCard, parameters: Parameters) -> bytes:
        """The archive of a single model.

        Raises:
            EpochdError: EXPORT_NOT_POSSIBLE where PyTorch cannot trace it.
        """
        model = encode_model(card.spec.model, card.spec.init).SerializeToString()
        job = {"model": base64.b64encode(model).decode(), "features": len(card.feature_columns)}
        request = json.dumps(job).encode() + b"\n" + await asyncio.to_thread(weights.pack, parameters)
        async with self._one_at_a_time:
            return await self._run(request)

    async def _run(self, request: bytes) -> bytes:
        arguments = ("-m", __name__, *self._modules)
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE
        )
        try:
            async with asyncio.timeout(_TIMEOUT_S):
                archive, problems = await process.communicate(request)
        except BaseException as error:
            process.kill()
            await process.wait()
            if isinstance(error, TimeoutError):
                raise _impossible() from error
            raise
        if process.returncode:
            _logger.warning(
                "a version could not be exported", problem=problems.decode(errors="replace")[-4_000:]
            )
            raise _impossible()
        return archive


def _impossible() -> EpochdError:
    message = "PyTorch could not trace this model; the server's log says why."
    return EpochdError(Reason.EXPORT_NOT_POSSIBLE, message)


def _main() -> None:
    os.nice(_NICE)
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever a module prints is no archive
    warnings.simplefilter("ignore")  # PyTorch's, about itself
    from epochd_server.engine.exporting import module_of, pt2_archive
    from epochd_server.engine.modules import ModuleRegistry

    job = json.loads(sys.stdin.buffer.readline())
    parameters = weights.unpack(memoryview(sys.stdin.buffer.read()))
    model = decode_model(spec_pb2.ModelSpec.FromString(base64.b64decode(job["model"])), Violations())
    if model is None:
        raise SystemExit("the model's message is damaged")
    modules = ModuleRegistry.load(sys.argv[1:])
    archive = pt2_archive(module_of(model, parameters, modules=modules), job["features"])
    with os.fdopen(output, "wb") as file:
        file.write(archive)


if __name__ == "__main__":
    _main()
