"""Somebody with the console open in a browser: it asks for what its pages show, every few seconds."""
import http.client
import json
import ssl
import time

from actor import Actor


class Browser(Actor):
    # Seconds for which nothing may be had, between two certificates or two tokens.
    PATIENCE = 30

    def __init__(self, name, address, credentials, tokens, user, jobs, period, seed=0):
        super().__init__(name, seed)
        self.address, self.credentials, self.tokens, self.user = address, credentials, tokens, user
        self.jobs, self.period = jobs, period
        self.answers = {}  # how many, by code
        self.tags = {}     # of what it got last

    def act(self):
        connection, patient_since = None, None
        while self.pause(self.random.uniform(0.5, 1.5) * self.period):
            try:
                if connection is None:
                    connection = http.client.HTTPSConnection(self.address, timeout=20, context=ssl.create_default_context(
                        cadata=self.credentials.read("ca.crt").decode()))
                code = self._look(connection)
            except (OSError, http.client.HTTPException) as error:
                code = type(error).__name__
            self.answers[code] = self.answers.get(code, 0) + 1
            if code in (200, 304, 404):  # the last: the job has been deleted since
                patient_since = None
                continue
            connection.close()
            connection, patient_since = None, patient_since or time.monotonic()
            if time.monotonic() - patient_since > self.PATIENCE or code not in (401, "ConnectionResetError", "SSLCertVerificationError",
                                                                               "RemoteDisconnected"):
                self.problems.append(f"{self.name}: {code}")
                patient_since = None
        if connection is not None:
            connection.close()

    def _look(self, connection):
        recent = self.jobs.recent()
        name = self.random.choice(recent) if recent else "projects/red/trainingJobs/none"
        path = self.random.choice(["/", "/api/v1/projects/-/trainingJobs?page_size=50", "/api/v1/workers", f"/api/v1/{name}",
                                   f"/api/v1/{name}/metrics?max_points=200", f"/api/v1/{name}/logs?tail_lines=100"])
        headers = {"Authorization": "Bearer " + self.tokens.get(self.user)} if path != "/" else {}
        if path in self.tags:
            headers["If-None-Match"] = self.tags[path]
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == 200 and path != "/":
            json.loads(body)
            if answer.headers["ETag"]:
                self.tags = {path: answer.headers["ETag"]}
        return answer.status
