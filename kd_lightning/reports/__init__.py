"""Builds the tables of sweeps and runs from their files on disk. Nothing is trained here.

Names that are easily confused:

- ``kd_lightning/report.py`` is the command ``python -m kd_lightning.report``;
- ``kd_lightning/reports/`` is this package; it builds, prints and writes the tables;
- ``JobResult`` (``job_results.py``) is the result of one job;
- ``Published`` (``published.py``) holds numbers that a paper has published;
- ``kd_lightning/records/`` defines run directories and job directories on disk.

report = build(["outputs/sweeps/…"])
print_report(report, console)
write(report, "outputs/sweeps/…")
"""

from kd_lightning.reports.assemble import Report, build, print_report
from kd_lightning.reports.write_files import write

__all__ = ["Report", "build", "print_report", "write"]
