"""How a service of the socket hears and answers: bounded messages, typed refusals, nothing of a caller in a log."""

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import structlog
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as ProtoMessage
from grpclib.const import Status
from grpclib.encoding.base import CodecBase
from grpclib.exceptions import GRPCError
from grpclib.protocol import Buffer, Connection
from grpclib.server import Stream

from crank.errors import CrankError, InvalidRequest, NotAllowed, NotSupported, TooLarge, Unavailable

# The largest honest request is a token to validate, or a list of names.
MESSAGE_BYTES_MAX = 64 * 1024
# How long a call may be open without its request.
HEAR_SEC_MAX = 10.0
# How long one message may wait for a caller that does not read.
SEND_SEC_MAX = 10.0
_STATUSES: tuple[tuple[type[CrankError], Status], ...] = (
    (NotSupported, Status.UNIMPLEMENTED),
    (InvalidRequest, Status.INVALID_ARGUMENT),
    (TooLarge, Status.RESOURCE_EXHAUSTED),
    (NotAllowed, Status.PERMISSION_DENIED),
    (Unavailable, Status.UNAVAILABLE),
)
_log = structlog.get_logger(__name__)
# Written once for all that are sent the same.
Octets = bytes


class Codec(CodecBase):
    """Protobuf; an answer may be written already."""

    __content_subtype__ = "proto"

    def encode(self, message: Any, message_type: Any) -> bytes:
        """Return the octets of an answer."""
        return message if isinstance(message, bytes) else bytes(message.SerializeToString(deterministic=True))

    def decode(self, data: bytes, message_type: Any) -> Any:
        """Read a request. Raises GRPCError (InvalidArgument)."""
        try:
            return message_type.FromString(data)
        except DecodeError:
            raise GRPCError(Status.INVALID_ARGUMENT, "The request cannot be read.") from None


class BoundedBuffer(Buffer):
    """What arrives on one stream; a message that says it is too long is refused before it comes."""

    def __init__(self, connection: Connection, stream_id: int) -> None:
        super().__init__(partial(connection.ack, stream_id))

    async def read(self, size: int) -> bytes:
        """Read exactly so many octets, or none at the end. Raises GRPCError."""
        if size > MESSAGE_BYTES_MAX:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"A request has at most {MESSAGE_BYTES_MAX} bytes.")
        try:
            return await super().read(size)
        except AssertionError:
            # The library's word for a stream that ended amid a message.
            raise GRPCError(Status.INVALID_ARGUMENT, "The request ends amid a message.") from None


async def hear(stream: Stream[Any, Any]) -> Any:
    """Return the next request, or None when there is no more. Raises GRPCError, NotImplementedError (compressed)."""
    return await stream.recv_message()


async def hear_one(stream: Stream[Any, Any]) -> Any:
    """Return the one request of a call. Raises as `hear`."""
    try:
        async with asyncio.timeout(HEAR_SEC_MAX):
            request = await hear(stream)
    except TimeoutError:
        raise GRPCError(Status.DEADLINE_EXCEEDED, "The request does not come.") from None
    if request is None:
        raise GRPCError(Status.INVALID_ARGUMENT, "The request is missing.")
    return request


async def say(stream: Stream[Any, Any], message: ProtoMessage | Octets) -> None:
    """Send a message. Raises GRPCError when the caller does not read it in time; the call is over then."""
    try:
        async with asyncio.timeout(SEND_SEC_MAX):
            await stream.send_message(message)
    except TimeoutError:
        # Nothing more can be said to one who does not read, not even why.
        await stream.cancel()
        raise GRPCError(Status.RESOURCE_EXHAUSTED, "The caller does not read.") from None


@contextlib.contextmanager
def told() -> Iterator[None]:
    """Turn our faults into what gRPC calls them; what is nobody's fault but ours is told as such."""
    try:
        yield
    except NotImplementedError:
        raise GRPCError(Status.UNIMPLEMENTED, "Requests are not compressed.") from None
    except CrankError as fault:
        status = next((status for kind, status in _STATUSES if isinstance(fault, kind)), Status.INTERNAL)
        text = f"{fault.message} {fault.fix}"
        if status is Status.INTERNAL:
            _log.error("spiffe_failed", code=fault.error_code, message=fault.message, detail=fault.detail)
            text = "The node failed; its log says more."
        raise GRPCError(status, text) from fault
