"""Building a corpus: its tokens in files of a bounded size, with an index."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.files import atomic_folder, make_folder, sha256_file, write_json
from unrolled.data.built import BUILT_INDEX, BuiltCorpus, BuiltFile, BuiltIndex, BuiltSplit
from unrolled.data.corpus import Corpus
from unrolled.data.tokens import id_file
from unrolled.tokenizer import TOKENIZERS, save_tokenizer
from unrolled.tokenizer.encode import load_or_train_tokenizer, write_split

__all__ = ["SHARD_TOKENS", "build_corpus"]

SHARD_TOKENS = 1 << 30


def build_corpus(
    corpus: Corpus,
    out: Path,
    tokenizer: Config | None = None,
    shard_tokens: int = SHARD_TOKENS,
    progress: Callable[[str, int], None] | None = None,
) -> BuiltIndex:
    """Write a corpus as tokens.

    Args:
        out: a new folder, or an empty one. tokenizer: absent: the corpus's own. shard_tokens: of a file, at most.
        progress: called with a split and the bytes of it encoded so far.
    Raises:
        UsageError: a folder with files in it; a corpus that is built already; text that the tokenizer cannot read.
    """
    if isinstance(corpus, BuiltCorpus):
        raise UsageError(f"{corpus.folder} is built already; name the text that it was built from.")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already; choose another folder.")
    made = load_or_train_tokenizer(tokenizer or TOKENIZERS.parse(corpus.default_tokenizer), corpus)
    make_folder(out.parent)
    if out.exists():
        out.rmdir()
    with atomic_folder(out) as part:
        save_tokenizer(made, part / "tokenizer.json")
        splits = {}
        for split in corpus.splits:
            sizes = write_split(corpus, split, made, part, progress, shard_tokens)
            files = [BuiltFile(tokens=n, sha256=sha256_file(part / id_file(split, i))) for i, n in enumerate(sizes)]
            beside = {ending: part / f"{split}.{ending}" for ending in ("starts", "lost")}
            others: Any = {ending: sha256_file(path) for ending, path in beside.items() if path.exists()}
            text, borders, size, documents = corpus.scan(split)
            splits[split] = BuiltSplit(
                sha256=text, borders=borders, bytes=size, documents=documents, ids=files, others=others
            )
        index = BuiltIndex(
            name=corpus.name, reset=cast(Any, corpus.reset), tokenizer=made.config.model_dump(mode="json"),
            fingerprint=made.fingerprint(), splits=splits,
        )  # fmt: skip
        write_json(part / BUILT_INDEX, index.model_dump(mode="json"))
    return index
