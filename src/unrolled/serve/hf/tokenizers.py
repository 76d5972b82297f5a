"""Tokenizers as those of transformers: the same ids for every text, and special tokens that are no text."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as Engine

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.tokenizer import Tokenizer
from unrolled.tokenizer.subword import byte_letters, byte_level

__all__ = ["ENGINES", "Special", "fast_tokenizer", "specials"]

_PAD, _START, _END = "<|pad|>", "<|start|>", "<|end|>"
_NOTHING = "<|no unknown symbol|>"
_PROBE = "The cat sat on the mat , and that 's it .\n\n A second line\tof <unk> words: 12.5 %, naïve — “yes”\r\n  x  \n"


class Special(NamedTuple):
    """Ids of the tokens that are no text. pad and start lie above the model's own, end among them or None."""

    pad: int
    start: int
    end: int | None


def specials(tokenizer: Tokenizer) -> Special:
    """The ids of an exported tokenizer. The end is one where the end symbol stands for no text."""
    size, end = tokenizer.vocab_size, tokenizer.end_id
    return Special(size, size + 1, end if end is not None and not tokenizer.pieces[end] else None)


def _byte(tokenizer: Tokenizer) -> Engine:
    letters = {value: letter for letter, value in byte_letters().items()}
    known = [letters[piece[0]] if len(piece) == 1 else piece.decode() for piece in tokenizer.pieces]
    engine = _table(tokenizer, known)
    each = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    engine.pre_tokenizer = pre_tokenizers.Sequence([byte_level(use_regex=False), each])  # type: ignore[assignment]
    engine.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return engine


def _char(tokenizer: Tokenizer) -> Engine:
    engine = _table(tokenizer, [piece.decode() for piece in tokenizer.pieces])
    engine.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")  # type: ignore[assignment]
    engine.decoder = decoders.Fuse()  # type: ignore[assignment]
    return engine


def _words(tokenizer: Tokenizer) -> Engine:
    """Line ends are a word of their own, and words are written with one space between, none at the ends of lines."""
    engine = _table(tokenizer, [piece.decode() for piece in tokenizer.pieces])
    blanks = "".join(f"\\x{value:02x}" for value in tokenizer.blanks)
    parts = [pre_tokenizers.Split("\n", "isolated"), pre_tokenizers.Split(Regex(f"[{blanks}]+"), "removed")]
    engine.pre_tokenizer = pre_tokenizers.Sequence(parts)  # type: ignore[assignment]
    spaced = decoders.WordPiece(prefix=_NOTHING, cleanup=False)
    joined = [spaced, decoders.Fuse(), decoders.Replace(Regex(" ?\n ?"), "\n")]
    engine.decoder = decoders.Sequence(joined)  # type: ignore[assignment]
    return engine


def _subword(tokenizer: Tokenizer) -> Engine:
    """The engine itself, on each line by itself as ours; a line end that is a symbol is taken out before."""
    engine = Engine.from_str(_json(tokenizer.to_json()["tokenizers"]))
    end = tokenizer.end_id
    assert end is not None
    if tokenizer.pieces[end]:
        engine.add_tokens([AddedToken("\n", normalized=False, special=False)])
    else:
        engine.add_special_tokens([AddedToken(_END, normalized=False)])
        parts = [pre_tokenizers.Split("\n", "merged_with_previous"), byte_level()]
        engine.pre_tokenizer = pre_tokenizers.Sequence(parts)  # type: ignore[assignment]
    engine.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return engine


def _pretrained(tokenizer: Tokenizer) -> Engine:
    """The engine that was imported; ids of the model that it lacks get names."""
    engine = Engine.from_str(_json(tokenizer.to_json()["tokenizers"]))
    lacking = tokenizer.vocab_size - engine.get_vocab_size()
    engine.add_special_tokens([AddedToken(f"<|unused {i}|>", normalized=False) for i in range(lacking)])
    return engine


def _sequences(tokenizer: Tokenizer) -> Engine:
    raise UsageError(
        f"tokens of several words ({tokenizer.kind}) have no form of transformers; export the run that they were added "
        "to."
    )


def _json(value: Any) -> str:
    import json

    return json.dumps(value)


def _table(tokenizer: Tokenizer, names: list[str]) -> Engine:
    """Whole words or signs by their names; one that is not there is the unknown one, or an error of the engine."""
    unknown = getattr(tokenizer, "unk_id", None)
    vocabulary = {name: index for index, name in enumerate(names)}
    return Engine(models.WordLevel(vocabulary, unk_token=_NOTHING if unknown is None else names[unknown]))


ENGINES: dict[str, Callable[[Tokenizer], Engine]] = {
    "byte": _byte,
    "char": _char,
    "number": _char,
    "word": _words,
    "symbols": _words,
    "bpe": _subword,
    "unigram": _subword,
    "pretrained": _pretrained,
    "multiword": _sequences,
}
"""Kind of tokenizer -> what makes the engine that encodes alike."""


def fast_tokenizer(tokenizer: Tokenizer) -> Any:
    """A tokenizer of transformers that encodes as this one, and puts the start before every text.

    Padding is at the left. ``<|start|>`` stands for the symbol that the model reads first, ``<|pad|>`` for nothing;
    both have ids of their own above the vocabulary, so that a line end remains text.

    Raises:
        UsageError: a kind that cannot be written so. UnrolledError: the two do not encode alike.
    """
    from transformers import PreTrainedTokenizerFast

    if tokenizer.kind not in ENGINES:
        raise UsageError(f"a tokenizer of kind {tokenizer.kind} has no form of transformers; export another run.")
    engine, ids = ENGINES[tokenizer.kind](tokenizer), specials(tokenizer)
    engine.add_special_tokens([AddedToken(name, normalized=False) for name in (_PAD, _START)])
    start = {"id": _START, "ids": [ids.start], "tokens": [_START]}
    engine.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=[_START, "$A"], pair=[_START, "$A", "$B"], special_tokens=[start]
    )
    if (engine.token_to_id(_PAD), engine.token_to_id(_START)) != (ids.pad, ids.start):
        raise UnrolledError("the vocabulary has a symbol twice, and cannot be written in the form of transformers.")
    _check(tokenizer, engine)
    named = {"bos_token": _START, "pad_token": _PAD}
    if ids.end is not None:
        named["eos_token"] = engine.id_to_token(ids.end) or _END
    return PreTrainedTokenizerFast(
        tokenizer_object=engine,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **named,
    )


def _check(tokenizer: Tokenizer, engine: Engine) -> None:
    """Raises UnrolledError where a text of many symbols is not encoded, or not written, as by ours."""
    for text in _probes(tokenizer):
        try:
            own = tokenizer.encode(text)
        except UsageError:  # a sign that the vocabulary lacks; the engine raises an error of its own
            continue
        if engine.encode(text, add_special_tokens=False).ids != own:
            raise UnrolledError(f"the exported tokenizer would read {text[:60]!r} otherwise; report this.")
        # some engines leave out the blank before a text
        if engine.decode(own, skip_special_tokens=True).lstrip(" ") != tokenizer.decode(own).lstrip(" "):
            raise UnrolledError(f"the exported tokenizer would write {text[:60]!r} otherwise; report this.")


def _probes(tokenizer: Tokenizer) -> Iterator[str]:
    step = max(1, tokenizer.vocab_size // 2000)
    names = [piece.decode("utf-8", errors="ignore") for piece in tokenizer.pieces[::step]]
    yield from (_PROBE, _PROBE.lower().replace("\r", ""), " ".join(names), "".join(names), "\n".join(names))
    yield from (name for name in names[:200] if name)
