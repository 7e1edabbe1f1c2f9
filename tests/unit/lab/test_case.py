"""A case file is read whole, or every defect of it is named."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.errors import BadCase
from lab.case import read_case
from tests.unit.lab.cases import case_of, tiny


def written(path: Path, data: object, pack: bool = False) -> Path:
    text = json.dumps(data).encode()
    path.write_bytes(gzip.compress(text) if pack else text)
    return path


@pytest.mark.parametrize("pack", [False, True])
def test_plain_and_packed_are_the_same_case(tmp_path: Path, pack: bool) -> None:
    case = read_case(written(tmp_path / "case", tiny(), pack))
    assert case == case_of(tiny())
    assert case.fingerprint == case_of(tiny()).fingerprint


def test_the_fingerprint_follows_the_content() -> None:
    other = tiny()
    other["pools"][0]["demand"][0] += 1
    assert case_of(other).fingerprint != case_of(tiny()).fingerprint


def change(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda data: data.__setitem__(key, value)


DEFECTS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "another format": (change("format", "capacity-game-case/2"), "format"),
    "an unknown field": (change("depth", 3), "depth: Extra inputs are not permitted"),
    "too little demand": (lambda d: d["pools"][0]["demand"].pop(), "pool 'a': demand of 3 steps, not of 4"),
    "negative demand": (lambda d: d["pools"][0]["demand"].__setitem__(0, -1), "pools.0.demand.0"),
    "no such fleet": (lambda d: d["pools"][0].update(fleet="app"), "there is no fleet 'app'"),
    "no such class": (lambda d: d["pools"][0].update(risk="tin"), "there is no risk class 'tin'"),
    "the same offer twice": (lambda d: d["offers"].append(d["offers"][0]), "offer 'A' stands there twice"),
    "a price as number": (lambda d: d["offers"][0].update(price=0.1), "never as a JSON number"),
    "a negative price": (lambda d: d["offers"][0].update(price="-0.1"), "greater than or equal to 0"),
    "a price of words": (lambda d: d["offers"][0].update(price="cheap"), "not a decimal number"),
    "an endless price": (lambda d: d["offers"][0].update(price="Infinity"), "offers.0.on_demand.price"),
    "points out of order": (lambda d: d["offers"][1]["prices"].reverse(), "not in the order of time"),
    "no price at the start": (lambda d: d["offers"][1].update(prices=[[1, "0.03"]]), "no price at step 0"),
    "no term": (lambda d: d["offers"][2].pop("term"), "offers.2.commitment.term"),
    "a time without zone": (change("start", "2024-07-01 00:00:00"), "start"),
    "a time of words": (change("start", "tomorrow"), "not a time such as"),
}


@pytest.mark.parametrize("why", DEFECTS)
def test_a_defect_is_named(tmp_path: Path, why: str) -> None:
    spoil, expected = DEFECTS[why]
    data = tiny()
    spoil(data)
    with pytest.raises(BadCase) as caught:
        read_case(written(tmp_path / "case.json", data))
    assert expected in caught.value.why


def test_every_defect_is_told_at_once(tmp_path: Path) -> None:
    data = tiny()
    data["pools"][0]["fleet"] = "app"
    data["pools"][1]["risk"] = "tin"
    with pytest.raises(BadCase) as caught:
        read_case(written(tmp_path / "case.json", data))
    assert "'app'" in caught.value.why
    assert "'tin'" in caught.value.why


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"\x1f\x8b broken", gzip.compress(b"{}", mtime=0)[:-9], b"\xff\xfe\x00nonsense"]
)
def test_what_is_no_case_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "case.json"
    path.write_bytes(content)
    with pytest.raises(BadCase, match=r"case\.json"):
        read_case(path)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadCase, match="No such file"):
        read_case(tmp_path / "none.json")
