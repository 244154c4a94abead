"""Errors of the operating system and of allocators that say nothing about what a file holds."""

import errno
import re
from pathlib import Path

from kd_lightning.base.errors import UserError

# In the errors of torch and numpy, which are of several types
NO_MEMORY = re.compile(
    r"can't allocate memory|Cannot allocate memory|Unable to allocate"
    r"|(CUDA|HIP|XPU|MPS backend) out of memory|CUDA error: out of memory"
    r"|CU(BLAS|DNN)_STATUS_ALLOC_FAILED"
)
# What a file is: none, a folder, or one that ends too early
OF_THE_FILE = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory is what lacks."""
    return isinstance(error, MemoryError) or NO_MEMORY.search(str(error)) is not None


def check_readable(path: Path, error: Exception) -> None:
    """Raises an error of reading that says nothing about the file's content: too little memory and
    too many open files as they are, and another one of the operating system, such as that of a
    server that does not answer, as a ``UserError``. The file may be good, and is not to be set
    aside.
    """
    if is_out_of_memory(error) or getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        raise error
    if isinstance(error, OSError) and error.errno not in OF_THE_FILE:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
