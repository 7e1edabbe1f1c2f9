from openapi_spec_validator import validate

from providers.network.description import frozen, generated


def test_what_is_shipped_is_what_the_reference_server_does() -> None:
    assert generated() == frozen(), "run: python -m providers.network.description"


def test_it_is_valid_openapi_3_1() -> None:
    assert frozen()["openapi"].startswith("3.1")
    validate(frozen())


def test_every_purchase_wants_an_idempotency_key() -> None:
    quotes_are_no_purchase = {"/v1/quotes"}
    for path, verbs in frozen()["paths"].items():
        if "post" in verbs and path not in quotes_are_no_purchase:
            names = {parameter["name"]: parameter["required"] for parameter in verbs["post"]["parameters"]}
            assert names.get("Idempotency-Key") is True, path
