"""A command in a terminal: what it shows there, escape codes and all."""

import os
import pty
import struct
import subprocess
from fcntl import ioctl
from termios import TIOCSWINSZ


def in_a_terminal(command, *, columns=100, **options):
    """Its exit code, the bytes that the terminal got, and those that went to `stdout` where that is a pipe."""
    ours, theirs = pty.openpty()
    ioctl(theirs, TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    options = {"stdin": theirs, "stdout": theirs, "stderr": theirs} | options
    with subprocess.Popen(list(map(str, command)), **options) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux's way to say that nobody writes any more
                break
            if not piece:
                break
            shown += piece
        out, _ = process.communicate(timeout=60)
    os.close(ours)
    return process.returncode, shown, out
