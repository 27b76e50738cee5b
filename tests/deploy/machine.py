"""Bare Debian 12 machines in chroots, for tests as root. Their mounts and processes are in namespaces of their own
and end with them."""
import fcntl
import os
import shutil
import subprocess
import tempfile

DEBIAN_MIRROR = os.environ.get("LASP_DEBIAN_MIRROR", "http://deb.debian.org/debian")

# In: the root, 1 where it is to be read-only, and the volumes as pairs of paths; then the command.
SETUP = r"""
set -eu
root=$1 read_only=$2 volumes=$3
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
while [ "$volumes" -gt 0 ]; do
  mkdir -p "$root$2"
  mount --bind "$1" "$root$2"
  shift 2
  volumes=$((volumes - 1))
done
if [ "$read_only" = 1 ]; then
  mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
  mount -o remount,bind,ro "$root"
fi
# Not exec: a process that changes its user forgets to die with its parent; this one does not, and takes the
# namespace along.
"$@"
"""


def _bare(folder):
    """A machine as debootstrap makes it, made once a build folder."""
    os.makedirs(folder, exist_ok=True)
    root = os.path.join(folder, "debian-12")
    with open(root + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(root):
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                made = os.path.join(scratch, "root")
                subprocess.run(["debootstrap", "--variant=minbase", "bookworm", made, DEBIAN_MIRROR], check=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=1200)
                os.rename(made, root)
    return root


def command_in(root, command, user=None, read_only=False, volumes=(), environment=None):
    """The command line that runs `command`, a list, in the machine of this root folder, as `user`, a number or a name
    there, without root's rights. `volumes`: pairs of a path here and one there."""
    inner = ["chroot", root]
    if user is not None:
        inner = ["setpriv", "--no-new-privs", "--", "chroot", f"--userspec={user}:{user}", "--groups=", root]
    environment = {"PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **(environment or {})}
    return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", SETUP, "machine", root,
            "1" if read_only else "0", str(len(volumes)), *(path for pair in volumes for path in pair),
            *inner, "/usr/bin/env", "-i", *(f"{k}={v}" for k, v in environment.items()), *command]


class Machine:
    """One machine; `root` is its root folder."""

    def __init__(self, build, like=None):
        """A bare one, or one that is now as `like` is."""
        self._folder = tempfile.TemporaryDirectory(prefix="lasp-machine-", dir=build)
        self.root = os.path.join(self._folder.name, "root")
        subprocess.run(["cp", "-a", "--reflink=auto", like.root if like else _bare(build), self.root], check=True)
        shutil.copy("/etc/resolv.conf", os.path.join(self.root, "etc", "resolv.conf"))
        # The installer writes it, debootstrap does not.
        with open(os.path.join(self.root, "etc", "hosts"), "w") as file:
            file.write("127.0.0.1 localhost\n")

    def close(self):
        self._folder.cleanup()

    def command(self, command, **options):
        """As command_in, in this machine."""
        return command_in(self.root, command, **options)

    def run(self, command, check=True, timeout=900, **options):
        """Runs to its end; a shell's line where `command` is a string. Its output is in the error it raises."""
        if isinstance(command, str):
            command = ["bash", "-euc", command]
        options.setdefault("environment", {"HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"})
        done = subprocess.run(self.command(command, **options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: {done.returncode}\n{done.stdout[-4000:]}")
        return done

    def start(self, command, **options):
        """Starts a service; its stdout is a pipe."""
        return subprocess.Popen(self.command(command, **options), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                text=True)
