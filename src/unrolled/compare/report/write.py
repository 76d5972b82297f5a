"""Write everything that a comparison says."""

from pathlib import Path

from unrolled.analyse.plots import plots_wanted
from unrolled.compare.answer import Analysis, analyse
from unrolled.compare.report.figures import draw_figures
from unrolled.compare.report.markdown import report_markdown
from unrolled.compare.report.page import report_page
from unrolled.compare.report.record import comparison_record
from unrolled.compare.report.sections import sections
from unrolled.compare.report.tables import contrasts_tsv, results_tsv
from unrolled.compare.results import Found
from unrolled.core.files import atomic_write, make_folder, write_json

__all__ = ["write_report"]

FIGURES = "figures"


def write_report(found: Found, out: Path, png: bool = False) -> Analysis:
    """Write results.tsv, contrasts.tsv, record.json, report.md, report.html and the folder figures.

    Equal results give equal bytes. Without matplotlib the figures are left out, and the report says so.

    Args:
        out: the folder. png: the figures as PNG too.
    Raises:
        UnrolledError: scipy is not installed; a full disk.
    """
    analysis = analyse(found)
    make_folder(out)
    parts, missing = sections(found, analysis), plots_wanted()
    drawn = []
    if missing is None:
        drawn = draw_figures(found, analysis, make_folder(out / FIGURES), png)
    else:
        parts[0] = parts[0].also("The figures are left out, since matplotlib is not installed.")
    svg = {figure.name: (out / FIGURES / f"{figure.name}.svg").read_text(encoding="utf-8") for figure in drawn}
    atomic_write(out / "results.tsv", results_tsv(found))
    atomic_write(out / "contrasts.tsv", contrasts_tsv(analysis))
    write_json(out / "record.json", comparison_record(found, analysis))
    atomic_write(out / "report.md", report_markdown(found.title, parts, drawn))
    atomic_write(out / "report.html", report_page(found.title, parts, drawn, svg))
    return analysis
