"""Numbers, plots and pictures per tilt series, from what the newest succeeded jobs wrote.

`series_table` is cheap (JSON only); `write_reports` draws and imports matplotlib when called.
"""

from crboost.quality.metrics import series_notes, series_table
from crboost.quality.reports import REPORTS, write_reports

__all__ = ["REPORTS", "series_notes", "series_table", "write_reports"]
