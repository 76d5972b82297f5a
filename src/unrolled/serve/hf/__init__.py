"""Models as those of Hugging Face's transformers, and theirs as ours; transformers is an extra."""
