"""No modules import each other in a circle, be it at their top, for types alone, or inside functions."""

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unrolled"


def modules(source: Path) -> dict[str, str]:
    """Module -> its text; the package itself is left out, since importing its version is free."""
    found = {}
    for path in sorted(source.rglob("*.py")):
        parts = ["unrolled", *path.relative_to(source).with_suffix("").parts]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name not in ("unrolled", "unrolled.__main__"):
            found[name] = path.read_text(encoding="utf-8")
    return found


def imports(text: str, known: Iterable[str]) -> set[str]:
    """The modules of ``known`` that a text imports anywhere in it."""
    known, found = set(known), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (inner & known) or {node.module or ""}
    return found & known


def circles(edges: Mapping[str, set[str]]) -> set[tuple[str, ...]]:
    """The sets of modules each of which reaches the others, sorted."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = list(edges[start])
        while waiting:
            name = waiting.pop()
            if name not in seen:
                seen.add(name)
                waiting += edges[name]
        return seen

    reach = {name: reached(name) for name in edges}
    return {
        tuple(sorted(other for other in reach[name] if name in reach[other])) for name in edges if name in reach[name]
    }


def test_no_circles() -> None:
    texts = modules(SOURCE)
    found = circles({name: imports(text, texts) - {name} for name, text in texts.items()})
    assert not found, "let the lower module take values in place of the higher one's object"


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        ({"a": "import b", "b": ""}, set()),
        ({"a": "import b", "b": "import a"}, {("a", "b")}),
        ({"a": "def f():\n    from b import x", "b": "if TYPE_CHECKING:\n    import a"}, {("a", "b")}),
        ({"a": "import b", "b": "import c", "c": "import a", "d": "import a"}, {("a", "b", "c")}),
        ({"a": "from a.b import x", "a.b": "from a.c import y", "a.c": ""}, set()),
        ({"a": "from a import b", "a.b": "from a import x"}, {("a", "a.b")}),
    ],
)
def test_circles_are_noticed(texts: dict[str, str], wanted: set[tuple[str, ...]]) -> None:
    assert circles({name: imports(text, texts) - {name} for name, text in texts.items()}) == wanted
