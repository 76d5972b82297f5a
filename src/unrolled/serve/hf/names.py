"""Names of the files of an exported folder that are ours."""

__all__ = ["ABOUT", "OWN_TOKENIZER"]

OWN_TOKENIZER, ABOUT = "unrolled_tokenizer.json", "unrolled.json"
