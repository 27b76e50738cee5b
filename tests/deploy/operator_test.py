"""The commands of deploy/systemd/README.md, run as they stand: from four bare Debian 12 machines in a network of their
own, by the packages, TLS and tokens, to a job over two hosts, an alert that comes and goes, and the console in Chromium.
As root, with Debian's mirror."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import cluster_in_machines as cluster
import played_hosts
from machine import Machine, command_in

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "support"))
import npm_packages  # noqa: E402

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", ".."))
BIN = os.environ["LASP_BIN"]
BUILD = os.path.dirname(BIN)
HOSTS = ["coordinator", "gpu-1", "gpu-2"]
# The bridge's own address is the desk's.
SETUP = """
mount -t tmpfs tmpfs /run
mkdir /run/netns
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
"$PYTHON" "$HERE/played_hosts.py" "$FOLDER" &
"$@"
# The browser is not the desk's: it needs a hundred packages.
mount --bind "$FOLDER/names" /etc/hosts
if [ -e "$FOLDER/look.json" ]; then
  NODE_EXTRA_CA_CERTS="$FOLDER/checkout/credentials/ca.crt" HOME="$FOLDER" node "$FOLDER/look.mjs" <"$FOLDER/look.json"
fi
"""


def commands():
    with open(os.path.join(ROOT, "deploy", "systemd", "README.md")) as file:
        guide = re.search(r"operator_test.py runs: begin -->(.*?)<!--", file.read(), re.DOTALL).group(1)
    return "".join(re.findall(r"```\n(.*?)```", guide, re.DOTALL))


@unittest.skipUnless(os.geteuid() == 0 and shutil.which("debootstrap"), "needs root and debootstrap")
class OperatorTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        folders = cluster.make_folder(self.folder, "checkout")
        self.checkout = folders["checkout"]
        shutil.copytree(os.path.join(ROOT, "deploy"), os.path.join(self.checkout, "deploy"))
        packages = cluster.build_packages(BUILD, os.path.join(self.checkout, "build", "packages"))
        job = os.path.join(self.checkout, "deploy", "jobs", "quickstart.yaml")
        with open(job) as file:
            text = re.sub(r"max_steps: \d+", "max_steps: 20", file.read())
        with open(job, "w") as file:
            file.write(text)

        # Behind the bridge there is no mirror: what the packages depend on is there, they are not, and Prometheus
        # waits in apt's cache.
        first = self.machine()
        first.run("apt-get update && apt-get install --yes --no-install-recommends openssl /packages/*.deb && "
                  "apt-get purge --yes lasp-server lasp-worker lasp && deluser --quiet lasp && "
                  "apt-get install --yes --no-install-recommends --download-only prometheus",
                  volumes=[(packages, "/packages")])
        self.desk = self.machine(first)
        self.roots = dict(zip(HOSTS, [first.root, self.machine(first).root, self.machine(first).root]))
        self.stub(self.desk.root, played_hosts.DESK_STUBS)
        self.prepare_look()
        names = "127.0.0.1 localhost\n" + "".join(f"10.77.0.{2 + i} {host}\n" for i, host in enumerate(HOSTS))
        for path in [os.path.join(self.folder, "names"),
                     *(os.path.join(root, "etc", "hosts") for root in [self.desk.root, *self.roots.values()])]:
            with open(path, "w") as file:
                file.write(names)
        for root in self.roots.values():
            self.stub(root, played_hosts.HOST_STUBS)
        with open(os.path.join(self.folder, "hosts.json"), "w") as file:
            json.dump({"roots": self.roots, "corpora": folders["data"]}, file)
        self.play = os.path.join(self.folder, "play")
        played_hosts.make_pipes(self.play)

    def prepare_look(self):
        """At the console, where a browser can be had."""
        self.screenshot = None
        try:
            packages = npm_packages.install(os.path.join(HERE, "..", "server", "console"), "console-browser")
            if not shutil.which("chromium"):
                raise npm_packages.PackagesMissing("no chromium: run deploy/install-dependencies tests")
        except npm_packages.PackagesMissing as error:
            if os.environ.get("CI") == "true":
                raise
            print(f"without a look at the console: {error}", flush=True)
            return
        self.screenshot = os.path.join(os.environ.get("LASP_SCREENSHOTS") or self.folder, "newcomer.png")
        # Modules are looked up from where the script lies.
        shutil.copy(os.path.join(HERE, "look.mjs"), self.folder)
        os.symlink(os.path.join(packages, "node_modules"), os.path.join(self.folder, "node_modules"))
        with open(os.path.join(self.folder, "look.json"), "w") as file:
            json.dump({"url": "https://coordinator:7072", "token": os.path.join(self.checkout, "bob.token"),
                       "chromium": shutil.which("chromium"), "screenshot": self.screenshot}, file)

    def machine(self, like=None):
        made = Machine(BUILD, like)
        self.addCleanup(made.close)
        return made

    @staticmethod
    def stub(root, programs):
        for name, text in programs.items():
            path = os.path.join(root, "usr", "local", "bin", name)
            with open(path, "w") as file:
                file.write(text)
            os.chmod(path, 0o755)

    def logs(self):
        text = ""
        for host, root in self.roots.items():
            for service in ("lasp-server", "lasp-worker", "prometheus"):
                path = os.path.join(root, "var", "log", f"{service}.log")
                if os.path.exists(path):
                    with open(path) as file:
                        text += f"\n{host}: {file.read()[-2000:]}"
        return text

    def test_from_empty_hosts_to_a_job_and_an_alert(self):
        with open(os.path.join(self.checkout, "commands"), "w") as file:
            file.write(commands())
        # Traced, so that what a command printed stands after it.
        desk = command_in(self.desk.root, ["bash", "-c", "cd /root/lasp && exec bash -euxo pipefail commands"],
                          volumes=[(self.checkout, "/root/lasp"), (self.play, "/play")],
                          environment={"HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"})
        done = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "bash",
                               "-euc", SETUP, "operator", *desk], text=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=900, cwd=self.folder,
                              env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HERE": HERE, "FOLDER": self.folder,
                                   "PYTHON": sys.executable, "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"})
        self.assertEqual(done.returncode, 0, done.stdout[-6000:] + self.logs())
        workers = self.after(done.stdout, "lasp workers")
        for host in ("gpu-1", "gpu-2"):
            self.assertRegex(workers, rf"(?m)^{host} +READY +2 +2 ")
        refused = self.after(done.stdout, "lasp submit .* bob.token")
        self.assertIn("needs editor in project default", refused)
        self.assertIn("refused: exit code 4", refused)
        submitted = self.after(done.stdout, "lasp submit .* --wait")
        self.assertIn("starts, 4 ranks on 2 workers", submitted)
        self.assertIn("SUCCEEDED", submitted)
        self.assertRegex(self.after(done.stdout, "lasp list --token_file bob.token"), r"(?m)^\S+ +SUCCEEDED ")
        self.assertIn("SUCCESS: prometheus.yml is valid", re.sub(r"/etc/prometheus/(?=prometheus.yml is)", "", done.stdout))
        self.assertIn("=> 3 ", done.stdout)
        self.assertRegex(done.stdout, r'alertname="LaspCoordinatorDown", alertstate="firing"')
        self.assertRegex(done.stdout[done.stdout.rindex("+ lasp workers"):], r"(?m)^gpu-1 +READY ")
        if self.screenshot:
            self.assertGreater(os.path.getsize(self.screenshot), 10_000)

    def after(self, text, command):
        """What was printed between this command and the next one."""
        return re.search(rf"(?m)^\++ {command}\n([\s\S]*?)^\++ (?!echo)", text).group(1)


if __name__ == "__main__":
    unittest.main()
