"""Bad specs and requests, by the command line and by the API: each gets its canonical code and names
what is wrong and how to mend it; nothing of it stays, neither in the store nor in the process.

The rows lie in bad_input/: specs.json (changes to a sound job), requests.json (calls of the API; a
name in braces stands for a value of the test), job_files.json (texts that are no job). A value
{"repeat": x, "count": n} stands for x repeated n times."""
import copy
import importlib
import json
import os
import sqlite3
import unittest
import uuid

from api_stubs import StubsTest
from bad_input.files import write_bad_files
from cluster import small_spec, wait_until

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bad_input")
WRONG_JOB_FILE = 2  # the exit code, whatever the coordinator's code
MEMORY_TOLERANCE = 0.05
# gRPC's own threads come and go with the load, a few for each core.
GRPC_POOLS = ("default-executo", "resolver-execut", "grpc", "event_engine", "timer_manager", "nexting_thread")


def rows(name):
    with open(os.path.join(FOLDER, name)) as file:
        return expand(json.load(file))


def expand(value):
    if isinstance(value, dict):
        if set(value) == {"repeat", "count"}:
            return value["repeat"] * value["count"]
        return {key: expand(inner) for key, inner in value.items()}
    return [expand(inner) for inner in value] if isinstance(value, list) else value


def full_enum_names(spec):
    """As the API's JSON writes them."""
    spec["model"]["architecture"] = "ARCHITECTURE_" + spec["model"]["architecture"]
    spec["data"]["format"] = "FORMAT_" + spec["data"]["format"]
    spec["optimizer"]["schedule"] = "SCHEDULE_" + spec["optimizer"]["schedule"]
    for part in spec["parallelism"].values():
        part["method"] = "METHOD_" + part["method"]
    return spec


def changed(job, changes):
    """A copy of `job` with fields replaced by path; None takes a field out."""
    job = copy.deepcopy(job)
    for path, value in changes.items():
        *parents, name = path.split(".")
        at = job
        for parent in parents:
            at = at.setdefault(parent, {})
        if value is None:
            del at[name]
        else:
            at[name] = value
    return job


class Footprint:
    """What a server holds: descriptors, threads of its own, files, rows and memory."""

    def __init__(self, program, data_dir):
        proc = f"/proc/{program.pid}"
        self.descriptors = len(os.listdir(f"{proc}/fd"))
        self.threads = self._count_threads(f"{proc}/task")
        self.files = sorted(os.path.join(path, name) for path, _, names in os.walk(data_dir) for name in names)
        self.rows = self._count_rows(data_dir)
        with open(f"{proc}/status") as file:
            self.memory_kb = next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))

    @staticmethod
    def _count_threads(task_dir):
        names = []
        for task in os.listdir(task_dir):
            with open(os.path.join(task_dir, task, "comm")) as file:
                names.append(file.read().strip())
        return sorted(name for name in names if not name.startswith(GRPC_POOLS))

    @staticmethod
    def _count_rows(data_dir):
        counts = {}
        for name in sorted(os.listdir(data_dir)):
            if not name.endswith((".db", ".sqlite", ".sqlite3")):
                continue
            store = sqlite3.connect(f"file:{os.path.join(data_dir, name)}?mode=ro", uri=True)
            try:
                for (table,) in store.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                    # That something was refused is recorded, kind by kind.
                    if table == "audit_refusals":
                        continue
                    counts[table] = store.execute(f'SELECT count(*) FROM "{table}"').fetchone()[0]
            finally:
                store.close()
        return counts


class BadInputTest(StubsTest):
    def setUp(self):
        super().setUp()
        write_bad_files(self.data)
        self.sound = {"display_name": "sound", "spec": full_enum_names(small_spec())}

    # ---- asking ----------------------------------------------------------------------------------

    def call(self, method, request):
        """Calls SERVICE.METHOD with a request in JSON; the error's (code, message, violations)."""
        import grpc
        from google.protobuf import json_format
        from google.rpc import error_details_pb2, status_pb2
        service, name = method.split(".")
        stem = "".join("_" + c.lower() if c.isupper() else c for c in service).lstrip("_")
        api = importlib.import_module(f"lasp.v1.{stem}_pb2")
        stub = getattr(importlib.import_module(f"lasp.v1.{stem}_pb2_grpc"), service + "Stub")(self.channel)
        message = json_format.ParseDict(request, getattr(api, name + "Request")())
        try:
            answer = getattr(stub, name)(message, timeout=20)
            for _ in answer if hasattr(answer, "__next__") else ():
                pass
        except grpc.RpcError as error:
            status = status_pb2.Status()
            status.ParseFromString(dict(error.trailing_metadata()).get("grpc-status-details-bin", b""))
            violations, reason = [], ""
            for detail in status.details:
                bad, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
                if detail.Unpack(bad):
                    violations = [(v.field, v.description) for v in bad.field_violations]
                elif detail.Unpack(info):
                    reason = info.reason
            self.assertTrue(reason, f"{method} {error.code()} has no ErrorInfo")
            return error.code().name, error.details(), violations
        return "OK", "", []

    def check(self, row, code, message, violations):
        self.assertEqual(code, row["code"], message)
        text = message
        if row.get("field"):
            found = [description for field, description in violations if field == row["field"]]
            self.assertTrue(found, f"{row['field']} is not among {violations}")
            text = " ".join([message] + found)
        for words in row["says"]:
            self.assertIn(words, text)

    def spec_rows_by_api(self):
        for row in rows("specs.json"):
            if "api" in row.get("through", ["api"]):
                with self.subTest(row["name"], through="api"):
                    job = changed(self.sound, row["set"])
                    self.check(row, *self.call("TrainingJobService.CreateTrainingJob",
                                               {"parent": "projects/default", "training_job": job}))

    def spec_rows_by_command_line(self):
        path = os.path.join(self.folder, "bad.json")
        for row in rows("specs.json"):
            with self.subTest(row["name"], through="cli"):
                with open(path, "w") as file:
                    json.dump(changed(self.sound, row["set"]), file)
                done = self.lasp("submit", "-f", path, check=False)
                self.assertEqual(done.returncode, WRONG_JOB_FILE, done.stderr)
                self.assertEqual(done.stdout, "")
                for words in row["says"] + ([row["field"]] if row["field"] else []):
                    self.assertIn(words, done.stderr)
        for row in rows("job_files.json"):
            with self.subTest(row["name"], through="file"):
                done = self.lasp("submit", "-f", "-", input=row["text"], check=False)
                self.assertEqual(done.returncode, WRONG_JOB_FILE, done.stderr)
                self.assertTrue(done.stderr.strip())
                for words in row["says"]:
                    self.assertIn(words, done.stderr)

    def request_rows(self, values):
        def fill(value):
            if isinstance(value, dict):
                return {key: fill(inner) for key, inner in value.items()}
            return values.get(value[1:-1], value) if isinstance(value, str) and value[:1] == "{" else value
        for row in rows("requests.json"):
            with self.subTest(row["name"]):
                self.check(row, *self.call(row["method"], fill(row["request"])))

    def raw_requests(self):
        """Bytes that are no message of the method, and messages that are too large."""
        import grpc
        path = "/lasp.v1.TrainingJobService/CreateTrainingJob"
        raw = self.channel.unary_unary(path, request_serializer=None, response_deserializer=None)
        # The last is refused inside gRPC, before it has a method.
        cases = {"garbage": (b"\xff" * 100, "INVALID_ARGUMENT", "no lasp.v1.CreateTrainingJobRequest"),
                 "cut short": (b"\x0a\x7fprojects", "INVALID_ARGUMENT", "do not parse"),
                 "a parent that is no UTF-8": (b"\x0a\x02\xff\xfe", "INVALID_ARGUMENT", "do not parse"),
                 "five megabytes": (b"\x12" + b"\x80\x80\xc0\x02" + b"a" * (5 << 20), "RESOURCE_EXHAUSTED",
                                    "--max_message_bytes")}
        for name, (data, code, says) in cases.items():
            with self.subTest(name):
                with self.assertRaises(grpc.RpcError) as refused:
                    raw(data, timeout=20)
                self.assertEqual(refused.exception.code().name, code, refused.exception.details())
                self.assertIn(says, refused.exception.details())
        with self.subTest("no such method"):
            unknown = self.channel.unary_unary("/lasp.v1.TrainingJobService/Explode")
            with self.assertRaises(grpc.RpcError) as refused:
                unknown(b"", timeout=20)
            self.assertEqual(refused.exception.code().name, "UNIMPLEMENTED")
            self.assertIn("Explode is not served", refused.exception.details())

    def api_rows(self, values):
        self.spec_rows_by_api()
        self.request_rows(values)
        self.raw_requests()

    # ---- tests -----------------------------------------------------------------------------------

    def test_every_row_is_refused_and_leaves_nothing(self):
        import grpc
        self.start_server(max_host_bytes_a_second=1 << 30)
        worker = self.start_worker(slots=1)
        data_dir = os.path.join(self.folder, "server")
        self.submit(small_spec(steps=1), "done", "--wait")
        worker.terminate()
        for name in ("cancelled", "queued"):
            self.submit(small_spec(), name)
        self.lasp("cancel", "cancelled")
        with grpc.insecure_channel(self.server.api_address) as self.channel:
            values = self.values()
            # The first rounds fill caches, pools and arenas; what comes after them must add nothing.
            self.spec_rows_by_command_line()
            for _ in range(20):
                self.api_rows(values)
            before = self.footprint_of_rounds(values, data_dir)
            self.assertTrue(before.rows, "the store was not found")
            self.spec_rows_by_command_line()
            after = self.footprint_of_rounds(values, data_dir)
            # A thread's heap may keep a buffer for many rounds; a leak never comes back.
            for _ in range(20):
                if after.memory_kb < before.memory_kb * (1 + MEMORY_TOLERANCE):
                    break
                after = self.footprint_of_rounds(values, data_dir)
        self.assertEqual(after.rows, before.rows)
        self.assertEqual(after.files, before.files)
        self.assertLessEqual(after.descriptors, before.descriptors)
        self.assertEqual(after.threads, before.threads)
        growth = after.memory_kb / before.memory_kb - 1
        print(f"memory {before.memory_kb} kB, {growth:+.2%}; {before.descriptors} descriptors, "
              f"{len(before.threads)} threads", flush=True)
        if not self.is_sanitized(self.server):  # AddressSanitizer keeps what is freed for a while
            self.assertLess(growth, MEMORY_TOLERANCE)
        self.assertEqual(self.job("done")["state"], "SUCCEEDED")

    @staticmethod
    def is_sanitized(program):
        with open(f"/proc/{program.pid}/maps") as file:
            return "libasan" in file.read()

    def footprint_of_rounds(self, values, data_dir):
        """The footprint after a few rounds, with the least memory seen after one: the allocator keeps
        the buffer of an oversized message after some rounds and gives it back after others."""
        rounds = []
        for _ in range(6):
            self.api_rows(values)
            rounds.append(Footprint(self.server, data_dir))
        rounds[-1].memory_kb = min(footprint.memory_kb for footprint in rounds)
        return rounds[-1]

    def values(self):
        """What the braces of requests.json stand for."""
        from lasp.v1 import training_job_service_pb2 as api, training_job_service_pb2_grpc as stubs
        from google.protobuf import json_format
        jobs = stubs.TrainingJobServiceStub(self.channel)
        used = str(uuid.uuid4())
        request = {"parent": "projects/default", "training_job_id": "queued-too", "request_id": used,
                   "training_job": self.sound}
        jobs.CreateTrainingJob(json_format.ParseDict(request, api.CreateTrainingJobRequest()), timeout=20)
        page = jobs.ListTrainingJobs(api.ListTrainingJobsRequest(parent="projects/default", page_size=1), timeout=20)
        self.assertTrue(page.next_page_token)
        names = {name: f"projects/default/trainingJobs/{name}" for name in ("done", "cancelled", "queued")}
        return {**names, "used_request_id": used, "page_token": page.next_page_token, "sound": self.sound}

    def test_all_violations_come_at_once(self):
        import grpc
        self.start_server(max_host_bytes_a_second=1 << 30)
        with grpc.insecure_channel(self.server.api_address) as self.channel:
            job = changed(self.sound, {
                "display_name": "n" * 129, "spec.model.layers": 0, "spec.model.heads": 3, "spec.optimizer.beta1": 2,
                "spec.data.train_paths": ["none.txt", "empty.bin"], "spec.max_steps": 0, "spec.global_batch_size": 0})
            code, _, violations = self.call("TrainingJobService.CreateTrainingJob",
                                            {"parent": "projects/default", "training_job": job})
        self.assertEqual(code, "INVALID_ARGUMENT")
        self.assertEqual([field for field, _ in violations], [
            "display_name", "spec.model.layers", "spec.model.heads", "spec.optimizer.beta1", "spec.global_batch_size",
            "spec.max_steps", "spec.data.train_paths[0]", "spec.data.train_paths[1]"])

    def test_corpora_that_go_wrong_under_a_job_fail_it_by_name(self):
        """What no early look can see: a stray token deep in the file, and a file that shrinks."""
        self.start_server(max_host_bytes_a_second=1 << 30)
        self.start_worker(slots=2)
        with open(os.path.join(self.data, "deep.bin"), "wb") as file:
            file.write(b"\1\0" * 20_000 + b"\xff\xff" + b"\1\0" * 100)
        spec = small_spec(steps=200, length=200)
        spec["data"].update(train_paths=["deep.bin"], format="UINT16")
        self.submit(spec, "stray")
        error = self.wait_for_failure("stray")
        self.assertIn("deep.bin: token 20000 is 65535", error)
        self.assertIn("spec.model.vocab_size", error)
        self.write_corpus("shrinking.txt")
        spec = small_spec(steps=1_000_000)
        spec["data"]["train_paths"] = ["shrinking.txt"]
        self.submit(spec, "shrink")
        self.wait_for_step("shrink", 2)
        size = os.path.getsize(os.path.join(self.data, "shrinking.txt"))
        os.truncate(os.path.join(self.data, "shrinking.txt"), 1000)
        error = self.wait_for_failure("shrink")
        self.assertIn(f"shrinking.txt has changed from {size} to 1000 bytes", error)

    def wait_for_failure(self, job_id):
        """The error of a job that fails in its first generation: data is not mended by trying again."""
        job = wait_until(lambda: (lambda j: j["state"] in ("FAILED", "SUCCEEDED", "CANCELLED") and j)(self.job(job_id)),
                         60, f"{job_id} to end")
        self.assertEqual(job["state"], "FAILED")
        self.assertEqual(job["generation"], 1)
        return job["error"]["message"]


if __name__ == "__main__":
    unittest.main()
