"""What all data sets share on the way from samples to batches.

``batches.py``: samples, and batches of them. ``loaders.py``: the loaders of an epoch.
``resident.py``: whether samples are stored on the device. ``splits.py``: train/val/test splits.
``limited_labels.py``: fewer or noisy labels. ``checks.py``: checks and the fingerprint.
``folders.py``: error messages about folders. ``image_files.py``: data sets of image files.
``decoding.py``: files to pixels. ``resizing.py``: images of any size to squares.
``disk_array.py``: images in one .npy file. ``packed_files.py``: images in chunks of litdata.
"""
