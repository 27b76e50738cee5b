"""Plays ssh, scp and systemd for deploy/systemd/README.md. Hosts are machines, each in a network namespace of its name;
the guide's commands run in one more machine, `desk`, whose ssh and scp ask this process through pipes in a folder that
both see (STUBS).

    played_hosts.py FOLDER    # in FOLDER: hosts.json, {"roots": {host: root folder}, "corpora": what all of them see}
"""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys

from machine import command_in

_CALL = """cat >/play/input
printf '%s\\n' "$0" "$@" >/play/call
cat /play/output
exit "$(cat /play/code)"
"""
_SUDO = '#!/bin/sh\nexec "$@"\n'
# In /usr/local/bin of the desk and of the hosts.
DESK_STUBS = {
    "sudo": _SUDO,
    "ssh": f"#!/bin/sh\n{_CALL}",
    "scp": f"""#!/bin/sh
rm -rf /play/files
mkdir /play/files
while [ $# -gt 1 ]; do
  [ "$1" = -r ] || cp -a -- "$1" /play/files/
  shift
done
{_CALL}"""}
HOST_STUBS = {"sudo": _SUDO, "systemctl": '#!/bin/sh\necho "$*" >>/systemctl-calls\n'}


def make_pipes(folder):
    os.makedirs(folder, exist_ok=True)
    for name in ("call", "output"):
        os.mkfifo(os.path.join(folder, name))


class Host:
    def __init__(self, name, root, corpora):
        self.name, self.root, self.corpora = name, root, corpora
        self.running = {}  # service: its process

    def path(self, *parts):
        return os.path.join(self.root, *parts)

    def read(self, *parts):
        with open(self.path(*parts)) as file:
            return file.read()

    def on_host(self, command, **options):
        """The command line that runs `command` on the host, under its name and in its network."""
        inner = command_in(self.root, command, volumes=[(self.corpora, "/srv/corpora")], **options)
        return ["ip", "netns", "exec", self.name, "unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.name, *inner]

    def ssh(self, words, input, output):
        """What a shell there says to `words`, or to its input where there are none."""
        script = 'cd; exec bash -c "$0"' if words else "cd; exec bash -eu"
        done = subprocess.run(self.on_host(["bash", "-euc", script, " ".join(words)], environment={
            "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}), stdin=input, stdout=output, stderr=output)
        calls = self.path("systemctl-calls")
        if os.path.exists(calls):
            with open(calls) as file:
                lines = file.read().splitlines()
            os.remove(calls)
            for line in lines:
                verb, service = re.fullmatch(r"(enable --now|start|stop|restart) (\S+)", line).groups()
                if verb in ("stop", "restart"):
                    self.stop(service)
                if verb != "stop":
                    self.start(service)
        return done.returncode

    def scp(self, folder):
        shutil.copytree(folder, self.path("root"), dirs_exist_ok=True)
        return 0

    # ---- systemd, as far as it matters here --------------------------------------------------------

    def start(self, service):
        """Until it says that it serves, where it can."""
        unit = dict(re.findall(r"^(\w+)=(.*)$", self.read("usr/lib/systemd/system", f"{service}.service"), re.MULTILINE))
        uid, gid = map(int, re.search(rf"^{unit['User']}:[^:]*:(\d+):(\d+):", self.read("etc/passwd"), re.MULTILINE).groups())
        if "StateDirectory" in unit:
            state = self.path("var/lib", unit["StateDirectory"])
            os.makedirs(state, exist_ok=True)
            os.chown(state, uid, gid)
            os.chmod(state, int(unit["StateDirectoryMode"], 8))
        words = unit["ExecStart"]
        if "EnvironmentFile" in unit:
            for name, value in re.findall(r'^(\w+)="?(.*?)"?$', self.read(unit["EnvironmentFile"].lstrip("/")), re.MULTILINE):
                words = words.replace("$" + name, value)
        # By way of the folder, since a socket's path is short.
        os.chdir(self.path("run"))
        if os.path.exists("lasp-notify"):
            os.remove("lasp-notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind("lasp-notify")
            os.chmod("lasp-notify", 0o777)
            with open(self.path("var/log", f"{service}.log"), "a") as log:
                self.running[service] = subprocess.Popen(
                    self.on_host(words.split(), user=unit["User"], environment={"NOTIFY_SOCKET": "/run/lasp-notify"}),
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
            if unit.get("Type") == "notify":
                notify.settimeout(60)
                assert notify.recv(100) == b"READY=1"

    def stop(self, service):
        """SIGTERM to the program itself, which is the last of a chain that began its namespaces."""
        outermost = self.running.pop(service, None)
        if outermost is None:
            return
        parents = {}
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{entry}/stat") as file:
                    parents[int(entry)] = int(file.read().rpartition(")")[2].split()[1])
            except FileNotFoundError:
                pass
        pid = outermost.pid
        while children := [child for child, parent in parents.items() if parent == pid]:
            pid = children[0]
            with open(f"/proc/{pid}/comm") as file:
                if file.read().strip() == service:
                    break
        os.kill(pid, signal.SIGTERM)
        outermost.wait(timeout=60)


def serve(folder):
    play = os.path.join(folder, "play")
    with open(os.path.join(folder, "hosts.json")) as file:
        played = json.load(file)
    hosts = {name: Host(name, root, played["corpora"]) for name, root in played["roots"].items()}
    while True:
        with open(os.path.join(play, "call")) as pipe:
            words = pipe.read().splitlines()
        program, target, *rest = os.path.basename(words[0]), *words[1:]
        with open(os.path.join(play, "output"), "w") as output, open(os.path.join(play, "input")) as input:
            host = hosts[target.rstrip(":")]
            try:
                code = host.ssh(rest, input, output) if program == "ssh" else host.scp(os.path.join(play, "files"))
            except Exception as error:  # whatever it is: the guide's command failed
                print(f"{program} {target}: {error!r}", file=output)
                code = 255
            with open(os.path.join(play, "code"), "w") as file:
                file.write(str(code))


if __name__ == "__main__":
    serve(sys.argv[1])
