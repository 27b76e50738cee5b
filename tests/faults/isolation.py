"""A part of the machine for one cell alone: namespaces, cgroups and small disks, all of which end with it.

What runs inside has mounts, processes, a network and shared memory of its own, so that whatever it leaves is seen, and
nothing can stay behind: the kernel takes it away when the first process in there ends, however it ends.
"""
import os
import shutil
import signal
import subprocess
import sys
import time

_CGROUP_ROOT = "/sys/fs/cgroup"
NAMESPACES = ("unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "--mount-proc",
              "--propagation", "private")


def run(*arguments):
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise OSError(f"{' '.join(arguments)} exited {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def missing():
    """Why there can be no isolation here; empty where there can."""
    if os.geteuid() != 0:
        return "namespaces, mounts and cgroups need root"
    for program in ("unshare", "nsenter", "ip"):
        if shutil.which(program) is None:
            return f"there is no {program}: apt-get install util-linux iproute2"
    probe = subprocess.run([*NAMESPACES, "sh", "-c", "mount -t tmpfs tmpfs /mnt && ip link set lo up && ip link add one type veth peer name other"],
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return "" if probe.returncode == 0 else f"no namespaces here: {probe.stderr.strip()}"


def has_cgroups_v2():
    """Whether the machine has cgroups of the second version in their usual place."""
    return os.path.exists(os.path.join(_CGROUP_ROOT, "cgroup.controllers"))


def end_on_signals():
    """A signal ends this process as an exception does, so that it cleans up; also where it was started in the
    background of a shell, which lets such processes ignore Ctrl-C."""
    def end(number, _frame):
        sys.exit(128 + number)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)


def new_cgroup(kind, number):
    """One of this process's, outside of the isolation; those that processes of this kind left behind are removed."""
    folder = _CGROUP_ROOT if has_cgroups_v2() else os.path.join(_CGROUP_ROOT, "memory")
    for name in os.listdir(folder):
        if name.startswith(f"lasp-{kind}-") and not os.path.exists(f"/proc/{name.split('-')[2]}"):
            Cgroup(name).remove()
    return Cgroup(f"lasp-{kind}-{os.getpid()}-{number}").make()


class Cgroup:
    """Limits of memory and of CPU time, of either version of cgroups. Made and removed outside of the isolation."""

    def __init__(self, name):
        self.name = name
        if has_cgroups_v2():
            self._folders = {"memory": os.path.join(_CGROUP_ROOT, name), "cpu": os.path.join(_CGROUP_ROOT, name)}
        else:
            self._folders = {part: os.path.join(_CGROUP_ROOT, part, name) for part in ("memory", "cpu")}

    def make(self):
        if has_cgroups_v2():
            self._write(_CGROUP_ROOT, "cgroup.subtree_control", "+memory +cpu")
        for folder in set(self._folders.values()):
            os.makedirs(folder, exist_ok=True)
        return self

    def remove(self):
        """With all that is in it, and with the groups beneath."""
        for folder in set(self._folders.values()):
            for path, folders, _ in os.walk(folder, topdown=False):
                deadline = time.monotonic() + 5
                while os.path.isdir(path) and time.monotonic() < deadline:
                    with open(os.path.join(path, "cgroup.procs")) as file:
                        for pid in map(int, file.read().split()):
                            if pid > 0:
                                os.kill(pid, signal.SIGKILL)
                    try:
                        os.rmdir(path)
                    except OSError:
                        time.sleep(0.02)

    def add(self, pid):
        for folder in set(self._folders.values()):
            self._write(folder, "cgroup.procs", str(pid))

    def limit_memory(self, size):
        if has_cgroups_v2():
            self._write(self._folders["memory"], "memory.max", str(size))
        else:
            self._write(self._folders["memory"], "memory.limit_in_bytes", str(size))

    def limit_cpu(self, share):
        """`share` of one core."""
        period = 100_000
        quota = max(1000, int(share * period))
        if has_cgroups_v2():
            self._write(self._folders["cpu"], "cpu.max", f"{quota} {period}")
        else:
            self._write(self._folders["cpu"], "cpu.cfs_period_us", str(period))
            self._write(self._folders["cpu"], "cpu.cfs_quota_us", str(quota))

    @staticmethod
    def _write(folder, name, text):
        with open(os.path.join(folder, name), "w") as file:
            file.write(text)


class Hosts:
    """Hosts that are network namespaces. The coordinator has its own and both bridges: agents reach it over the one,
    ranks reach each other over the other, so that each host can be cut off either of them alone."""

    COORDINATOR = "10.77.1.1"

    def __init__(self, names):
        # Of this mount namespace alone.
        run("mount", "-t", "tmpfs", "tmpfs", "/run")
        os.mkdir("/run/netns")
        self.names = tuple(names)
        run("ip", "link", "set", "lo", "up")
        for plane, address in (("control", f"{self.COORDINATOR}/24"), ("data", "10.77.2.1/24")):
            run("ip", "link", "add", plane, "type", "bridge")
            run("ip", "address", "add", address, "dev", plane)
            run("ip", "link", "set", plane, "up")
        for index, name in enumerate(self.names):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
            for number, plane in ((1, "control"), (2, "data")):
                port = self._port(name, plane)
                run("ip", "link", "add", port, "type", "veth", "peer", "name", plane, "netns", name)
                run("ip", "link", "set", port, "master", plane, "up")
                run("ip", "-n", name, "address", "add", f"10.77.{number}.{10 + index}/24", "dev", plane)
                run("ip", "-n", name, "link", "set", plane, "up")

    @staticmethod
    def _port(name, plane):
        return f"{name}-{plane[0]}"

    def on(self, name):
        """What to put before a command."""
        return ("nsenter", f"--net=/run/netns/{name}")

    def rank_address(self, name):
        return f"10.77.2.{10 + self.names.index(name)}"

    def cut(self, name, plane):
        run("ip", "link", "set", self._port(name, plane), "down")

    def heal(self, name, plane):
        run("ip", "link", "set", self._port(name, plane), "up")

    def listeners(self):
        """Sockets that listen, on all hosts."""
        found = []
        for prefix in ((), *(self.on(name) for name in self.names)):
            found += run(*prefix, "ss", "-Hltnp").splitlines()
        return found


class Disk:
    """A small tmpfs that can be filled."""

    def __init__(self, folder, size_mib):
        self.folder = folder
        os.makedirs(folder, exist_ok=True)
        run("mount", "-t", "tmpfs", "-o", f"size={size_mib}m,mode=700", "tmpfs", folder)

    @property
    def _ballast(self):
        return os.path.join(self.folder, "ballast")

    def fill(self):
        with open(self._ballast, "ab", buffering=0) as file:
            block = b"\0" * 65536
            while block:
                try:
                    while file.write(block) == len(block):
                        pass
                except OSError:
                    pass
                block = block[:len(block) // 2]

    def empty(self):
        if os.path.exists(self._ballast):
            os.unlink(self._ballast)

    def set_read_only(self, read_only):
        run("mount", "-o", f"remount,{'ro' if read_only else 'rw'}", self.folder)
