"""gRPC's server reflection, version 1 and its alpha: what the protocol is, for grpcurl and its like. It is published, so no token is
needed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import DecodeError

# The messages of both versions are the same on the wire.
from grpc_reflection.v1alpha.reflection_pb2 import (
    ErrorResponse,
    FileDescriptorResponse,
    ListServiceResponse,
    ServerReflectionRequest,
    ServerReflectionResponse,
    ServiceResponse,
)

from models.errors import Malformed
from services.ingest.doors.grpc.call import Call
from services.ingest.doors.grpc.service import Handler, Service
from services.ingest.doors.grpc.status import Code
from services.proto import incident_pb2

assert incident_pb2.DESCRIPTOR  # its import puts the protocol into the pool


class Reflection(Service):
    name = "grpc.reflection.v1.ServerReflection"

    def __init__(self, services: Mapping[str, Service]) -> None:
        self._services = services
        self._pool = descriptor_pool.Default()

    def methods(self) -> Mapping[str, Handler]:
        return {"ServerReflectionInfo": self._serve}

    async def _serve(self, call: Call) -> None:
        while (message := await call.read()) is not None:
            try:
                request = ServerReflectionRequest.FromString(message)
            except DecodeError:
                raise Malformed("expected a ServerReflectionRequest") from None
            answer = self._answer(request)
            answer.valid_host = request.host
            answer.original_request.CopyFrom(request)
            await call.write(answer.SerializeToString())

    def _answer(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        kind = request.WhichOneof("message_request")
        try:
            if kind == "list_services":
                services = [ServiceResponse(name=name) for name in sorted(self._services)]
                return ServerReflectionResponse(list_services_response=ListServiceResponse(service=services))
            if kind == "file_by_filename":
                return _files(self._pool.FindFileByName(request.file_by_filename))
            if kind == "file_containing_symbol":
                return _files(self._pool.FindFileContainingSymbol(request.file_containing_symbol))
        except KeyError:
            return _error(Code.NOT_FOUND, "there is no such file or symbol")
        # The protocol has no extensions (they belong to proto2).
        return _error(Code.UNIMPLEMENTED, f"{kind or 'an empty request'} is not answered")


class ReflectionV1Alpha(Reflection):
    name = "grpc.reflection.v1alpha.ServerReflection"


def _files(file: FileDescriptor) -> ServerReflectionResponse:
    """A file and all that it imports."""
    found = {each.name: each for each in _with_imports(file)}
    return ServerReflectionResponse(
        file_descriptor_response=FileDescriptorResponse(
            file_descriptor_proto=[_written(each) for each in found.values()]
        )
    )


def _with_imports(file: FileDescriptor) -> Iterator[FileDescriptor]:
    yield file
    for each in file.dependencies:
        yield from _with_imports(each)


def _written(file: FileDescriptor) -> bytes:
    found = FileDescriptorProto()
    file.CopyToProto(found)
    written: bytes = found.SerializeToString()
    return written


def _error(code: Code, why: str) -> ServerReflectionResponse:
    return ServerReflectionResponse(error_response=ErrorResponse(error_code=int(code), error_message=why))
