"""Tells tools what the socket speaks (gRPC server reflection), under the same bounds as every other call."""

from collections.abc import Callable
from typing import Any

from grpclib.const import Handler
from grpclib.reflection.service import ServerReflection
from grpclib.server import Stream

from crank.api.spiffe.seat import Seat
from crank.api.spiffe.speech import told


class Reflection:
    """Both versions of the reflection service, for one connection; they say nothing that is not in the standard."""

    def __init__(self, seat: Seat, *services: Any) -> None:
        self._seat = seat
        self._services = services

    def __mapping__(self) -> dict[str, Handler]:
        """Return the calls by their paths, as grpclib asks."""
        served = [one for one in ServerReflection.extend(list(self._services)) if one not in self._services]
        mapping: dict[str, Handler] = {}
        for service in served:
            for path, call in service.__mapping__().items():
                mapping[path] = call._replace(func=self._bounded(call.func))
        return mapping

    def _bounded(self, answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def bounded(stream: Stream[Any, Any]) -> None:
            with told(), self._seat.call():
                await answer(stream)

        return bounded
