import pytest
from pydantic import TypeAdapter, ValidationError

from agent.agent_url import AgentUrl

_URL: TypeAdapter[str] = TypeAdapter(AgentUrl)


@pytest.mark.parametrize(
    "text",
    [
        "https://10.77.0.2:7443",
        "https://10.77.0.2",
        "https://127.0.0.1:40000/",
        "https://node-1.example.org:7443",
        "https://[::1]:7443",
    ],
)
def test_an_address_stays_as_it_is_written(text: str) -> None:
    assert _URL.validate_python(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "10.77.0.2:7443", "http://10.77.0.2:7443", "https://10.77.0.2:", "https://:7443", "https://a:b",
        "https://a:0", "https://a:99999", "https://a:-1", "https://a:7443/v1", "https://a:7443?x", "https://a:7443#x",
        "https://me@a:7443", "https://a..b:7443", "https://-a:7443", "https://" + "a" * 64 + ":7443", "https://ä:7443",
        "https://a:7\n443", "https://a:7443\n", " https://a:7443", "https://[::1:7443", "https://a b:7443",
        "https://" + "a." * 150 + "a:7443",
    ],
)  # fmt: skip
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValidationError):
        _URL.validate_python(text)
