"""A few cells of the fault matrix."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e")]
import isolation  # noqa: E402
from cells import QUICK, all_cells  # noqa: E402
from cluster import BIN  # noqa: E402


class MatrixTest(unittest.TestCase):
    def test_a_few_cells(self):
        why = isolation.missing()
        if why and os.environ.get("CI") == "true":
            self.fail(why)
        if why:
            self.skipTest(why)
        with tempfile.TemporaryDirectory() as folder:
            done = subprocess.run([os.path.join(HERE, "run"), "--build-dir", os.path.dirname(BIN), "--results", folder, "--jobs", "2",
                                   "--quick"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            print(done.stdout, flush=True)
            self.assertEqual(done.returncode, 0, done.stdout)
            for name in QUICK:
                with open(os.path.join(folder, "cells", f"{name}.json")) as file:
                    result = json.load(file)
                self.assertEqual((result["verdict"], result["losses_equal"], result["leaks"]), ("passed", True, []), name)

    def test_names(self):
        names = [cell.name for cell in all_cells()]
        self.assertEqual(len(names), len(set(names)))
        self.assertLessEqual(set(QUICK), set(names))


if __name__ == "__main__":
    unittest.main()
