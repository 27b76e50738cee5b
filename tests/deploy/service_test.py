"""deploy/systemd and `cmake --install`: units that systemd takes, flags that the programs have, and what these tell systemd."""
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
BIN = os.environ["LASP_BIN"]
# What the flags' files name and the programs may be built without.


class InstallTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.prefix = os.path.join(cls.folder.name, "lasp")
        cls.install(cls.prefix)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    @classmethod
    def install(cls, prefix, **environment):
        for component in ("server", "worker", "client"):
            subprocess.run(["cmake", "--install", os.path.dirname(BIN), "--prefix", prefix, "--component", component],
                           check=True, stdout=subprocess.DEVNULL, env={**os.environ, **environment})

    def unit(self, name):
        return os.path.join(self.prefix, "lib", "systemd", "system", f"{name}.service")

    def test_programs_start_where_they_are_installed(self):
        for program in ("lasp-server", "lasp-worker", "lasp"):
            done = subprocess.run([os.path.join(self.prefix, "bin", program), "version" if program == "lasp" else "--version"],
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.assertIn("0.1.0", done.stdout, done.stderr)
        # The agent looks for it there.
        self.assertTrue(os.access(os.path.join(self.prefix, "bin", "lasp-rank"), os.X_OK))
        self.assertTrue(os.access(os.path.join(self.prefix, "bin", "lasp-model"), os.X_OK))

    def test_into_usr_the_flags_go_to_etc(self):
        stage = os.path.join(self.folder.name, "stage")
        self.install("/usr", DESTDIR=stage)
        self.assertTrue(os.path.exists(os.path.join(stage, "etc", "lasp", "lasp-server.flags")))
        with open(os.path.join(stage, "usr", "lib", "systemd", "system", "lasp-worker.service")) as file:
            self.assertIn("ExecStart=/usr/bin/lasp-worker --flagfile=/etc/lasp/lasp-worker.flags\n", file.read())

    def test_flags_that_were_changed_are_kept(self):
        for name in ("lasp-server", "lasp-worker"):
            path = os.path.join(self.prefix, "etc", "lasp", f"{name}.flags")
            with open(path, "a") as file:
                file.write("--tls_cert=/etc/lasp/tls/tls.crt\n")
            with open(path) as file:
                changed = file.read()
            os.remove(self.unit(name))
            self.install(self.prefix)
            self.assertTrue(os.path.exists(self.unit(name)))
            with open(path) as file:
                self.assertEqual(file.read(), changed)

    def test_the_coordinator_may_take_its_time_to_start(self):
        # Before it is ready it reads its store through, which may be of gigabytes; systemd's default are 90 s.
        with open(self.unit("lasp-server")) as file:
            self.assertIn("\nTimeoutStartSec=1h\n", file.read())

    @unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd here")
    def test_systemd_takes_the_units(self):
        for name in ("lasp-server", "lasp-worker"):
            done = subprocess.run(["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", self.unit(name)],
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.assertEqual((done.returncode, done.stdout), (0, ""), name)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "no systemd here")
    def test_the_units_are_confined(self):
        # The agent's is more open, for GPUs.
        for name, worst in (("lasp-server", 20), ("lasp-worker", 40)):
            done = subprocess.run(["systemd-analyze", "security", "--offline=yes", f"--threshold={worst}", "--no-pager",
                                   self.unit(name)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            self.assertEqual(done.returncode, 0, done.stdout)

    def test_the_flags_exist(self):
        for name, source in (("lasp-server", "server/flags.cc"), ("lasp-worker", "worker/agent/flags.cc")):
            with open(os.path.join(ROOT, source)) as file:
                known = set(re.findall(r"ABSL_FLAG\(\s*[^,]+,\s*(\w+)", file.read()))
            with open(os.path.join(self.prefix, "etc", "lasp", f"{name}.flags")) as file:
                named = re.findall(r"^#?--(\w+)=", file.read(), re.MULTILINE)
            self.assertGreater(len(named), 5)
            self.assertEqual(set(named) - known, set(), name)


class NotifyTest(unittest.TestCase):
    """What the programs tell systemd, whose end of the socket is here."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        path = os.path.join(self.folder, "notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.bind(path)
        self.socket.settimeout(60)
        self.environment = {**os.environ, "NOTIFY_SOCKET": path, "WATCHDOG_USEC": "200000"}

    def check(self, command):
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(process.kill)
        self.assertEqual(self.socket.recv(100), b"READY=1")
        for _ in range(3):
            self.assertEqual(self.socket.recv(100), b"WATCHDOG=1")
        process.send_signal(signal.SIGTERM)
        told = self.socket.recv(100)
        while told == b"WATCHDOG=1":
            told = self.socket.recv(100)
        self.assertEqual(told, b"STOPPING=1")
        self.assertEqual(process.wait(timeout=60), 0)

    def test_the_coordinator(self):
        self.check([os.path.join(BIN, "lasp-server"), f"--data_dir={self.folder}/data", "--api_address=127.0.0.1:0",
                    "--worker_address=127.0.0.1:0", "--health_address=127.0.0.1:0", "--metrics_address=127.0.0.1:0",
                    "--console_address=127.0.0.1:0"])

    def test_the_agent(self):
        # A port that nobody listens on: an agent is ready to be told to end before it has found its coordinator.
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.check([os.path.join(BIN, "lasp-worker"), f"--work_dir={self.folder}/work", "--gpus=none", "--cpu_slots=1",
                        "--health_address=127.0.0.1:0", "--metrics_address=127.0.0.1:0",
                        f"--server=127.0.0.1:{unused.getsockname()[1]}"])


if __name__ == "__main__":
    unittest.main()
