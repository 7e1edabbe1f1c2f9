import pytest

from providers.sandbox.gcp.wire import GoogleError, matches

DOCUMENT = {"name": "n1", "id": "42", "status": "RUNNING", "labels": {"shardwright-node": "n1"}}


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "name=n1",
        'name = "n1"',
        "id=42",
        "labels.shardwright-node:*",
        "labels.shardwright-node=n1 AND status=RUNNING",
        "(labels.shardwright-node=n1) (status != STOPPED)",
        "name eq n1",
        "name:n",
    ],
)
def test_a_filter_that_holds(expression: str) -> None:
    assert matches(DOCUMENT, expression)


@pytest.mark.parametrize(
    "expression",
    ["name=n2", "labels.other:*", "status!=RUNNING", "name=n1 AND labels.shardwright-node=n2", "labels.a.b=c"],
)
def test_a_filter_that_does_not(expression: str) -> None:
    assert not matches(DOCUMENT, expression)


@pytest.mark.parametrize("expression", ["name", "=n1", "name=n1 OR", "name>5"])
def test_a_filter_that_is_none(expression: str) -> None:
    with pytest.raises(GoogleError):
        matches(DOCUMENT, expression)
