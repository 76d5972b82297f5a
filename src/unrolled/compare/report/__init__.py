"""What a comparison writes: tables, a record, figures, and a report in Markdown and as one page of HTML."""

from unrolled.compare.report.live import live_page
from unrolled.compare.report.write import write_report

__all__ = ["live_page", "write_report"]
