"""report.html and preview.png: what a world is made of and how sure it is, for people."""

from lyra_core.report.write import ReportInputs, write_report

__all__ = ["ReportInputs", "write_report"]
