"""Requests of the lm-evaluation-harness, answered by predictors."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import unrolled as ur
from serve.tasks import DOCUMENTS, QUESTIONS, write_tasks
from train.runs import experiment, write_text
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.evaluate import open_predictor
from unrolled.predict import Predictor, PredictorConfig
from unrolled.runs import Run
from unrolled.serve.lm_eval import UnrolledLM
from unrolled.tokenizer import TOKENIZERS


class Request(NamedTuple):
    args: tuple[Any, ...]


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("lm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(home / "cache"))
        config = experiment(write_text(home / "text"), train={"steps": 80, "validations": 2, "save_minutes": 9.0})
        return Run(ur.train(config, home / "run", "cpu"), "cpu")


def lm(run: Run, batch_size: int = 16, **predict: Any) -> UnrolledLM:
    return UnrolledLM(open_predictor(run, PredictorConfig.parse(predict)), run.tokenizer, None, batch_size)


PAIRS = [Request((context, " " + answer)) for context, answers, _ in QUESTIONS for answer in answers]
PAIRS += [Request(("", "the cat")), Request(("the dog", "")), Request(("", "\nthe")), Request(("the dog ", "runs"))]


@pytest.mark.parametrize("predict", [{}, {"dynamic": {"rule": "sgd", "lr": 0.5, "segment": 4}}, {"cache": 20}], ids=str)
def test_rolling_is_the_evaluation_of_the_same_text(run: Run, predict: dict[str, Any], tmp_path: Path):
    found = lm(run, **predict).loglikelihood_rolling([Request((text,)) for text in DOCUMENTS])
    for text, answer in zip(DOCUMENTS, found, strict=True):
        (tmp_path / "text.txt").write_text(text)
        result = ur.evaluate(run, corpus=str(tmp_path / "text.txt"), split="whole", predict=predict)
        assert -answer == pytest.approx(result.nats, abs=2e-3)
    if "dynamic" in predict:
        assert found != pytest.approx(lm(run).loglikelihood_rolling([Request((text,)) for text in DOCUMENTS]), abs=1e-2)


def alone(run: Run, context: str, continuation: str) -> tuple[float, bool]:
    """One request, token by token."""
    predictor, tokenizer = open_predictor(run), run.tokenizer
    stripped = context.rstrip() if context else ""
    before = tokenizer.encode(stripped)
    after = tokenizer.encode(context + continuation)[len(before) :]
    state, total, greedy = predictor.begin(1), 0.0, True
    for index in before:
        state = predictor.observe(state, torch.tensor([index]))
    for index in after:
        log_prob = predictor.predict(state).log_prob[0]
        total, greedy = total + float(log_prob[index]), greedy and int(log_prob.argmax()) == index
        state = predictor.observe(state, torch.tensor([index]))
    return total, greedy


def test_batches_and_shared_contexts_change_nothing(run: Run):
    many, one = lm(run), lm(run, batch_size=1)
    found, again, single = many.loglikelihood(PAIRS), many.loglikelihood(PAIRS), one.loglikelihood(PAIRS)
    for request, a, b, c in zip(PAIRS, found, again, single, strict=True):
        total, greedy = alone(run, *request.args)
        assert a == b
        assert a[0] == pytest.approx(total, abs=1e-4)
        assert c[0] == pytest.approx(total, abs=1e-4)
        assert a[1] == c[1] == greedy
    assert found[0][0] == found[3][0]  # the same answer twice is a tie
    assert many.contexts_read == len({request.args[0].rstrip() for request in PAIRS})
    assert found[PAIRS.index(Request(("the dog", "")))] == (0.0, True)


def test_greedy_continuations_are_told(run: Run):
    written = ur.generate(run, "the cat", tokens=6, temperature=0.0)[0].text
    (told,) = lm(run).loglikelihood([Request(("the cat", written))])
    (other,) = lm(run).loglikelihood([Request(("the cat", "cccccc"))])
    assert (told[1], other[1]) == (True, False)


def test_what_one_request_taught_is_forgotten_before_the_next(run: Run):
    predict: dict[str, Any] = {"dynamic": {"rule": "sgd", "lr": 0.5, "segment": 4}}
    learning = lm(run, **predict)
    before = {name: value.clone() for name, value in run.model.named_parameters()}
    found = learning.loglikelihood(PAIRS)
    assert learning.loglikelihood(PAIRS[::-1])[::-1] == found
    assert found != lm(run).loglikelihood(PAIRS)
    assert all(torch.equal(value, before[name]) for name, value in run.model.named_parameters())


def test_texts_go_on_up_to_a_stop_string(run: Run):
    contexts = ["the c", "the cat runs over", "the c"]
    plain = ur.generate(run, contexts, tokens=30, temperature=0.0)
    stop = plain[0].text[3:5]
    asked = {"until": [stop, "qqq"], "max_gen_toks": 30, "do_sample": False}
    requests = [Request((context, asked)) for context in contexts]
    requests.append(Request(("the", {"until": "\n", "max_gen_toks": 5})))
    found = lm(run).generate_until(requests)
    assert found[:3] == [one.text.split(stop)[0] for one in plain]
    assert len(found[3]) <= 5
    assert "\n" not in found[3]
    drawn = lm(run).generate_until([Request(("the", {"do_sample": True, "top_k": 1, "max_gen_toks": 5, "until": []}))])
    assert drawn == [ur.generate(run, "the", tokens=5, temperature=0.0)[0].text]
    with pytest.raises(UsageError, match="num_beams in generation"):
        lm(run).generate_until([Request(("the", {"num_beams": 3}))])


class Half(Predictor):
    """The mean of two predictors' probabilities."""

    def __init__(self, one: Predictor, other: Predictor):
        self.parts, self.vocab_size, self.start_id = (one, other), one.vocab_size, one.start_id

    def begin(self, batch, first=None):
        return tuple(part.begin(batch, first) for part in self.parts)

    def predict(self, state):
        parts = [part.predict(s).log_prob.double() for part, s in zip(self.parts, state, strict=True)]
        from unrolled.predict.base import Prediction

        return Prediction(torch.logsumexp(torch.stack(parts), 0) - torch.tensor(2.0).log(), None)

    def observe(self, state, ids):
        return tuple(part.observe(s, ids) for part, s in zip(self.parts, state, strict=True))


def test_mixtures_and_count_models(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    base = run.config.corpus
    counts = {"title": "counts", "corpus": base, "tokenizer": {"name": "char"}, "task": {"name": "counts", "order": 3}}
    counted = Run(ur.train(counts, tmp_path / "counts", "cpu"), "cpu")
    one, other = open_predictor(run), open_predictor(counted)
    models = [UnrolledLM(part, run.tokenizer) for part in (one, other, Half(one, other))]
    answers = [model.loglikelihood(PAIRS) for model in models]
    rolled = [model.loglikelihood_rolling([Request((DOCUMENTS[0],))])[0] for model in models]
    assert len({round(value, 3) for value in rolled}) == 3
    for a, b, half in zip(*answers, strict=True):
        assert half[0] >= max(a[0], b[0]) - 20 * 0.7  # a mixture is as good as the better part but for log 2 a token
        assert half[0] <= max(a[0], b[0]) + 20 * 0.7
    (tmp_path / "text.txt").write_text(DOCUMENTS[0])
    assert -rolled[1] == pytest.approx(ur.evaluate(counted, corpus=str(tmp_path / "text.txt"), split="whole").nats)
    assert models[1].generate_until([Request(("the", {"max_gen_toks": 4}))])[0]


def test_a_vocabulary_of_words_needs_its_spelling():
    words = TOKENIZERS["word"].train(TOKENIZERS.parse("word"), [b"the cat did n't run <unk> N\n" * 2])

    class Flat(Half):
        def __init__(self):
            self.vocab_size, self.start_id = words.vocab_size, words.start_id

        def begin(self, batch, first=None):
            return torch.zeros(batch, 1)

        def predict(self, state):
            from unrolled.predict.base import Prediction

            return Prediction(
                torch.full((len(state), self.vocab_size), -float(torch.tensor(self.vocab_size).log())), None
            )

        def observe(self, state, ids):
            return state

    with pytest.raises(UsageError, match="say how texts are prepared with --prepare"):
        UnrolledLM(Flat(), words)
    model = UnrolledLM(Flat(), words, "ptb")
    assert model.tok_encode("The cat didn't run, 17!") == words.encode("the cat did n't run N")
    assert model.loglikelihood([Request(("The cat", " didn't run."))])[0][0] == pytest.approx(
        -3 * float(torch.tensor(words.vocab_size).log())
    )


@pytest.mark.slow
def test_tasks_from_files(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import datasets.config as settings

    from unrolled.serve.harness import run_harness

    monkeypatch.setattr(settings, "HF_DATASETS_CACHE", tmp_path / "hf")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder, names = write_tasks(tmp_path / "tasks"), ["tiny_texts", "tiny_choices", "tiny_written"]
    found = run_harness(run, names, folder)
    texts, choices = found["tasks"]["tiny_texts"], found["tasks"]["tiny_choices"]
    nats = 0.0
    for text in DOCUMENTS:
        (tmp_path / "text.txt").write_text(text)
        nats += ur.evaluate(run, corpus=str(tmp_path / "text.txt"), split="whole").nats
    size = sum(len(text.encode()) for text in DOCUMENTS)
    assert texts["figures"]["bits_per_byte"] == pytest.approx(nats / size / float(torch.tensor(2.0).log()), abs=1e-4)
    assert (texts["version"], texts["samples"], found["harness"]["version"][:2]) == (3.0, 3, "0.")
    assert (choices["ties"], choices["samples"]) == (expected_ties(run), 3)
    assert choices["accuracy_ties_shared"] == pytest.approx(expected_accuracy(run))
    assert found["provenance"]["run"] == str(run.path)
    assert '"kind":"static"' in found["protocol"]["comparable_key"]
    again = run_harness(run, ["tiny_choices"], folder, limit=1, batch_size=1)["tasks"]["tiny_choices"]
    assert (again["samples"], again["samples_sha256"] != choices["samples_sha256"]) == (1, True)
    with pytest.raises(UsageError, match="unknown task 'tiny_choice'; did you mean 'tiny_choices'"):
        run_harness(run, ["tiny_choice"], folder)
    (folder / "choices.jsonl").unlink()
    with pytest.raises(UnrolledError, match="the harness could not run tiny_choices"):
        run_harness(run, ["tiny_choices"], folder)


def scores(run: Run) -> list[list[float]]:
    return [
        [lm(run).loglikelihood([Request((context, " " + answer))])[0][0] for answer in answers]
        for context, answers, _ in QUESTIONS
    ]


def expected_ties(run: Run) -> int:
    return sum(row.count(max(row)) > 1 for row in scores(run))


def expected_accuracy(run: Run) -> float:
    return sum(
        (row[gold] == max(row)) / row.count(max(row)) for row, (_, _, gold) in zip(scores(run), QUESTIONS, strict=True)
    ) / len(QUESTIONS)
