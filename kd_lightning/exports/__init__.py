"""A trained student as a file for other programs, checked against PyTorch, with a model card.

Each format is one module, of the format's name, with

    FILES    the names of the files that it writes
    write    (graph, folder, calibration) writes them
    load     (folder, graph, threads) reads them back: a function, input -> output, both tensors

``formats.py`` lists the formats and what each needs. ``write_export.py`` is one export from
beginning to end: the student (``source.py``), its graph (``graph.py``), the samples of the check
(``samples.py``), the files (``checked_files.py``, ``parity.py``), the table and the model card.
"""
