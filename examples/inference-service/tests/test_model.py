"""The text generator."""

from itertools import islice, pairwise

import pytest

from inference_service.model import BigramModel


@pytest.fixture(scope="module")
def model() -> BigramModel:
    return BigramModel.bundled()


def words(model: BigramModel, history: list[str], prompt: str, count: int = 40) -> list[str]:
    return list(islice(model.generate(history, prompt), count))


def test_equal_input_gives_equal_text(model):
    """The text is a function of history and prompt."""
    assert words(model, ["a", "b"], "The boat") == words(model, ["a", "b"], "The boat")


def test_history_and_prompt_change_the_text(model):
    """Another conversation or another prompt gives another text."""
    texts = [
        words(model, history, prompt)
        for history, prompt in [([], "x"), ([], "y"), (["ab"], "x"), (["a", "b"], "x")]
    ]
    assert len({tuple(text) for text in texts}) == 4


def test_text_goes_on_from_the_prompt():
    """Each word follows the one before it somewhere in the training text."""
    model = BigramModel("a b a c a b")
    text = ["b", *words(model, [], "say b", 200)]
    pairs = set(pairwise(text))
    assert pairs == {("a", "b"), ("b", "a"), ("a", "c"), ("c", "a"), ("b", "a")}


def test_unknown_prompts_open_a_sentence(model):
    """A prompt that the text does not know, or without words, starts a sentence."""
    for prompt in ("qwertz", " \t"):
        assert words(model, [], prompt, 1)[0][0].isupper()


def test_a_text_without_capitals_can_be_opened():
    """The first word opens where no word has a capital."""
    assert words(BigramModel("x y"), [], "?", 1) == ["x"]


def test_words_of_the_conversation_are_preferred():
    """A word that the conversation used follows about four times as often."""
    model = BigramModel("A b A c")

    def share(history: list[str]) -> float:
        text = words(model, history, "A", 4000)
        return text.count("b") / (text.count("b") + text.count("c"))

    assert 0.45 < share([]) < 0.55
    assert 0.75 < share(["b"]) < 0.85


def test_an_empty_text_is_refused():
    """There is no model of nothing."""
    with pytest.raises(ValueError, match="empty"):
        BigramModel(" \n")
