"""A sandbox AWS in this process, on a clock that stands still, spoken to without a network."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import urlencode

import pytest

from engine.clock import ManualClock
from providers.sandbox.aws import ACCESS_KEY_ID
from providers.sandbox.aws.wire import Answer, Call, read_call

ACCOUNT = "123456789012"
START = datetime(2026, 3, 1, 12, tzinfo=UTC)

Ec2Call = Callable[..., Answer]


def authorization(service: str, region: str, key_id: str = ACCESS_KEY_ID) -> str:
    return f"AWS4-HMAC-SHA256 Credential={key_id}/20260301/{region}/{service}/aws4_request, Signature=0"


def ec2_call(action: str, *, region: str = "us-east-1", key_id: str = ACCESS_KEY_ID, **form: str) -> Call:
    """Dots of a parameter's name are written as double underscores."""
    fields = {"Action": action, "Version": "2016-11-15", **{k.replace("__", "."): v for k, v in form.items()}}
    headers = {
        "authorization": authorization("ec2", region, key_id),
        "content-type": "application/x-www-form-urlencoded; charset=utf-8",
        "host": "127.0.0.1",
    }
    return read_call("POST", "/", "", headers, urlencode(fields).encode())


def json_call(service: str, target: str, body: bytes) -> Call:
    headers = {
        "authorization": authorization(service, "us-east-1"),
        "content-type": "application/x-amz-json-1.1",
        "x-amz-target": target,
        "host": "127.0.0.1",
    }
    return read_call("POST", "/", "", headers, body)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@pytest.fixture
def cloud(clock: ManualClock) -> Iterator["Cloud"]:  # noqa: F821
    from moto.ec2.models import ec2_backends
    from moto.s3.models import s3_backends

    from providers.sandbox.aws.cloud import Cloud

    for backends in (ec2_backends, s3_backends):
        backends.reset()
    yield Cloud(account=ACCOUNT, regions=("us-east-1",), seed=7, meter_speed=Decimal(1), clock=clock)
    for backends in (ec2_backends, s3_backends):
        backends.reset()


@pytest.fixture
def front(cloud: "Cloud") -> "Front":  # noqa: F821
    from providers.sandbox.aws.front import Front

    return Front(cloud)


@pytest.fixture
def launch(front: "Front") -> Ec2Call:  # noqa: F821
    def launched(**form: str) -> Answer:
        defaults = {"ImageId": "ami-12c6146b", "InstanceType": "m5.large", "MinCount": "1", "MaxCount": "1"}
        return front.answer(ec2_call("RunInstances", **{**defaults, **form}))

    return launched
