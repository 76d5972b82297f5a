"""Old spellings: each says in a sentence where it went."""

from collections.abc import Callable

import pytest

OLD = {
    "pairs": [["--task", "blimp"], ["--normalize", "tokens"]],
    "ensemble": [["--ensemble", "folder"]],
    "difference": [["--against", "b.tsv"]],
}


@pytest.mark.parametrize(("verb", "arguments"), [(verb, one) for verb, each in OLD.items() for one in each])
@pytest.mark.parametrize("first", [["runs/x"], []])
def test_old_options_of_eval(refused: Callable[..., str], verb: str, arguments: list[str], first: list[str]) -> None:
    said = refused("eval", *first, *arguments, code=2)
    assert f"{arguments[0]} is no option of eval any more" in said
    assert f"unrolled {verb}" in said


def test_an_option_that_never_was(unrolled: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = unrolled("eval", "runs/x", "--tsak", "blimp")
    assert code == 2
    assert "any more" not in err
