"""Lossless compression of files by any predictor."""

from unrolled.compress.codec import CompressConfig, Sizes, compress, compress_file, decompress, decompress_file
from unrolled.compress.container import Header, file_header, read_header

__all__ = [
    "CompressConfig",
    "Header",
    "Sizes",
    "compress",
    "compress_file",
    "decompress",
    "decompress_file",
    "file_header",
    "read_header",
]
