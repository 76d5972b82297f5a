"""Opening corpora: by name from the table, or a user's own text."""

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from unrolled.core.errors import UsageError
from unrolled.core.packed import SUFFIXES
from unrolled.data.built import BuiltCorpus, built_index
from unrolled.data.config import CorpusConfig
from unrolled.data.corpus import Corpus
from unrolled.data.embedded import embedded_parts
from unrolled.data.places import corpus_folders
from unrolled.data.reading import Part
from unrolled.data.slices import sliced_parts
from unrolled.data.spec import SPLITS, WHOLE, CorpusSpec, FileSpec
from unrolled.data.table import CORPORA
from unrolled.data.user import cut_parts, files_at, user_parts

__all__ = ["CorpusConfig", "MissingCorpusError", "find_files", "list_corpora", "open_corpus", "show_corpus"]

_SHOWN = 1000


class MissingCorpusError(UsageError):
    """A known corpus that is not on this machine."""


def _match(folder: Path, spec: FileSpec) -> list[Path]:
    """Files of a spec in a folder, sorted; empty if there is none."""
    for name in spec.names:
        if "*" in name:
            found = [
                p
                for p in folder.glob(name + "*")
                if fnmatch(p.stem if p.suffix in SUFFIXES else p.name, Path(name).name)
            ]
            found = [p for p in found if not any(p.name.startswith(x) for x in spec.exclude)]
            if found:
                return sorted(found)
        else:
            for ending in ("", *SUFFIXES):
                path = folder / (name + ending)
                if path.is_file():
                    return [path]
    return []


def find_files(spec: CorpusSpec, folder: str | None = None) -> dict[str, list[Path]] | None:
    """Key of ``spec.files`` -> files found in ``folder`` or the usual places.

    None unless all of them are in one place.
    """
    places = [Path(folder).expanduser()] if folder else [root / spec.folder for root in corpus_folders()]
    for place in places:
        found = {key: _match(place, file) for key, file in spec.files.items()}
        if all(found.values()):
            return found
    return None


def missing_message(spec: CorpusSpec, folder: str | None = None) -> str:
    """What a user must do to get a corpus that was not found."""
    names = ", ".join(file.names[0] for file in spec.files.values())
    if folder and Path(folder).is_file():
        return (
            f"corpus {spec.name} is looked for in a folder, and {folder} is a file; to use it in place of that corpus, "
            f"say --corpus {folder}."
        )
    if folder:
        return f"corpus {spec.name} is not in {folder}; put there {names} (or the same with .gz, .bz2 or .xz)."
    root = corpus_folders()[0]
    by_hand = f"put {names} (or the same with .gz, .bz2 or .xz) into {root / spec.folder}"
    if spec.downloads:
        return f"corpus {spec.name} is not on this machine; run: unrolled corpora get {spec.name}, or {by_hand}."
    return f"corpus {spec.name} is not on this machine and has no address it could be verified from; {by_hand}."


def open_corpus(config: CorpusConfig | str, whole: bool = False) -> Corpus:
    """Open a corpus.

    Args:
        config: a configuration, or a name of the table.
        whole: take all of your own text at ``path`` as one split of that name, to be measured on.
    Raises:
        UsageError: unknown, not found, or too short to cut; the sentence names the remedy.
    """
    if isinstance(config, str):
        config = CorpusConfig.parse({"name": config})
    place = Path(config.place(config.path)).expanduser() if config.path and not config.name else None
    if place is not None and (index := built_index(place)) is not None:
        if whole:
            raise UsageError(f"{config.path} holds the tokens of a corpus in splits; name one of them with --split.")
        if config.reset not in (None, index.reset):
            raise UsageError(
                f"{config.path} was built with corpus.reset={index.reset}; leave that setting out, or build it again."
            )
        return BuiltCorpus(place, index, config.splits).limited(config.limit_tokens)
    explicit = {split: config.place(path) for split in SPLITS if (path := getattr(config, split))}
    place = config.place(config.path) if config.path else None
    own = bool(explicit or config.path)
    spec = CORPORA.get(config.name or ("" if own else config.label))
    if config.time is not None:
        parts = sliced_parts(config, whole)
    elif whole:
        if spec is not None or not place:
            raise UsageError(f"split {WHOLE!r} is all of a text of your own; name its path with --corpus.")
        parts = {WHOLE: [Part(str(file), file) for file in files_at(place)]}
    elif spec is None or explicit:
        parts = user_parts(place, explicit, config.fractions)
    elif spec.embedded:
        parts = embedded_parts(spec.embedded)
    else:
        parts = _table_parts(spec, place)
    if config.splits is not None and not whole:
        parts = {split: documents for split, documents in parts.items() if split in config.splits}
    reset = config.reset or (spec.reset if spec else "none" if config.time is None else "document")
    layout = config.layout or (spec.layout if spec else "text")
    reading = config.reading or ("text" if spec is None or explicit else "exact")
    return Corpus(config.label, parts, spec, reset, layout, reading).limited(config.limit_tokens)


def _table_parts(spec: CorpusSpec, folder: str | None) -> dict[str, list[Part]]:
    found = find_files(spec, folder)
    if found is None:
        raise MissingCorpusError(missing_message(spec, folder))
    parts = {key: [Part(str(path), path) for path in paths] for key, paths in found.items()}
    for key, file in spec.files.items():
        size = parts[key][0].size() if file.size is not None else None
        # Cheaper than a checksum, and enough to catch a cut-off file and the WikiText-2 without <unk>.
        if size != file.size:
            raise UsageError(
                f"{parts[key][0].name} has {size:,} bytes where {spec.name} has {file.size:,}: it is cut off or "
                "another version; replace it, or read it as a text of your own under another name."
            )
    return cut_parts(parts["all"], spec.cut, spec.name) if spec.cut else parts


def list_corpora() -> list[dict[str, Any]]:
    """Every named corpus: name, description, licence, tokenizer, splits, where it was found, stored bytes."""
    rows: list[dict[str, Any]] = []
    for spec in CORPORA.values():
        files = None if spec.embedded else find_files(spec)
        paths = [path for group in (files or {}).values() for path in group]
        rows.append(
            {
                "name": spec.name,
                "description": spec.description,
                "licence": spec.licence,
                "tokenizer": spec.tokenizer,
                "splits": list(spec.splits),
                "embedded": spec.embedded is not None,
                "found": "with Python" if spec.embedded else str(paths[0].parent) if paths else None,
                "bytes": sum(path.stat().st_size for path in paths) if paths else None,
                "downloadable": bool(spec.downloads),
            }
        )
    return rows


def show_corpus(config: CorpusConfig | str, split: str = "train", n: int = 10) -> list[str]:
    """The first ``n`` lines of a split, without line ends.

    Bytes that are not UTF-8 appear as U+FFFD; of each line at most 1,000 characters are shown.
    """
    lines: list[str] = []
    for block in open_corpus(config).blocks(split):
        lines += block.decode("utf-8", errors="replace").removesuffix("\n").split("\n", n)[:n]
        if len(lines) >= n:
            break
    return [line[:_SHOWN] for line in lines[:n]]
