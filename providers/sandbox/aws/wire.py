"""One request to AWS, read; and answers in the three shapes that its services use: EC2 XML, S3 XML, JSON."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl
from uuid import uuid4
from xml.etree import ElementTree

EC2_NAMESPACE = "http://ec2.amazonaws.com/doc/2016-11-15/"
_SCOPE = re.compile(r"Credential=(?P<key>[^/,\s]+)/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request")


@dataclass(frozen=True)
class Call:
    """A request as its signature scope and its protocol describe it."""

    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    """Lower-case names."""
    body: bytes
    access_key_id: str | None
    region: str
    service: str
    """The signing name; "" for an unsigned request."""
    action: str
    """EC2's Action or the end of x-amz-target; "" for REST services."""
    form: Mapping[str, str] = field(default_factory=dict)
    """The query protocol's parameters."""

    def items(self, name: str) -> list[str]:
        """``Name.1``, ``Name.2``, … in order."""
        prefix = f"{name}."
        numbered = [(key[len(prefix) :], value) for key, value in self.form.items() if key.startswith(prefix)]
        return [value for key, value in sorted((int(k), v) for k, v in numbered if k.isdigit())]

    def filters(self) -> dict[str, list[str]]:
        """``Filter.N.Name`` -> ``Filter.N.Value.M``."""
        numbers = {key.split(".")[1] for key in self.form if key.startswith("Filter.")}
        return {self.form.get(f"Filter.{n}.Name", ""): self.items(f"Filter.{n}.Value") for n in numbers}

    def json(self) -> dict[str, Any]:
        """Raises ValueError when the body is not a JSON object."""
        parsed = json.loads(self.body or b"{}")
        if not isinstance(parsed, dict):
            raise ValueError("the body is not a JSON object")
        return parsed


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """The request is answered with an AWS error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(f"{code}: {message}")


def read_call(method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Call:
    scope = _SCOPE.search(headers.get("authorization", ""))
    action = headers.get("x-amz-target", "").rpartition(".")[2]
    form: dict[str, str] = {}
    if "x-www-form-urlencoded" in headers.get("content-type", ""):
        form = dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
        action = action or form.get("Action", "")
    return Call(
        method=method,
        path=path,
        query=query,
        headers=headers,
        body=body,
        access_key_id=scope["key"] if scope else None,
        region=scope["region"] if scope else "",
        service=scope["service"] if scope else "",
        action=action,
        form=form,
    )


def json_answer(value: Mapping[str, Any]) -> Answer:
    return Answer(200, "application/x-amz-json-1.1", json.dumps(value).encode())


def ec2_answer(action: str, fields: Mapping[str, Any]) -> Answer:
    """Lists become ``<item>`` sets; None leaves a field out."""
    root = ElementTree.Element(f"{action}Response", xmlns=EC2_NAMESPACE)
    _fill(root, {"requestId": str(uuid4()), **fields})
    return Answer(200, "text/xml;charset=UTF-8", ElementTree.tostring(root, encoding="utf-8", xml_declaration=True))


def error_answer(call: Call, refused: Refused) -> Answer:
    """The error in the shape of the service that was called."""
    if call.service == "s3":
        root = ElementTree.Element("Error")
        _fill(root, {"Code": refused.code, "Message": refused.message, "RequestId": str(uuid4())})
    elif call.form:
        root = ElementTree.Element("Response")
        _fill(root, {"Errors": {"Error": {"Code": refused.code, "Message": refused.message}}})
        _fill(root, {"RequestID": str(uuid4())})
    else:
        body = json.dumps({"__type": refused.code, "message": refused.message}).encode()
        return Answer(refused.status, "application/x-amz-json-1.1", body)
    return Answer(refused.status, "text/xml;charset=UTF-8", ElementTree.tostring(root, encoding="utf-8"))


def _fill(parent: ElementTree.Element, fields: Mapping[str, Any]) -> None:
    for name, value in fields.items():
        if value is None:
            continue
        child = ElementTree.SubElement(parent, name)
        if isinstance(value, Mapping):
            _fill(child, value)
        elif isinstance(value, list):
            for item in value:
                _fill(ElementTree.SubElement(child, "item"), item)
        else:
            child.text = str(value)
