"""The members of an untrusted tar, read from the headers alone: nothing is extracted, no content is read.

Python's `tarfile` trusts the headers: it reads an extended header of any length into memory, goes backwards if a size
is negative, and treats any other bytes after the first member as the end of the file. All three are faults here.
"""

import os
import tarfile
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any, cast

from harvest_jax.terminal import one_line

_MAX_HEADER = 64 << 10  # bytes of a member's headers together: a name of 4,096 characters fits several times
_MAX_PADDING = 64 << 10  # bytes after the end mark; GNU tar and Python write up to 10,240


class TarFault(Exception):
    """The tar cannot be read from here on; the text is the reason."""


class _BoundedFile:
    """A file of which `tarfile` can read only `budget` bytes, until the budget is set again for the next member."""

    def __init__(self, file: BufferedIOBase):
        self._file, self.seek, self.tell = file, file.seek, file.tell
        self.budget = _MAX_HEADER

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= self.budget:
            raise TarFault(f"damaged: a member's headers have more than {_MAX_HEADER:,} bytes")
        self.budget -= size
        return self._file.read(size)


def members(file: BufferedIOBase) -> Iterator[tarfile.TarInfo]:
    """All members in order, as their headers describe them.

    Raises:
      TarFault: the rest of the tar cannot be read: cut off or damaged. The members before it can be used.
    """
    length = os.fstat(file.fileno()).st_size
    last = -1
    bounded = _BoundedFile(file)
    try:
        with tarfile.open(fileobj=cast(BufferedIOBase, bounded), mode="r:") as tar:
            forget = cast(Any, tar)
            while (member := tar.next()) is not None:
                if member.offset <= last or member.size < 0:
                    raise TarFault("damaged: a header points backwards")
                if member.isreg() and not member.issparse() and member.offset_data + member.size > length:
                    raise TarFault(f"cut off: {member.name[:100]!r} ends after the end of the file")
                last = member.offset
                forget.members.clear()  # otherwise it keeps all members and extended headers in memory
                forget.pax_headers.clear()
                bounded.budget = _MAX_HEADER
                yield member
            end = tar.offset
    except TarFault:
        raise
    except tarfile.ReadError as error:
        raise TarFault(f"damaged: {one_line(error, 200)}") from error
    except Exception as error:  # for damaged headers tarfile raises a dozen kinds of errors
        raise TarFault(f"damaged: {type(error).__name__}: {one_line(error, 200)}") from error
    mark = os.pread(file.fileno(), 512, end)
    if mark.strip(b"\0"):
        raise TarFault(f"damaged: there is no header at byte {end:,}")
    if len(mark) < 512:
        raise TarFault("cut off: the mark at the end of a tar is missing")
    if os.pread(file.fileno(), _MAX_PADDING, end).strip(b"\0"):
        raise TarFault("damaged: there is data after its end mark, perhaps another tar: store tars as separate files")
