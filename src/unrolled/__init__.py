"""unrolled: recurrent language models, trained, measured and run."""

__version__ = "0.1.0"
