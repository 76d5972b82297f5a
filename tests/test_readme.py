"""What README and docs tell people to type: verbs and options exist, and the Python example runs."""

import importlib
import pkgutil
import re
import shlex
from pathlib import Path

import pytest
import typer

import unrolled.cli
from unrolled.cli import app

for found in pkgutil.iter_modules(unrolled.cli.__path__, "unrolled.cli."):
    importlib.import_module(found.name)  # each registers its verb

ROOT = Path(__file__).resolve().parents[1]
DOCS = [path for path in sorted((ROOT / "docs").rglob("*.md")) if path.parent.name != "generated"]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]


def command_lines(text: str) -> list[str]:
    """Every ``unrolled ...`` line of the fenced blocks, without comments and continuations of a shell."""
    blocks = re.findall(r"```(?:\w*)\n(.*?)```", text, flags=re.S)
    lines = [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    parts = [part.strip() for line in lines for part in line.split(" | ")]
    return [part for part in parts if re.match(r"(\.venv/bin/)?unrolled ", part)]


def inline_commands(text: str) -> list[str]:
    """Every ``unrolled ...`` in a sentence."""
    spans = re.findall(r"(?<!`)`(unrolled [^`]+)`", re.sub(r"```.*?```", "", text, flags=re.S))
    return [" ".join(span.split()) for span in spans]


TEXTS = [page.read_text(encoding="utf-8") for page in PAGES]
LINES = sorted({line for text in TEXTS for line in [*command_lines(text), *inline_commands(text)]})


def refusal(line: str) -> str | None:
    """Why the command line would be refused by the parser, or None."""
    words = shlex.split(line, comments=True)[1:]
    command = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name = words.pop(0)
        default = getattr(command, "default", None)
        if default and name not in command.commands:  # type: ignore[attr-defined]
            words.insert(0, name)  # a group that runs a verb of its own where none is named
            name = default
        if name not in command.commands:  # type: ignore[attr-defined]
            return f"no verb {name}"
        command = command.commands[name]  # type: ignore[attr-defined]
    given = [option for one in command.params for option in (*one.opts, *one.secondary_opts)]  # --peers, --no-peers
    known = {*given, "--help", "-h"}
    odd = [word for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]
    return f"no option {odd[0]}" if odd else None


def test_there_is_something_to_check():
    assert len(LINES) > 100
    assert sum(len(inline_commands(text)) for text in TEXTS) > 50


@pytest.mark.parametrize("line", LINES)
def test_commands_exist(line: str):
    assert refusal(line) is None


def test_a_wrong_command_is_noticed():
    assert refusal("unrolled trian x") == "no verb trian"
    assert refusal("unrolled eval runs/x --splt test") == "no option --splt"


def test_the_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, flags=re.S)[0]
    assert "train.cpu_minutes=1" in code
    small = '"train.steps=2", "model.width=16", "train.valid_tokens=200", "train.final_eval=false"'
    code = code.replace('"train.cpu_minutes=1"', small).replace('split="test"', 'split="test", limit=300')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert "bits_per_character" in capsys.readouterr().out
    assert type(names["model"]).__name__ == "LanguageModel"


@pytest.mark.parametrize("page", PAGES[:2], ids=lambda page: page.name)
def test_links_lead_to_files(page: Path):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8"))
    links = [link for link in links if "://" not in link and "docs/generated" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
