"""What signed identities are checked against: the configured certificates, and refusals in one form."""

from pathlib import Path

from cryptography import x509

from engine.errors import AuthenticationFailed, ConfigurationError
from providers.base import ProviderSettings


def trusted_certificates(settings: ProviderSettings) -> tuple[x509.Certificate, ...]:
    """Those of ``attestation_keys``. Raises ConfigurationError where the file holds none."""
    try:
        found = x509.load_pem_x509_certificates(Path(settings.attestation_keys or "").read_bytes())
    except (OSError, ValueError) as problem:
        raise unusable(settings, str(problem)) from problem
    return tuple(found)


def unusable(settings: ProviderSettings, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"providers.{settings.name}.attestation_keys: cannot be used",
        why=why,
        next_step="docs/how-to/real-accounts.md says where each provider publishes its keys",
    )


def refused(settings: ProviderSettings, why: str) -> AuthenticationFailed:
    """What an attestor raises about a document. ``why`` must not quote it: it came from outside."""
    return AuthenticationFailed(f"{settings.name}: the instance's signed identity is refused", why=why)
