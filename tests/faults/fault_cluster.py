"""A coordinator and three hosts that are network namespaces, in an isolation of their own, whose ranks can be told to fail."""
import glob
import os
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(HERE, "..", "e2e")]
import isolation  # noqa: E402
from cluster import BIN, ClusterTest, small_spec, wait_until  # noqa: E402
from credentials import Credentials  # noqa: E402

RANK_PROGRAM = os.path.join(os.path.dirname(BIN), "tests", "lasp-rank-faulty")
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"
HOSTS = ("host1", "host2", "host3")  # one to spare
STEPS = 120


def keep_logs(test, folder):
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    for path in glob.glob(os.path.join(test.folder, "*.log")) + glob.glob(os.path.join(test.folder, "host*", "**", "*"), recursive=True):
        if os.path.isfile(path):
            shutil.copy(path, os.path.join(folder, os.path.relpath(path, test.folder).replace("/", ".")))


class FaultCluster(ClusterTest):
    """A coordinator and three hosts, whose ranks can be told to fail."""

    pace_ms = 20
    interval_steps = 10
    memory_limit = 0
    clock_of = None  # "server" or "worker": whose clock can be moved

    def setUp(self):
        self.hosts = isolation.Hosts(HOSTS)
        self.cgroup_name = os.environ.get("LASP_FAULTS_CGROUP", "")
        # Hosts has put a file system of its own there.
        tempfile.tempdir = "/run"
        super().setUp()
        isolation.run("mount", "-t", "tmpfs", "tmpfs", "/dev/shm")
        self.store_disk = isolation.Disk(os.path.join(self.folder, "server"), 32)
        self.checkpoint_disk = isolation.Disk(os.path.join(self.folder, "checkpoints"), 32)
        with open(os.path.join(self.data, "pace"), "w") as file:
            file.write(str(self.pace_ms))

    def start_cluster(self):
        self.credentials = Credentials(os.path.join(self.folder, "credentials"), "127.0.0.1", self.hosts.COORDINATOR)
        self.token = self.credentials.token("admin", "*")
        self.start_server(prefix=self.clock("server"), **self.server_flags())
        self.workers_by_host = {}
        for host in HOSTS:
            self.start_host(host)
        for worker in self.workers_by_host.values():
            worker.await_ready()

    def server_flags(self):
        return {"checkpoint_root": self.checkpoint_disk.folder, "worker_address": f"{self.hosts.COORDINATOR}:0"}

    def start_host(self, host):
        worker = self.start_worker(host, slots=2, wait=False, prefix=(*self.hosts.on(host), *self.clock("worker")),
                                   rank_address=self.hosts.rank_address(host), rank_binary=RANK_PROGRAM,
                                   checkpoint_root=self.checkpoint_disk.folder)
        if self.memory_limit:
            group = isolation.Cgroup(f"{self.cgroup_name}/{host}").make()
            group.limit_memory(self.memory_limit)
            group.add(worker.pid)
        self.workers_by_host[host] = worker

    def restart_coordinator(self):
        self.server = self.restart_server(self.server, prefix=self.clock("server"),
                                          **dict(self.server_flags(), worker_address=self.server.addresses["worker_address"]))

    # ---- a clock that can be moved ----------------------------------------------------------------

    def clock(self, whose):
        if whose != self.clock_of:
            return ()
        self.move_clock(0)
        return ("env", f"LD_PRELOAD={FAKETIME}", f"FAKETIME_TIMESTAMP_FILE={self.folder}/clock", "FAKETIME_NO_CACHE=1",
                "FAKETIME_DONT_FAKE_MONOTONIC=1")

    def move_clock(self, seconds):
        path = os.path.join(self.folder, "clock")
        with open(path + ".new", "w") as file:
            file.write(f"{seconds:+d}s\n")
        os.rename(path + ".new", path)

    # ---- jobs -------------------------------------------------------------------------------------

    def spec(self, shape):
        sp, dp = shape
        return small_spec(sp=sp, dp=dp, steps=STEPS, batch=2, checkpoint={"interval_steps": self.interval_steps})

    def rows(self, job="job"):
        return {int(row["step"]): [row["loss"], row["gradient_norm"], row["learning_rate"]] for row in self.metrics(job)}

    def checkpoints(self, job="job"):
        return [c for c in self.lasp_json("checkpoints", "list", job) if c["state"] == "COMMITTED"]

    def wait_for_checkpoint(self, step, job="job"):
        wait_until(lambda: int(self.job(job)["checkpoint_step"]) >= step, 60, f"a checkpoint of step {step}")

    def ledger(self):
        """What each rank trained: (rank, generation, step, monotonic time)."""
        try:
            with open(os.path.join(self.data, "ledger")) as file:
                return [(int(r), int(g), int(s), float(t)) for r, g, s, t in (line.split() for line in file)]
        except FileNotFoundError:
            return []

    def pid_of(self, rank):
        with open(os.path.join(self.data, f"pid.{rank}")) as file:
            return int(file.read())
