"""Signed prices: compact JWS (Ed25519) over an offer's or a quote's claims, and the check of them.

A network signs with ``Signer`` and publishes ``Signer.keys``. A buyer checks with ``Verifier``: the signature, that the
signed claims say the same as the plain answer, and that they answer this very request. ``Unproven`` says what is wrong;
its name is what ``shardwright offers`` and the plan show.
"""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TypeVar

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from pydantic import BaseModel, ValidationError

from providers.network import wire

_ALGORITHM = "Ed25519"
_CLOCK_SKEW = timedelta(minutes=5)
_Claims = TypeVar("_Claims", wire.OfferClaims, wire.QuoteClaims)


class Unproven(Exception):
    """A price that its network cannot be held to; ``reason`` begins with the defect's name."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Signer:
    """One key pair of one network; a fresh one where none is given (a PEM or JWK that joserfc can read)."""

    def __init__(self, issuer: str, key: OKPKey | None = None) -> None:
        self.issuer = issuer
        self._key = key or OKPKey.generate_key("Ed25519")
        self._header = {"alg": _ALGORITHM, "kid": self._key.thumbprint()}

    @property
    def keys(self) -> tuple[wire.VerificationKey, ...]:
        public = self._key.as_dict(private=False)
        return (
            wire.VerificationKey(
                kty=str(public["kty"]), crv=str(public["crv"]), x=str(public["x"]), kid=self._header["kid"]
            ),
        )

    def sign_offer(self, offer: wire.WireOffer, now: datetime) -> wire.WireOffer:
        claims = wire.OfferClaims.model_validate(
            {**_fields(offer, wire.OfferClaims), "issuer": self.issuer, "signed_at": now}
        )
        return offer.model_copy(update={"proof": self._sign(claims)})

    def sign_quote(
        self, quote: wire.WireQuote, now: datetime, *, buyer: str, nonce: str | None = None
    ) -> wire.WireQuote:
        own = {"issuer": self.issuer, "signed_at": now, "buyer": buyer, "nonce": nonce}
        claims = wire.QuoteClaims.model_validate({**_fields(quote, wire.QuoteClaims), **own})
        return quote.model_copy(update={"proof": self._sign(claims)})

    def _sign(self, claims: BaseModel) -> str:
        return str(jws.serialize_compact(self._header, claims.model_dump_json(), self._key, algorithms=[_ALGORITHM]))


class Verifier:
    """``fetch`` reads the network's keys; ``refusal`` says what is wrong with taking the first key, published beside
    the others (thumbprints), if anything. Both are asked again, once per answer, when a signature's key is not taken.
    """

    def __init__(
        self,
        fetch: Callable[[], Sequence[wire.VerificationKey]],
        refusal: Callable[[str, Collection[str]], str | None] = lambda *_: None,
    ) -> None:
        self._fetch, self._refusal = fetch, refusal
        self._keys: dict[str, OKPKey] = {}
        self._refused: dict[str, str] = {}
        self._fresh = False

    def begin(self) -> None:
        """Another answer of the network: its keys may have changed since the last one."""
        self._fresh = False

    def check_offer(self, offer: wire.WireOffer, now: datetime) -> None:
        """Raises Unproven."""
        claims = self._claims(offer.proof, wire.OfferClaims, now)
        _same(offer, claims)

    def check_quote(self, quote: wire.WireQuote, now: datetime, *, nonce: str | None = None) -> None:
        """An answer of its own. Raises Unproven. ``nonce``: what the request carried, where it carried one."""
        self.begin()
        claims = self._claims(quote.proof, wire.QuoteClaims, now)
        _same(quote, claims)
        if nonce is not None and claims.nonce != nonce:
            raise Unproven("replayed: the signature answers another request")

    def _claims(self, proof: str | None, kind: type[_Claims], now: datetime) -> _Claims:
        if not proof:
            raise Unproven("unsigned: no proof of its price")
        try:
            signed = jws.extract_compact(proof.encode())
            key = self._key(str(signed.headers().get("kid", "")))
            if not jws.validate_compact(signed, key, algorithms=[_ALGORITHM]):
                raise Unproven("forged: the signature does not fit")
            claims = kind.model_validate_json(signed.payload)
        except (JoseError, ValidationError, ValueError, KeyError, TypeError) as problem:
            raise Unproven(f"forged: its proof cannot be read ({type(problem).__name__})") from None
        if claims.signed_at > now + _CLOCK_SKEW:
            raise Unproven(f"clock skew: signed for {claims.signed_at:%Y-%m-%d %H:%M:%S}Z")
        if claims.expires_at <= now:
            since = f"{claims.signed_at:%Y-%m-%d %H:%M:%S}Z"
            raise Unproven(f"expired or replayed: signed at {since} for a time that is over")
        return claims

    def _key(self, identifier: str) -> OKPKey:
        if identifier not in self._keys and not self._fresh:
            self._load()
        if identifier in self._refused:
            raise Unproven(self._refused[identifier])
        if identifier not in self._keys:
            raise Unproven("forged: signed with a key that the network does not publish")
        return self._keys[identifier]

    def _load(self) -> None:
        """A key goes by the thumbprint that it has, whatever it is called: its name is not what is trusted."""
        found = _by_thumbprint(self._fetch())
        reasons = {name: self._refusal(name, tuple(found)) for name in found}
        self._refused = {name: reason for name, reason in reasons.items() if reason is not None}
        self._keys = {name: key for name, key in found.items() if name not in self._refused}
        self._fresh = True


def thumbprints(keys: Sequence[wire.VerificationKey]) -> tuple[str, ...]:
    """RFC 7638, computed from the keys themselves; what is no key is left out."""
    return tuple(_by_thumbprint(keys))


def _by_thumbprint(keys: Sequence[wire.VerificationKey]) -> dict[str, OKPKey]:
    found = {}
    for key in keys:
        with suppress(JoseError, ValueError, KeyError, TypeError):
            imported = OKPKey.import_key({"kty": key.kty, "crv": key.crv, "x": key.x})
            found[imported.thumbprint()] = imported
    return found


def _fields(said: BaseModel, claims: type[BaseModel]) -> dict[str, object]:
    return {name: getattr(said, name) for name in claims.model_fields if name in type(said).model_fields}


def _same(said: BaseModel, claims: BaseModel) -> None:
    for name, value in _fields(said, type(claims)).items():
        signed = getattr(claims, name)
        if signed != value:
            raise Unproven(f"forged: {name.replace('_', ' ')} is not what was signed")
