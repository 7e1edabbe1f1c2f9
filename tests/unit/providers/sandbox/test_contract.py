from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from pydantic import ValidationError

from providers.sandbox.contract import (
    INSTANCES,
    Fault,
    FaultMode,
    InstanceState,
    MarketOption,
    PriceChange,
    ReclaimOrder,
    SandboxInstance,
    listed,
)

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
RUNNING = SandboxInstance(
    instance_id="i-1", node="n1", region="us-east-1", zone="us-east-1a", instance_type="c7i.large", spot=True,
    state=InstanceState.RUNNING, user_data="#!/bin/sh\ntrue\n", private_ip=None, launched_at=NOW,
)  # fmt: skip


def test_instances_come_back_from_json_unchanged() -> None:
    assert INSTANCES.validate_json(INSTANCES.dump_json([RUNNING])) == [RUNNING]


def test_a_price_is_exact_text_and_never_a_float() -> None:
    body = '{"region":"r","instance_type":"t","option":"spot","price":"0.0123"}'
    assert PriceChange.model_validate_json(body).price == Decimal("0.0123")
    assert PriceChange.model_validate_json(body).option is MarketOption.SPOT
    for bad in ("0.0123", '"-1"', '"NaN"', '"cheap"'):
        with pytest.raises(ValidationError):
            PriceChange.model_validate_json(body.replace('"0.0123"', bad))


@pytest.mark.parametrize("extra", ['"notice_seconds":-1', '"notice_seconds":"soon"', '"notice_seconds":1,"why":"x"'])
def test_a_bad_reclaim_order_is_refused(extra: str) -> None:
    with pytest.raises(ValidationError):
        ReclaimOrder.model_validate_json('{"instance_id":"i-1",' + extra + "}")


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValidationError):
        SandboxInstance.model_validate(RUNNING.model_dump() | {"launched_at": "2026-11-23T12:00:00"})


def test_faults_have_the_six_modes() -> None:
    assert Fault(mode=FaultMode.DOWN, seconds=1).model_dump(mode="json") == {"mode": "down", "seconds": 1.0}
    assert {m.value for m in FaultMode} == {"none", "down", "rubbish", "throttle", "slow", "no_capacity"}


def test_terminated_instances_stay_listed_for_a_minute() -> None:
    gone = RUNNING.model_copy(update={"state": InstanceState.TERMINATED})
    assert listed(RUNNING, None, NOW)
    assert listed(gone, NOW, NOW + timedelta(seconds=59))
    assert not listed(gone, NOW, NOW + timedelta(seconds=60))
