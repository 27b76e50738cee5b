"""Starts a real coordinator and real agents on free loopback ports, in one temporary folder.

    class MyTest(ClusterTest):
        def test_it(self):
            server = self.start_server()
            self.start_worker(slots=2)
            job = self.submit(small_spec(sp=2))
            self.wait_for_state(job, "SUCCEEDED")

Everything a test starts is ended with it, and the test fails when a process outlives that. The
programs are taken from the folder LASP_BIN (default build/bin).
"""
import ctypes
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.abspath(os.environ.get("LASP_BIN", os.path.join(ROOT, "build", "bin")))
ADDRESSES = ("api_address", "worker_address", "health_address", "metrics_address", "console_address")
ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None, use_errno=True)


def adopt_orphans():
    """Makes this process the parent of what its children leave behind, so that it can be seen."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent():
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _status_fields(pid):
    """(name, state, parent) of a process, None once it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            text = file.read()
    except OSError:
        return None
    name = text[text.index("(") + 1:text.rindex(")")]
    state, parent = text[text.rindex(")") + 2:].split()[:2]
    return name, state, int(parent)


def children_of(pid):
    """{pid: name} of the live children of a process."""
    found = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            fields = _status_fields(entry)
            if fields and fields[2] == pid and fields[1] != "Z":
                found[int(entry)] = fields[0]
    return found


def is_alive(pid):
    fields = _status_fields(pid)
    return fields is not None and fields[1] not in "ZX"


def wait_until(condition, timeout, what):
    """Polls until condition() is true and returns its value; fails after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what() if callable(what) else what}")
        time.sleep(0.02)


def gpu_count():
    return len(glob.glob("/dev/nvidia[0-9]*"))


def own_loopback():
    """A loopback address of this process alone: on 127.0.0.1 another test's client that still knocks
    at the port of a server long gone may come before a rank's peer."""
    pid = os.getpid()
    return f"127.{1 + pid // 62500 % 250}.{pid // 250 % 250}.{1 + pid % 250}"


class Program:
    """A service that prints one JSON line of addresses on stdout once it serves."""

    def __init__(self, name, arguments, log_path, prefix=(), folder=BIN):
        self.name = name
        self.arguments = arguments
        self.log_path = log_path
        self._log = open(log_path, "ab")
        self.process = subprocess.Popen(
            list(prefix) + [os.path.join(folder, name)] + arguments, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=self._log, preexec_fn=die_with_parent)
        self.addresses = {}

    @property
    def pid(self):
        return self.process.pid

    def await_ready(self, timeout=30):
        lines = []
        reader = threading.Thread(target=lambda: lines.append(self.process.stdout.readline()), daemon=True)
        reader.start()
        reader.join(timeout)
        if not lines or not lines[0]:
            self.kill()
            raise AssertionError(f"{self.name} was not ready within {timeout} s:\n{self.log_tail()}")
        self.addresses = json.loads(lines[0])
        return self

    def __getattr__(self, flag):
        """server.api_address: an address of the JSON line."""
        try:
            return self.__dict__["addresses"][flag]
        except KeyError:
            raise AttributeError(flag) from None

    def log_tail(self, lines=40):
        with open(self.log_path, errors="replace") as file:
            return "".join(file.readlines()[-lines:])

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        """kill -9, and waits."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._close()

    def terminate(self, timeout=30):
        """SIGTERM, and waits; returns the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {timeout} s of SIGTERM:\n{self.log_tail()}")
        self._close()
        return code

    def _close(self):
        self.process.stdout.close()
        self._log.close()


def small_spec(sp=1, dp=1, steps=20, length=384, batch=None, **changes):
    """A job that trains in seconds; `changes` replace whole fields, for example data={...}."""
    spec = {
        "model": {"architecture": "TRANSNORMER", "layers": 2, "hidden_size": 32, "heads": 2, "glu_size": 64,
                  "vocab_size": 256},
        "data": {"train_paths": ["corpus.txt"], "format": "BYTES", "sequence_length": length},
        "optimizer": {"learning_rate": 1e-3, "min_learning_rate": 1e-4, "warmup_steps": min(5, steps),
                      "schedule": "COSINE", "weight_decay": 0.1},
        "parallelism": {"sequence_parallel": {"method": "LASP", "size": sp},
                        "data_parallel": {"method": "DDP", "size": dp}},
        "global_batch_size": batch or dp,
        "micro_batch_size": 1,
        "max_steps": steps,
        "seed": 1,
    }
    spec.update(changes)
    return spec


# A job that outlives whatever a test does to it.
LONG = 1_000_000


class ClusterTest(unittest.TestCase):
    """One test, one cluster."""

    def setUp(self):
        adopt_orphans()
        self.folder = tempfile.mkdtemp(prefix="lasp-e2e.")
        self.data = os.path.join(self.folder, "data")
        os.mkdir(self.data)
        self.write_corpus("corpus.txt")
        self.bin = BIN  # of the services that are started
        self.addresses = ADDRESSES  # flags of the coordinator
        self.programs = []
        self.others = []  # other processes to end with the test
        self.server = None
        self.credentials = None  # credentials.Credentials, for TLS and tokens
        self.token = ""

    def tearDown(self):
        failed = self.has_failed()
        # Agents first: one whose coordinator is away waits for it, to tell how its ranks ended.
        for program in sorted(reversed(self.programs), key=lambda program: program.name == "lasp-server"):
            if program.process.poll() is None:
                program.terminate() if program.name != "lasp-server" else program.kill()
        for process in self.others:
            process.kill()
            process.wait()
        left = self.orphans(timeout=3)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        if failed:
            for program in self.programs:
                print(f"---- {program.log_path}\n{program.log_tail()}", flush=True)
        if os.environ.get("LASP_KEEP_TEST_FOLDERS"):
            print(f"kept {self.folder}", flush=True)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.assertEqual(left, {}, "processes outlived the test")

    def has_failed(self):
        """Also in one of its parts; to be asked while it is torn down, when unittest's own flag is of the tearing down."""
        result = self._outcome.result
        return any(self in (test, getattr(test, "test_case", None)) for test, _ in result.failures + result.errors)

    # ---- starting things ----------------------------------------------------------------------

    def write_corpus(self, name, size=300_000):
        """Text-like bytes: words drawn by a fixed generator from a small vocabulary."""
        state, words, length = 12345, [], 0
        vocabulary = ("the of and to in that he shall unto for lord his a they be is him not them it with all thou "
                      "thy was god which my me said but ye their have will thee from as are when this out were upon "
                      "by you israel king son up there people came had house into on her come one we children").split()
        while length < size:
            state = (1103515245 * state + 12345) % 2**31
            word = vocabulary[(state >> 8) % len(vocabulary) * ((state >> 20) % len(vocabulary)) // len(vocabulary)]
            words.append(word)
            length += len(word) + 1
        with open(os.path.join(self.data, name), "w") as file:
            file.write(" ".join(words)[:size])

    def start_server(self, data_dir="server", wait=True, prefix=(), **flags):
        values = {"data_dir": os.path.join(self.folder, data_dir), "path_roots": self.data}
        for flag in self.addresses:
            values[flag] = "127.0.0.1:0"
        values.update(self.credentials.server_flags() if self.credentials else {})
        values.update(flags)
        program = self._start("lasp-server", values, wait, prefix)
        if wait:
            self.server = program
        return program

    def restart_server(self, old, **flags):
        """A new process on the store and the ports of `old`."""
        return self.start_server(**{**{flag: old.addresses.get(flag, "127.0.0.1:0") for flag in self.addresses}, **flags})

    def start_worker(self, worker_id="w1", slots=4, wait=True, prefix=(), **flags):
        values = {"server": self.server.worker_address, "worker_id": worker_id, "cpu_slots": slots, "gpus": "none",
                  "health_address": "127.0.0.1:0", "metrics_address": "127.0.0.1:0", "path_roots": self.data,
                  "work_dir": os.path.join(self.folder, worker_id), "rank_address": own_loopback(),
                  "memory_root": os.path.join(self.folder, f"{worker_id}-memory")}
        values.update(self.credentials.worker_flags(worker_id) if self.credentials else {})
        values.update(flags)
        return self._start("lasp-worker", values, wait, prefix)

    def needs_a_gpu(self):
        """Skips the test where there is none; fails it where LASP_REQUIRE_GPU=1."""
        if gpu_count() < 1:
            message = "there are no GPUs"
            if os.environ.get("LASP_REQUIRE_GPU") == "1":
                self.fail(message)
            self.skipTest(message)

    def start_gpu_workers(self, ranks, **flags):
        """Agents with a GPU for each of so many ranks: one, where the GPUs are enough; otherwise an agent a rank, which share the
        first GPU. NCCL, which puts no two ranks of a host on one GPU, takes each for a host of its own."""
        if gpu_count() >= ranks:
            return [self.start_worker(slots=1, gpus="all", **flags)]
        return [self.start_worker(f"w{rank + 1}", slots=1, gpus="0", **flags,
                                  prefix=("env", f"NCCL_HOSTID=rank-{rank}", "NCCL_SOCKET_IFNAME=lo")) for rank in range(ranks)]

    def _start(self, name, values, wait, prefix):
        arguments = [f"--{flag}" if value is True else f"--{flag}={value}" for flag, value in values.items()]
        log_path = os.path.join(self.folder, f"{name}.{len(self.programs)}.log")
        program = Program(name, arguments, log_path, prefix, self.bin)
        self.programs.append(program)
        return program.await_ready() if wait else program

    # ---- the command line ---------------------------------------------------------------------

    def lasp(self, *arguments, check=True, timeout=60, input=None, server=None, prefix=(), token=None):
        environment = dict(os.environ, LASP_SERVER=server or self.server.api_address,
                           LASP_TOKEN=self.token if token is None else token,
                           XDG_CONFIG_HOME=self.folder)  # none of the contexts of whoever runs the test
        secure = [f"--tls_ca={self.credentials.path('ca.crt')}"] if self.credentials else []
        done = subprocess.run([*prefix, os.path.join(BIN, "lasp"), *secure, *map(str, arguments)], env=environment,
                              text=True, stdin=None if input is not None else subprocess.DEVNULL, input=input,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"lasp {' '.join(map(str, arguments))} exited {done.returncode}:\n{done.stderr}")
        return done

    def lasp_json(self, *arguments, **options):
        return json.loads(self.lasp(*arguments, "-o", "json", **options).stdout)

    def submit(self, spec, job_id="job", *arguments, **options):
        """Submits from a file, as users do; returns the job's id."""
        path = os.path.join(self.folder, f"{job_id}.json")
        with open(path, "w") as file:
            json.dump({"display_name": job_id, "spec": spec}, file)
        self.lasp("submit", "-f", path, f"--id={job_id}", *arguments, **options)
        return job_id

    def job(self, job_id):
        return self.lasp_json("get", "job", job_id)

    def metrics(self, job_id):
        return self.lasp_json("metrics", job_id)

    def workers(self):
        return self.lasp_json("workers")

    def worker_state(self, worker_id):
        states = [w["state"] for w in self.workers() if w["name"].endswith("/" + worker_id)]
        return states[0] if states else None

    def wait_for_state(self, job_id, states, timeout=60):
        wanted = (states,) if isinstance(states, str) else tuple(states)
        seen = {}

        def reached():
            seen.update(self.job(job_id))
            if seen["state"] in ENDED and seen["state"] not in wanted:
                raise AssertionError(f"{job_id} is {seen['state']}, not {wanted}: {self.lasp('describe', 'job', job_id).stdout}")
            return seen["state"] in wanted and dict(seen)
        return wait_until(reached, timeout, lambda: f"{job_id} {wanted}; it is {seen.get('state')} ({seen.get('reason')}: {seen.get('message')})")

    def wait_for_step(self, job_id, step, timeout=60):
        return wait_until(lambda: int(self.job(job_id)["progress"]["step"]) >= step, timeout, f"{job_id} at step {step}")

    # ---- processes ----------------------------------------------------------------------------

    def rank_process(self, worker, job, rank, generation=None):
        """The process of a rank of the present or the given generation, as its agent logs it."""
        generation = generation or self.job(job)["generation"]
        line = rf'rank started.*{re.escape(job)} generation {generation} rank {rank}\D.*?pid\W+(\d+)'
        found = []
        def started():
            found[:] = re.findall(line, worker.log_tail(200))
            return found
        wait_until(started, 10, f"rank {rank} of generation {generation} to be started")
        return int(found[-1])

    def ranks_of(self, worker):
        """Process ids of an agent's ranks."""
        return [pid for pid, name in children_of(worker.pid).items() if name.startswith("lasp-rank")]

    def orphans(self, timeout=0.0):
        """Live children of this test that it did not start itself, after at most `timeout` seconds."""
        own = {program.pid for program in self.programs}
        deadline = time.monotonic() + timeout
        while True:
            left = {pid: name for pid, name in children_of(os.getpid()).items() if pid not in own}
            left.update({pid: name for program in self.programs for pid, name in children_of(program.pid).items()
                         if program.process.poll() is not None})
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(0.05)
