"""The Dockerfile's targets replayed in bare Debian 12 machines, without a container engine. As root, with Debian's mirror."""
import os
import shutil
import tempfile
import unittest

import cluster_in_machines as cluster
import image_file
from machine import Machine

BUILD = os.path.dirname(os.environ["LASP_BIN"])
STAGES = image_file.read(os.path.join(os.path.dirname(__file__), "..", "..", "deploy", "images", "Dockerfile"))


@unittest.skipUnless(os.geteuid() == 0 and shutil.which("debootstrap"), "needs root and debootstrap")
class ReplayTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folders = cluster.make_folder(folder.name, "packages", "server", "worker")
        cluster.build_packages(BUILD, self.folders["packages"])

    def replay(self, target):
        """A machine in which the target's steps were run."""
        image = image_file.Image(STAGES, target)
        self.assertEqual(image.copies, [], "files of the repository: not known here")
        machine = Machine(BUILD)
        self.addCleanup(machine.close)
        for mounts, command in image.runs:
            for mount in mounts:
                self.assertEqual((mount["type"], mount["from"], mount["source"]), ("bind", "build", "/build/packages"))
            machine.run(command, volumes=[(self.folders["packages"], mount["target"]) for mount in mounts])
        return machine, image

    def options(self, image, *volumes):
        user = image.user.split(":")[0]
        return {"user": user, "read_only": True, "volumes": [*volumes],
                "environment": {"HOME": "/tmp", **image.environment}}

    def test_a_job_trains_in_them(self):
        data = (self.folders["data"], "/data")
        machine, image = self.replay("server")
        self.assertNotEqual(machine.run(["touch", "/written"], check=False, **self.options(image)).returncode, 0)
        self.assertIn("uid=65532 gid=65532", machine.run(["id"], **self.options(image)).stdout)
        server = machine.start([*image.entrypoint, "--data_dir=/var/lib/lasp/server", *cluster.SERVER_FLAGS],
                               **self.options(image, data, (self.folders["server"], "/var/lib/lasp")))
        self.addCleanup(cluster.stop, server)
        addresses = cluster.serving(server)

        machine, image = self.replay("worker-cpu")
        worker = machine.start([*image.entrypoint, "--work_dir=/var/lib/lasp/worker", *cluster.WORKER_FLAGS,
                                f"--server={addresses['worker_address']}"],
                               **self.options(image, data, (self.folders["worker"], "/var/lib/lasp")))
        self.addCleanup(cluster.stop, worker)
        cluster.serving(worker)

        machine, image = self.replay("client")
        options = self.options(image)
        said = cluster.state_after_training(machine, image.entrypoint, addresses["api_address"], self.folders["jobs"],
                                            user=options["user"], read_only=True)
        self.assertIn("SUCCEEDED", said)


if __name__ == "__main__":
    unittest.main()
