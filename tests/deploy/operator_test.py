"""The commands of deploy/systemd/README.md, run as they stand: three bare Debian 12 machines in a network of their own,
the packages, TLS, tokens, and a job over two hosts. As root, with Debian's mirror."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import cluster_in_machines as cluster
from machine import Machine

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", ".."))
BIN = os.environ["LASP_BIN"]
BUILD = os.path.dirname(BIN)
HOSTS = ["coordinator", "gpu-1", "gpu-2"]
HAS_TLS = os.path.exists(os.path.join(ROOT, "deploy", "credentials")) and "--tls_cert" in subprocess.run(
    [os.path.join(BIN, "lasp-server"), "--help"], stdout=subprocess.PIPE, text=True).stdout
SETUP = """
mount -t tmpfs tmpfs /run
mkdir /run/netns
mount --bind "$FOLDER/hosts" /etc/hosts
ip link set lo up
ip link add bridge0 type bridge
ip address add 10.77.0.1/24 dev bridge0
ip link set bridge0 up
last=2
for host in coordinator gpu-1 gpu-2; do
  ip netns add $host
  ip link add port$last type veth peer name eth0 netns $host
  ip link set port$last master bridge0 up
  ip -n $host link set lo up
  ip -n $host address add 10.77.0.$last/24 dev eth0
  ip -n $host link set eth0 up
  last=$((last + 1))
done
bash -euo pipefail "$FOLDER/commands"
"""
# On each host; played_hosts.py does what systemctl was called for.
STUBS = {"sudo": '#!/bin/sh\nexec "$@"\n', "systemctl": '#!/bin/sh\necho "$*" >>/systemctl-calls\n'}
# What a viewer gets, after the README's own commands.
VIEWER = """
code=0
LASP_TOKEN=$(cat bob.token) lasp --tls_ca credentials/ca.crt submit -f deploy/jobs/quickstart.yaml || code=$?
echo "the viewer's exit code: $code"
LASP_TOKEN=$(cat bob.token) lasp --tls_ca credentials/ca.crt list
"""


def commands():
    with open(os.path.join(ROOT, "deploy", "systemd", "README.md")) as file:
        guide = re.search(r"operator_test.py runs: begin -->(.*?)<!--", file.read(), re.DOTALL).group(1)
    return "".join(re.findall(r"```\n(.*?)```", guide, re.DOTALL))


@unittest.skipUnless(HAS_TLS, "the programs were built without TLS")
@unittest.skipUnless(os.geteuid() == 0 and shutil.which("debootstrap"), "needs root and debootstrap")
class OperatorTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        folders = cluster.make_folder(self.folder, "programs")
        self.corpora = folders["data"]
        checkout = os.path.join(self.folder, "checkout")
        shutil.copytree(os.path.join(ROOT, "deploy"), os.path.join(checkout, "deploy"))
        packages = cluster.build_packages(BUILD, os.path.join(checkout, "build", "packages"))
        job = os.path.join(checkout, "deploy", "jobs", "quickstart.yaml")
        with open(job) as file:
            text = re.sub(r"max_steps: \d+", "max_steps: 20", file.read())
        with open(job, "w") as file:
            file.write(text)

        # Behind the bridge there is no mirror: what the packages depend on is there, they are not.
        first = self.machine()
        first.run("apt-get update && apt-get install --yes --no-install-recommends /packages/*.deb && "
                  "apt-get purge --yes lasp-server lasp-worker lasp && deluser --quiet lasp",
                  volumes=[(packages, "/packages")])
        for name, text in STUBS.items():
            self.script(os.path.join(first.root, "usr", "local", "bin", name), text)
        self.roots = dict(zip(HOSTS, [first.root, self.machine(first).root, self.machine(first).root]))
        names = "127.0.0.1 localhost\n" + "".join(f"10.77.0.{2 + i} {host}\n" for i, host in enumerate(HOSTS))
        for path in [os.path.join(self.folder, "hosts")] + [os.path.join(r, "etc", "hosts") for r in self.roots.values()]:
            with open(path, "w") as file:
                file.write(names)
        with open(os.path.join(self.folder, "played.json"), "w") as file:
            json.dump({"roots": self.roots, "corpora": self.corpora}, file)
        for program in ("ssh", "scp"):
            self.script(os.path.join(folders["programs"], program),
                        f'#!/bin/sh\nexec {sys.executable} {os.path.join(HERE, "played_hosts.py")} {program} "$@"\n')
        shutil.copy(os.path.join(BIN, "lasp"), folders["programs"])
        self.environment = {"PATH": f"{folders['programs']}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": self.folder,
                            "FOLDER": self.folder, "PLAYED_HOSTS": os.path.join(self.folder, "played.json"),
                            "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}

    def machine(self, like=None):
        made = Machine(BUILD, like)
        self.addCleanup(made.close)
        return made

    def script(self, path, text):
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o755)

    def logs(self):
        text = ""
        for host, root in self.roots.items():
            for service in ("lasp-server", "lasp-worker"):
                path = os.path.join(root, "var", "log", f"{service}.log")
                if os.path.exists(path):
                    with open(path) as file:
                        text += f"\n{host}: {file.read()[-2000:]}"
        return text

    def test_from_empty_hosts_to_a_job_over_both(self):
        with open(os.path.join(self.folder, "commands"), "w") as file:
            file.write(commands() + VIEWER)
        done = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "bash",
                               "-euc", SETUP], cwd=os.path.join(self.folder, "checkout"), env=self.environment, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=600)
        self.assertEqual(done.returncode, 0, done.stdout[-4000:] + self.logs())
        for host in ("gpu-1", "gpu-2"):
            self.assertRegex(done.stdout, rf"(?m)^{host} +READY +2 +2 ")
        self.assertIn("starts, 4 ranks on 2 workers", done.stdout)
        self.assertIn("SUCCEEDED", done.stdout)
        self.assertIn("needs editor in project default", done.stdout)
        self.assertIn("the viewer's exit code: 4", done.stdout)


if __name__ == "__main__":
    unittest.main()
