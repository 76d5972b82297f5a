"""The page of runs that go on, without a browser."""

import re

from unrolled.compare.report import live_page
from unrolled.compare.results import CurvePoint

CURVE = [CurvePoint(1_000_000 * i, 1.0 * i, 1 + 1 / i) for i in range(1, 7)]


def test_what_it_shows() -> None:
    page = live_page({"a": CURVE, "b": []}, {"x": "done", "y": "done", "z": "waiting"}, unit="bits per character")
    assert '<meta http-equiv="refresh" content="10">' in page
    assert "<p>3 jobs: 2 done, 1 waiting.</p>" in page
    assert page.count("<polyline") == 1
    assert "a: 1.6831 bits per character" in page
    assert re.findall(r">([\d.]+(?: M)?)</text>", page)[1::2] == ["0", "1.5 M", "3 M", "4.5 M", "6 M"]
    points = re.search(r'points="([^"]+)"', page)
    assert points is not None
    heights = [float(point.split(",")[1]) for point in points[1].split()]
    assert heights == sorted(heights), "losses fall, so the line does"
    assert heights[0] == 10, "what lies above is cut"


def test_it_allows_nothing() -> None:
    page = live_page({"<script>": CURVE}, {"<script>": "<b>"}, "<title>")
    assert "<script" not in page
    assert "default-src 'none'; style-src 'sha256-" in page
    assert "style=" not in page


def test_one_point_and_none() -> None:
    assert "<polyline" in live_page({"a": CURVE[:1]}, {})
    assert "No run has been validated yet." in live_page({"a": []}, {})
    assert "<p>0 jobs: none.</p>" in live_page({}, {})
