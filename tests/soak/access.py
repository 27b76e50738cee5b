"""A client of the API whose certificates and token change under it."""
import os
import threading
import time
import uuid

# The soak starts programs while it holds channels; what gRPC would do about the copies is to wait.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"


class Tokens:
    """The present token of each user. Thread-safe."""

    def __init__(self):
        self._lock = threading.Lock()
        self._tokens = {}

    def set(self, user, token):
        with self._lock:
            self._tokens[user] = token

    def get(self, user):
        with self._lock:
            return self._tokens[user]


class Access:
    """One user's channel; of one thread. It dials anew, with what it finds then, after a call that could not be made
    or was not authenticated, as a client must that outlives its credentials."""

    # Seconds: longer than the coordinator takes to read new credentials.
    PATIENCE = 30

    def __init__(self, address, credentials, tokens, user, calls):
        """`calls`: a Calls that counts for all."""
        self._address, self._credentials, self._tokens, self.user, self._calls = address, credentials, tokens, user, calls
        self._channel = None

    def close(self):
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def stub(self, service):
        import grpc
        import importlib
        if self._channel is None:
            self._channel = grpc.secure_channel(
                self._address, grpc.ssl_channel_credentials(self._credentials.read("ca.crt")),
                [("grpc.use_local_subchannel_pool", 1), ("grpc.keepalive_time_ms", 30000)])
        module = "lasp.v1." + "".join("_" + c.lower() if c.isupper() else c for c in service).lstrip("_") + "_pb2_grpc"
        return getattr(importlib.import_module(module), service + "Stub")(self._channel)

    def metadata(self):
        return [("authorization", "Bearer " + self._tokens.get(self.user))]

    def call(self, service, method, request):
        """The answer; tries again while the service is not there for it, for at most PATIENCE."""
        def once():
            begin = time.monotonic()
            answer = getattr(self.stub(service), method)(request, timeout=20, metadata=self.metadata())
            self._calls.add(method, time.monotonic() - begin)
            return answer
        return self.persist(once)

    def persist(self, attempt):
        """What `attempt`, which may call as often as it likes, returns; from its beginning again while the service is not there
        for it, or its token has just been rotated, for at most PATIENCE."""
        import grpc
        give_up = time.monotonic() + self.PATIENCE
        while True:
            try:
                return attempt()
            except grpc.RpcError as error:
                code = error.code()
                if code not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAUTHENTICATED) or time.monotonic() > give_up:
                    raise
                self._calls.refused(code.name)
                self.close()
            time.sleep(0.2)


class Calls:
    """How many calls there were and how long they took. Thread-safe."""

    MUTATIONS = {"CreateTrainingJob", "CancelTrainingJob", "SuspendTrainingJob", "ResumeTrainingJob", "DeleteTrainingJob"}

    def __init__(self):
        self._lock = threading.Lock()
        self._seconds = {}
        self._refused = {}
        self.mutations = 0

    def add(self, method, seconds):
        with self._lock:
            self._seconds.setdefault(method, []).append(seconds)
            self.mutations += method in self.MUTATIONS

    def refused(self, code):
        with self._lock:
            self._refused[code] = self._refused.get(code, 0) + 1

    def figures(self):
        with self._lock:
            return {"tried_again": dict(self._refused),
                    "methods": {method: {"count": len(seconds), **quantiles(seconds)}
                                for method, seconds in sorted(self._seconds.items())}}


def quantiles(values):
    """Median, 99th percentile and maximum, in milliseconds."""
    values = sorted(values)
    if not values:
        return {}
    return {name: round(1000 * values[min(len(values) - 1, int(part * len(values)))], 1)
            for name, part in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))}


def new_request_id():
    return str(uuid.uuid4())
