"""The work of ``python -m kd_lightning.prepare``: decode or pack an image tree once.

``decode.py`` writes arrays for ``data=prepared``, ``pack.py`` writes chunks for ``data=streamed``,
and ``output_folder.py`` manages the folder that both write.
"""
