"""A trained student as a file for other programs, checked against PyTorch, with a model card.

Each format is one module, of the format's name, with

    FILES    the names of the files that it writes
    write    (graph, folder, calibration) writes them
    load     (folder, graph, threads) reads them back: a function, input -> output, both tensors

``formats.py`` lists the formats and what each needs. ``checked_files.py`` writes them, checks them
(``parity.py``) and measures them (``measure.py``); ``table.py`` shows the result, and ``card.py``
describes the student.
"""
