"""The manual pages as the build makes them: whole, and clean under mandoc and groff."""
import glob
import os
import re
import shutil
import subprocess
import unittest

BIN = os.environ["LASP_BIN"]
MANUAL = os.path.join(os.path.dirname(BIN), "manual")


def missing(reason):
    if os.environ.get("CI") == "true":
        raise AssertionError(reason)
    raise unittest.SkipTest(reason)


def pages():
    return sorted(glob.glob(os.path.join(MANUAL, "man?", "*")))


def text_of(name):
    with open(os.path.join(MANUAL, name)) as file:
        return file.read()


def said(*command):
    return subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)


class ManualTest(unittest.TestCase):
    def test_each_command_has_a_page(self):
        commands = re.findall(r"^  ([a-z]+)  ", said(os.path.join(BIN, "lasp"), "--help").stdout, re.MULTILINE)
        self.assertGreater(len(commands), 15)
        expected = {"lasp.1", "lasp-server.8", "lasp-worker.8"} | {f"lasp-{command}.1" for command in commands}
        self.assertEqual({os.path.basename(page) for page in pages()}, expected)

    def test_each_flag_of_the_daemons_is_there(self):
        for program in ("lasp-server", "lasp-worker"):
            flags = re.findall(r"^  (--\w+)", said(os.path.join(BIN, program), "--help").stdout, re.MULTILINE)
            self.assertGreater(len(flags), 10)
            page = text_of(f"man8/{program}.8")
            for flag in flags:
                self.assertIn("\\fB" + flag.replace("-", "\\-"), page)

    def test_mandoc_has_nothing_to_complain_of(self):
        if shutil.which("mandoc") is None:
            missing("no mandoc: run deploy/install-dependencies tests")
        done = said("mandoc", "-T", "lint", "-W", "warning", *pages())
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_groff_has_nothing_to_complain_of(self):
        if shutil.which("groff") is None:
            missing("no groff: run deploy/install-dependencies tests")
        for page in pages():
            self.assertEqual(said("groff", "-man", "-ww", "-z", "-T", "utf8", page).stdout, "", page)

    def test_completion_scripts_lie_beside_them(self):
        for shell, name in (("bash", "lasp"), ("zsh", "_lasp"), ("fish", "lasp.fish")):
            self.assertEqual(text_of(f"completions/{name}"),
                             said(os.path.join(BIN, "lasp"), "completion", shell).stdout)


if __name__ == "__main__":
    unittest.main()
