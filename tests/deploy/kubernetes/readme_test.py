"""The ten commands of deploy/kubernetes/README.md, run as they stand, with a cluster that is played: the pods' programs
with the pods' flags, secrets, users and probes, in a network of their own. As root."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", "..", ".."))
BIN = os.environ["LASP_BIN"]
CAN_UNSHARE = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "true"],
                             stderr=subprocess.DEVNULL).returncode == 0
# Programs without TLS listen nowhere but on loopback.
HAS_TLS = os.path.exists(os.path.join(ROOT, "deploy", "credentials")) and "--tls_cert" in subprocess.run(
    [os.path.join(BIN, "lasp-server"), "--help"], stdout=subprocess.PIPE, text=True).stdout
SETUP = """
ip link set lo up
mount --bind "$PLAYED_CLUSTER/hosts" /etc/hosts
bash -euo pipefail "$PLAYED_CLUSTER/commands"
"""


def commands():
    with open(os.path.join(ROOT, "deploy", "kubernetes", "README.md")) as file:
        return re.search(r"## From an empty cluster.*?```\n(.*?)```", file.read(), re.DOTALL).group(1)


@unittest.skipUnless(HAS_TLS, "the programs were built without TLS")
@unittest.skipUnless(os.geteuid() == 0 and CAN_UNSHARE, "needs root and namespaces")
class ReadmeTest(unittest.TestCase):
    def setUp(self):
        located = subprocess.run([os.path.join(ROOT, "deploy", "kubernetes", "locate-kubectl")], text=True,
                                 stdout=subprocess.PIPE)
        if located.returncode != 0:
            self.skipTest("no kubectl 1.21 or newer")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        os.chmod(self.folder, 0o755)
        programs = os.path.join(self.folder, "programs")
        os.mkdir(programs)
        # Where the pods' user can read them, wherever the build folder lies.
        for program in ("lasp-server", "lasp-worker", "lasp-rank", "lasp"):
            shutil.copy(os.path.join(BIN, program), programs)
        with open(os.path.join(programs, "kubectl"), "w") as file:
            file.write(f'#!/bin/sh\nexec {sys.executable} {os.path.join(HERE, "played_cluster.py")} "$@"\n')
        os.chmod(os.path.join(programs, "kubectl"), 0o755)
        checkout = os.path.join(self.folder, "checkout")
        shutil.copytree(os.path.join(ROOT, "deploy"), os.path.join(checkout, "deploy"))
        shutil.copy(os.path.join(ROOT, "README.md"), checkout)
        job = os.path.join(checkout, "deploy", "jobs", "quickstart.yaml")
        with open(job) as file:
            text = re.sub(r"max_steps: \d+", "max_steps: 20", file.read())
        with open(job, "w") as file:
            file.write(text)
        self.environment = {**os.environ, "PLAYED_CLUSTER": self.folder, "PLAYED_PROGRAMS": programs,
                            "PLAYED_KUBECTL": located.stdout.strip(), "HOME": self.folder,
                            "PATH": f"{programs}:/usr/sbin:/usr/bin:/sbin:/bin"}
        for name in ("LASP_SERVER", "LASP_TOKEN"):
            self.environment.pop(name, None)
        with open(os.path.join(self.folder, "hosts"), "w") as file:
            file.write("127.0.0.1 localhost lasp-coordinator.lasp.svc lasp-api.lasp.svc\n")

    def run_commands(self, text):
        with open(os.path.join(self.folder, "commands"), "w") as file:
            file.write(text)
        return subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "bash",
                               "-euc", SETUP], cwd=os.path.join(self.folder, "checkout"), env=self.environment, text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=300)

    def test_ten_commands_to_a_running_job(self):
        text = commands()
        self.assertEqual(len(text.splitlines()), 10)
        done = self.run_commands(text)
        logs = ""
        for pod in ("lasp-coordinator-0", "lasp-agent-0"):
            path = os.path.join(self.folder, f"{pod}.log")
            if os.path.exists(path):
                with open(path) as file:
                    logs += f"\n{pod}:\n{file.read()[-3000:]}"
        self.assertEqual(done.returncode, 0, done.stdout + logs)
        self.assertIn("lasp-agent-0", done.stdout)
        self.assertIn("SUCCEEDED", done.stdout)


if __name__ == "__main__":
    unittest.main()
