from datetime import timedelta

import pytest
from sqlalchemy import select

from engine.clock import ManualClock
from engine.errors import AuthenticationFailed
from engine.model.ids import NodeId
from engine.store.database import Database
from engine.store.join_tokens import TOKEN_LIFE, JoinTokens, join_tokens

NODE, KEY, OTHER_KEY = NodeId("n1"), "a" * 64, "b" * 64


@pytest.fixture
def tokens(database: Database, clock: ManualClock) -> JoinTokens:
    return JoinTokens(database, clock, b"secret")


def test_a_node_gets_the_same_token_every_round(tokens: JoinTokens) -> None:
    assert tokens.issue(NODE) == tokens.issue(NODE)
    assert tokens.issue(NODE) != tokens.issue(NodeId("n2"))


def test_a_token_is_used_once(tokens: JoinTokens) -> None:
    token = tokens.issue(NODE)
    tokens.redeem(NODE, token, KEY)
    with pytest.raises(AuthenticationFailed):
        tokens.redeem(NODE, token, OTHER_KEY)


def test_the_same_key_may_ask_again_when_its_answer_was_lost(tokens: JoinTokens) -> None:
    token = tokens.issue(NODE)
    tokens.redeem(NODE, token, KEY)
    tokens.redeem(NODE, token, KEY)


def test_the_same_key_may_come_again_however_late(tokens: JoinTokens, clock: ManualClock) -> None:
    token = tokens.issue(NODE)
    tokens.redeem(NODE, token, KEY)
    clock.advance(TOKEN_LIFE * 2)
    tokens.redeem(NODE, token, KEY)
    with pytest.raises(AuthenticationFailed):
        tokens.redeem(NODE, token, OTHER_KEY)


def test_issuing_again_does_not_reopen_a_used_token(tokens: JoinTokens) -> None:
    tokens.redeem(NODE, tokens.issue(NODE), KEY)
    with pytest.raises(AuthenticationFailed):
        tokens.redeem(NODE, tokens.issue(NODE), OTHER_KEY)


@pytest.mark.parametrize("token", ["", "wrong"])
def test_a_wrong_token_is_refused(tokens: JoinTokens, token: str) -> None:
    tokens.issue(NODE)
    with pytest.raises(AuthenticationFailed):
        tokens.redeem(NODE, token, KEY)


def test_a_token_is_for_one_node(tokens: JoinTokens) -> None:
    tokens.issue(NodeId("n2"))
    with pytest.raises(AuthenticationFailed):
        tokens.redeem(NodeId("n2"), tokens.issue(NODE), KEY)


def test_an_old_token_is_refused_until_it_is_asked_for_again(tokens: JoinTokens, clock: ManualClock) -> None:
    token = tokens.issue(NODE)
    clock.advance(TOKEN_LIFE + timedelta(seconds=1))
    with pytest.raises(AuthenticationFailed):
        tokens.redeem(NODE, token, KEY)
    assert tokens.issue(NODE) == token
    tokens.redeem(NODE, token, KEY)


def test_a_replaced_token_is_void(tokens: JoinTokens) -> None:
    old = tokens.issue(NODE)
    tokens.redeem(NODE, old, KEY)
    new = tokens.replace(NODE)
    assert new == tokens.issue(NODE) != old
    with pytest.raises(AuthenticationFailed):
        tokens.redeem(NODE, old, KEY)
    tokens.redeem(NODE, new, OTHER_KEY)


def test_the_store_holds_no_token(tokens: JoinTokens, database: Database) -> None:
    token = tokens.issue(NODE)
    with database.transaction() as connection:
        row = connection.execute(select(join_tokens)).one()
    assert token not in str(tuple(row))
