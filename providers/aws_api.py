"""Calls to AWS: one place for clients, time-outs, retries, errors."""

import threading
from collections.abc import Iterator, Mapping
from random import Random, SystemRandom
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError
from pydantic import BaseModel, ValidationError

from engine.clock import Clock
from engine.errors import (
    AuthenticationFailed,
    InsufficientCapacity,
    NotFound,
    ProviderAnswerInvalid,
    ProviderError,
    ProviderUnavailable,
)
from providers.base import ProviderSettings
from providers.retry import call_with_retries, retry_after_seconds

GLOBAL_REGION = "us-east-1"
"""Where the price list, report definitions and invoices are asked for, whatever the regions of the account."""

_ATTEMPTS = 4
_AUTHENTICATION = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnauthorizedOperation",
        "UnrecognizedClientException",
    }
)
_THROTTLED = frozenset(
    {"RequestLimitExceeded", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequestsException"}
)
NO_CAPACITY = frozenset(
    {"InsufficientInstanceCapacity", "InsufficientHostCapacity", "SpotMaxPriceTooLow", "Unsupported"}
    | {"MaxSpotInstanceCountExceeded", "InstanceLimitExceeded", "VcpuLimitExceeded"}
)
"""Codes of errors that say that there is none to be had, or none for us; also where Pulumi's plugin tells them."""
_GONE = frozenset({"InvalidInstanceID.NotFound", "NoSuchBucket", "NoSuchKey", "404"})


W = TypeVar("W", bound=BaseModel)


class AwsApi:
    """boto3 clients of one account. Thread-safe. ``endpoint`` (if set) serves every region and service."""

    def __init__(self, settings: ProviderSettings, clock: Clock, rng: Random | None = None) -> None:
        self._settings, self._clock, self._rng = settings, clock, rng or SystemRandom()
        self._clients: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def ask(self, answer: type[W], service: str, region: str, operation: str, **arguments: Any) -> W:
        """One call, retried while the failure may pass, its answer checked.

        Raises AuthenticationFailed, ProviderUnavailable, ProviderAnswerInvalid, InsufficientCapacity, NotFound, or
        plain ProviderError for any other refusal.
        """
        return self._parsed(answer, operation, self.call(service, region, operation, **arguments))

    def pages(self, answer: type[W], service: str, region: str, operation: str, **arguments: Any) -> Iterator[W]:
        """``ask`` until there is no NextToken; at most 200 pages."""
        token: str | None = None
        for _ in range(200):
            raw = self.call(service, region, operation, **arguments, **({"NextToken": token} if token else {}))
            yield self._parsed(answer, operation, raw)
            token = raw.get("NextToken")
            if not token:
                return
        raise ProviderAnswerInvalid(f"{self._settings.name}: {operation} does not stop paging")

    def call(self, service: str, region: str, operation: str, **arguments: Any) -> Mapping[str, Any]:
        """The raw answer; errors as in ``ask``."""
        client = self._client(service, region)

        def once() -> Mapping[str, Any]:
            answered: Mapping[str, Any] = getattr(client, operation)(**arguments)
            return answered

        try:
            return call_with_retries(
                once,
                attempts=_ATTEMPTS,
                clock=self._clock,
                rng=self._rng,
                retry_on=_may_pass,
                budget_seconds=3 * self._settings.timeout_seconds,
                retry_after=self._asked_to_wait,
            )
        except (ClientError, BotoCoreError, ResponseParserError) as failure:
            raise self._translated(failure, operation) from failure

    def download(self, region: str, bucket: str, key: str) -> bytes:
        """One S3 object. Raises NotFound."""
        answered = self.call("s3", region, "get_object", Bucket=bucket, Key=key)
        try:
            content: bytes = answered["Body"].read()
        except (BotoCoreError, OSError) as failure:
            raise ProviderUnavailable(f"{self._settings.name}: the download of {key} broke off") from failure
        return content

    # -- inside ---------------------------------------------------------------------------------------------------

    def _client(self, service: str, region: str) -> Any:
        with self._lock:
            if (service, region) not in self._clients:
                self._clients[service, region] = self._opened(service, region)
            return self._clients[service, region]

    def _opened(self, service: str, region: str) -> Any:
        settings = self._settings
        try:
            key_id = settings.credentials["access_key_id"].get_secret_value()
            secret = settings.credentials["secret_access_key"].get_secret_value()
        except KeyError as missing:
            key = missing.args[0]
            raise AuthenticationFailed(
                f"{settings.name}: no credentials",
                why=f"credentials.{key} is not configured",
                next_step=f'set credentials.{key} = {{env = "NAME"}} in the [[providers]] table {settings.name!r}',
            ) from None
        session_token = settings.credentials.get("session_token")
        return boto3.client(  # type: ignore[call-overload]
            service,
            region_name=region,
            endpoint_url=settings.endpoint,
            verify=settings.ca_file,
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            aws_session_token=session_token.get_secret_value() if session_token else None,
            config=Config(
                connect_timeout=settings.timeout_seconds,
                read_timeout=settings.timeout_seconds,
                retries={"mode": "standard", "total_max_attempts": 1},  # one layer of retries: ours, on our clock
                user_agent_extra="shardwright",
                proxies={} if settings.endpoint else None,
                s3={"addressing_style": "path"} if settings.endpoint else None,
            ),
        )

    def _parsed(self, answer: type[W], operation: str, raw: Mapping[str, Any]) -> W:
        try:
            return answer.model_validate(raw)
        except ValidationError as problem:
            first = problem.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ProviderAnswerInvalid(
                f"{self._settings.name}: {operation} did not answer as its API promises",
                why=f"{where}: {first['msg']}",
            ) from problem

    def _asked_to_wait(self, failure: Exception) -> float | None:
        if not isinstance(failure, ClientError):
            return None
        headers = failure.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
        return retry_after_seconds(headers, self._clock.now())

    def _translated(self, failure: Exception, operation: str) -> Exception:
        name = self._settings.name
        if isinstance(failure, ResponseParserError):
            return ProviderAnswerInvalid(f"{name}: {operation} did not answer as its API promises", why="not parseable")
        if not isinstance(failure, ClientError):
            kind = type(failure).__name__
            return ProviderUnavailable(f"{name}: {operation} got no answer", why=kind, next_step="try again later")
        code, said = failure.response["Error"].get("Code", ""), failure.response["Error"].get("Message", "")
        if code in _AUTHENTICATION or _status(failure) == 401:
            step = f"check the credentials of provider {name!r} and what they are allowed to do"
            return AuthenticationFailed(f"{name} refused {operation}", why=code, next_step=step)
        if code in NO_CAPACITY:
            return InsufficientCapacity(f"{name} refused {operation}", why=f"{code}: {said}")
        if code in _GONE:
            return NotFound(f"{name}: {operation}", why=f"{code}: {said}")
        if _may_pass(failure):
            return ProviderUnavailable(f"{name}: {operation} failed {_ATTEMPTS} times", why=f"{code}: {said}")
        return ProviderError(f"{name} refused {operation}", why=f"{code}: {said}")


def _status(failure: ClientError) -> int:
    return int(failure.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _may_pass(failure: Exception) -> bool:
    if isinstance(failure, ClientError):
        code = failure.response["Error"].get("Code", "")
        return code not in NO_CAPACITY and (code in _THROTTLED or _status(failure) == 429 or _status(failure) >= 500)
    return isinstance(failure, HTTPClientError | NoConnection)
