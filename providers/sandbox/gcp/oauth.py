"""Google's token endpoint for the sandbox: service account keys (signed JWT) and a client's refresh token.

The shared secret comes from the environment (``SHARDWRIGHT_SANDBOX_SECRET``), never from the command line. It is
accepted as a client's secret, and as a ready access token for quick tries. A service account key can be had, as from
the console, at ``/_sandbox/service-account``.
"""

import hmac
from functools import cached_property
from urllib.parse import parse_qs
from uuid import uuid4

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from google.auth import jwt
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from providers.sandbox.cloud import Tokens

_PUBLIC_AUDIENCE = "https://oauth2.googleapis.com/token"
"""Google's own library addresses every assertion to this, wherever it sends it."""
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


class OAuth:
    """Who may use the sandbox's Google Cloud."""

    def __init__(self, project: str, secret: str, tokens: Tokens) -> None:
        self._project, self._secret, self._tokens = project, secret, tokens

    def accepts(self, authorization: str | None) -> bool:
        static = hmac.compare_digest((authorization or "").encode(), f"Bearer {self._secret}".encode())
        return static or self._tokens.accepts(authorization)

    def routes(self) -> list[Route]:
        return [
            Route("/token", self._token, methods=["POST"]),
            Route("/_sandbox/service-account", self._service_account_key),
        ]

    @cached_property
    def _key(self) -> RSAPrivateKey:
        return generate_private_key(public_exponent=65537, key_size=2048)

    @property
    def _email(self) -> str:
        return f"shardwright@{self._project}.iam.gserviceaccount.com"

    async def _token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode(errors="replace")).items()}
        grant = form.get("grant_type", "")
        if grant == _JWT_BEARER:
            problem = self._assertion_problem(form.get("assertion", ""), str(request.url))
        elif grant == "refresh_token":
            secret_fits = hmac.compare_digest(form.get("client_secret", "").encode(), self._secret.encode())
            if not secret_fits:
                return _denied(401, "invalid_client", "The OAuth client was not found.")
            problem = "" if form.get("refresh_token") else "Missing required parameter: refresh_token"
        else:
            return _denied(400, "unsupported_grant_type", f"Invalid grant_type: {grant}")
        if problem:
            return _denied(400, "invalid_grant", problem)
        lifetime = int(Tokens.lifetime.total_seconds())
        return JSONResponse({"access_token": self._tokens.issue(), "expires_in": lifetime, "token_type": "Bearer"})

    def _assertion_problem(self, assertion: str, audience: str) -> str:
        public = self._key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        try:
            claims = jwt.decode(assertion, certs=public, audience=[audience, _PUBLIC_AUDIENCE])  # type: ignore[no-untyped-call]
        except (ValueError, KeyError) as problem:
            return f"Invalid JWT Signature or claims: {type(problem).__name__}"
        return "" if claims.get("iss") == self._email else "Invalid grant: account not found"

    async def _service_account_key(self, request: Request) -> Response:
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return JSONResponse(
            {
                "type": "service_account",
                "project_id": self._project,
                "private_key_id": uuid4().hex,
                "private_key": pem,
                "client_email": self._email,
                "client_id": "100000000000000000001",
                "token_uri": str(request.base_url.replace(path="/token")),
            }
        )


def _denied(status: int, error: str, description: str) -> JSONResponse:
    return JSONResponse({"error": error, "error_description": description}, status_code=status)
