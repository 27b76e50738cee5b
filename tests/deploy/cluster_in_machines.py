"""A coordinator and an agent in machines, and a small job that goes through them."""
import json
import os
import select
import subprocess
import time

JOB = """
spec:
  model: {architecture: TRANSNORMER, layers: 1, hidden_size: 64, heads: 2, glu_size: 64, vocab_size: 256}
  data: {train_paths: [corpus.txt], format: BYTES, sequence_length: 128}
  optimizer: {learning_rate: 1.0e-3}
  parallelism:
    sequence_parallel: {method: LASP, size: 2}
  global_batch_size: 2
  micro_batch_size: 2
  max_steps: 3
  device: CPU
"""
PORTS = ["--health_address=127.0.0.1:0", "--metrics_address=127.0.0.1:0"]
SERVER_FLAGS = ["--api_address=127.0.0.1:0", "--worker_address=127.0.0.1:0", "--console_address=", *PORTS,
                "--path_roots=/data"]
WORKER_FLAGS = ["--gpus=none", "--cpu_slots=2", *PORTS, "--path_roots=/data"]


def make_folder(folder, *names):
    """Folders that the machines' users can write, by name; "data" holds a corpus and "jobs" a job."""
    paths = {name: os.path.join(folder, name) for name in (*names, "data", "jobs")}
    os.chmod(folder, 0o755)
    for path in paths.values():
        os.mkdir(path)
        os.chmod(path, 0o777)
    with open(os.path.join(paths["data"], "corpus.txt"), "w") as file:
        file.write("A state of heads by d by d crosses between two ranks, whatever the length. " * 100)
    with open(os.path.join(paths["jobs"], "job.yaml"), "w") as file:
        file.write(JOB)
    return paths


def serving(process, timeout=60):
    """The addresses that a service prints on stdout once it serves."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if select.select([process.stdout], [], [], 0.5)[0]:
            line = process.stdout.readline()
            if not line:
                raise AssertionError(f"the service ended before it served: {process.wait(timeout=10)}")
            return json.loads(line)
    raise AssertionError("the service did not serve in time")


def stop(process):
    """Ends what `Machine.start` started: its namespace goes, and all in it."""
    process.kill()
    process.wait(timeout=30)
    process.stdout.close()


def state_after_training(machine, program, api_address, jobs, **options):
    """Submits the job with a client in `machine`, waits, and gives its last line."""
    done = machine.run([*program, "--server", api_address, "submit", "-f", "/jobs/job.yaml", "--wait"],
                       volumes=[(jobs, "/jobs")], timeout=120, environment={"HOME": "/tmp"}, **options)
    return done.stdout


def build_packages(build, folder, version=None):
    """The folder of this build's Debian packages."""
    command = ["cpack", "-G", "DEB", "--config", os.path.join(build, "CPackConfig.cmake"), "-B", folder,
               "-D", "CPACK_COMPONENTS_ALL=server;worker;client", "-D", "CPACK_DEBIAN_COMPRESSION_TYPE=gzip"]
    if version:
        command += ["-D", f"CPACK_PACKAGE_VERSION={version}"]
    done = subprocess.run(command, cwd=build, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=600)
    if done.returncode != 0:
        raise AssertionError(f"cpack: {done.stdout[-4000:]}")
    return folder
