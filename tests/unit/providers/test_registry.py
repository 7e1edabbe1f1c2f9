import pytest

from engine.clock import ManualClock
from engine.errors import ConfigurationError
from providers.registry import KINDS, open_attestor
from tests.instance_identity import NOW, settings


@pytest.mark.parametrize("kind", KINDS)
def test_without_keys_nodes_join_with_tokens(kind: str) -> None:
    plain = settings(kind, "x").model_copy(update={"attestation_keys": None})
    assert open_attestor(plain, clock=ManualClock(NOW)) is None


@pytest.mark.parametrize("kind", ["aws", "gcp", "azure"])
def test_with_keys_every_cloud_can_vouch_for_its_instances(kind: str) -> None:
    assert open_attestor(settings(kind), clock=ManualClock(NOW)) is not None


def test_a_network_cannot() -> None:
    with pytest.raises(ConfigurationError, match="join with tokens"):
        open_attestor(settings("network", "keys.pem"), clock=ManualClock(NOW))
