"""What sweeps have found: tables over seeds, pairs and data sets, from the records alone.

report = build(["outputs/sweeps/…"])
print_report(report, console)
write(report, "outputs/sweeps/…")
"""

from kd_lightning.reports.assemble import Report, build, print_report
from kd_lightning.reports.write_files import write

__all__ = ["Report", "build", "print_report", "write"]
