"""Python stubs of the contract, made by protoc."""
import glob
import os
import subprocess
import sys

from cluster import ROOT


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
