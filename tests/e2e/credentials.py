"""What a cluster on a network proves itself with, made by deploy/credentials."""
import os
import subprocess

from cluster import ROOT


class Credentials:
    def __init__(self, folder, *hosts):
        self.folder = folder
        self.run("init")
        self.run("server", *(word for host in hosts for word in ("--host", host)))

    def run(self, command, *arguments):
        """What the script printed."""
        done = subprocess.run([os.path.join(ROOT, "deploy", "credentials"), command, self.folder, *arguments], text=True,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode != 0:
            raise AssertionError(f"credentials {command} {arguments} exited {done.returncode}:\n{done.stderr}")
        return done.stdout.strip()

    def path(self, *parts):
        return os.path.join(self.folder, *parts)

    def read(self, *parts):
        with open(self.path(*parts), "rb") as file:
            return file.read()

    def token(self, role, *projects, name=None, expires=None):
        """A new token."""
        arguments = [word for project in projects for word in ("--project", project)]
        arguments += ["--name", name] if name else []
        arguments += ["--expires", expires] if expires else []
        return self.run("token", "--role", role, *arguments)

    def server_flags(self):
        return {"tls_cert": self.path("server", "tls.crt"), "tls_key": self.path("server", "tls.key"),
                "tls_client_ca": self.path("ca.crt"), "token_file": self.path("tokens")}

    def worker_flags(self, worker_id):
        """Of an agent with this id, whose certificate is made where there is none."""
        if not os.path.exists(self.path("workers", worker_id)):
            self.run("worker", worker_id)
        return {"tls_cert": self.path("workers", worker_id, "tls.crt"),
                "tls_key": self.path("workers", worker_id, "tls.key"), "tls_ca": self.path("ca.crt")}
