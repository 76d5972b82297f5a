"""Lossless compression of files by any predictor."""

from unrolled.compress.codec import CompressConfig, Sizes, compress, compress_file, decompress, decompress_file
from unrolled.compress.container import Header, read_header

__all__ = [
    "CompressConfig",
    "Header",
    "Sizes",
    "compress",
    "compress_file",
    "decompress",
    "decompress_file",
    "read_header",
]
