"""The one door of the account: faults, credentials, then our own answer or moto's."""

import asyncio
from collections.abc import Callable

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from werkzeug.test import EnvironBuilder, run_wsgi_app

from providers.sandbox.aws import ACCESS_KEY_ID, REPORT_BUCKET
from providers.sandbox.aws.bills import Bills
from providers.sandbox.aws.cloud import Cloud
from providers.sandbox.aws.ec2 import Ec2
from providers.sandbox.aws.pricing import Pricing
from providers.sandbox.aws.wire import Answer, Call, Refused, error_answer, read_call
from providers.sandbox.cloud import SLOW_SECONDS, sandbox_routes
from providers.sandbox.contract import FaultMode

_THROTTLING = {"ec2": "RequestLimitExceeded", "s3": "SlowDown"}
_REJECTED = {"ec2": "AuthFailure", "s3": "InvalidAccessKeyId", "sts": "InvalidClientTokenId"}
_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"]
_HTML = Answer(200, "text/html", b"<html><body><h1>It works!</h1></body></html>")


class Front:
    """Reads a request, decides who answers it. One request is answered at a time."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._moto_app = DomainDispatcherApplication(create_backend_app)
        self._bills = Bills(cloud)
        self._services: dict[str, Callable[[Call], Answer]] = {
            "ec2": Ec2(cloud, self._moto).answer,
            "pricing": Pricing(cloud).answer,
            "cur": self._bills.report_definitions,
            "invoicing": self._bills.invoice_summaries,
            "s3": self._s3,
        }

    async def handle(self, request: Request) -> Response:
        call = read_call(
            request.method,
            request.scope.get("raw_path", request.url.path.encode()).decode("latin-1"),
            request.url.query,
            request.headers,
            await request.body(),
        )
        answer = await self._faulty(call)
        if answer is None:
            answer = await run_in_threadpool(self.answer, call)
        response = Response(answer.body, status_code=answer.status)
        response.headers["Content-Type"] = answer.content_type
        for name, value in answer.headers:
            response.headers[name] = value
        return response

    def answer(self, call: Call) -> Answer:
        """What AWS would say, faults aside."""
        with self._cloud.turn:
            try:
                self._admit(call)
                self._cloud.settle()
                return self._services.get(call.service, self._moto)(call)
            except Refused as refused:
                return error_answer(call, refused)
            except (ValueError, KeyError, TypeError) as problem:
                return error_answer(call, Refused(400, "ValidationError", f"The request cannot be read: {problem!r}"))

    async def _faulty(self, call: Call) -> Answer | None:
        match self._cloud.faults.mode:
            case FaultMode.DOWN:
                return error_answer(call, Refused(503, "ServiceUnavailable", "The service is unavailable."))
            case FaultMode.THROTTLE:
                code = _THROTTLING.get(call.service, "ThrottlingException")
                said = error_answer(call, Refused(429, code, "Rate exceeded."))
                return Answer(said.status, said.content_type, said.body, (("Retry-After", "1"),))
            case FaultMode.RUBBISH:
                return _HTML
            case FaultMode.SLOW:
                await asyncio.sleep(SLOW_SECONDS)
        return None

    @staticmethod
    def _admit(call: Call) -> None:
        if call.access_key_id is None:
            raise Refused(403, "MissingAuthenticationToken", "The request carries no credentials.")
        if call.access_key_id != ACCESS_KEY_ID:
            code = _REJECTED.get(call.service, "UnrecognizedClientException")
            raise Refused(401 if call.service == "ec2" else 403, code, "The access key id is not known here.")

    def _s3(self, call: Call) -> Answer:
        bucket, _, key = call.path.lstrip("/").partition("/")
        if call.method == "GET" and bucket == REPORT_BUCKET:
            self._bills.before_read(key)
        return self._moto(call)

    def _moto(self, call: Call) -> Answer:
        environ = EnvironBuilder(
            path=call.path,
            method=call.method,
            query_string=call.query,
            headers=[(name, value) for name, value in call.headers.items() if name != "content-length"],
            data=call.body,
            base_url=f"http://{call.headers.get('host', '127.0.0.1')}",
        ).get_environ()
        body, status, headers = run_wsgi_app(self._moto_app, environ, buffered=True)
        kept = tuple(
            (name, value) for name, value in headers.items() if name.lower() not in ("content-length", "content-type")
        )
        return Answer(int(status.split()[0]), headers.get("Content-Type", "text/xml"), b"".join(body), kept)


def build_app(cloud: Cloud) -> Starlette:
    """The server's ASGI application; /_sandbox/ first, AWS on every other path."""
    front = Front(cloud)
    return Starlette(routes=[*sandbox_routes(cloud), Route("/{path:path}", front.handle, methods=_METHODS)])
