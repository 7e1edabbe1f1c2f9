"""Compute Engine operations: every change answers with one, and the same requestId answers with the same one."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID, uuid4

from engine.clock import Clock
from providers.sandbox.gcp.wire import Document, GoogleError, not_found, timestamp

DURATION = timedelta(milliseconds=50)


@dataclass(frozen=True)
class Failure:
    """How an operation ends badly, e.g. for want of capacity."""

    code: str
    message: str
    http_status: int


@dataclass(frozen=True)
class _Operation:
    name: str
    scope: str
    """``global``, ``zones/Z`` or ``regions/R``."""
    kind: str
    target_link: str
    target_id: str
    begun: datetime
    failure: Failure | None


class Operations:
    def __init__(self, clock: Clock, project: str) -> None:
        self._clock, self._project = clock, project
        self._by_name: dict[str, _Operation] = {}
        self._by_request: dict[str, str] = {}

    def repeated(self, request_id: str | None, base: str) -> Document | None:
        """The operation that this requestId began, if it did. Raises GoogleError for an id that is no UUID."""
        if not request_id:
            return None
        try:
            valid = UUID(request_id).int != 0
        except ValueError:
            valid = False
        if not valid:
            raise GoogleError(400, f"Invalid value for field 'requestId': '{request_id}'. Must be a valid UUID.")
        known = self._by_request.get(request_id)
        return self._document(self._by_name[known], base) if known else None

    def begin(
        self,
        kind: str,
        *,
        scope: str,
        target_link: str,
        target_id: str,
        base: str,
        request_id: str | None,
        failure: Failure | None = None,
    ) -> Document:
        operation = _Operation(
            name=f"operation-{uuid4()}",
            scope=scope,
            kind=kind,
            target_link=target_link,
            target_id=target_id,
            begun=self._clock.now(),
            failure=failure,
        )
        self._by_name[operation.name] = operation
        if request_id and failure is None:
            self._by_request[request_id] = operation.name
        return self._document(operation, base)

    def read(self, scope: str, name: str, base: str) -> Document:
        operation = self._by_name.get(name)
        if operation is None or operation.scope != scope:
            raise not_found(f"projects/{self._project}/{scope}/operations/{name}")
        return self._document(operation, base)

    def _document(self, operation: _Operation, base: str) -> Document:
        done = self._clock.now() - operation.begun >= DURATION
        link = f"{base}/compute/v1/projects/{self._project}/{operation.scope}"
        document: Document = {
            "kind": "compute#operation",
            "id": str(UUID(operation.name.removeprefix("operation-")).int % 2**63),
            "name": operation.name,
            "operationType": operation.kind,
            "targetLink": operation.target_link,
            "targetId": operation.target_id,
            "status": "DONE" if done else "RUNNING",
            "progress": 100 if done else 0,
            "insertTime": timestamp(operation.begun),
            "startTime": timestamp(operation.begun),
            "selfLink": f"{link}/operations/{operation.name}",
        }
        scope_kind, _, place = operation.scope.partition("/")
        if place:
            document[scope_kind.removesuffix("s")] = link
        if done:
            document["endTime"] = timestamp(operation.begun + DURATION)
        if done and operation.failure:
            failure = operation.failure
            document["error"] = {"errors": [{"code": failure.code, "message": failure.message}]}
            document["httpErrorStatusCode"] = failure.http_status
            document["httpErrorMessage"] = "SERVICE UNAVAILABLE"
        return document
