"""Plays ssh, scp and systemd for deploy/systemd/README.md: hosts are machines, each in a network namespace of its name.
$PLAYED_HOSTS names a JSON file: the root folder of each host, and the corpora that all of them see."""
import glob
import json
import os
import re
import shutil
import socket
import subprocess
import sys

from machine import command_in

with open(os.environ["PLAYED_HOSTS"]) as file:
    PLAYED = json.load(file)


def on_host(host, command, **options):
    """The command line that runs `command` on the host, under its name and in its network."""
    inner = command_in(PLAYED["roots"][host], command, volumes=[(PLAYED["corpora"], "/srv/corpora")], **options)
    return ["ip", "netns", "exec", host, "unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host, *inner]


def enable_now(host, service):
    """Starts a unit as systemd would, as far as it matters here, and waits until it says that it serves."""
    root = PLAYED["roots"][host]
    with open(os.path.join(root, "usr", "lib", "systemd", "system", f"{service}.service")) as file:
        unit = dict(re.findall(r"^(\w+)=(.*)$", file.read(), re.MULTILINE))
    with open(os.path.join(root, "etc", "passwd")) as file:
        uid, gid = re.search(rf"^{unit['User']}:[^:]*:(\d+):(\d+):", file.read(), re.MULTILINE).groups()
    state = os.path.join(root, "var", "lib", unit["StateDirectory"])
    os.makedirs(state, exist_ok=True)
    os.chown(state, int(uid), int(gid))
    os.chmod(state, int(unit["StateDirectoryMode"], 8))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        # By way of the folder, since a socket's path is short.
        os.chdir(os.path.join(root, "run"))
        notify.bind("lasp-notify")
        os.chmod("lasp-notify", 0o777)
        with open(os.path.join(root, "var", "log", f"{service}.log"), "w") as log:
            subprocess.Popen(on_host(host, unit["ExecStart"].split(), user=unit["User"],
                                     environment={"NOTIFY_SOCKET": "/run/lasp-notify"}),
                             stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        notify.settimeout(60)
        assert notify.recv(100) == b"READY=1"


def ssh(host):
    done = subprocess.run(on_host(host, ["bash", "-euc", "cd; exec bash -eu"], environment={
        "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}), stdin=sys.stdin)
    if done.returncode != 0:
        sys.exit(done.returncode)
    calls = os.path.join(PLAYED["roots"][host], "systemctl-calls")
    with open(calls) as file:
        for call in file.read().splitlines():
            service = re.fullmatch(r"enable --now (\S+)", call)
            assert service, f"systemctl {call}: not known here"
            enable_now(host, service.group(1))
    os.remove(calls)


def scp(files, target):
    host, _, folder = target.partition(":")
    assert folder == "", target
    for path in files:
        shutil.copy(path, os.path.join(PLAYED["roots"][host], "root"))


if __name__ == "__main__":
    if sys.argv[1] == "ssh":
        ssh(sys.argv[2])
    else:
        scp([path for name in sys.argv[2:-1] for path in glob.glob(name)], sys.argv[-1])
