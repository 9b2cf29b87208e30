"""The standard services: health, and reflection in both of its versions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from epochd_server.rpc.interceptors import register

REFLECTION_V1: Final = "grpc.reflection.v1.ServerReflection"
"""The name that newer clients ask for; its messages are those of v1alpha under another name."""


class Health:
    """Tells load balancers and ``grpc_health_probe`` whether the server serves, by service and as a whole ("").

    Args:
        server: The server that gets the service.
        services: Full names of the services whose health is told.
    """

    def __init__(self, server: grpc.aio.Server, services: Iterable[str]) -> None:
        self._names = ("", *services)
        self._servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, _Registrar(server))

    async def starting(self) -> None:
        """Says NOT_SERVING for every name."""
        for name in self._names:
            await self._servicer.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)

    async def serving(self) -> None:
        """Says SERVING for every name."""
        for name in self._names:
            await self._servicer.set(name, health_pb2.HealthCheckResponse.SERVING)

    async def stopping(self) -> None:
        """Says NOT_SERVING for every name, for good."""
        await self._servicer.enter_graceful_shutdown()


def add_reflection(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Lets generic clients ask for the API's description.

    Args:
        server: The server that gets the service.
        services: Full names of the services to describe.
    """
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    registrar = _Registrar(server, REFLECTION_V1)
    servicer = reflection.aio.ReflectionServicer(names)
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, registrar)


class _Registrar:
    """A server as generated ``add_…Servicer_to_server`` functions see it: registers a service under several names.

    Args:
        server: The server that gets the handlers.
        aliases: Further names.
    """

    def __init__(self, server: grpc.aio.Server, *aliases: str) -> None:
        self._server = server
        self._aliases = aliases

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Passes over what generated code registers a second time."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        for name in (service, *self._aliases):
            register(self._server, name, handlers)
