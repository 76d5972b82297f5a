"""The engine over HTTP: OpenAI's form of completions, scores, and states that clients own."""

from unrolled.serve.http.app import build_app

__all__ = ["build_app"]
