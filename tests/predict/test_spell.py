"""Symbols from a token model: exact where the token model is exact."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from predict.exact_tokens import MOVES, TableLM, chance, texts
from train.runs import experiment
from unrolled.core.errors import UsageError
from unrolled.core.tree import select_rows
from unrolled.evaluate import open_predictor
from unrolled.predict import NeuralPredictor, Prediction, Predictor
from unrolled.predict.spell import SpelledPredictor
from unrolled.runs import Run
from unrolled.tokenizer import TOKENIZERS, Tokenizer
from unrolled.tokenizer.byte import ByteTokenizer
from unrolled.tokenizer.subword import BPETokenizer, byte_letters
from unrolled.tokenizer.symbols_of import Sheet, Spelling, spelling_of
from unrolled.train import train


class Prefixes(ByteTokenizer):
    """The longest piece that fits, or the one piece of a prefix code."""

    def __init__(self, pieces: Sequence[bytes]):
        super().__init__()
        self.pieces = list(pieces)

    def encode(self, text: str, end: bool = False) -> list[int]:
        """Ids, as far as a piece fits."""
        data, ids = text.encode(), []
        while fit := [i for i, piece in enumerate(self.pieces) if data.startswith(piece)]:
            ids.append(max(fit, key=lambda i: len(self.pieces[i])))
            data = data[len(self.pieces[ids[-1]]) :]
        return ids


class PrefixSpelling(Spelling):
    def __init__(self, tokenizer: Prefixes):
        super().__init__(tokenizer, [Sheet([tuple(piece) for piece in tokenizer.pieces])])

    def kept(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        return ids

    def find_allowed(self, ids: tuple[int, ...]) -> np.ndarray:
        strings = [[*ids, one] for one in range(self.tokenizer.vocab_size)]
        return np.array([self.tokenizer.encode(self.tokenizer.decode(each)) == each for each in strings])


def merged(*pairs: str) -> BPETokenizer:
    """Byte-pair encoding of given merges."""
    plain = BPETokenizer.train(BPETokenizer.Config(size=258), [b"x\n"]).to_json()["tokenizers"]
    value = json.loads(json.dumps(plain))
    names = [*sorted(byte_letters()), *(pair.replace(" ", "") for pair in pairs)]
    value["model"]["vocab"] = {name: index for index, name in enumerate(names)}
    value["model"]["merges"] = [pair.split() for pair in pairs]
    return BPETokenizer(BPETokenizer.Config(size=300), value)


def spelling(name: str) -> Spelling:
    if name == "merges":
        return spelling_of(merged("A B", "AB A", "B B"))
    return PrefixSpelling(Prefixes({"longest": [b"A", b"B", b"AA"], "code": [b"A", b"BA", b"BB"]}[name]))


def direct(lm: Predictor, tokenizer: Tokenizer, text: str, before: str = "") -> float:
    """The chance of A by prompting with the tokens of the text, as is usual."""
    ids = torch.tensor([tokenizer.encode(before + text)], dtype=torch.int64)
    row = lm.predict(lm.consume(lm.begin(1), ids)).log_prob[0]
    masses = [float(row[i].exp()) for i, piece in enumerate(tokenizer.pieces) if piece[:1] in (b"A", b"B")]
    first = sum(
        m for m, p in zip(masses, (p for p in tokenizer.pieces if p[:1] in (b"A", b"B")), strict=True) if p[:1] == b"A"
    )
    return first / sum(masses) if sum(masses) else 0.0


@pytest.mark.parametrize("name", ["longest", "code", "merges"])
def test_exact_for_a_markov_chain(name: str) -> None:
    found = spelling(name)
    lm = TableLM(found.tokenizer.encode, found.tokenizer.vocab_size)
    symbols = SpelledPredictor(lm, found)
    states, nats = {"": symbols.begin(1)}, {"": 0.0}
    worst = wrong = 0.0
    for text in [text for length in range(1, 8) for text in texts(length)]:
        before, sign = states[text[:-1]], ord(text[-1])
        nats[text] = nats[text[:-1]] - float(symbols.predict(before).log_prob[0, sign])
        states[text] = symbols.observe(before, torch.tensor([sign]))
        assert abs(math.exp(-nats[text]) - chance(text)) < 1e-12
        row = symbols.predict(states[text]).log_prob[0].exp()
        assert abs(float(row.sum()) - 1) < 1e-12
        wanted = chance(text + "A") / chance(text)
        worst = max(worst, abs(float(row[ord("A")]) - wanted))
        wrong = max(wrong, abs(direct(lm, found.tokenizer, text) - wanted))
    assert len(states) == 1 + 254
    assert worst < 1e-9
    assert wrong > 0.3


def test_few_tokens_are_read() -> None:
    found = spelling("merges")
    lm = TableLM(found.tokenizer.encode, found.tokenizer.vocab_size)
    symbols = SpelledPredictor(lm, found)
    symbols.window(symbols.begin(1), torch.tensor([list(b"ABBABABBAA")]))
    assert lm.read <= 10  # at most one a symbol
    assert symbols.told["symbols"]["symbols"] == 10
    assert symbols.told["symbols"]["invalid"] < 1e-12


def test_rows_and_states_are_values() -> None:
    found = spelling("longest")
    symbols = SpelledPredictor(TableLM(found.tokenizer.encode, 3), found)
    both = symbols.begin(2)
    for one, other in zip(b"AABA", b"BAAB", strict=True):
        before, both = both, symbols.observe(both, torch.tensor([one, other]))
        assert torch.equal(symbols.observe(before, torch.tensor([one, other])).weight, both.weight)
    alone = symbols.consume(symbols.begin(1), torch.tensor([list(b"BAAB")]))
    row = select_rows(both, torch.tensor([1]))
    assert torch.equal(symbols.predict(row).log_prob, symbols.predict(alone).log_prob)
    again = symbols.restarted(both, torch.tensor([False, True]))
    assert torch.equal(symbols.predict(again).log_prob[1:], symbols.predict(symbols.begin(1)).log_prob)


TEXT = (
    "It's here, isn't it?  They'll say: 'we've 12 345 cafés'…\n\nNaïve  ölige Äpfel — 10 €\u00a0each\t\n"
    "l'été où l'âme''ll   e s'll rêvé 東京 is éé 'é 'll'll\n"
)


@pytest.mark.parametrize("name", ["bpe", "unigram"])
@pytest.mark.parametrize("end", ["document", "line"])
def test_the_covers_of_a_text_are_its_tokens(name: str, end: str) -> None:
    """A whole beginning has a string of tokens that ends with it, what the tokenizer makes of it; mostly no other."""
    cls = TOKENIZERS[name]
    tokenizer = cls.train(cls.Config.parse({"name": name, "size": 420, "end": end}), [(TEXT * 4).encode()])
    symbols = SpelledPredictor(Even(tokenizer.vocab_size), spelling_of(tokenizer))
    state, data = symbols.begin(1), TEXT.encode()
    for size, sign in enumerate(data, 1):
        log_prob = symbols.predict(state).log_prob
        assert abs(float(log_prob.exp().sum()) - 1) < 1e-9
        state = symbols.observe(state, torch.tensor([sign]))
        try:
            text = data[:size].decode()
        except UnicodeDecodeError:
            continue
        whole = [slot for slot in (state.weight[0] > -math.inf).nonzero()[:, 0] if state.span[0, slot, 2] == 0]
        found = {int(state.base[0, slot, 0]) for slot in whole}
        assert len(found) == len(whole) <= (1 if text[-1].isalpha() and text[-2:] not in ("'l", "'r", "'v") else 3)
        assert Even.digest(tokenizer.encode(text)) in found


class Even(NeuralPredictor):
    """All tokens are as likely; the state is a digest of those that were read."""

    def __init__(self, size: int):
        self.vocab_size, self.start_id = size, 0
        self.model = None  # type: ignore[assignment]

    device = torch.device("cpu")  # type: ignore[assignment]

    @staticmethod
    def digest(ids: Sequence[int]) -> int:
        value = 7
        for one in ids:
            value = (value * 1_000_003 + one + 1) % 2_147_483_647
        return value

    def begin(self, batch, first=None):
        return torch.full((batch, 1), 7)

    def predict(self, state):
        return Prediction(torch.full((len(state), self.vocab_size), -math.log(self.vocab_size)), None)

    def observe(self, state, ids):
        return (state * 1_000_003 + ids.unsqueeze(1) + 1) % 2_147_483_647  # type: ignore[operator]


def test_words_are_spelled_with_their_spaces() -> None:
    cls = TOKENIZERS["word"]
    tokenizer = cls.train(cls.Config.parse({"name": "word", "min_count": 1}), [b"the then\nthese the\n"])
    symbols = SpelledPredictor(Even(tokenizer.vocab_size), spelling_of(tokenizer))
    nats = symbols.window(symbols.begin(1), torch.tensor([list(b"then the\n")])).nll
    assert float(nats.sum()) == pytest.approx(3 * math.log(tokenizer.vocab_size))
    state = symbols.consume(symbols.begin(1), torch.tensor([list(b"the")]))
    row = symbols.predict(state).log_prob[0].exp()
    # the, then and these are left; after "the" comes any of the others
    assert float(row[ord("n")]) == pytest.approx(1 / 3)
    assert float(row[ord(" ")] + row[10]) == pytest.approx(1 / 3)
    with pytest.raises(UsageError, match="only those of the vocabulary"):
        symbols.observe(state, torch.tensor([ord("q")]))


def test_what_cannot_be_spelled() -> None:
    with pytest.raises(UsageError, match="symbols already"):
        spelling_of(ByteTokenizer())
    cls = TOKENIZERS["number"]
    with pytest.raises(UsageError, match="leave out the symbols"):
        spelling_of(cls(cls.Config()))  # type: ignore[call-arg]
    found = spelling("code")
    lm = TableLM(found.tokenizer.encode, 3)
    lm.lockstep = True
    with pytest.raises(UsageError, match="leave out that setting"):
        SpelledPredictor(lm, found)


@pytest.mark.slow
def test_a_trained_model_is_far_nearer_than_prompting(tmp_path: Path) -> None:
    """After five times 155,000 tokens of the chain the mean error is below a tenth of that of prompting with tokens."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "chain"
    folder.mkdir()
    for split, count in (("train", 20_000), ("valid", 200), ("test", 200)):
        lines = []
        for _ in range(count):
            line = "AB"[int(rng.random() < 0.5)]
            while len(line) < 12:
                line += "A" if rng.random() < MOVES[line[-1]]["A"] else "B"
            lines.append(line)
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    config = experiment(
        folder, tokenizer={"name": "bpe", "size": 260, "end": "line"}, stream={"columns": 32, "window": 16},
        model={"width": 32, "layers": 2, "compute": {}},
        train={"steps": 1500, "validations": 2, "save_minutes": 9.0, "optimizer": {"name": "adam", "lr": 0.01}},
    )  # fmt: skip
    run = Run(train(config, tmp_path / "run", "cpu"), "cpu")
    with open_predictor(run) as lm:
        symbols = SpelledPredictor(lm, spelling_of(run.tokenizer))
        exact, prompted = [], []
        before = "".join(line + "\n" for line in lines[:4])  # the state of a model that has read lines
        states = {"": symbols.consume(symbols.begin(1), torch.tensor([list(before.encode())]))}
        for text in [text for length in range(1, 8) for text in texts(length)]:
            states[text] = symbols.observe(states[text[:-1]], torch.tensor([ord(text[-1])]))
            row = symbols.predict(states[text]).log_prob[0].exp()
            wanted = chance(text + "A") / chance(text)
            exact.append(abs(float(row[65] / (row[65] + row[66])) - wanted))
            prompted.append(abs(direct(lm, run.tokenizer, text, before) - wanted))
    assert np.mean(exact) < 0.1 * np.mean(prompted), (np.mean(exact), np.mean(prompted))
