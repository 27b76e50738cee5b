"""The users of a soak: those who submit, cancel, suspend and delete jobs, and those who use the command line."""
import collections
import json
import subprocess
import threading
import time

from access import new_request_id
from actor import Actor
from history import Moment

ENDED = ("SUCCEEDED", "FAILED", "CANCELLED")


def state_name(job):
    return type(job).State.Name(job.state).removeprefix("STATE_")


class Jobs:
    """The jobs that were made, and the history of each that has ended, read from the coordinator's store before
    retention removes it. Thread-safe."""

    def __init__(self):
        self._lock = threading.Lock()
        self.open = set()
        self.histories = {}  # job: its Moments
        self.ends = collections.Counter()
        self.restarts = 0
        self._recent = collections.deque(maxlen=20)

    def made(self, name):
        with self._lock:
            self.open.add(name)
            self._recent.append(name)

    def recent(self):
        with self._lock:
            return list(self._recent)

    def unfinished(self):
        with self._lock:
            return sorted(self.open)

    def read(self, job):
        """Takes the history of a job that has ended, as Get gave it."""
        moments = [Moment(change.time.ToMicroseconds() / 1e6,
                          type(job).State.Name(change.to_state).removeprefix("STATE_"), change.generation)
                   for change in job.transitions]
        with self._lock:
            if job.name not in self.histories:
                self.ends[state_name(job)] += 1
                self.restarts += job.restart_count
            self.histories[job.name] = moments
            self.open.discard(job.name)


class Submitter(Actor):
    """Submits jobs of many shapes. Of ten jobs seven are left alone, the others cancelled, suspended and resumed, or
    deleted when they have ended. Where so many wait already they submit no more, so that the queue does not grow when
    the machine is slow."""

    PATIENCE = 15

    def __init__(self, name, access, jobs, project, spec, period, seed=0):
        super().__init__(name, seed)
        self.access, self.jobs, self.project, self.spec, self.period = access, jobs, project, spec, period
        self.count = 0
        self.due = []  # (time, method, job)

    def act(self):
        while self.pause(self.random.uniform(0.5, 1.5) * self.period):
            if len(self.jobs.unfinished()) < self.PATIENCE:
                self._submit()
            now = time.monotonic()
            ripe, self.due = [d for d in self.due if d[0] <= now], [d for d in self.due if d[0] > now]
            for _, method, name in sorted(ripe):
                self._do(method, name)
        self.access.close()

    def _submit(self):
        from google.protobuf import json_format
        from lasp.v1 import training_job_service_pb2 as api
        self.count += 1
        draw = self.random
        sp, dp = draw.choice([(1, 1), (1, 1), (2, 1), (1, 2), (2, 2), (3, 1)])
        spec = self.spec(sp=sp, dp=dp, steps=draw.choice([5, 30, 100, 300]), recovery={"max_restarts": 100})
        request = api.CreateTrainingJobRequest(parent=f"projects/{self.project}", request_id=new_request_id(),
                                               training_job_id=f"{self.name}-{self.count}")
        json_format.ParseDict({"display_name": f"{self.name} {self.count}", "labels": {"by": self.name}}, request.training_job)
        json_format.ParseDict({"spec": with_prefixes(spec)}, request.training_job)
        job = self.access.call("TrainingJobService", "CreateTrainingJob", request)
        if draw.random() < 0.1:
            again = self.access.call("TrainingJobService", "CreateTrainingJob", request)
            if again.uid != job.uid:
                self.problems.append(f"{self.name}: a repeated request made another job")
        self.jobs.made(job.name)
        fate, now = draw.random(), time.monotonic()
        if fate < 0.15:
            self.due.append((now + draw.uniform(0, 10), "CancelTrainingJob", job.name))
        elif fate < 0.25:
            self.due.append((now + draw.uniform(0, 5), "SuspendTrainingJob", job.name))
            self.due.append((now + draw.uniform(8, 20), "ResumeTrainingJob", job.name))
        elif fate < 0.3:
            self.due.append((now + draw.uniform(30, 60), "DeleteTrainingJob", job.name))

    def _do(self, method, name):
        import grpc
        from lasp.v1 import training_job_service_pb2 as api
        request = getattr(api, method + "Request")(name=name)
        if method != "DeleteTrainingJob":
            request.request_id = new_request_id()
        elif not self._has_history(name):
            return
        try:
            self.access.call("TrainingJobService", method, request)
        except grpc.RpcError as error:
            # The job was faster.
            if error.code() not in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND):
                raise

    def _has_history(self, name):
        return name in self.jobs.histories


def with_prefixes(spec):
    """The spec of a job file in the enum names of the proto."""
    spec = json.loads(json.dumps(spec))
    spec["model"]["architecture"] = "ARCHITECTURE_" + spec["model"]["architecture"]
    spec["data"]["format"] = "FORMAT_" + spec["data"]["format"]
    spec["optimizer"]["schedule"] = "SCHEDULE_" + spec["optimizer"]["schedule"]
    for kind in ("sequence_parallel", "data_parallel"):
        spec["parallelism"][kind]["method"] = "METHOD_" + spec["parallelism"][kind]["method"]
    return spec


class Historian(Actor):
    """Reads the history of each job soon after its end."""

    def __init__(self, name, access, jobs, seed=0):
        super().__init__(name, seed)
        self.access, self.jobs = access, jobs

    def act(self):
        while self.pause(1):
            self.read_ended()
        self.access.close()

    def read_ended(self):
        from lasp.v1 import training_job_service_pb2 as api
        for name in self.jobs.unfinished():
            job = self.access.call("TrainingJobService", "GetTrainingJob", api.GetTrainingJobRequest(name=name))
            if state_name(job) in ENDED:
                self.jobs.read(job)


class Follower(Actor):
    """Follows the metrics, or the logs, of one job after another to its end, and compares with what is stored."""

    # Seconds a stream is open before it is made anew, and how long it may then have outlived its job: the last lines
    # of a log may wait for an agent that is away for half a minute.
    LIMIT, LATE = 90, 45

    def __init__(self, name, access, jobs, what, seed=0):
        super().__init__(name, seed)
        self.access, self.jobs, self.what = access, jobs, what
        self.followed = 0
        self.rows = 0
        self.token = ""

    def act(self):
        done = set()
        while self.pause(1):
            fresh = [name for name in self.jobs.recent() if name not in done and name not in self.jobs.histories]
            if fresh:
                name = self.random.choice(fresh)
                done.add(name)
                self._follow(name)
        self.access.close()

    def _follow(self, name):
        import grpc
        got = []
        while not self.stopped():
            try:
                for row in self._stream(name, got):
                    got.append(row)
                break
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.NOT_FOUND:
                    return  # deleted
                if error.code() == grpc.StatusCode.DEADLINE_EXCEEDED:
                    ended = self.jobs.histories.get(name)
                    late = time.time() - ended[-1].time if ended else 0
                    if late > self.LATE:
                        self.problems.append(f"{self.name}: {name} ended {late:.0f} s ago, its stream did not")
                        return
                elif error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED):
                    self.problems.append(f"{self.name}: {name}: {error.code().name}: {error.details()}")
                    return
                self.access.close()
                self.pause(0.5)
        if self.stopped():
            return
        try:
            self._compare(name, got)
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
        self.followed += 1
        self.rows += len(got)

    def _stream(self, name, got):
        return self._metrics(name, got) if self.what == "metrics" else self._logs(name, got)

    def _metrics(self, name, got):
        """Rows (generation, step, loss)."""
        from lasp.v1 import metrics_service_pb2 as api
        request = api.StreamMetricsRequest(name=name, from_step=got[-1][1] + 1 if got else 1,
                                           from_generation=got[-1][0] if got else 0)
        for message in self.access.stub("MetricsService").StreamMetrics(request, timeout=self.LIMIT,
                                                                        metadata=self.access.metadata()):
            for row in message.steps:
                yield row.generation, row.step, row.loss

    def _logs(self, name, got, follow=True):
        """Rows (generation, rank, offset, text)."""
        from lasp.v1 import log_service_pb2 as api
        request = api.StreamLogsRequest(name=name, follow=follow, resume_token=self.token if got else "")
        for message in self.access.stub("LogService").StreamLogs(request, timeout=self.LIMIT,
                                                                 metadata=self.access.metadata()):
            for line in message.lines:
                yield line.generation, line.rank, line.offset, line.text
            self.token = message.resume_token

    def _compare(self, name, got):
        if self.what == "metrics":
            from lasp.v1 import metrics_service_pb2 as api
            answer = self.access.call("MetricsService", "QueryMetrics", api.QueryMetricsRequest(name=name, max_points=10000))
            stored = {row.step: (row.generation, row.loss) for row in answer.steps}
            newest = {}
            for row, after in zip(got, got[1:] + [None]):
                newest[row[1]] = (row[0], row[2])
                if after is not None and after[:2] <= row[:2]:
                    self.problems.append(f"{self.name}: {name}: step {after[:2]} came after {row[:2]}")
            lost = {step: row for step, row in stored.items() if newest.get(step) != row}
        else:
            stored = self.access.persist(lambda: list(self._logs(name, [], follow=False)))
            for key in {row[:2] for row in got}:
                offsets = [row[2] for row in got if row[:2] == key]
                if offsets != sorted(set(offsets)):
                    self.problems.append(f"{self.name}: {name}: lines of rank {key} twice or out of order: {offsets}")
            lost = set(stored) - set(got)
        if lost:
            self.problems.append(f"{self.name}: {name}: {len(lost)} of {len(stored)} are stored and were not sent: "
                                 f"{sorted(lost.items() if isinstance(lost, dict) else lost)[:3]}")


class Terminal(Actor):
    """A person with the command line: lists, describes, reads, and waits for a job of their own."""

    def __init__(self, name, run, jobs, period, seed=0):
        """`run`: runs lasp with these arguments and gives the process that has ended."""
        super().__init__(name, seed)
        self.lasp, self.jobs, self.period = run, jobs, period
        self.commands = collections.Counter()

    def act(self):
        while self.pause(self.random.uniform(0.5, 1.5) * self.period):
            recent = self.jobs.recent()
            name = self.random.choice(recent) if recent else None
            project, job = (name.split("/")[1], name.split("/")[3]) if name else (None, None)
            choices = [["list", "-A", "-n", "20"], ["list", "-A", "--filter", "state=RUNNING"], ["workers"]]
            if name:
                choices += [["describe", "job", job, "-p", project], ["metrics", job, "-p", project],
                            ["logs", job, "-p", project]]
            command = self.random.choice(choices)
            try:
                done = self.lasp(*command, check=False, timeout=60)
            except subprocess.TimeoutExpired:
                self.problems.append(f"{self.name}: lasp {' '.join(command)} did not end within 60 s")
                continue
            self.commands[command[0]] += 1
            # 3: the job has been deleted since; 4 and 6: between two tokens, between two certificates.
            if done.returncode not in (0, 3, 4, 6):
                self.problems.append(f"{self.name}: lasp {' '.join(command)} exited {done.returncode}: {done.stderr}")
