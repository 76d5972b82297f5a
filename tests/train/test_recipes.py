"""The shipped recipes: sizes equal those of the published systems, and the settings of each one train."""

from pathlib import Path
from typing import Any

import pytest

from train.runs import experiment, record
from unrolled.core.errors import UsageError
from unrolled.core.notes import forget_notes
from unrolled.data import CorpusConfig, MissingCorpusError, corpus_named
from unrolled.model import ModelConfig, count_params, fit_width
from unrolled.tasks.lm_size import facts_of, lm_of
from unrolled.tokenizer import TOKENIZERS
from unrolled.train import ExperimentConfig, train
from unrolled.train.dry_run import dry_run
from unrolled.train.recipes import list_recipes, load_experiment
from unrolled.train.setup import set_up

# Parameters derived from the published sizes and vocabularies.
PARAMETERS = {
    "awd-lstm-ptb": 24_221_600,
    "awd-lstm-wt2": 33_556_078,
    "awd-qrnn-ptb": 24_020_150,
    "awd-qrnn-wt2": 33_354_628,
    "awd-qrnn-wt103": 153_886_638,
    "awd-lstm-ptb-char": 13_787_650,
    "awd-lstm-enwik8": 47_270_045,
    "mos-ptb": 21_500_620,
    "mos-wt2": 34_909_528,
    "mlstm-enwik8": 45_495_405,
    "mlstm-text8": 44_925_627,
    "mlstm-enwik8-early": 20_394_805,
    "mlstm-sentiment": 86_319_360,
    # those of the released models
    "mamba-130m": 129_135_360,
    "mamba2-130m": 128_989_632,
    # as their headers say; published as 200M without 32,768,000 of the embedding, 340M, 1.3B, 168M, 408.4M, 44M
    "retnet-200m": 234_211_328,
    "gla-340m": 341_707_776,
    "gated-deltanet-1.3b": 1_387_348_732,
    "rwkv4-enwik8": 20_692_992,
    "rwkv7-168m": 167_688_192,
    "xlstm-7-1": 408_436_048,
    "hgrn2-wt103": 44_108_288,
    "babyhgrn-teacher": 990_529_536,
    "babyhgrn": 990_529_536,
    "mingru-shakespeare": 6_705_408,
    "s4-wt103": 249_661_306,
    # of the sizes of the authors' code, or of fairseq's model of the paper
    "gcnn14-wt103": 223_480_776,
    "tcn-ptb": 14_659_600,
    "tcn-ptb-char": 2_222_100,
    # of the released configurations
    "recurrentgemma-2b": 2_682_862_080,
    "samba-421m": 421_793_280,
    "fox-125m": 123_926_160,
    "ttt-linear-125m": 110_276_688,
    # of the configurations' sizes
    "lem-ptb": 3_095_312,
    "lem-ptb-char": 5_078_850,
    # published as 14.4M and 27M
    "hyperlstm-ptb-char": 14_407_714,
    "hyperlstm-enwik8": 26_541_773,
    "trellis-ptb": 24_175_600,
    "trellis-ptb-char": 14_525_050,
}
# Budgets under which the published widths are the largest, with the private unknown word of the published vocabulary.
BUDGETS = {
    "lstm-ptb": (951, 24_000_000),
    "mogrifier-ptb": (912, 24_000_000),
    "mogrifier-ptb-char": (1209, 24_000_000),
    "lstm-enwik8-48m": (1218, 48_000_000),
    "mogrifier-enwik8-48m": (1160, 48_000_000),
    "lstm-enwik8-96m": (1725, 96_000_000),
    "mogrifier-enwik8-96m": (1687, 96_000_000),
}
# width and embedding size, whose ratio was tuned
RATIOS = {"lstm-wt2": (1211, 428, 0.35308), "mogrifier-wt2": (1366, 272, 0.19932)}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_the_published_ones(name: str) -> None:
    config = load_experiment(name)
    assert facts_of(config, lm_of(config.vocabulary or 256))["parameters"] == PARAMETERS[name]


@pytest.mark.parametrize("name", BUDGETS)
def test_widths_are_the_largest_under_the_published_budgets(name: str) -> None:
    config, (width, budget) = load_experiment(name), BUDGETS[name]
    assert config.vocabulary is not None
    assert config.model.width == width
    assert fit_width(config.model, config.vocabulary + 1, budget).width == width


@pytest.mark.parametrize("name", RATIOS)
def test_widths_with_a_tuned_embedding_size(name: str) -> None:
    config, (width, size, ratio) = load_experiment(name), RATIOS[name]
    assert (config.model.width, config.model.embedding.size) == (width, size)

    def count(n: int) -> int:
        embedding = config.model.embedding.model_copy(update={"size": round(ratio * n)})
        return count_params(config.model.model_copy(update={"width": n, "embedding": embedding}), 33_279)

    assert count(width) <= 35_000_000 < count(width + 1)


# small recipe -> the full one, its budget, and what it changes besides widths
SIBLINGS: dict[str, tuple[str, int, dict[str, dict[str, Any]]]] = {
    "awd-lstm-ptb-cpu": ("awd-lstm-ptb", 3_000_000, {}),
    "awd-qrnn-ptb-cpu": ("awd-qrnn-ptb", 3_000_000, {}),
    "mos-ptb-cpu": ("mos-ptb", 3_000_000, {"head": {"components": 4}}),
    "mogrifier-ptb-cpu": ("mogrifier-ptb", 3_000_000, {"cell": {"rank": 16}}),
    "mogrifier-ptb-char-cpu": ("mogrifier-ptb-char", 1_500_000, {"cell": {"rank": 16}}),
    "awd-lstm-ptb-char-cpu": ("awd-lstm-ptb-char", 1_500_000, {}),
    "mlstm-text8-cpu": ("mlstm-text8", 1_500_000, {"embedding": {"size": 64}}),
}


@pytest.mark.parametrize("name", SIBLINGS)
def test_small_recipes_have_the_largest_widths_under_their_budgets(name: str) -> None:
    full, budget, changes = SIBLINGS[name]
    base, own = load_experiment(full), load_experiment(name)
    values = base.model.model_dump(mode="json", exclude_none=True)
    for part, options in changes.items():
        values[part].update(options)
    assert base.vocabulary == own.vocabulary
    assert own.vocabulary is not None
    fitted = fit_width(ModelConfig.parse(values), own.vocabulary, budget)
    assert fitted.layer_widths() == own.model.layer_widths()
    assert (fitted.embedding.size or fitted.width) == (own.model.embedding.size or own.model.width)
    assert fitted.head == own.model.head
    assert count_params(fitted, own.vocabulary) == count_params(own.model, own.vocabulary)
    first, second = fitted.layer_cells(), own.model.layer_cells()
    assert [c.model_dump() for c in first] == [c.model_dump() for c in second]
    assert fitted.stack == own.model.stack


def small(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe's values with tiny sizes and two steps a phase."""
    model, train_values = values["model"], values["train"]
    if model.get("widths"):
        model["widths"] = [8] * (len(model["widths"]) - 1) + [6]
        model["embedding"]["size"] = 6
    else:
        model["width"] = 8
        if model["embedding"].get("size"):
            model["embedding"]["size"] = 6
        if model["head"].get("project"):
            model["head"]["project"] = 6
    for part in (model["embedding"], model["head"]):
        if part.get("cutoffs"):
            part.update({"cutoffs": [3, 5], "div_value": 2.0})
    if isinstance(model["cell"], list) and model["layers"] > 4 and not model.get("widths"):
        # one layer of each kind, in the order of the first ones
        kinds = {cell["name"]: cell for cell in model["cell"]}
        model["cell"], model["layers"] = list(kinds.values()), len(kinds)
    if not model.get("widths"):
        model["layers"] = min(model["layers"], 4)
    for cell in model["cell"] if isinstance(model["cell"], list) else [model["cell"]]:
        sizes = {"rank": 3, "factor": 3, "heads": 1, "head": 4, "states": 3, "blocks": 2, "expand": 2}
        for key, value in {**sizes, "hidden": 3, "levels": 3, "aux_frequency": 2}.items():
            if cell.get(key):
                cell[key] = value
        if cell.get("graph"):  # that of a text has as many nodes as the text has symbols, and the width is a multiple
            cell["graph"] = "ring"
    values["stream"].update({"columns": 4, "window": 12, "jitter": min(values["stream"]["jitter"], 20)})
    for phase in (train_values, *train_values["then"]):
        for budget in ("epochs", "tokens", "minutes", "cpu_minutes"):
            phase.pop(budget, None)
        phase["steps"] = 3
        phase["accumulate"] = 1
    train_values.update({"validations": 2, "valid_columns": 2, "valid_tokens": None, "final_eval": False})
    return values


NEURAL = [name for name in list_recipes() if load_experiment(name).task.name == "lm"]


@pytest.mark.parametrize("name", NEURAL)
def test_the_settings_of_every_recipe_train(name: str, text: Path, tmp_path: Path) -> None:
    config = load_experiment(name, corpus=CorpusConfig(path=str(text)))
    values = small(config.model_dump(mode="json", exclude_none=True))
    wanted = load_experiment(name).tokenizer
    assert wanted is not None
    values["tokenizer"] = wanted.model_dump(mode="json", exclude_none=True)
    for extra in (one for one in values["train"]["extra"] if "teachers" in one):
        teacher = load_experiment(f"{name}-teacher", corpus=CorpusConfig(path=str(text)))
        assert (teacher.model, teacher.stream, teacher.tokenizer) == (config.model, config.stream, config.tokenizer)
        shrunk = small(teacher.model_dump(mode="json", exclude_none=True)) | {"tokenizer": values["tokenizer"]}
        extra["teachers"] = [str(train(ExperimentConfig.parse(shrunk), tmp_path / "teacher", "cpu"))]
    if "weights" in values:  # of a finished run of the same model
        plain = {key: value for key, value in values.items() if key != "weights"}
        begun = train(ExperimentConfig.parse(plain), tmp_path / "begun", "cpu")
        values["weights"]["file"] = str(begun / "model.safetensors")
    run = train(ExperimentConfig.parse(values), tmp_path / "run", "cpu")
    assert record(run)["status"] == "finished"
    assert record(run)["steps"] == 3 * len(config.train.phases())


@pytest.mark.parametrize("name", list_recipes())
def test_every_published_figure_is_complete(name: str) -> None:
    config = load_experiment(name)
    assert config.title
    if config.vocabulary and config.task.name == "lm":
        assert dry_run(config)["published"] == [str(figure) for figure in config.published]
    for figure in config.published:
        assert figure.system in str(figure)
        assert figure.valid or figure.test
        assert figure.source
        assert figure.protocol


def test_another_corpus_or_tokenizer_drops_what_belongs_to_the_recipes_own() -> None:
    own = load_experiment("awd-lstm-ptb")
    assert own.vocabulary == 10_000
    assert own.published
    for other in (
        load_experiment("awd-lstm-ptb", corpus=CorpusConfig(name="pydoc")),
        load_experiment("awd-lstm-ptb", ["tokenizer.min_count=3"]),
        load_experiment("awd-lstm-ptb", ["corpus.name=pydoc"]),
    ):
        assert other.vocabulary is None
        assert not other.published
    assert load_experiment("awd-lstm-ptb", ["train.clip=1.0"]).published


def test_a_set_budget_takes_the_place_of_all_phases() -> None:
    assert len(load_experiment("awd-lstm-ptb").train.phases()) == 2
    assert len(load_experiment("awd-lstm-ptb", ["train.clip=1.0"]).train.phases()) == 2
    short = load_experiment("awd-lstm-ptb", ["train.steps=20"]).train
    assert short.budget() == ("steps", 20)
    assert len(short.phases()) == 1
    both = load_experiment("awd-lstm-ptb", ["train.steps=20", "train.then=[{steps=5}]"]).train
    assert [phase.budget() for phase in both.phases()] == [("steps", 20), ("steps", 5)]


def test_a_missing_corpus_is_said_by_its_own_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNROLLED_DATA", str(tmp_path))
    with pytest.raises(MissingCorpusError, match="wikitext-103 is not on this machine"):
        set_up(load_experiment("awd-qrnn-wt103"), "cpu")


def test_the_vocabulary_is_checked(text: Path) -> None:
    values = experiment(text).model_dump(mode="json", exclude_none=True)
    with pytest.raises(UsageError, match="ids where the recipe states 9"):
        set_up(ExperimentConfig.parse({**values, "vocabulary": 9}), "cpu")


def test_documented_figures_belong_to_recipes() -> None:
    import tomllib

    measured = tomllib.loads((Path(__file__).parents[2] / "docs" / "measured.toml").read_text())
    assert set(measured) <= set(list_recipes())


def test_a_text_of_your_own_keeps_what_the_recipe_says_of_reading(tmp_path: Path) -> None:
    """Its tokenizer, stated or that of its corpus, and how the text is cut; what names its files goes."""
    recipe, text = tmp_path / "r.toml", tmp_path / "text.txt"
    text.write_text("some words\n" * 50)
    recipe.write_text('corpus = {name = "ptb", reset = "line", fractions = [0.8, 0.1, 0.1]}\nvocabulary = 10000\n')
    config = load_experiment(str(recipe), (), corpus_named(str(text)))
    assert config.tokenizer == TOKENIZERS.parse("word")
    assert (config.corpus.path, config.corpus.name, config.corpus.reset) == (str(text), None, "line")
    assert (config.corpus.fractions, config.vocabulary) == ((0.8, 0.1, 0.1), None)
    other = load_experiment(str(recipe), (), corpus_named("text8"))
    assert (other.tokenizer, other.corpus) == (None, CorpusConfig(name="text8")), "it has conventions of its own"
    recipe.write_text('corpus.path = "x.txt"\ntokenizer = {name = "word", min_count = 3}\n')
    config = load_experiment(str(recipe), (), corpus_named(str(text)))
    assert config.tokenizer == TOKENIZERS.parse({"name": "word", "min_count": 3})


def test_what_a_setting_leaves_out_is_told(caplog: pytest.LogCaptureFixture) -> None:
    forget_notes()
    load_experiment("awd-lstm-ptb", ["train.steps=3", "train.optimizer.name=adam"])
    assert "the recipe's later phases are left out, since train.steps is set; train.then gives others" in caplog.text
    assert "train.optimizer: adam takes the place of sgd, whose lr" in caplog.text
