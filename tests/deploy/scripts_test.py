"""The scripts of deploy/, without network and without changing the machine."""
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class InstallTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        # Where another user can read it, wherever the checkout lies.
        shutil.copytree(os.path.join(ROOT, "deploy"), os.path.join(self.folder.name, "deploy"))
        self.log = os.path.join(self.folder.name, "calls")
        # A machine in which no package is there, and whose apt-get only writes down how it was called.
        self.command("dpkg-query", "exit 1")
        self.command("apt-get", f'echo "apt-get $*" >>{self.log}; exit 0')
        self.command("sudo", f'echo "sudo $*" >>{self.log}; exit 0')
        # On the path, so that none is fetched.
        self.command("prometheus", "exit 0")
        self.command("promtool", "exit 0")
        self.command("npm", "exit 0")
        self.command("kubectl", "echo 'Client Version: v1.21.0'")

    def command(self, name, body):
        path = os.path.join(self.folder.name, name)
        with open(path, "w") as file:
            file.write(f"#!/bin/sh\n{body}\n")
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)

    def run_install(self, *arguments, user=None):
        os.chmod(self.folder.name, 0o777)
        script = os.path.join(self.folder.name, "deploy", "install-dependencies")
        return subprocess.run([script, *arguments], stdin=subprocess.DEVNULL, text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, user=user, extra_groups=[] if user else None,
                              env=dict(os.environ, PATH=self.folder.name + ":/usr/bin:/bin", HOME=self.folder.name))

    def calls(self):
        if not os.path.exists(self.log):
            return []
        with open(self.log) as file:
            return file.read().splitlines()

    def test_nothing_to_do(self):
        self.command("dpkg-query", "printf installed")
        self.command("apt-get", f"echo called >>{self.log}; exit 1")
        done = self.run_install("build", "quickstart", "tests", "lint", "nightly")
        self.assertEqual((done.returncode, done.stdout, self.calls()), (0, "", []), done.stderr)

    def test_says_what_it_would_do(self):
        done = self.run_install("--dry-run", "build")
        self.assertEqual(done.returncode, 3)
        self.assertIn("libgrpc++-dev", done.stdout)
        self.assertIn("--no-install-recommends", done.stdout)
        self.assertEqual(self.calls(), [])

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_root_proceeds(self):
        done = self.run_install("build")
        installs = [call for call in self.calls() if call.startswith("apt-get install --yes")]
        self.assertEqual(len(installs), 1)
        for wanted in ("--no-install-recommends", "DPkg::Lock::Timeout=", "cmake"):
            self.assertIn(wanted, installs[0])
        self.assertLess(done.stdout.index("Packages to install"), done.stdout.index("Command:"))
        self.assertEqual(done.returncode, 1)  # this apt-get installs nothing
        self.assertIn("still missing", done.stderr)

    def test_others_need_a_terminal(self):
        done = self.run_install("build", user=65534 if os.geteuid() == 0 else None)
        self.assertEqual(done.returncode, 2)
        self.assertIn("sudo DEBIAN_FRONTEND=noninteractive apt-get install", done.stderr)
        self.assertEqual(self.calls(), [])

    def test_an_old_kubectl_is_not_enough(self):
        self.command("dpkg-query", "printf installed")
        self.command("kubectl", '''echo 'Client Version: version.Info{Major:"1", Minor:"20", GitVersion:"v1.20.5"}' ''')
        done = self.run_install("--dry-run", "tests")
        self.assertEqual(done.returncode, 3, done.stdout)
        self.assertIn("kubectl", done.stdout)
        self.assertEqual(self.run_install("--dry-run", "build").returncode, 0)

    def test_unknown_group(self):
        self.assertEqual(self.run_install("everything").returncode, 2)

    def test_no_service_is_brought(self):
        """No package named in the script that is installed here brings a unit or a boot script."""
        dry = self.run_install("--dry-run", "build", "quickstart", "tests", "lint", "nightly").stdout
        packages = dry.split("Packages to install: ")[1].splitlines()[0].split()
        for package in packages:
            listed = subprocess.run(["/usr/bin/dpkg-query", "-L", package], text=True, stdout=subprocess.PIPE,
                                    stderr=subprocess.DEVNULL).stdout
            for path in listed.splitlines():
                self.assertFalse(path.startswith("/etc/init.d/") or path.endswith(".service"), f"{package}: {path}")


class QuickstartTest(unittest.TestCase):
    """How the quick start cleans up, with stand-ins for the programs."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.build = os.path.join(self.folder, "build")
        self.temporary = os.path.join(self.folder, "tmp")
        os.makedirs(os.path.join(self.build, "bin"))
        os.mkdir(self.temporary)
        open(os.path.join(self.build, "build.ninja"), "w").close()
        self.tools = os.path.join(self.folder, "tools")
        os.mkdir(self.tools)
        self.write(self.tools, "ninja", "exit 0")
        self.write(self.tools, "dpkg-query", "printf installed")
        self.write(self.tools, "bible", "yes 'In the beginning' | head -n 1000")
        self.serve("lasp-server", api_address="127.0.0.1:1", worker_address="127.0.0.1:2", metrics_address="127.0.0.1:3")
        self.serve("lasp-worker", metrics_address="127.0.0.1:3", gpus="none")
        self.write(self.tools, "prometheus", 'echo \'msg="Listening on" address=127.0.0.1:4\' >&2; exec sleep 1000')
        self.write(self.tools, "promtool", "exit 0")
        self.write(os.path.join(self.build, "bin"), "lasp", f"touch {self.folder}/submitted; exec sleep 1000")

    def serve(self, name, **values):
        self.write(os.path.join(self.build, "bin"), name, f"echo '{json.dumps(values)}'; exec sleep 1000")

    def write(self, folder, name, body):
        path = os.path.join(folder, name)
        with open(path, "w") as file:
            file.write(f"#!/bin/sh\n{body}\n")
        os.chmod(path, 0o755)

    def start(self, *arguments):
        environment = dict(os.environ, PATH=self.tools + ":/usr/bin:/bin", TMPDIR=self.temporary, HOME=self.folder)
        return subprocess.Popen([os.path.join(ROOT, "deploy", "quickstart"), "--build-dir", self.build, *arguments],
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env=environment, start_new_session=True)

    def mine(self):
        """Live processes that have this test's folder in their environment."""
        found = []
        for entry in os.listdir("/proc"):
            try:
                with open(f"/proc/{entry}/environ", "rb") as file:
                    environment = file.read()
                with open(f"/proc/{entry}/stat") as file:
                    state = file.read().rsplit(")", 1)[1].split()[0]
            except (OSError, IndexError):
                continue
            if entry.isdigit() and state != "Z" and ("TMPDIR=" + self.temporary).encode() in environment:
                found.append(int(entry))
        return found

    def await_training(self, process):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            line = process.stderr.readline()
            if "training on " in line:
                return line
            if not line:
                break
        self.fail("the quick start did not come to training")

    def await_count(self, count):
        deadline = time.monotonic() + 10
        found = self.mine()
        while len(found) != count and time.monotonic() < deadline:
            time.sleep(0.05)
            found = self.mine()
        self.assertEqual(len(found), count)

    def end_by(self, number, code):
        process = self.start()
        self.await_training(process)
        deadline = time.monotonic() + 10
        while not os.path.exists(self.folder + "/submitted") and time.monotonic() < deadline:
            time.sleep(0.05)
        self.await_count(5)  # the script, three services, the command line
        process.send_signal(number)
        process.communicate(timeout=30)
        self.assertEqual(process.returncode, code)
        self.await_count(0)

    def test_ctrl_c(self):
        self.end_by(signal.SIGINT, 130)
        self.assertEqual(os.listdir(self.temporary), [])

    def test_terminate(self):
        self.end_by(signal.SIGTERM, 143)
        self.assertEqual(os.listdir(self.temporary), [])

    def test_kill(self):
        self.end_by(signal.SIGKILL, -signal.SIGKILL)

    def test_uses_the_gpus_there_are(self):
        # The first thing the command line is called for fails, and so does what asks why.
        self.write(os.path.join(self.build, "bin"), "lasp",
                   f'[ "$1" = submit ] && echo "$@" >{self.folder}/submitted; exit 1')
        for gpus, where, settings in (
                ("none", "4 ranks (SP 2 x DP 2) on CPUs", ("CPU", 2, 2)),
                ("GPU-a", "1 rank on the GPU", ("GPU", 1, 1)),
                ("GPU-a,GPU-b,GPU-c", "2 ranks (SP 2) on 2 of 3 GPUs", ("GPU", 2, 1)),
                ("GPU-a,GPU-b,GPU-c,GPU-d,GPU-e", "4 ranks (SP 2 x DP 2) on 4 of 5 GPUs", ("GPU", 2, 2))):
            with self.subTest(gpus):
                self.serve("lasp-worker", metrics_address="127.0.0.1:3", gpus=gpus)
                process = self.start()
                self.assertIn("training on " + where, self.await_training(process))
                process.communicate(timeout=30)
                self.assertEqual(process.returncode, 1)
                with open(self.folder + "/submitted") as file:
                    self.assertIn("--set spec.device={} --set spec.parallelism.sequence_parallel.size={} "
                                  "--set spec.parallelism.data_parallel.size={}".format(*settings), file.read())

    def test_a_service_that_does_not_start(self):
        self.write(os.path.join(self.build, "bin"), "lasp-worker", "echo no such flag >&2; exit 2")
        process = self.start()
        out, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 1)
        self.assertEqual(out, "")
        self.assertIn("no such flag", err)
        self.assertIn("the logs are in", err)
        self.assertEqual(self.mine(), [])

    def test_configures_again_what_could_not_be_configured(self):
        os.remove(os.path.join(self.build, "build.ninja"))
        self.write(self.tools, "cmake", f"touch {self.build}/CMakeCache.txt; echo a compiler is missing; exit 1")
        process = self.start()
        _, err = process.communicate(timeout=30)
        self.assertEqual(process.returncode, 1)
        self.assertIn("a compiler is missing", err)
        self.write(self.tools, "cmake", f"touch {self.build}/build.ninja")
        self.write(self.tools, "ninja", f"test -f {self.build}/build.ninja")
        process = self.start()
        self.await_training(process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
        self.assertEqual(process.returncode, 143)

    def test_help_and_wrong_usage(self):
        for argument, code in (("--help", 0), ("--unknown", 2)):
            process = self.start(argument)
            process.communicate(timeout=30)
            self.assertEqual(process.returncode, code)


class BundleTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.out = os.path.join(self.folder.name, "bundle")

    def bundle(self, *arguments):
        return subprocess.run([os.path.join(ROOT, "deploy", "bundle"), *arguments], stdin=subprocess.DEVNULL, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def test_starts_with_its_own_libraries(self):
        note = os.path.join(self.folder.name, "note")
        with open(note, "w") as file:
            file.write("kept")
        for _ in range(2):  # the second replaces the first
            done = self.bundle("--add", note, self.out, shutil.which("xz"))
            self.assertEqual(done.returncode, 0, done.stderr)
        moved = os.path.join(self.folder.name, "moved")
        os.mkdir(moved)
        subprocess.run(["tar", "-xJf", self.out + ".tar.xz", "-C", moved], check=True)
        libraries = os.listdir(os.path.join(moved, "bundle", "lib"))
        self.assertTrue([name for name in libraries if name.startswith("liblzma")], libraries)
        self.assertFalse([name for name in libraries if name.startswith(("libc.so", "ld-linux"))], libraries)
        self.assertTrue(os.path.exists(os.path.join(moved, "bundle", "note")))
        run = subprocess.run([os.path.join(moved, "bundle", "run"), "xz", "--version"], text=True,
                             env={"PATH": os.environ["PATH"], "LD_DEBUG": "libs"}, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        self.assertIn("xz", run.stdout)
        self.assertRegex(run.stderr, "calling init: " + moved + ".*liblzma")

    def test_refuses_what_would_be_wrong(self):
        os.mkdir(self.out)
        xz = shutil.which("xz")
        for arguments, code in (((self.out, xz), 2), ((self.out,), 2), (("--unknown",), 2),
                                ((self.out + "2", "/nowhere/program"), 1), ((self.out + "2", xz, xz), 1)):
            done = self.bundle(*arguments)
            self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(os.listdir(self.folder.name), ["bundle"])


if __name__ == "__main__":
    unittest.main()
