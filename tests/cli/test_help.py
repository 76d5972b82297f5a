"""Every verb's help, and what the command says without one."""

import pytest

from cli.conftest import Command

VERBS = [
    ["train"],
    ["eval"],
    ["export"],
    ["import"],
    ["generate"],
    ["grid"],
    ["retrieve"],
    ["score"],
    ["serve"],
    ["store"],
    ["load-test"],
    ["label"],
    ["merge"],
    ["pairs"],
    ["probe"],
    ["ensemble"],
    ["difference"],
    ["bench"],
    ["build"],
    ["cells"],
    ["info"],
    ["compare", "check"],
    ["compare", "register"],
    ["compare", "run"],
    ["compare", "status"],
    ["compare", "add"],
    ["compare", "report"],
    ["tune", "run"],
    ["tune", "status"],
    ["tune", "report"],
    ["tune", "best"],
    ["watch"],
    ["compress"],
    ["decompress"],
    ["inspect", "recovery"],
    ["inspect", "features"],
    ["inspect", "page"],
    ["inspect", "reading"],
    ["inspect", "trace"],
    ["inspect", "gates"],
    ["inspect", "units"],
    ["inspect", "errors"],
    ["inspect", "length"],
    ["inspect", "memory"],
    ["corpora", "list"],
    ["corpora", "get"],
    ["corpora", "check"],
    ["corpora", "show"],
    ["corpora", "build"],
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_help(unrolled: Command, verb: list[str]) -> None:
    code, out, err = unrolled(*verb, "--help")
    assert (code, err) == (0, "")
    assert f"Example: unrolled {' '.join(verb)}" in out
    assert "--json" in out


def test_every_verb_is_listed_here(unrolled: Command) -> None:
    import typer

    from unrolled.cli.common import app

    unrolled("--help")
    found = []
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        found += [[name, inner] for inner in getattr(command, "commands", {})] or [[name]]
    assert sorted(found) == sorted(VERBS)


def test_alone(unrolled: Command) -> None:
    _, out, err = unrolled()
    assert "Usage: unrolled" in out + err
    assert "--install-completion" in out + err
    assert unrolled("--version").out.startswith("unrolled 0.")


def test_click_errors(unrolled: Command) -> None:
    code, out, err = unrolled("trian")
    assert code == 2
    assert out == ""
    assert "No such command 'trian'" in err
    assert unrolled("eval").code == 2
    assert unrolled("generate", "x", "--tokens", 0).code == 2
