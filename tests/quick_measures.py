"""Makes a process measure a net's throughput by three calls, as all tests do. The server that jobs
are forked from imports it.
"""

from kd_lightning.evaluation import metrics

metrics.MEASURED_SECONDS = 0.0
