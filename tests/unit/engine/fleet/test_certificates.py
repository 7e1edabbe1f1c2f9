from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from agent.wire import CONTROL_NAME, control_identity, node_identity
from engine.clock import ManualClock
from engine.errors import AuthenticationFailed
from engine.fleet.certificates import CertificateAuthority, ControlCredentials, public_key_digest
from engine.model.ids import NodeId

NODE = NodeId("node-1")


def csr(common_name: str = "node-1", key: ec.EllipticCurvePrivateKey | None = None, names: tuple[str, ...] = ()) -> str:
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    )
    if names:
        uris = [x509.UniformResourceIdentifier(name) for name in names]
        builder = builder.add_extension(x509.SubjectAlternativeName(uris), critical=False)
    signed = builder.sign(key or ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def names_of(pem: str) -> x509.SubjectAlternativeName:
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


@pytest.fixture
def authority(tmp_path: Path, clock: ManualClock) -> CertificateAuthority:
    return CertificateAuthority.load_or_create(tmp_path / "fleet", clock)


def test_a_leaf_lasts_an_hour_and_names_the_node(authority: CertificateAuthority, clock: ManualClock) -> None:
    leaf = authority.sign_node(NODE, csr())
    assert leaf.not_after == clock.now() + timedelta(hours=1)
    names = names_of(leaf.certificate_pem)
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [node_identity(NODE)]
    assert names.get_values_for_type(x509.DNSName) == ["node-1"]


def test_names_in_the_request_are_ignored(authority: CertificateAuthority) -> None:
    leaf = authority.sign_node(NODE, csr(CONTROL_NAME, names=(control_identity(),)))
    names = names_of(leaf.certificate_pem)
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [node_identity(NODE)]
    subject = x509.load_pem_x509_certificate(leaf.certificate_pem.encode()).subject
    assert subject.rfc4514_string() == "CN=node-1"


@pytest.mark.parametrize("name", [CONTROL_NAME, "Shardwright-Control", f"{CONTROL_NAME}."])
def test_no_node_gets_the_control_planes_name(authority: CertificateAuthority, name: str) -> None:
    with pytest.raises(AuthenticationFailed, match="the control plane's name"):
        authority.sign_node(NodeId(name), csr())


def test_the_authority_signs_and_no_one_else_can_pass_for_it(
    authority: CertificateAuthority, tmp_path: Path, clock: ManualClock
) -> None:
    other = CertificateAuthority.load_or_create(tmp_path / "other", clock)
    leaf = x509.load_pem_x509_certificate(authority.sign_node(NODE, csr()).certificate_pem.encode())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.ca_pem.encode()))
    with pytest.raises(Exception):  # noqa: B017, PT011 - cryptography raises InvalidSignature without a common base
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(other.ca_pem.encode()))


def test_keys_are_private_and_stay_the_same(
    authority: CertificateAuthority, tmp_path: Path, clock: ManualClock
) -> None:
    folder = tmp_path / "fleet"
    assert (folder / "ca.key").stat().st_mode & 0o777 == 0o600
    assert CertificateAuthority.load_or_create(folder, clock).ca_pem == authority.ca_pem


@pytest.mark.parametrize(
    "text", ["", "rubbish", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----"]
)
def test_a_request_that_cannot_be_read_is_refused(authority: CertificateAuthority, text: str) -> None:
    with pytest.raises(AuthenticationFailed):
        authority.sign_node(NODE, text)


def test_a_request_must_prove_its_key(authority: CertificateAuthority) -> None:
    whole = csr()
    body = whole.splitlines()
    body[-2] = ("B" if body[-2][0] != "B" else "C") + body[-2][1:]
    with pytest.raises(AuthenticationFailed):
        authority.sign_node(NODE, "\n".join(body))


def test_the_key_digest_depends_on_the_key_alone() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    assert public_key_digest(csr("a", key)) == public_key_digest(csr("b", key))
    assert public_key_digest(csr("a")) != public_key_digest(csr("a"))


def test_control_credentials_are_renewed_at_half_life(
    authority: CertificateAuthority, tmp_path: Path, clock: ManualClock
) -> None:
    mine = ControlCredentials(authority, tmp_path / "control", clock, hosts=("10.0.0.1", "control.example"))
    generation = mine.current()
    first = mine.certificate_file.read_text()
    clock.advance(timedelta(minutes=29))
    assert mine.current() == generation
    assert mine.certificate_file.read_text() == first
    clock.advance(timedelta(minutes=2))
    assert mine.current() == generation + 1
    assert mine.certificate_file.read_text() != first
    names = names_of(mine.certificate_file.read_text())
    assert names.get_values_for_type(x509.DNSName) == [CONTROL_NAME, "control.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    assert mine.key_file.stat().st_mode & 0o777 == 0o600


def test_a_second_process_leaves_the_first_ones_key_in_place(
    authority: CertificateAuthority, tmp_path: Path, clock: ManualClock
) -> None:
    first = ControlCredentials(authority, tmp_path, clock)
    key = first.key_file.read_bytes()
    ControlCredentials(authority, tmp_path, clock).current()
    assert first.key_file.read_bytes() == key


def test_every_user_of_the_credentials_hears_of_a_renewal(
    authority: CertificateAuthority, tmp_path: Path, clock: ManualClock
) -> None:
    mine = ControlCredentials(authority, tmp_path / "control", clock)
    loaded = mine.current()
    clock.advance(timedelta(minutes=31))
    assert [mine.current() != loaded for _user in ("listener", "clients")] == [True, True]


def test_threads_that_ask_at_once_renew_once(
    authority: CertificateAuthority, tmp_path: Path, clock: ManualClock
) -> None:
    mine = ControlCredentials(authority, tmp_path / "control", clock)
    for expected in (1, 2, 3):
        with ThreadPoolExecutor(max_workers=8) as pool:
            assert set(pool.map(lambda _asks: mine.current(), range(32))) == {expected}
        clock.advance(timedelta(minutes=31))


def test_a_leaf_that_cannot_be_renewed_stays_and_is_tried_again(
    authority: CertificateAuthority, tmp_path: Path, clock: ManualClock
) -> None:
    folder = tmp_path / "control"
    mine = ControlCredentials(authority, folder, clock)
    generation, first = mine.current(), mine.certificate_file.read_text()
    clock.advance(timedelta(minutes=31))
    folder.rename(tmp_path / "away")  # as good as a full disk: nothing can be written
    with structlog.testing.capture_logs() as logs:
        assert [mine.current(), mine.current()] == [generation, generation]
    assert [line["event"] for line in logs] == ["the control plane's certificate cannot be renewed yet"]
    (tmp_path / "away").rename(folder)
    assert mine.certificate_file.read_text() == first
    clock.advance(timedelta(seconds=30))
    assert mine.current() == generation + 1
    assert mine.certificate_file.read_text() != first


def test_without_any_leaf_it_says_so(authority: CertificateAuthority, tmp_path: Path, clock: ManualClock) -> None:
    mine = ControlCredentials(authority, tmp_path / "control", clock)
    (tmp_path / "control").rename(tmp_path / "away")
    with pytest.raises(OSError, match="No such file"):
        mine.current()
