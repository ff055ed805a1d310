"""A folder that behaves as a mounted bucket does, for one process of ours: what is opened to be
written appears when it is closed, and is lost where the process is killed before; a file that is
opened again is a copy until then; no folder can be renamed.

    python -m bucket_mount FOLDER train --workdir FOLDER/run …

is `emergent-alignment train …` there. FOLDER is named as gcsfuse's in a list of mounts of its own.
Held to this is all that Python opens, renames and removes: ours, JAX's compiled programs, and what
Orbax writes itself (its records and marks). The arrays of a checkpoint are not: TensorStore writes
them in C++, each file under another name first, which it closes and renames.
"""

import builtins
import errno
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_real = {name: getattr(os, name) for name in ("open", "close", "rename", "replace", "unlink")}
_real_open = io.open


class Object(io.FileIO):
    """An open file, which takes its name when it is closed."""

    def __init__(self, opened: str | int, mode: str, mount: "BucketMount"):
        super().__init__(opened, mode)
        self._mount, self._number = mount, self.fileno()

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._mount.publish(self._number)


class BucketMount:
    """What stands in for Python's ways to a file, beneath `root`; `hidden` holds what is open."""

    def __init__(self, root: Path, hidden: Path):
        self._root, self._hidden, self._count = str(root.resolve()), hidden, 0
        self._open: dict[int, tuple[str, str]] = {}  # descriptor → where its bytes are, its path

    def install(self) -> None:
        builtins.open = io.open = self.open
        os.open, os.close = self.os_open, self.os_close
        os.rename = os.replace = self.rename
        os.unlink = os.remove = self.unlink

    def is_beneath(self, path) -> bool:
        if isinstance(path, int):
            return False
        path = os.path.abspath(os.fsdecode(path))
        return path == self._root or path.startswith(self._root + os.sep)

    def open(self, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, **more):
        writes, opener = set(mode) & set("wax+"), more.get("opener")
        if opener is not None and writes and self.is_beneath(file):
            file = opener(file, os.O_RDWR)
        ours = file in self._open if isinstance(file, int) else writes and self.is_beneath(file)
        if not ours:
            return _real_open(file, mode, buffering, encoding, errors, newline, **more)
        kind = mode.replace("b", "").replace("t", "")
        if isinstance(file, int):
            raw = Object(file, kind, self)
        else:
            hidden = self._hide(file, keeps=kind[0] in "ar", new=kind[0] == "x")
            raw = Object(hidden, kind.replace("x", "w"), self)
            self._open[raw.fileno()] = hidden, os.fspath(file)
            raw.name = os.fspath(file)
        if buffering == 0:
            return raw
        buffered = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    def os_open(self, path, flags, mode=0o777, *, dir_fd=None):
        if dir_fd is not None or not flags & _WRITES or not self.is_beneath(path):
            return _real["open"](path, flags, mode, dir_fd=dir_fd)
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), path)
        if not flags & os.O_CREAT and not os.path.exists(path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        hidden = self._hide(path, keeps=not flags & os.O_TRUNC, new=bool(flags & os.O_EXCL))
        descriptor = _real["open"](hidden, flags & ~os.O_EXCL | os.O_CREAT, mode)
        self._open[descriptor] = hidden, os.fspath(path)
        return descriptor

    def os_close(self, descriptor):
        _real["close"](descriptor)
        self.publish(descriptor)

    def rename(self, old, new, **more):
        if os.path.isdir(old) and (self.is_beneath(old) or self.is_beneath(new)):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), old, None, new)
        _real["replace"](old, new, **more)

    def unlink(self, path, *, dir_fd=None):
        held = [number for number, (_, of) in self._open.items() if of == path]
        for number in held:
            del self._open[number]
        if not held or os.path.exists(path):
            _real["unlink"](path, dir_fd=dir_fd)

    def publish(self, descriptor: int) -> None:
        """A closed file is there."""
        if descriptor in self._open:
            hidden, path = self._open.pop(descriptor)
            shutil.copyfile(hidden, f"{hidden}.whole")
            _real["replace"](f"{hidden}.whole", path)

    def _hide(self, path, *, keeps: bool, new: bool) -> str:
        """Where the bytes of a file that is open are."""
        if new and os.path.exists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if not os.path.isdir(os.path.dirname(os.path.abspath(path))):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self._count += 1
        hidden = f"{self._hidden}/{os.getpid()}-{self._count}"
        if keeps and os.path.exists(path):
            shutil.copyfile(path, hidden)
        return hidden


def mounted(root: Path) -> BucketMount:
    """From now on, in this process, `root` is a mounted bucket; its hidden files lie beside it, and
    on its file system."""
    from emergent_alignment.storage import mounts

    hidden = Path(tempfile.mkdtemp(prefix="open-", dir=root.parent))
    table = hidden / "mounts"
    table.write_text(f"proc /proc proc rw 0 0\nbucket {root.resolve()} fuse.gcsfuse rw 0 0\n")
    mounts.MOUNTS = table
    mount = BucketMount(root, hidden)
    mount.install()
    return mount


if __name__ == "__main__":
    from emergent_alignment.cli.main import main

    mounted(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))
