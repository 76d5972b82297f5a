"""The pages of a server, each one file without anything from elsewhere."""

from unrolled.serve.page.pages import Shown, reader_page, runs_page

__all__ = ["Shown", "reader_page", "runs_page"]
