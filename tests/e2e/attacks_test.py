"""Attacks on a coordinator with TLS and tokens and a job that trains: each is refused with its code,
changes nothing, and no log tells a secret.

The rows lie in attacks/: calls.json (every method of the API, which is called without a token and with
wrong ones), agents.json (strangers on the worker plane, and an agent that speaks for others),
files.json (credentials that a start refuses). A name in braces stands for a value of the test."""
import base64
import importlib
import json
import os
import queue
import shutil
import socket
import unittest
import uuid

from api_stubs import StubsTest
from cluster import LONG, small_spec, wait_until
from credentials import Credentials

# The test starts programs while it holds channels; what gRPC would do about the copies is to wait.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"
FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "attacks")


def rows(name):
    with open(os.path.join(FOLDER, name)) as file:
        return json.load(file)


def module_of(service):
    return "lasp.v1." + "".join("_" + c.lower() if c.isupper() else c for c in service).lstrip("_")


class AttacksTest(StubsTest):
    def setUp(self):
        super().setUp()
        self.count = 0
        self.credentials = Credentials(os.path.join(self.folder, "credentials"), "127.0.0.1")
        self.tokens = {role: self.credentials.token(role, "victim", name=f"{role}-of-victim")
                       for role in ("viewer", "editor", "admin")}
        self.tokens["root"] = self.token = self.credentials.token("admin", "*", name="root")
        self.tokens["foreign"] = self.credentials.token("admin", "other", name="eve")
        self.tokens["expired"] = self.credentials.token("admin", "*", name="past", expires="1s")
        self.tokens["revoked"] = self.credentials.token("admin", "*", name="gone")
        self.credentials.run("revoke", "token", "gone")

    def tearDown(self):
        print(f"{self.count} attacks", flush=True)
        super().tearDown()

    def attack(self, *name):
        self.count += 1
        return self.subTest(" ".join(name))

    # ---- asking ----------------------------------------------------------------------------------

    @staticmethod
    def read_bytes(path):
        with open(path, "rb") as file:
            return file.read()

    def channel(self, address, authority=None, certificate=None):
        import grpc
        key = chain = None
        if certificate:
            key, chain = (self.read_bytes(os.path.join(self.folder, certificate, name)) for name in ("tls.key", "tls.crt"))
        channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(
            authority or self.credentials.read("ca.crt"), key, chain))
        self.addCleanup(channel.close)
        return channel

    def call(self, channel, method, request, metadata=()):
        """(code, message, reason) of a call of SERVICE.METHOD with a request in JSON."""
        import grpc
        from google.protobuf import json_format
        from google.rpc import error_details_pb2, status_pb2
        service, name = method.split(".")
        api = importlib.import_module(module_of(service) + "_pb2")
        stub = getattr(importlib.import_module(module_of(service) + "_pb2_grpc"), service + "Stub")(channel)
        message = json_format.ParseDict(request, getattr(api, name + "Request")())
        try:
            answer = getattr(stub, name)(message, timeout=20, metadata=metadata)
            if hasattr(answer, "__next__"):
                next(answer)
                answer.cancel()
        except grpc.RpcError as error:
            status = status_pb2.Status()
            status.ParseFromString(dict(error.trailing_metadata() or ()).get("grpc-status-details-bin", b""))
            info = error_details_pb2.ErrorInfo()
            reasons = [info.reason for detail in status.details if detail.Unpack(info)]
            return error.code().name, error.details(), reasons[0] if reasons else ""
        return "OK", "", ""

    def bearer(self, user):
        return [("authorization", "Bearer " + self.tokens[user])]

    def methods_of_the_api(self):
        from google.protobuf import descriptor_pool
        found = set()
        for service in ("TrainingJobService", "CheckpointService", "MetricsService", "LogService", "EventService",
                        "WorkerAdminService", "ServerService", "AuditService", "BackupService"):
            importlib.import_module(module_of(service) + "_pb2")
            descriptor = descriptor_pool.Default().FindServiceByName("lasp.v1." + service)
            found.update(f"{service}.{method.name}" for method in descriptor.methods)
        return found

    # ---- the cluster under attack ----------------------------------------------------------------

    def start_victim(self):
        self.start_server(log_level="debug")
        self.start_worker("w1", slots=1, log_level="debug")
        self.credentials.worker_flags("w2")
        self.submit(small_spec(steps=LONG), "job", "-p", "victim")
        wait_until(lambda: self.lasp_json("get", "job", "job", "-p", "victim")["progress"].get("step", 0) > 1, 60,
                   "the job to train")

    def victim(self):
        return self.lasp_json("get", "job", "job", "-p", "victim")

    def check_untouched(self):
        job = self.victim()
        self.assertEqual((job["state"], job["generation"], job["display_name"]), ("RUNNING", 1, "job"))
        step = job["progress"]["step"]
        self.assertLess(step, 900_000)
        wait_until(lambda: self.victim()["progress"]["step"] > step, 30, "the job to go on")
        self.assertEqual([j["name"] for j in self.lasp_json("list", "-A")], ["projects/victim/trainingJobs/job"])
        self.assertEqual(self.worker_state("w1"), "READY")
        self.assertNotIn("forged", self.lasp("logs", "job", "-p", "victim").stdout)

    def check_nothing_leaked(self):
        secrets = [token.encode() for token in self.tokens.values()]
        secrets += [base64.b64encode(secret) for secret in secrets]
        for path, _, names in os.walk(self.credentials.folder):
            secrets += [line for name in names if name.endswith(".key")
                        for line in self.read_bytes(os.path.join(path, name)).splitlines() if b"-----" not in line]
        places = [program.log_path for program in self.programs]
        places += [f"/proc/{program.pid}/cmdline" for program in self.programs if program.process.poll() is None]
        places += [os.path.join(path, name) for top in ("server", "w1") for path, _, names in
                   os.walk(os.path.join(self.folder, top)) for name in names]
        for place in places:
            text = self.read_bytes(place)
            self.assertEqual([secret for secret in secrets if secret in text], [], place)

    # ---- tests -----------------------------------------------------------------------------------

    def test_users(self):
        self.start_victim()
        channel = self.channel(self.server.api_address)
        table = rows("calls.json")
        self.assertEqual({row["method"] for row in table}, self.methods_of_the_api())
        wait_until(lambda: self.call(channel, "ServerService.GetServerInfo", {}, self.bearer("expired"))[2] ==
                   "TOKEN_EXPIRED", 10, "a token to expire")
        good = self.tokens["root"]
        unauthenticated = {
            "without a token": [], "with a wrong token": [("authorization", "Bearer lasp_" + "A" * 43)],
            "with a revoked token": self.bearer("revoked"), "with an expired token": self.bearer("expired"),
            "with half a token": [("authorization", "Bearer " + good[:-1])],
            "with a longer token": [("authorization", f"Bearer {good}A")],
            "with a token's hash": [("authorization", "Bearer " + self.hash_of("root"))],
            "with another scheme": [("authorization", "Basic " + good)],
            "with two tokens": [("authorization", "Bearer " + good), ("authorization", "Bearer lasp_x")],
            "with a header of its own": [("lasp-caller", "root"), ("x-forwarded-user", "root")]}
        for row in table:
            for how, metadata in unauthenticated.items():
                with self.attack(row["method"], how):
                    code, message, reason = self.call(channel, row["method"], row["request"], metadata)
                    self.assertEqual(code, "UNAUTHENTICATED", message)
                    self.assertRegex(reason, "^TOKEN_")
            if not row.get("anywhere"):
                with self.attack(row["method"], "with a foreign project's token"):
                    code, message, reason = self.call(channel, row["method"], row["request"], self.bearer("foreign"))
                    self.assertEqual((code, reason), ("PERMISSION_DENIED", "PROJECT_NOT_GRANTED"), message)
                    self.assertIn(row["needs"], message)
                    # Whether there is such a job is none of its business.
                    missing = json.loads(json.dumps(row["request"]).replace("/job", "/none"))
                    self.assertEqual(self.call(channel, row["method"], missing, self.bearer("foreign"))[1], message)
            if row["needs"] == "editor":
                with self.attack(row["method"], "with a viewer's token"):
                    code, message, reason = self.call(channel, row["method"], row["request"], self.bearer("viewer"))
                    self.assertEqual((code, reason), ("PERMISSION_DENIED", "ROLE_TOO_LOW"), message)
        self.assertEqual(self.call(channel, "ServerService.GetServerInfo", {}, self.bearer("viewer"))[0], "OK")
        with self.attack("all projects with a foreign project's token"):
            self.assertEqual(self.lasp_json("list", "-A", token=self.tokens["foreign"]), [])
            held = [slot for worker in self.lasp_json("workers", token=self.tokens["foreign"]) for slot in worker["slots"]]
            self.assertNotIn("victim", json.dumps(held))
        self.other_ways_in(channel)
        self.check_untouched()
        self.check_nothing_leaked()

    def hash_of(self, name):
        return next(line.split()[4] for line in self.credentials.read("tokens").decode().splitlines()
                    if line.startswith(name + " "))

    def other_ways_in(self, channel):
        import grpc
        for method in ("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", "/lasp.v1.WorkerService/Connect",
                       "/lasp.v1.TrainingJobService/Explode"):
            with self.attack(method, "without a token"):
                with self.assertRaises(grpc.RpcError) as refused:
                    next(channel.stream_stream(method)(iter([b"\x3a\x01*"]), timeout=20))
                self.assertEqual(refused.exception.code().name, "UNAUTHENTICATED")
        with self.attack("five megabytes without a token"):
            create = channel.unary_unary("/lasp.v1.TrainingJobService/CreateTrainingJob")
            with self.assertRaises(grpc.RpcError) as refused:
                create(b"\x12" + b"\x80\x80\xc0\x02" + b"a" * (5 << 20), timeout=20)
            self.assertIn(refused.exception.code().name, ("RESOURCE_EXHAUSTED", "UNAUTHENTICATED"))
        with self.attack("a token of a hundred kilobytes"):
            code, _, _ = self.call(channel, "ServerService.GetServerInfo", {}, [("authorization", "Bearer " + "a" * 100_000)])
            self.assertIn(code, ("RESOURCE_EXHAUSTED", "UNAUTHENTICATED"))
        for port in ("api_address", "worker_address"):
            with self.attack("plaintext gRPC to", port):
                plain = grpc.insecure_channel(self.server.addresses[port])
                self.assertEqual(self.call(plain, "ServerService.GetServerInfo", {}, self.bearer("root"))[0], "UNAVAILABLE")
                plain.close()
            with self.attack("plaintext HTTP to", port):
                host, number = self.server.addresses[port].rsplit(":", 1)
                with socket.create_connection((host, int(number)), timeout=20) as connection:
                    connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
                    self.assertNotIn(b"HTTP", connection.recv(1000))
            with self.attack("three hundred connections that say nothing to", port):
                silent = [socket.create_connection((host, int(number)), timeout=20) for _ in range(300)]
                self.assertEqual(self.call(channel, "ServerService.GetServerInfo", {}, self.bearer("root"))[0], "OK")
                self.assertEqual(self.lasp("list", check=False).returncode, 0)  # over a new connection
                for connection in silent:
                    connection.close()
        other = Credentials(os.path.join(self.folder, "other"), "127.0.0.1")
        with self.attack("a coordinator of another authority"):
            wrong = self.lasp("list", f"--tls_ca={other.path('ca.crt')}", check=False)
            self.assertEqual(wrong.returncode, 6, wrong.stderr)
            self.assertNotIn(self.token, wrong.stderr)
        with self.attack("a token to be sent over a network in plaintext"):
            done = self.lasp_without_tls("list", "-s", "192.0.2.1")
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("plaintext", done.stderr)

    def lasp_without_tls(self, *arguments):
        kept, self.credentials = self.credentials, None
        try:
            return self.lasp(*arguments, check=False)
        finally:
            self.credentials = kept

    def test_agents(self):
        import grpc
        self.start_victim()
        other = Credentials(os.path.join(self.folder, "other"), "127.0.0.1")
        other.worker_flags("w1")
        table = rows("agents.json")
        for row in table["strangers"]:
            with self.attack("agent with", row["name"]):
                with self.assertRaises(grpc.RpcError) as refused:
                    next(self.agent(row["certificate"], "w1")[1])
                self.assertEqual(refused.exception.code().name, "UNAVAILABLE")  # the handshake fails
        for row in table["claims"]:
            with self.attack("agent claims", row["name"]):
                with self.assertRaises(grpc.RpcError) as refused:
                    next(self.agent("credentials/workers/w2", row["worker_id"])[1])
                self.assertEqual(refused.exception.code().name, "PERMISSION_DENIED", refused.exception.details())
        job = self.victim()
        fence = {"training_job": job["name"], "uid": job["uid"], "generation": 1, "rank": 0}
        values = {"{fence}": fence, "{old_fence}": {**fence, "generation": 0}, "{new_fence}": {**fence, "generation": 2},
                  "{no_rank}": {**fence, "rank": 7}}
        for row in table["messages"]:
            with self.attack("agent sends", row["name"]):
                self.send_for_another(row, values)
                self.assertEqual(self.victim()["state"], "RUNNING")
        self.check_untouched()
        self.check_nothing_leaked()

    def agent(self, certificate, worker_id):
        """(queue of what it says, what it hears) of an agent that has greeted as `worker_id`."""
        from lasp.v1 import worker_service_pb2 as api, worker_service_pb2_grpc as stubs
        said = queue.Queue()
        hello = api.Hello(worker_id=worker_id, incarnation=str(uuid.uuid4()), version="0", host_name="attacker",
                          protocol_version=self.protocol_version())
        said.put(api.ConnectRequest(sequence=1, hello=hello))
        channel = self.channel(self.server.worker_address, certificate=certificate)
        heard = stubs.WorkerServiceStub(channel).Connect(iter(said.get, None), timeout=20)
        self.addCleanup(said.put, None)
        return said, heard

    def protocol_version(self):
        return self.lasp_json("version")["server"]["worker_protocol_version"]

    def send_for_another(self, row, values):
        import grpc
        from google.protobuf import json_format
        from lasp.v1 import worker_service_pb2 as api

        def fill(value):
            if isinstance(value, dict):
                return {key: fill(inner) for key, inner in value.items()}
            if isinstance(value, list):
                return [fill(inner) for inner in value]
            return values.get(value, value) if isinstance(value, str) else value
        said, heard = self.agent("credentials/workers/w2", "w2")
        self.assertTrue(next(heard).HasField("welcome"))
        said.put(json_format.ParseDict({**fill(row["message"]), "sequence": 2}, api.ConnectRequest()))
        if row["answer"] == "stop":  # to itself: what it claims to run is not its own
            stop = next(message for message in heard if message.HasField("stop"))
            self.assertEqual(stop.stop.reason, "STALE_GENERATION")
        elif row["answer"] == "end":
            with self.assertRaises(grpc.RpcError) as ended:
                for _ in heard:
                    pass
            self.assertEqual(ended.exception.code().name, "INVALID_ARGUMENT")
        said.put(None)
        for _ in heard if row["answer"] != "end" else ():  # until all it said has been taken
            pass

    def test_files(self):
        for row in rows("files.json"):
            with self.attack("start with", row["name"]):
                flags = self.credentials.server_flags()
                path = os.path.join(self.folder, "changed")
                shutil.copy(flags[row["flag"]], path)
                if "append" in row or "replace" in row:
                    with open(path, "a" if "append" in row else "w") as file:
                        file.write(row.get("append", row.get("replace")) + "\n")
                os.chmod(path, int(row.get("mode", "600"), 8))
                program = self.start_server(wait=False, **{row["flag"]: path})
                self.assertEqual(program.process.wait(20), 2)
                program.kill()  # closes its files
                self.assertIn(f"--{row['flag']}", program.log_tail())
                self.assertIn(row["says"], program.log_tail())
                os.remove(path)
        self.check_nothing_leaked()


if __name__ == "__main__":
    unittest.main()
