"""A thread that hangs while the others of its process go on: what no signal does."""
import ctypes
import os
import threading

PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
WALL = 0x40000000
FUTEX = 202
LISTEN = "0A"


def _ptrace(request, thread):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, thread, None, None) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"ptrace {request:#x} of {thread}: {os.strerror(error)}")


def stop_thread(thread):
    """Until its process is killed, or this one ends. Needs root."""
    _ptrace(PTRACE_SEIZE, thread)
    _ptrace(PTRACE_INTERRUPT, thread)
    os.waitpid(thread, WALL)
    # Whoever traces hears of the end before the parent does.
    threading.Thread(target=os.waitpid, args=(thread, WALL), daemon=True).start()


def listens(pid):
    """Whether the process has a TCP socket that others may connect to."""
    own = set()
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            own.add(os.readlink(f"/proc/{pid}/fd/{name}"))
        except FileNotFoundError:
            pass  # closed meanwhile
    with open(f"/proc/{pid}/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return any(row[3] == LISTEN and f"socket:[{row[9]}]" in own for row in rows)


def waits_for_another_thread(thread):
    with open(f"/proc/{thread}/syscall") as file:
        return file.read().split()[0] == str(FUTEX)
