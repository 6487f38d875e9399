"""Small helpers: base64 text of descriptions, numbers of machine and bytes, names of processes."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import os
from pathlib import Path

__all__ = [
    "B64",
    "b64decode",
    "b64encode",
    "get_cpu_count",
    "hash",
    "host_id",
    "set_core_affinity",
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


@functools.cache
def host_id() -> int:
    """The number of this machine: the same in all its processes until it is started anew."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    return hash(boot.strip() + os.uname().nodename.encode())


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
