"""Plans: what is refused, and with which sentence; what a system resolves to."""

from pathlib import Path

import pytest

from compare.plans import PLAN, RECIPE, write_plan
from unrolled.compare import read_plan
from unrolled.compare.resolve import resolve
from unrolled.core.errors import UsageError


def changed(old: str, new: str) -> str:
    assert old in PLAN
    return PLAN.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("seeds = [901]", "seeds = [2]", "seed 2 is both a seed and a search seed; keep them apart."),
        ("seeds = [1, 2]", "seeds = [1, 1]", "seeds has 1 twice"),
        ('than = "LSTM"', 'than = "LSTN"', "contrast 'gates': unknown system 'LSTN'; did you mean 'LSTM'?"),
        ('than = "LSTM"', 'than = "GRU"', "contrast 'gates' compares 'GRU' with itself"),
        ("smallest = 0.01", "", "better needs smallest"),
        ('better = "GRU"', "", "give better or first, one of them"),
        ("gates = [", "gate = [", "rule 'the GRU is better': unknown contrast 'gate'; did you mean 'gates'?"),
        ('["better"]', '["best"]', "rule"),
        ("name=gru", "name=lstm", "systems 'LSTM' and 'GRU' are the same configuration; remove one of them."),
        ('"model.cell.name=gru"', '"stream.window=5"', "system 'GRU' sets stream.window, which is held equal"),
        ('"model.cell.name=gru"', '"train.patience=5"', "system 'GRU' sets train.patience, which is held equal"),
        ('"model.cell.name=gru"', '"train.steps=5"', "system 'GRU' sets train.steps, which is held equal"),
        ('"model.cell.name=gru"', '"tokenizer.name=byte"', "system 'GRU' sets tokenizer.name, which is held equal"),
        ('"model.cell.name=gru"', '"seed=5"', "system 'GRU' sets seed, which is held equal"),
        ('"model.cell.name=gru"', '"train.optimizer.lr=1"', "which is searched; give it values"),
        ('"model.cell.name=gru"', '"model.cell.name=gruu"', "system 'GRU': unknown cell 'gruu'; did you mean"),
        ('name = "GRU"', 'name = "LSTM"', "system has 'LSTM' twice"),
        ("tolerance = 0.2", "tolerance = 0.0001", "and no width fits better"),
        ("parameters = 3000", "parameters = 3", "no width fits 3 parameters"),
        ("{{ tokens = 700 }}", "{{ tokens = 700, steps = 4 }}", "a budget is one of"),
        ("{{ tokens = 700 }}", "{{}}", "a budget is one of"),
        ("{{ tokens = 300 }}", "{{ cpu_seconds = 3 }}", "the budget of a search is in tokens, steps or flops"),
        ("values = [0.005, 0.01, 0.02]", "values = [0.01, 0.01]", "search.values has a value twice"),
        ('edge = "report"', 'edge = "extends"', "edge"),
        ("[0.005, 0.01, 0.02]", "[0.005, 1e9]", "system 'LSTM': config key 'train.optimizer.lr': input should be less"),
        ('"train.optimizer.lr"', '"train.optimizer.rate"', "system 'LSTM': unknown config key 'train.optimizer.rate'"),
        ('values = [0.005, 0.01, 0.02]\nbudget = {{ tokens = 300 }}\nseeds = [901]\nedge = "report"',
         'values = [0.0, 0.01]\nbudget = {{ tokens = 300 }}\nseeds = [901]', "search.edge = extend needs values above"),
        ("[match]", 'corpora = ["nowhere/at/all.txt"]\n[match]', "nowhere/at/all.txt does not exist"),
        ("[match]", '[match]\nreference = "QRNN"', "match.reference: unknown system 'QRNN'"),
        ('kind = "unrolled plan"', 'kind = "recipe"', "is no plan"),
        ("[match]", "thread = 2\n[match]", "unknown config key 'thread'; did you mean 'threads'?"),
    ],
)  # fmt: skip
def test_a_mistake_ends_with_its_sentence(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    path = write_plan(tmp_path, changed(old, new))
    with pytest.raises(UsageError) as refused:
        resolve(read_plan(path))
    assert sentence in str(refused.value)


def test_settings_of_the_recipe_given_for_those_of_the_plan(tmp_path: Path) -> None:
    path = write_plan(tmp_path, PLAN)
    with pytest.raises(
        UsageError, match=r"train.steps is of the recipe, and --set is of a plan; a plan says that by mat"
    ):
        read_plan(path, ["train.steps=5"])
    with pytest.raises(UsageError, match=r"model.layers is of the recipe.*; write it into the settings of a plan"):
        read_plan(path, ["model.layers=5"])
    assert read_plan(path, ["threads=2", 'settings=["model.layers=2"]']).threads == 2


def test_a_text_without_validation_split(tmp_path: Path) -> None:
    path = write_plan(tmp_path)
    (tmp_path / "text" / "valid.txt").unlink()
    with pytest.raises(UsageError, match="no validation split, which a comparison measures on"):
        resolve(read_plan(path))


def test_systems_are_matched(tmp_path: Path) -> None:
    lstm, gru = resolve(read_plan(write_plan(tmp_path)))
    assert (lstm.system, gru.system) == ("LSTM", "GRU")
    for one in (lstm, gru):
        assert 2400 < one.parameters <= 3000
        assert (one.tokens, one.search_tokens, one.tokens_per_step) == (700, 300, 48)
        assert one.config.model.params is None
        assert one.config.corpus.splits == ("train", "valid")
        assert one.text.characters
    assert gru.width > lstm.width


def test_another_setting_is_fitted(tmp_path: Path) -> None:
    """The width stays where the factor is what is fitted, and the largest that fits is taken."""
    text = changed('set = ["model.cell.name=gru"]', 'set = ["model.cell.name=mgru"]\nfit = "model.cell.factor"')
    _, one = resolve(read_plan(write_plan(tmp_path, text)))
    assert one.width == 8
    factor = one.config.model.cell.factor  # type: ignore[union-attr]
    assert one.parameters <= 3000
    per_one = (one.parameters - 8 * 3) // factor
    assert one.parameters + per_one > 3000 - per_one
    wrong = changed('set = ["model.cell.name=gru"]', 'set = ["model.cell.name=gru"]\nfit = "train.clip"')
    with pytest.raises(UsageError, match="no setting of the model"):
        resolve(read_plan(write_plan(tmp_path, wrong)))


def test_flops_become_tokens(tmp_path: Path) -> None:
    path = write_plan(tmp_path, changed("{{ tokens = 700 }}", "{{ flops = 3e6 }}"))
    for one in resolve(read_plan(path)):
        assert one.tokens == int(3e6 / (3 * one.flops_per_token))


def test_what_is_held_equal_may_be_freed(tmp_path: Path) -> None:
    text = changed('"model.cell.name=gru"', '"stream.window=5"').replace("[match]", '[match]\nfree = ["stream"]')
    _, one = resolve(read_plan(write_plan(tmp_path, text)))
    assert one.tokens_per_step == 20


def test_settings_on_top_of_a_plan(tmp_path: Path) -> None:
    plan = read_plan(write_plan(tmp_path), ["match.budget.tokens=900", "seeds=[7]"])
    assert plan.match.budget.tokens == 900
    assert plan.seeds == (7,)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('name = "GRU"\n', 'name = "GRU"\nvalues = [0.01, 0.01]\n', "values of system 'GRU' has a value twice"),
        ('"train.optimizer.lr"', '"stream.window"', "search.setting is stream.window, which is held equal"),
        ('"train.optimizer.lr"\nvalues = [0.005, 0.01, 0.02]', '"model.width"\nvalues = [4, 6, 8]',
         "system 'LSTM': model.width = 4 makes"),
        ("[match]", 'settings = ["train.steps=9"]\n[match]', "settings has train.steps, which a plan says"),
        ("seeds = [1, 2]", 'settings = ["train={{then=[{{steps=3}}]}}"]\nseeds = [1, 2]', "have one phase"),
        ("{{ tokens = 700 }}", "{{ flops = 30 }}", "the budget of 30 operations is less than one token takes"),
        ("smallest = 0.01", 'smallest = 0.01\nfigure = "recovery_bit"', "'gates': unknown figure 'recovery_bit'"),
        ("smallest = 0.01", 'smallest = 0.01\nfigure = "recovery_bits"', "unknown figure 'recovery_bits'"),
        ("smallest = 0.01", 'smallest = 0.01\ncorpora = ["texts"]', "contrast 'gates': unknown corpus 'texts'; did"),
        ("parameters = 3000", "state = 16", "system 'GRU' has fit, and match has no parameters"),
    ],
)  # fmt: skip
def test_what_would_not_hold_is_refused(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    text = changed(old, new)
    if "has fit" in sentence:
        text = text.replace('name = "GRU"\n', 'name = "GRU"\nfit = "model.cell.factor"\n')
    with pytest.raises(UsageError) as refused:
        resolve(read_plan(write_plan(tmp_path, text)))
    assert sentence in str(refused.value)


def test_values_of_a_system_can_be_extended(tmp_path: Path) -> None:
    """Else the steps beyond the edge were no numbers."""
    text = changed('edge = "report"', 'edge = "extend"').replace(
        'set = ["model.cell.name=gru"]', 'set = ["model.cell.name=gru"]\nvalues = [0.0, 0.01]'
    )
    with pytest.raises(UsageError, match="values above zero, and values of system 'GRU' has others"):
        read_plan(write_plan(tmp_path, text))


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("window = 12", "window = 6", "stream.window"),
        ("valid_tokens = 200", "valid_tokens = 100", "train.valid_tokens"),
        ('tokenizer.name = "char"', 'tokenizer.name = "byte"', "tokenizer.name"),
        ('title = "tiny"', 'title = "tiny"\ncorpus.fractions = [0.8, 0.1, 0.1]', "corpus.fractions"),
    ],
)
def test_a_recipe_of_its_own_changes_nothing_that_is_held_equal(tmp_path: Path, old: str, new: str, part: str) -> None:
    text = changed('set = ["model.cell.name=gru"]', f'set = ["model.cell.name=gru"]\nrecipe = "{tmp_path}/own.toml"')
    path = write_plan(tmp_path, text)
    own = RECIPE.replace(old, new)
    assert own != RECIPE
    (tmp_path / "own.toml").write_text(own.format(text=tmp_path / "text"))
    with pytest.raises(UsageError) as refused:
        resolve(read_plan(path))
    assert f"system 'GRU': its {part} is not that of the first system" in str(refused.value)
    path.write_text(path.read_text().replace("[match]", f'[match]\nfree = ["{part.partition(".")[0]}", "{part}"]'))
    if part == "tokenizer.name":  # other tokens, whose losses say nothing together
        with pytest.raises(UsageError, match="losses of each token cannot be compared so"):
            resolve(read_plan(path))
    else:
        assert len(resolve(read_plan(path))) == 2


def test_a_recipe_of_its_own_may_name_its_text_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that a search wrote, with a folder that paths begin at, and the splits that it opened."""
    monkeypatch.chdir(tmp_path)
    text = changed('set = ["model.cell.name=gru"]', f'set = ["model.cell.name=gru"]\nrecipe = "{tmp_path}/own.toml"')
    path = write_plan(tmp_path, text)
    (tmp_path / "tiny.toml").write_text(RECIPE.format(text="text"))
    more = f'[corpus]\npath = "text"\nbase = "{tmp_path}"\nsplits = ["train", "valid"]\n'
    (tmp_path / "own.toml").write_text(RECIPE.format(text="text").replace('corpus.path = "text"', "") + more)
    assert len(resolve(read_plan(path))) == 2


def test_threads_are_those_of_the_plan(tmp_path: Path) -> None:
    path = write_plan(
        tmp_path, changed("[match]", "threads = 2\n[match]"), RECIPE.replace("[train]", "[train]\nthreads = 1")
    )
    assert [one.config.train.threads for one in resolve(read_plan(path))] == [2, 2]
