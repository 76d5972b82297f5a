"""What pages of HTML have in common: files in ``core/page``, and what they allow of themselves."""

import base64
import hashlib
import importlib.resources
import re
from collections.abc import Mapping

__all__ = ["filled", "shared_file", "source_hash"]

_PLACE = re.compile(r"\{\{(\w+)\}\}")


def source_hash(source: str) -> str:
    """Of a style or script as it stands between its tags, for a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()


def shared_file(name: str) -> str:
    """A style or script that several pages have."""
    return importlib.resources.files("unrolled.core").joinpath("page", name).read_text(encoding="utf-8")


def filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with a part in each place ``{{name}}``; in one pass, so that what is put in is not looked at."""
    return _PLACE.sub(lambda found: parts[found[1]], template)
