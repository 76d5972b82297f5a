"""Scripts whose words stand side by side without spaces."""

from bisect import bisect_right

__all__ = ["joins_without_space"]

# First and last code point of blocks of the Unicode standard, in order: Thai and Lao, Tibetan, Myanmar, Khmer, the
# ideographs and kana with their punctuation, Yi, compatibility and full-width forms, the supplementary ideographs.
_BLOCKS = (
    (0x0E00, 0x0EFF), (0x0F00, 0x0FFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x19E0, 0x19FF), (0x1A20, 0x1AAF),
    (0x2E80, 0x312F), (0x3190, 0xA4CF), (0xA9E0, 0xA9FF), (0xAA60, 0xAA7F), (0xF900, 0xFAFF), (0xFE30, 0xFE4F),
    (0xFF00, 0xFF9F), (0xFFE0, 0xFFEF), (0x16FE0, 0x18DFF), (0x1AFF0, 0x1B2FF), (0x20000, 0x3FFFF),
)  # fmt: skip
_FIRST = [first for first, _ in _BLOCKS]


def _unspaced(sign: str) -> bool:
    index = bisect_right(_FIRST, ord(sign)) - 1
    return index >= 0 and ord(sign) <= _BLOCKS[index][1]


def joins_without_space(before: str, after: str) -> bool:
    """Whether a word that ends with the sign ``before`` and one that begins with ``after`` are written together."""
    return _unspaced(before) or _unspaced(after)
