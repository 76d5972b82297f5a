"""Pictures in shades of grey, as PNG."""

import struct
import zlib

import numpy as np

__all__ = ["grey_png"]


def grey_png(picture: np.ndarray) -> bytes:
    """A picture (rows, columns) of uint8, 0 black and 255 white, as a PNG file of 8 bits a point."""
    height, width = picture.shape
    lines = np.zeros((height, width + 1), np.uint8)  # every line begins with its filter: none
    lines[:, 1:] = picture

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(lines.tobytes(), 9)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
