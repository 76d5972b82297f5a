"""The page in a browser: colours, hover, keys, units, models, and hostile text."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analyse.chromium import Browser, Page
from unrolled.analyse import PageConfig, write_page
from unrolled.analyse.page.data import page_model
from unrolled.analyse.page.text import losses_of
from unrolled.data.reading import Part
from unrolled.model import LanguageModel, ModelConfig
from unrolled.tokenizer import TOKENIZERS
from unrolled.tokenizer.byte import ByteTokenizer

TEXT = "the cat é 😀\n</script><b>bold</b> &amp;\n\n" + "a line that is rather long and goes on " * 12 + "\nend"


def _read(name: str, seed: int, tokenizer: Any, text: str = TEXT) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = LanguageModel(ModelConfig.parse({"width": 5, "layers": 2, "cell": "lstm"}), tokenizer.vocab_size).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.8 * torch.randn_like(parameter))
    losses = losses_of(model, tokenizer, Part("x", make=text.encode))
    return page_model(name, model, tokenizer, losses, PageConfig(), 1e7).value


@pytest.fixture(scope="module")
def models() -> list[dict[str, Any]]:
    """A byte model and a word model of one text: other tokens, other units."""
    cls = TOKENIZERS["word"]
    words = cls.train(cls.Config.parse({"name": "word", "min_count": 1}), [TEXT.encode()])
    return [_read("<i>bytes</i>", 1, ByteTokenizer()), _read("words", 2, words)]


@pytest.fixture
def opened(browser: Browser, models: list[dict[str, Any]], tmp_path: Path) -> Callable[..., Page]:
    def make(count: int = 1, dark: bool = False, text: str = TEXT) -> Page:
        write_page(tmp_path / "page.html", text, models[:count], "a <title>")
        page = browser.open(tmp_path / "page.html", dark)
        page.until("document.querySelectorAll('.t').length > 0")
        return page

    return make


def series(model: dict[str, Any], layer: int, name: str, unit: int) -> np.ndarray:
    group = next(one for one in model["groups"] if one["layer"] == layer)
    place, one = group["units"].index(unit), group["series"][name]
    steps = np.frombuffer(base64.b64decode(one["data"][place]), np.uint8)
    return one["low"][place] + steps * (one["high"][place] - one["low"][place]) / 255


def bits(model: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(model["bits"]["data"]), "<u2") / 1024


def shades(page: Page) -> list[float]:
    """Of the first 60 tokens of the first model: how strong, below 0 where cool."""
    code = (
        "JSON.stringify([...document.querySelectorAll('[data-m=\"0\"] .t')].slice(0, 60)"
        ".map((t) => Number(t.style.getPropertyValue('--v')) * (t.classList.contains('cool') ? -1 : 1)))"
    )
    return json.loads(page.eval(code))


def middle(page: Page, m: int, i: int) -> tuple[float, float]:
    """Where a token is on the screen."""
    box = f'document.querySelector(\'[data-m="{m}"] [data-i="{i}"]\').getBoundingClientRect()'
    return tuple(page.eval(f"(() => {{ const b = {box}; return [b.x + b.width / 2, b.y + b.height / 2]; }})()"))


def told(page: Page) -> str:
    return page.eval("document.getElementById('token').innerText")


def test_the_text_comes_out_as_it_is(opened: Callable[..., Page]) -> None:
    page = opened()
    assert page.eval("document.title") == "a <title>: <i>bytes</i>"
    shown = page.eval(
        "[...document.querySelectorAll('#text .t')].filter((t) => !t.classList.contains('mark'))"
        ".map((t) => t.textContent).join('')"
    )
    assert shown == TEXT.replace("\n", "")
    assert page.eval("document.querySelectorAll('#text b, #text script').length") == 0
    assert page.eval("document.querySelectorAll('.mark').length") == TEXT.count("\n") + 1 + 3, (
        "é and 😀 have more bytes"
    )
    assert page.complaints() == []


def test_lines_of_words_begin_with_a_space(browser: Browser, tmp_path: Path) -> None:
    """The end of a line stands in its own row, also where a space follows that belongs to no word."""
    cls, text = TOKENIZERS["word"], " the cat \n the  dog \n"
    words = cls.train(cls.Config.parse({"name": "word", "min_count": 1}), [text.encode()])
    write_page(tmp_path / "page.html", text, [_read("words", 2, words, text)], "t")
    page = browser.open(tmp_path / "page.html")
    page.until("document.querySelectorAll('.t').length > 0")
    shown = page.eval("[...document.querySelectorAll('.cell')].map((c) => [...c.children].map((t) => t.textContent))")
    assert shown == [["the", "cat", "⏎"], ["the", "dog", "⏎"]]
    heights = page.eval("[...document.querySelectorAll('.row')].map((r) => r.offsetHeight)")
    assert heights[0] == heights[1] < 40, "one line each"


def test_colours_are_the_losses(opened: Callable[..., Page], models: list[dict[str, Any]]) -> None:
    page = opened()
    loss = bits(models[0])
    most = max(1, np.sort(loss)[int(0.98 * (len(loss) - 1))])
    np.testing.assert_allclose(shades(page), np.minimum(1, loss[:60] / most), atol=6e-4)
    strong, weak = int(loss[:60].argmax()), int(loss[:60].argmin())
    code = "getComputedStyle(document.querySelectorAll('.t')[{}]).backgroundColor"
    assert page.eval(code.format(strong)) == "rgba(213, 94, 0, 0.75)"
    assert page.eval(code.format(weak)) != page.eval(code.format(strong))
    assert page.eval("document.getElementById('legend').innerText").split() == ["0", f"{most:.1f}", "bits"]


def test_hover_tells_of_the_token(opened: Callable[..., Page], models: list[dict[str, Any]]) -> None:
    page = opened()
    before = told(page)
    page.hover(*middle(page, 0, 4))
    text = told(page)
    loss = float(bits(models[0])[4])
    assert "token 5 of" in text
    assert f"loss {loss:.3f} bits" in text
    assert f"probability {2**-loss:.3g}"[:16] in text
    assert len(page.eval("[...document.querySelectorAll('#token tbody tr')].map((r) => r.innerText)")) == 4
    assert "0.c." in text
    page.hover(5, 5)
    assert told(page) == before, "the token of the keys comes back"
    page.hover(*middle(page, 0, 3))
    assert told(page).startswith("␣ token 4 of"), "a space is to be seen"


def test_keys_move_and_names_of_tokens_are_told(opened: Callable[..., Page]) -> None:
    page = opened()
    page.eval("document.getElementById('text').focus()")
    for _ in range(3):
        page.key("ArrowRight")
    assert "token 4 of" in told(page)
    assert page.eval("document.querySelector('.here').dataset.i") == "3"
    page.key("ArrowLeft")
    page.key("ArrowDown")
    assert "line 2" in told(page)
    page.key("End")
    assert page.eval("document.querySelector('.here').textContent") == "⏎"
    page.key("ArrowUp")
    page.key("Home")
    assert "token 1 of" in told(page)
    page.key("ArrowLeft")
    assert "token 1 of" in told(page), "there is none before"
    page.click(*middle(page, 0, 8))
    assert "token 9 of" in told(page)
    assert page.complaints() == []


def test_units_are_found_and_shown(opened: Callable[..., Page], models: list[dict[str, Any]]) -> None:
    page = opened()
    listed = "[...document.querySelectorAll('#units button')].map((b) => b.dataset.key)"
    group = models[0]["groups"][0]
    order = np.argsort(-np.array(group["series"]["c"]["variance"]), kind="stable")
    assert page.eval(listed) == [f"0.c.{group['units'][u]}" for u in order], "ranked by variance"
    page.key("/")
    for sign in "1.h.3":
        page.key(sign)
    assert page.eval(listed) == ["1.h.3"]
    page.key("Enter")
    values = series(models[0], 1, "h", 3)
    np.testing.assert_allclose(shades(page), values[:60] / np.abs(values).max(), atol=1e-3)
    assert f"1.h.3 = {values[0]:.2g}"[:12] in told(page)
    assert page.eval("document.getElementById('strip-title').textContent") == "Layer 1, unit 3"
    label = page.eval("document.getElementById('strip').getAttribute('aria-label')")
    assert [part.split()[0] for part in label.split(", ")] == ["i", "f", "g", "o", "c", "h"]
    drawn = page.eval(
        "(() => { const c = document.getElementById('strip'), p = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; let n = 0; for (let i = 3; i < p.length; i += 4) n += p[i] > 0;"
        " return n; })()"
    )
    assert drawn > 1000
    page.eval("document.getElementById('text').focus()")
    unit = shades(page)
    page.key("l")
    assert shades(page) != unit
    page.key("u")
    assert shades(page) == unit
    page.eval("((f) => { f.value = ''; f.dispatchEvent(new Event('input')); })(document.getElementById('find'))")
    ranked = page.eval(listed)
    place = ranked.index("1.h.3")
    page.key("[" if place else "]")
    assert page.eval("document.querySelector('#units [aria-current=true]').dataset.key") == ranked[abs(place - 1)]
    assert shades(page) != unit
    page.eval("document.querySelector('#units li:last-child button').click()")
    assert page.eval("document.querySelector('#units li:last-child button').getAttribute('aria-current')") == "true"
    assert page.complaints() == []


def test_the_internal_can_be_switched(opened: Callable[..., Page], models: list[dict[str, Any]]) -> None:
    page = opened()
    page.eval(
        "((s) => { s.value = '0.f'; s.dispatchEvent(new Event('change')); })(document.getElementById('internal'))"
    )
    key = page.eval("document.querySelector('#units [aria-current=true]').dataset.key")
    assert key.startswith("0.f.")
    values = series(models[0], 0, "f", int(key.split(".")[2]))
    np.testing.assert_allclose(shades(page), values[:60] / values.max(), atol=1e-3)


def test_two_models_side_by_side(opened: Callable[..., Page], models: list[dict[str, Any]]) -> None:
    page = opened(2)
    assert page.eval("document.querySelectorAll('.row')[0].childElementCount") == 2
    assert page.eval("document.getElementById('names').innerText").split() == ["<i>bytes</i>", "words"]
    assert page.eval("document.querySelector('[data-m=\"1\"] .t').textContent") == "the"
    page.hover(*middle(page, 1, 1))
    assert told(page).split()[:3] == ["cat", "token", "2"]
    page.eval("document.getElementById('text').focus()")
    for _ in range(5):
        page.key("ArrowRight")
    page.key("m")
    assert told(page).split()[:3] == ["cat", "token", "2"], "the other model at the same place of the text"
    assert page.eval("document.getElementById('model').value") == "1"
    page.key("ArrowRight")
    assert "token 3 of" in told(page)
    choose = "((s) => {{ s.value = '{}'; s.dispatchEvent(new Event('change')); }})(document.getElementById('views'))"
    page.eval(choose.format("0"))
    page.until("document.querySelectorAll('.t').length > 0")
    assert page.eval("document.querySelectorAll('[data-m=\"1\"]').length") == 0
    page.eval(choose.format("both"))
    page.until("document.querySelectorAll('[data-m=\"1\"] .t').length > 0")
    assert page.eval("[...document.getElementById('colour').options].map((o) => o.value)") == ["loss", "unit"]
    assert page.complaints() == []


def test_the_difference_of_two_models_of_the_same_tokens(browser: Browser, tmp_path: Path) -> None:
    two = [_read("one", 1, ByteTokenizer()), _read("two", 2, ByteTokenizer())]
    write_page(tmp_path / "page.html", TEXT, two, "t")
    page = browser.open(tmp_path / "page.html")
    page.until("document.querySelectorAll('.t').length > 0")
    page.eval(
        "((s) => { s.value = 'difference'; s.dispatchEvent(new Event('change')); })(document.getElementById('colour'))"
    )
    wanted = np.clip((bits(two[0]) - bits(two[1])) / 3, -1, 1)
    np.testing.assert_allclose(shades(page), wanted[:60], atol=6e-4)


def test_dark(opened: Callable[..., Page]) -> None:
    colour = "getComputedStyle(document.body).backgroundColor"
    assert opened().eval(colour) == "rgb(255, 255, 255)"
    assert opened(dark=True).eval(colour) == "rgb(22, 24, 29)"


def test_a_text_that_would_run_is_shown(browser: Browser, tmp_path: Path) -> None:
    text = "</script><script>window.owned = 1</script><img src=x onerror='window.owned = 2'>\n<!--\n"
    model = _read("<script>window.owned = 3</script>", 1, ByteTokenizer(), text)
    model["vocabulary"] = ["<img src=x onerror='window.owned = 4'>" for _ in model["vocabulary"]]
    write_page(tmp_path / "page.html", text, [model], "<svg onload='window.owned = 5'>")
    page = browser.open(tmp_path / "page.html")
    page.until("document.querySelectorAll('.t').length > 0")
    page.hover(*middle(page, 0, 4))
    assert page.eval("window.owned === undefined")
    assert "<img src=x" in told(page)
    assert page.eval("document.querySelectorAll('img, svg').length") == 0
    assert page.complaints() == []
