"""Bare Debian 12 machines in chroots, for tests as root. Their mounts and processes are in namespaces of their own
and end with them."""
import fcntl
import os
import shutil
import subprocess
import tempfile
import time

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


# Seconds: then a bare machine is made anew, with Debian's newest packages.
KEPT = 30 * 24 * 3600


def _make_bare(root):
    """A machine as debootstrap makes it; it is kept as an archive in this user's cache folder."""
    folder = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "lasp", "machines")
    os.makedirs(folder, exist_ok=True)
    archive = os.path.join(folder, "debian-12.tar")
    with open(archive + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.exists(archive) or os.stat(archive).st_mtime < time.time() - KEPT:
            with tempfile.TemporaryDirectory(dir=os.path.dirname(root)) as scratch:
                made = os.path.join(scratch, "root")
                subprocess.run(["debootstrap", "--variant=minbase", "bookworm", made, DEBIAN_MIRROR], check=True,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=1200)
                _tar("--create", "--file", archive + ".new", "--directory", made, ".")
            os.rename(archive + ".new", archive)
    os.mkdir(root)
    _tar("--extract", "--file", archive, "--directory", root)


def _tar(*arguments):
    subprocess.run(["tar", "--numeric-owner", "--preserve-permissions", *arguments], check=True, timeout=600)


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
        if like:
            subprocess.run(["cp", "-a", "--reflink=auto", like.root, self.root], check=True)
        else:
            _make_bare(self.root)
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
