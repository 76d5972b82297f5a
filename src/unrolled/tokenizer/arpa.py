"""Names of ids in files of n-grams."""

from unrolled.tokenizer.base import Tokenizer

__all__ = ["arpa_words"]


def arpa_words(tokenizer: Tokenizer) -> list[str]:
    """A name for every id that the ARPA format can hold: its text, where white space and bytes that are no text are
    written as ``<0x20>``. A character that is ``<`` stays as it is."""
    names: list[str] = []
    for index, piece in enumerate(tokenizer.pieces):
        text = piece.decode("utf-8", "backslashreplace") if piece else "<eos>"
        name = "".join(f"<0x{ord(sign):02x}>" if sign.isspace() else sign for sign in text)
        names.append(name if index != tokenizer.end_id else "<eos>")
    return names
