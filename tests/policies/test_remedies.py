"""How remedies are spoken."""

from __future__ import annotations

import pytest

from nr_agent.errors import ConfigurationError
from nr_agent.policies import Remedies, choose_mode
from nr_agent.testing import CharacterCodec
from nr_agent.tokens import BRANCH, CLOSING_SENTENCE, END_THINK, IN_DETAIL, RECHECK


def test_token_mode_inserts_the_ids_themselves():
    codec = CharacterCodec()
    remedies = Remedies(codec, "token")
    assert remedies.branch() == [codec.control(BRANCH)]
    assert remedies.recheck(rollback=True) == [codec.control(RECHECK), *codec.encode(IN_DETAIL)]
    assert codec.decode(remedies.recheck(rollback=True, boundary=False)) == f"\n\n{RECHECK}{IN_DETAIL}"


def test_behind_a_step_that_stays_the_first_words_of_a_second_look_go_with_the_token():
    codec = CharacterCodec()
    assert Remedies(codec, "token").recheck() == [codec.control(RECHECK), *codec.encode("Let me redo that: ")]


def test_prompted_mode_inserts_words_even_where_there_are_tokens():
    codec = CharacterCodec()
    remedies = Remedies(codec, "prompted")
    assert codec.decode(remedies.recheck()) == "Wait, let me redo that: "
    assert codec.decode(remedies.recheck(rollback=True)) == "Let me take this step carefully: "
    assert codec.decode(remedies.branch()) == "Let me try another way.\n\n"


@pytest.mark.parametrize("mode", ["token", "prompted"])
def test_closing_holds_the_special_id(mode):
    codec = CharacterCodec()
    ids = Remedies(codec, mode).closing()
    assert codec.decode(ids) == f"{CLOSING_SENTENCE}\n\n{END_THINK}\n\n"
    assert ids.count(codec.control(END_THINK)) == 1


def test_mode_follows_the_tokens_that_there_are():
    assert choose_mode(CharacterCodec(), "auto") == "token"
    assert choose_mode(CharacterCodec([BRANCH]), "auto") == "prompted"
    assert choose_mode(CharacterCodec([BRANCH]), "prompted") == "prompted"
    with pytest.raises(ConfigurationError, match=r"<\|branch\|>"):
        choose_mode(CharacterCodec([BRANCH]), "token")
