"""Those who watch jobs: what they saw is kept, to be compared with the store's history."""
import threading
import time

from actor import Actor
from history import Moment


class Watcher(Actor):
    """Watches a project's jobs, or all. It goes on from its resume token when its stream ends: by itself after every
    `patience` seconds where that is given, otherwise only when the coordinator ends it."""

    def __init__(self, name, access, parent, selects=None, filter="", batched=False, patience=None, seed=0):
        """`selects`: whether the filter selects a job of this state; all where there is no filter."""
        super().__init__(name, seed)
        self.access, self.parent, self.filter, self.batched, self.patience = access, parent, filter, batched, patience
        self.selects = selects
        self.seen = {}        # job: its Moments
        self.present = {}     # job: its state, of those that it has now
        self.intervals = []   # when it was connected
        self.ends = {}        # how its streams ended
        self.events = 0
        self.last_event = time.monotonic()
        self.longest_silence = 0.0
        self.resume_token = ""
        self._lock = threading.Lock()
        self._call = None

    def stop(self):
        super().stop()
        with self._lock:
            if self._call is not None:
                self._call.cancel()

    def copy_of_present(self):
        with self._lock:
            return dict(self.present)

    def silence(self):
        """Seconds since the last message, 0 where it is not connected."""
        return time.monotonic() - self.last_event if self._call is not None else 0.0

    def act(self):
        while not self.stopped():
            self._follow()
            self.pause(self.random.uniform(0, 3) if self.patience else 0.5)
        self.access.close()

    def _follow(self):
        import grpc
        from lasp.v1 import training_job_service_pb2 as api
        request = api.WatchTrainingJobsRequest(parent=self.parent, filter=self.filter, resume_token=self.resume_token,
                                               batched=self.batched)
        limit = self.random.uniform(0.5, 1.5) * self.patience if self.patience else None
        call = self.access.stub("TrainingJobService").WatchTrainingJobs(request, metadata=self.access.metadata(),
                                                                       timeout=limit)
        with self._lock:
            self._call = call
        if self.stopped():
            call.cancel()
        begin, self.last_event = None, time.monotonic()
        try:
            for message in call:
                now = time.time()
                if begin is None:
                    begin = now
                self._heard()
                with self._lock:
                    self._take(message, now)
                self.resume_token = message.resume_token
            end = "OK"
        except grpc.RpcError as error:
            end = error.code().name
            self._judge_end(error)
        with self._lock:
            self._call = None
        if begin is not None:
            self.intervals.append((begin, time.time()))
        self.ends[end] = self.ends.get(end, 0) + 1
        if end in ("UNAVAILABLE", "UNAUTHENTICATED"):
            self.access.close()

    def _judge_end(self, error):
        expected = {"CANCELLED", "UNAVAILABLE", "UNAUTHENTICATED"} | ({"DEADLINE_EXCEEDED"} if self.patience else set())
        if error.code().name not in expected:
            self.problems.append(f"{self.name}: its stream ended with {error.code().name}: {error.details()}")

    def _heard(self):
        now = time.monotonic()
        self.longest_silence = max(self.longest_silence, now - self.last_event)
        self.last_event = now
        self.events += 1

    def _take(self, message, now):
        from lasp.v1.training_job_pb2 import TrainingJob
        kind = message.WhichOneof("event")
        if kind == "batch":
            for event in message.batch.events:
                self._take(event, now)
        elif kind == "updated":
            job = message.updated
            state = TrainingJob.State.Name(job.state).removeprefix("STATE_")
            self.present[job.name] = state
            seen = self.seen.setdefault(job.name, [])
            if not seen or seen[-1][1:] != (state, job.generation):
                seen.append(Moment(now, state, job.generation))
        elif kind == "deleted_name":
            self.present.pop(message.deleted_name, None)
        elif kind == "removed_name":
            self.present.pop(message.removed_name, None)


class Newcomer(Actor):
    """Again and again a new watch, until its snapshot is whole: it holds every job that was there all the while."""

    def __init__(self, name, access, period, seed=0):
        super().__init__(name, seed)
        self.access, self.period = access, period
        self.snapshots = 0

    def act(self):
        while self.pause(self.random.uniform(0.5, 1.5) * self.period):
            before = self._list()
            snapshot = self._snapshot()
            after = self._list()
            if snapshot is None:
                continue
            self.snapshots += 1
            missing = (before & after) - snapshot
            if missing:
                self.problems.append(f"{self.name}: a new watch did not tell of {sorted(missing)}")
        self.access.close()

    def _list(self):
        from lasp.v1 import training_job_service_pb2 as api
        names, token = set(), ""
        while True:
            page = self.access.call("TrainingJobService", "ListTrainingJobs", api.ListTrainingJobsRequest(
                parent="projects/-", page_size=100, page_token=token))
            names |= {job.name for job in page.training_jobs}
            token = page.next_page_token
            if not token:
                return names

    def _snapshot(self):
        import grpc
        from lasp.v1 import training_job_service_pb2 as api
        names = set()
        call = self.access.stub("TrainingJobService").WatchTrainingJobs(
            api.WatchTrainingJobsRequest(parent="projects/-", batched=self.random.random() < 0.5), timeout=30,
            metadata=self.access.metadata())
        try:
            for message in call:
                events = message.batch.events if message.WhichOneof("event") == "batch" else [message]
                for event in events:
                    if event.WhichOneof("event") == "updated":
                        names.add(event.updated.name)
                    elif event.WhichOneof("event") == "bookmark" and event.bookmark.snapshot_end:
                        call.cancel()
                        return names
        except grpc.RpcError as error:
            if error.code().name not in ("UNAVAILABLE", "UNAUTHENTICATED"):
                self.problems.append(f"{self.name}: its stream ended with {error.code().name}: {error.details()}")
            self.access.close()
        return None
