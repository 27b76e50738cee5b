"""Python stubs of the contract, made by protoc."""
import glob
import os
import subprocess
import sys
import tempfile

from cluster import ROOT, ClusterTest


def import_stubs(folder):
    """Generates lasp.v1 and google.rpc into `folder` and makes them importable; once a process."""
    stubs = os.path.join(folder, "stubs")
    os.mkdir(stubs)
    proto = os.path.join(ROOT, "proto")
    files = [os.path.relpath(path, proto) for package in ("lasp/v1", "google/rpc")
             for path in glob.glob(os.path.join(proto, package, "*.proto"))]
    subprocess.run(["protoc", f"-I{proto}", f"--python_out={stubs}", f"--grpc_python_out={stubs}",
                    "--plugin=protoc-gen-grpc_python=/usr/bin/grpc_python_plugin", *files], check=True)
    sys.path.insert(0, stubs)
    import google
    google.__path__.append(os.path.join(stubs, "google"))  # beside google.protobuf


class StubsTest(ClusterTest):
    """A test whose cases all use the stubs."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.stub_folder = tempfile.TemporaryDirectory()
        import_stubs(cls.stub_folder.name)

    @classmethod
    def tearDownClass(cls):
        cls.stub_folder.cleanup()
        super().tearDownClass()
