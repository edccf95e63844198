import random
import string

import pytest

from domain.tokens import TokenKind, display_prefix_of, hash_of, is_well_formed, new_token

ALPHABET = string.ascii_letters + string.digits


@pytest.mark.parametrize("kind", TokenKind)
def test_a_token_shows_its_kind_and_is_well_formed(kind: TokenKind) -> None:
    token = new_token(kind)
    assert token.startswith(f"{kind}_")
    assert len(token) == len(kind) + 1 + 36 + 6
    assert is_well_formed(token)


def test_every_mistyped_character_is_noticed() -> None:
    token = new_token(TokenKind.USER)
    for position in range(len(token)):
        others = ALPHABET.replace(token[position], "")
        mistyped = token[:position] + random.choice(others) + token[position + 1 :]
        assert not is_well_formed(mistyped)


@pytest.mark.parametrize("text", ["", "bulkhead_pat_", "x" * 55, "bulkhead_pat_" + "é" * 42])
def test_noise_is_no_token(text: str) -> None:
    assert not is_well_formed(text)
    assert not is_well_formed(new_token(TokenKind.USER) + text + "\n")


def test_a_hash_tells_tokens_apart_and_the_displayed_part_gives_little_away() -> None:
    first, second = new_token(TokenKind.WORKSPACE), new_token(TokenKind.WORKSPACE)
    assert len(hash_of(first)) == 32
    assert hash_of(first) != hash_of(second)
    assert first.startswith(display_prefix_of(first))
    assert len(display_prefix_of(first)) == len("bulkhead_wst_") + 4
