"""Dependencies point one way: kernels <- worker -> proto <- server, client."""
import glob
import os
import re
import subprocess
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("LASP_BIN", os.path.join(ROOT, "build", "bin"))
ACCELERATOR = r"libcu(da|dart|dnn|blas)|libnccl|libnvidia"
NUMERICS = r"libgloo|libopenblas|libblas|libgomp"
# What each program must not be linked with.
FORBIDDEN_LIBRARIES = {
    "lasp-server": ACCELERATOR + "|" + NUMERICS,
    "lasp": ACCELERATOR + "|" + NUMERICS + "|libsqlite",
    "lasp-worker": ACCELERATOR,
}
# What each folder must not include.
FORBIDDEN_INCLUDES = {
    "proto": r"(server|worker|client|kernels|tests)/|cuda|nccl|cudnn|gloo|cblas|omp\.h",
    "server": r"(worker|client|kernels|tests)/|cuda|nccl|cudnn|gloo|cblas|omp\.h",
    "client": r"(worker|server|kernels|tests)/|cuda|nccl|cudnn|gloo|cblas|omp\.h|sqlite",
    "worker": r"(server|client|tests)/",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
# Beyond the C++ library, whose headers have no suffix.
KERNEL_HEADERS = {"cblas.h", "omp.h", "immintrin.h"}


def includes_under(folder):
    """(file, how, header) for every include in a folder."""
    for suffix in ("h", "cc"):
        for path in glob.glob(os.path.join(ROOT, folder, "**", "*." + suffix), recursive=True):
            with open(path) as file:
                for how, header in INCLUDE.findall(file.read()):
                    yield os.path.relpath(path, ROOT), how, header


class LayeringTest(unittest.TestCase):
    def test_includes_point_one_way(self):
        wrong = [f"{path} includes {header}" for folder, pattern in FORBIDDEN_INCLUDES.items()
                 for path, _, header in includes_under(folder) if re.match(pattern, header)]
        self.assertEqual(wrong, [])

    def test_kernels_stand_alone(self):
        found = list(includes_under("kernels"))
        self.assertTrue(found)
        wrong = [f"{path} includes {header}" for path, how, header in found
                 if not (how == '"' and header.startswith("kernels/")) and
                 not (how == "<" and ("." not in header or header in KERNEL_HEADERS))]
        self.assertEqual(wrong, [])

    def test_programs_link_only_what_they_may(self):
        for program, pattern in FORBIDDEN_LIBRARIES.items():
            dynamic = subprocess.run(["readelf", "-d", os.path.join(BIN, program)], check=True, text=True,
                                     stdout=subprocess.PIPE).stdout
            needed = re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)
            self.assertTrue(needed, program)
            self.assertEqual([library for library in needed if re.match(pattern, library)], [], program)

    def test_headers_say_what_they_are(self):
        for folder in ("proto", "server", "client", "worker", "kernels"):
            for path in glob.glob(os.path.join(ROOT, folder, "**", "*.h"), recursive=True):
                with open(path) as file:
                    self.assertIn("#pragma once", file.read(), path)


if __name__ == "__main__":
    unittest.main()
