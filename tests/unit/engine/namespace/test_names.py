import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import UsageError
from engine.model.placement import ComponentName
from engine.namespace.names import dns_name, parse, parse_dns, parse_query

LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
NAMES = st.builds(ComponentName, namespace=LABELS, workload=LABELS, component=LABELS, index=st.integers(0, 10**9 - 1))


@given(NAMES)
def test_a_name_survives_being_written_and_read(name: ComponentName) -> None:
    assert parse(str(name)) == name
    query = parse_dns(dns_name(name))
    assert query is not None
    assert query.matches(name)
    assert query.index == name.index


def test_without_a_number_it_is_number_0_or_every_replica() -> None:
    assert parse("shard://acme/shop/web").index == 0
    query = parse_query("shard://acme/shop/web")
    assert query.index is None
    assert str(query) == "shard://acme/shop/web"
    assert query.matches(parse("shard://acme/shop/web/7"))
    assert not query.matches(parse("shard://acme/shop/db/7"))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "does not start with shard://"),
        ("http://acme/shop/web", "does not start with shard://"),
        ("shard://acme/shop", "has 2 parts"),
        ("shard://acme/shop/web/0/1", "has 5 parts"),
        ("shard://Acme/shop/web", "namespace 'Acme'"),
        ("shard://acme//web", "workload ''"),
        ("shard://acme/shop/-web", "component '-web'"),
        ("shard://acme/shop/" + "w" * 64, "component"),
        ("shard://acme/shop/web/-1", "number '-1'"),
        ("shard://acme/shop/web/01", "number '01'"),
        ("shard://acme/shop/web/", "number ''"),
        ("shard://acme/shop/web\n", "component"),
    ],
)
def test_a_malformed_name_is_refused_with_the_part_that_is_wrong(text: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse(text)
    assert why in refused.value.why
    assert "shard://NAMESPACE/WORKLOAD/COMPONENT[/N]" in refused.value.next_step


def test_dns_names_of_others_are_not_ours() -> None:
    assert parse_dns("example.org") is None
    assert parse_dns("shard.internal") is None
    assert parse_dns("x.1.web.shop.acme.shard.internal") is None
    assert parse_dns("1.web.shop.acme.shard.internal.example.org") is None
    query = parse_dns("WEB.shop.ACME.Shard.Internal.")
    assert query is not None
    assert (query.component, query.namespace, query.index) == ("web", "acme", None)
