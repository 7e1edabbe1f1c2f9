from datetime import UTC, datetime

import pytest

from engine.errors import AuthenticationFailed, ExitCode, NoOfferFits, ProviderUnavailable
from engine.market.absence import require_a_market, with_missing_providers
from engine.market.discovery import MarketView, ProviderFailure
from engine.model.capacity import CapacityTarget, Placement
from tests.sample_view import WEB, target

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def failure(provider: str, kind: str = "ProviderUnavailable") -> ProviderFailure:
    return ProviderFailure(provider=provider, kind=kind, reason=f"{provider}: 503")


def view(*failures: ProviderFailure) -> MarketView:
    return MarketView(offers=(), rejections=(), failures=failures, made_at=NOW)


def tied(*providers: str) -> CapacityTarget:
    pool = WEB.model_copy(update={"placement": Placement(providers=providers)})
    return target(WEB, current=1, scale=1.0).model_copy(update={"pool": pool})


SHORT = NoOfferFits(f"pool {WEB.id}: 2 of 2 desired shards cannot be had", why="no offers were seen", next_step="look")


def test_one_that_answers_is_a_market_even_if_it_sells_nothing() -> None:
    require_a_market(view(failure("aws")), asked=2)
    require_a_market(view(), asked=1)


def test_nobody_answers() -> None:
    with pytest.raises(ProviderUnavailable, match="no provider") as caught:
        require_a_market(view(failure("aws"), failure("gcp", "AuthenticationFailed")), asked=2)
    assert caught.value.why == "aws: 503; gcp: 503"


def test_nobody_lets_us_in() -> None:
    with pytest.raises(AuthenticationFailed) as caught:
        require_a_market(view(failure("aws", "AuthenticationFailed")), asked=1)
    assert caught.value.exit_code == ExitCode.AUTHENTICATION


def test_a_market_that_was_seen_whole_says_what_it_says() -> None:
    assert with_missing_providers(SHORT, [tied("aws")], ()) is SHORT


def test_a_pool_that_may_live_only_where_nobody_answers_is_that_providers_failure() -> None:
    found = with_missing_providers(SHORT, [tied("aws")], [failure("aws"), failure("gcp")])
    assert isinstance(found, ProviderUnavailable)
    assert "may live only at aws" in found.what
    assert found.why == "aws: 503"
    assert "let pool" in found.next_step


def test_another_pools_shortage_is_not_blamed_on_it() -> None:
    other = NoOfferFits("pool other: 1 of 1 desired shards cannot be had", why="too small", next_step="look")
    found = with_missing_providers(other, [tied("aws")], [failure("aws")])
    assert isinstance(found, NoOfferFits)
    assert found.why == "too small; not asked: aws: 503"


def test_a_pool_that_has_a_choice_left_is_short_of_offers() -> None:
    found = with_missing_providers(SHORT, [tied("aws", "gcp")], [failure("aws")])
    assert isinstance(found, NoOfferFits)
    assert "not asked: aws: 503" in found.why
