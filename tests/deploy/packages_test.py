"""The Debian packages in a bare Debian 12: installed, started, upgraded, removed, purged. As root, with Debian's mirror."""
import contextlib
import glob
import os
import shutil
import tempfile
import unittest

import cluster_in_machines as cluster
from machine import Machine

BUILD = os.path.dirname(os.environ["LASP_BIN"])
# What calls were made, in a machine that looks as if systemd ran it.
SYSTEMCTL = '#!/bin/sh\necho "$*" >>/systemctl-calls\n[ "$1" != is-active ] || exit "$(cat /worker-runs)"\n'


@unittest.skipUnless(os.geteuid() == 0 and shutil.which("debootstrap"), "needs root and debootstrap")
class PackagesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folders = cluster.make_folder(folder.name, "first", "second")
        cluster.build_packages(BUILD, self.folders["first"])
        cluster.build_packages(BUILD, self.folders["second"], version="99.0.0")
        self.machine = Machine(BUILD)
        self.addCleanup(self.machine.close)

    def path(self, inside):
        return os.path.join(self.machine.root, inside.lstrip("/"))

    def read(self, inside):
        with open(self.path(inside)) as file:
            return file.read()

    def write(self, inside, text, mode=0o644):
        with open(self.path(inside), "w") as file:
            file.write(text)
        os.chmod(self.path(inside), mode)

    def install(self, which):
        debs = [os.path.basename(path) for path in glob.glob(os.path.join(self.folders[which], "*.deb"))]
        self.assertEqual(len(debs), 3)
        return self.machine.run("apt-get install --yes --no-install-recommends " +
                                " ".join(f"/packages/{deb}" for deb in debs),
                                volumes=[(self.folders[which], "/packages")]).stdout

    def systemctl_calls(self):
        calls = self.read("/systemctl-calls").splitlines()
        self.write("/systemctl-calls", "")
        return calls

    def files(self):
        """What is in the machine but for what any package leaves: caches, logs and apt's own."""
        left = self.machine.run(
            "find / -xdev ( -path /proc -o -path /dev -o -path /tmp -o -path /run -o -path /var/cache -o -path /var/log "
            "-o -path /var/lib/apt -o -path /var/lib/dpkg -o -path /packages ) -prune -o -print".replace("(", "\\(")
            .replace(")", "\\)")).stdout
        return set(left.splitlines())

    @contextlib.contextmanager
    def cluster(self):
        """Runs a coordinator and an agent; gives where users connect."""
        options = {"user": "lasp", "volumes": [(self.folders["data"], "/data")], "environment": {"HOME": "/tmp"}}
        with contextlib.ExitStack() as services:
            server = self.machine.start(
                ["lasp-server", "--flagfile=/etc/lasp/lasp-server.flags", *cluster.SERVER_FLAGS], **options)
            services.callback(cluster.stop, server)
            addresses = cluster.serving(server)
            worker = self.machine.start(["lasp-worker", "--flagfile=/etc/lasp/lasp-worker.flags", *cluster.WORKER_FLAGS,
                                         f"--server={addresses['worker_address']}"], **options)
            services.callback(cluster.stop, worker)
            cluster.serving(worker)
            yield addresses["api_address"]

    def test_from_install_to_purge(self):
        machine = self.machine
        machine.run("apt-get update && apt-get install --yes --no-install-recommends adduser")
        before = self.files()
        self.install("first")
        for program in ("lasp-server", "lasp-worker", "lasp-rank", "lasp", "lasp-model"):
            self.assertNotIn("not found", machine.run(["ldd", f"/usr/bin/{program}"]).stdout)
        self.assertEqual(machine.run("dpkg --verify lasp-server lasp-worker lasp; dpkg --audit").stdout, "")
        self.assertIn("/lasp/lasp-server.flags", self.read("/lib/systemd/system/lasp-server.service"))
        self.assertIn("ExecStart=/usr/bin/lasp-worker ", self.read("/lib/systemd/system/lasp-worker.service"))
        for page in ("man1/lasp.1", "man1/lasp-submit.1", "man8/lasp-server.8", "man8/lasp-worker.8"):
            self.assertIn(".SH NAME", self.read(f"/usr/share/man/{page}"))
        self.assertIn("complete -F _lasp", self.read("/usr/share/bash-completion/completions/lasp"))
        # Nothing is enabled: what a host is for is not known when a package comes.
        self.assertEqual(glob.glob(self.path("/etc/systemd/system/*.wants/lasp*")), [])

        # systemd makes the state folders; there is none here.
        machine.run("install -d -o lasp -g lasp -m 0700 /var/lib/lasp-server /var/lib/lasp-worker")
        with self.cluster() as api:
            self.assertIn("SUCCEEDED", cluster.state_after_training(machine, ["lasp"], api, self.folders["jobs"]))

        # An upgrade keeps the flags that were changed, restarts the coordinator and leaves the agent to people.
        os.makedirs(self.path("/run/systemd/system"))
        self.write("/usr/bin/systemctl", SYSTEMCTL, 0o755)
        self.write("/worker-runs", "0")
        with open(self.path("/etc/lasp/lasp-server.flags"), "a") as file:
            file.write("--retain_finished=12h\n")
        said = self.install("second")
        self.assertIn("lasp drain this host", said)
        calls = self.systemctl_calls()
        self.assertIn("try-restart lasp-server.service", calls)
        self.assertFalse([c for c in calls if "restart" in c and "worker" in c], calls)
        self.assertIn("--retain_finished=12h", self.read("/etc/lasp/lasp-server.flags"))
        self.assertIn("99.0.0", machine.run(["dpkg-query", "-W", "lasp-server"]).stdout)
        with self.cluster() as api:
            # The store is the one from before.
            self.assertIn("SUCCEEDED", machine.run(["lasp", "--server", api, "list"], environment={"HOME": "/tmp"}).stdout)

        machine.run("apt-get remove --yes lasp-server lasp-worker lasp")
        calls = self.systemctl_calls()
        for service in ("lasp-server.service", "lasp-worker.service"):
            self.assertTrue([c for c in calls if c.startswith("disable --now") and service in c], calls)
        self.assertTrue(os.path.exists(self.path("/etc/lasp/lasp-server.flags")))
        self.assertTrue(os.path.exists(self.path("/var/lib/lasp-server/store.sqlite")))

        # The command line has left nothing to purge.
        machine.run("apt-get purge --yes lasp-server lasp-worker && apt-get autoremove --purge --yes")
        for stub in ("/usr/bin/systemctl", "/systemctl-calls", "/worker-runs"):
            os.remove(self.path(stub))
        left = {path for path in self.files() - before if not path.startswith(("/etc/alternatives", "/data", "/jobs"))}
        # Users stay, as Debian does it; libraries' caches are rebuilt.
        self.assertEqual(left - {"/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-", "/etc/ld.so.cache~"}, set())
        self.assertNotIn("lasp", machine.run("dpkg-query -W -f='${Package} ' 'lasp*' 2>/dev/null || true").stdout)


if __name__ == "__main__":
    unittest.main()
