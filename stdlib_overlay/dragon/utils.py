"""Small helpers: base64 text of descriptions, numbers of machine and bytes, names of processes.

What exchanges data with other languages or asks services that do not exist here raises
NotImplementedError, which says what is missing.
"""

from __future__ import annotations

import base64
import binascii
import ctypes
import enum
import hashlib
import os
import threading
from pathlib import Path
from typing import NoReturn

import _dragon
from dragon.dtypes import getlasterrstr

__all__ = [
    "B64",
    "ExceptionalThread",
    "SerType",
    "TimeKeeper",
    "XByteBufferPickler",
    "XNumPy2DMatrixPickler",
    "XNumPyVectorPickler",
    "XPickler",
    "XScalarPickler",
    "XStringPickler",
    "b64decode",
    "b64encode",
    "get_cpu_count",
    "get_hugepage_mount",
    "get_local_kv",
    "get_local_rt_uid",
    "getlasterrstr",
    "hash",
    "host_id",
    "host_id_from_k8s",
    "set_core_affinity",
    "set_host_id",
    "set_local_kv",
    "set_procname",
    "strtobool",
]

_PROCNAME_BYTES = 15  # what the kernel keeps of a thread's name


class B64:
    """Bytes that travel as base64 text: descriptions of pools, channels and blocks.

    Args:
        data: the bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._text = self.bytes_to_str(data)

    @classmethod
    def from_str(cls, serialized_str: str) -> B64:
        """Make one from its text.

        Raises:
            ValueError: it is not base64 text.
        """
        return cls(cls.str_to_bytes(serialized_str))

    @staticmethod
    def bytes_to_str(the_bytes: bytes) -> str:
        """Encode bytes."""
        return base64.b64encode(the_bytes).decode("ascii")

    @staticmethod
    def str_to_bytes(the_str: str) -> bytes:
        """Decode text.

        Raises:
            ValueError: it is not base64 text.
        """
        try:
            return base64.b64decode(the_str, validate=True)
        except binascii.Error as error:
            raise ValueError(f"not base64 text: {error}") from error

    def decode(self) -> bytes:
        """The bytes."""
        return base64.b64decode(self._text)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"B64.from_str({self._text!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, B64) and self._text == other._text

    def __hash__(self) -> int:
        return self._text.__hash__()


def b64encode(the_bytes: bytes) -> str:
    """Encode bytes as base64 text."""
    return B64.bytes_to_str(the_bytes)


def b64decode(the_str: str) -> bytes:
    """Decode base64 text.

    Raises:
        ValueError: it is not base64 text.
    """
    return B64.str_to_bytes(the_str)


def hash(byte_str: bytes) -> int:
    """Hash bytes to a number below 2**64, the same in every process and on every machine."""
    return int.from_bytes(hashlib.blake2b(byte_str, digest_size=8).digest(), "little")


_host_id: int | None = None  # once it is known, or set


def host_id() -> int:
    """The number of this machine: the same in all its processes until it is started anew."""
    global _host_id
    if _host_id is None:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        _host_id = hash(boot.strip() + os.uname().nodename.encode())
    return _host_id


def set_host_id(id: int) -> None:
    """Let ``host_id()`` be another number from now on, in this process and its forked copies.

    What was described before is then of another machine.

    Raises:
        TypeError, OverflowError: id is no number from 0 to 2**64 - 1.
    """
    global _host_id
    if not isinstance(id, int):
        raise TypeError(f"id must be int, not {type(id).__name__}")
    if not 0 <= id < 2**64:
        raise OverflowError(f"id must be at least 0 and below 2**64, not {id}")
    _host_id = id


def host_id_from_k8s(uid: str) -> int:
    """The number that the machine of a Kubernetes pod has, from the pod's uid.

    It does not become this machine's: see ``set_host_id``.
    """
    return hash(uid.encode())


def get_local_rt_uid() -> int:
    """Number of the node that this process belongs to; 0: none. Opens it if it is not open yet."""
    return _dragon.Pool.default().uid() if _dragon.has_node() else 0


def get_hugepage_mount() -> str | None:
    """Where a file system of huge pages is mounted, the first there is; None: nowhere."""
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _device, folder, kind = line.split(" ")[:3]
        if kind == "hugetlbfs":
            return folder.encode().decode("unicode_escape")  # a blank is written as \040
    return None


def set_procname(name: str) -> None:
    """Name this process in ps and top. The kernel keeps the first 15 bytes.

    Raises:
        ValueError: the name contains a zero byte.
    """
    if "\0" in name:
        raise ValueError("the name of a process contains no zero byte")
    Path("/proc/self/comm").write_bytes(name.encode()[:_PROCNAME_BYTES])


def get_cpu_count() -> int:
    """Number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0))


def set_core_affinity(core: int) -> None:
    """Let this process run on one CPU only.

    Raises:
        OSError: there is no such CPU, or it is not this process's to use.
    """
    os.sched_setaffinity(0, {core})


def strtobool(val: str) -> bool:
    """Read yes or no, as configuration files write them.

    Raises:
        ValueError: it is neither.
    """
    word = val.strip().lower()
    if word in {"y", "yes", "t", "true", "on", "1"}:
        return True
    if word in {"n", "no", "f", "false", "off", "0"}:
        return False
    raise ValueError(f"neither yes nor no: {val!r}")


class ExceptionalThread(threading.Thread):
    """A thread that another one can end by an exception."""

    def kill_by_exception(self) -> None:
        """Raise SystemExit in the thread, before the next instruction of Python that it runs.

        Does not wait. A thread that sleeps in the system notices when it comes back from there.

        Raises:
            RuntimeError: the thread is not running.
        """
        if self.ident is None or not self.is_alive():
            raise RuntimeError(f"thread {self.name!r} is not running")
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(self.ident), ctypes.py_object(SystemExit)
        )


class SerType(enum.IntEnum):
    """Kinds of values that the pickler for other languages would tell apart: none here."""


def set_local_kv(key: str, value: str, timeout: float | None = None) -> NoReturn:
    """Keep a text for all processes of the node. Does not exist yet.

    Args:
        key: the text's name.
        value: the text.
        timeout: seconds; None: for ever.

    Raises:
        NotImplementedError: the node has no registry of names.
    """
    raise NotImplementedError("set_local_kv needs a registry of names in the node")


def get_local_kv(key: str, timeout: float | None = None) -> NoReturn:
    """Look up a text that ``set_local_kv`` kept. Does not exist yet.

    Args:
        key: the text's name.
        timeout: seconds; None: for ever.

    Raises:
        NotImplementedError: the node has no registry of names.
    """
    raise NotImplementedError("get_local_kv needs a registry of names in the node")


class TimeKeeper:
    """Not implemented: nothing public says what its methods are.

    Raises:
        NotImplementedError: always.
    """

    def __init__(self) -> None:
        raise NotImplementedError("TimeKeeper needs a description of its interface")


class XPickler:
    """Would write objects so that programs in other languages can read them.

    Raises:
        NotImplementedError: always: there is no library for other languages that reads it.
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        text = f"{type(self).__name__} needs the library for the other language, and its format"
        raise NotImplementedError(text)


class XNumPyVectorPickler(XPickler):
    """As XPickler, for arrays of one dimension."""


class XNumPy2DMatrixPickler(XPickler):
    """As XPickler, for arrays of two dimensions."""


class XByteBufferPickler(XPickler):
    """As XPickler, for bytes."""


class XScalarPickler(XPickler):
    """As XPickler, for numbers."""


class XStringPickler(XPickler):
    """As XPickler, for text."""
