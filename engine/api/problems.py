"""Errors on the wire: problem documents (RFC 9457) for programs, a page that says the same for people."""

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from engine.errors import (
    AuthenticationFailed,
    ConcurrentUpdate,
    ProviderError,
    ShardwrightError,
    StateInUse,
    UnknownName,
    UsageError,
)
from engine.model.value import Value
from engine.web.rendering import render

PROBLEM_JSON = "application/problem+json"
_STATUS = (
    (UnknownName, 404),
    (UsageError, 400),
    (ConcurrentUpdate, 409),
    (StateInUse, 503),
    (AuthenticationFailed, 502),
    (ProviderError, 502),
)


class Problem(Value):
    """``title`` says what happened, ``detail`` why, ``next_step`` what to do about it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str = ""
    next_step: str = ""


def answer_with_problems(app: FastAPI) -> None:
    """Every error of the vocabulary, of a request's shape and of routing becomes a problem."""

    @app.exception_handler(ShardwrightError)
    def named(request: Request, error: ShardwrightError) -> Response:
        return _answer(
            request, Problem(title=error.what, detail=error.why, next_step=error.next_step, status=status_of(error))
        )

    @app.exception_handler(RequestValidationError)
    def malformed(request: Request, error: RequestValidationError) -> Response:
        complaints = (f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors())
        return _answer(
            request, Problem(title="The request cannot be understood", detail="; ".join(complaints), status=400)
        )

    @app.exception_handler(HTTPException)
    def routing(request: Request, error: HTTPException) -> Response:
        title = f"There is nothing at {request.url.path}" if error.status_code == 404 else error.detail
        return _answer(request, Problem(title=title, status=error.status_code), error)


def answer_to_defect(request: Request, error: Exception) -> Response:
    """Of no kind that is expected. What it says may be of any kind too: that is for the log alone."""
    return _answer(
        request,
        Problem(
            title=f"Unexpected {type(error).__name__}",
            status=500,
            detail="this is a defect of shardwright, not of the request",
            next_step="report it with what shardwright run tells on stderr",
        ),
    )


def status_of(error: ShardwrightError) -> int:
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _answer(request: Request, problem: Problem, cause: HTTPException | None = None) -> Response:
    headers = cause.headers if cause is not None else None
    if not request.url.path.startswith("/v1/") and "text/html" in request.headers.get("accept", ""):
        page = render("error", title=f"Error {problem.status}", here=request.url.path, problem=problem)
        return HTMLResponse(page, status_code=problem.status, headers=headers)
    body = problem.model_dump(mode="json")
    return JSONResponse(body, status_code=problem.status, media_type=PROBLEM_JSON, headers=headers)
