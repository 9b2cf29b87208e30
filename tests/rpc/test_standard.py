"""Health and reflection, as generic clients use them."""

from __future__ import annotations

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

SERVICES = [f"epochd.v1.{name}" for name in ("Trainer", "Runs", "Models", "Datasets")]


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_health_is_told_as_a_whole_and_by_service(channel, service):
    stub = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_an_unknown_service_has_no_health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="epochd.v1.Nobody"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def ask(channel, version: str, **question) -> reflection_pb2.ServerReflectionResponse:
    """Asks one question of the reflection service of a version; their messages are the same."""
    method = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    async for answer in method([reflection_pb2.ServerReflectionRequest(**question)]):
        return answer
    return pytest.fail("no answer")


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_every_service(channel, version):
    answer = await ask(channel, version, list_services="")
    names = {service.name for service in answer.list_services_response.service}
    assert names >= {*SERVICES, "grpc.health.v1.Health"}


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_describes_a_service(channel, version):
    answer = await ask(channel, version, file_containing_symbol="epochd.v1.Trainer")
    (data,) = answer.file_descriptor_response.file_descriptor_proto[:1]
    file = descriptor_pb2.FileDescriptorProto.FromString(data)
    methods = [method.name for service in file.service for method in service.method]
    assert methods[:2] == ["Train", "Predict"]


async def test_an_unknown_method_is_unimplemented(channel):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/epochd.v1.Trainer/Nothing")(b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
