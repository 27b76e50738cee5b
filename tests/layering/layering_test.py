"""Dependencies point one way: kernels <- worker -> proto <- server, client."""
import glob
import os
import re
import subprocess
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.environ.get("LASP_BIN", os.path.join(ROOT, "build", "bin"))
ACCELERATOR = r"libcu(da|dart|dnn|blas|rand|fft|pti)|libnccl|libnvidia|libnvrtc"
NUMERICS = r"libgloo|libopenblas|libblas|libgomp"
# What each program must not be linked with.
FORBIDDEN_LIBRARIES = {
    "lasp-server": ACCELERATOR + "|" + NUMERICS,
    "lasp": ACCELERATOR + "|" + NUMERICS + "|libsqlite",
    "lasp-worker": ACCELERATOR,
    "lasp-rank": ACCELERATOR,
    "lasp-model": ACCELERATOR,
}
# What each folder must not include.
FORBIDDEN_INCLUDES = {
    "proto": r"(server|worker|client|kernels|tests)/|cu(da|dnn|blas)|nccl|gloo|cblas|omp\.h",
    "server": r"(worker|client|kernels|tests)/|cu(da|dnn|blas)|nccl|gloo|cblas|omp\.h",
    "client": r"(worker|server|kernels|tests)/|cu(da|dnn|blas)|nccl|gloo|cblas|omp\.h|sqlite",
    "worker": r"(server|client|tests)/",
    # What it declares for all devices; device code does not lean on the CPU's.
    "kernels/cuda": r"kernels/(cpu|reference)/|cblas|omp\.h|immintrin",
}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]', re.MULTILINE)
# Beyond the C++ library, whose headers have no suffix.
KERNEL_HEADERS = {"cblas.h", "omp.h", "immintrin.h"}
CUDA_HEADERS = {"cooperative_groups.h", "cublasLt.h", "cuda.h", "cuda_bf16.h", "cuda_fp16.h",
                "cuda_runtime.h", "cuda_runtime_api.h", "cudaTypedefs.h", "cudnn_graph.h", "dlfcn.h"}


def includes_under(folder):
    """(file, how, header) for every include in a folder."""
    for suffix in ("h", "cc", "cuh", "cu"):
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
                 not (how == "<" and ("." not in header or header in KERNEL_HEADERS or
                                      path.startswith("kernels/cuda/") and header in CUDA_HEADERS))]
        self.assertEqual(wrong, [])

    def test_only_kernels_cuda_holds_device_code(self):
        found = [os.path.relpath(path, ROOT) for folder in ("proto", "server", "client", "worker", "kernels")
                 for suffix in ("cu", "cuh")
                 for path in glob.glob(os.path.join(ROOT, folder, "**", "*." + suffix), recursive=True)]
        self.assertEqual([path for path in found if not path.startswith("kernels/cuda/")], [])

    def test_programs_link_only_what_they_may(self):
        for program, pattern in FORBIDDEN_LIBRARIES.items():
            dynamic = subprocess.run(["readelf", "-d", os.path.join(BIN, program)], check=True, text=True,
                                     stdout=subprocess.PIPE).stdout
            needed = re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)
            self.assertTrue(needed, program)
            self.assertEqual([library for library in needed if re.match(pattern, library)], [], program)

    def test_configures_without_cuda(self):
        with tempfile.TemporaryDirectory() as build:
            subprocess.run(["cmake", "-G", "Ninja", "-S", ROOT, "-B", build, "-DLASP_CUDA=OFF"], check=True,
                           stdout=subprocess.DEVNULL)
            with open(os.path.join(build, "build.ninja")) as file:
                self.assertEqual(re.findall(r"nvcc|libcu\w*|\S+\.cu\b", file.read()), [])

    def test_headers_say_what_they_are(self):
        for path in (path for folder in ("proto", "server", "client", "worker", "kernels") for suffix in ("h", "cuh")
                     for path in glob.glob(os.path.join(ROOT, folder, "**", "*." + suffix), recursive=True)):
            with self.subTest(path):
                with open(path) as file:
                    self.assertIn("#pragma once", file.read(), path)


if __name__ == "__main__":
    unittest.main()
