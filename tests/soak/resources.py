"""What the programs of a soak take, read every few seconds and written to resources.csv."""
import csv
import os
import time

from actor import Actor


def of_process(pid):
    """Memory in bytes, open files and threads; nothing once it has ended."""
    try:
        with open(f"/proc/{pid}/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        return {"rss_bytes": int(fields["VmRSS"].split()[0]) * 1024, "threads": int(fields["Threads"]),
                "fds": len(os.listdir(f"/proc/{pid}/fd"))}
    except (OSError, KeyError):
        return {}


def of_folder(path):
    """(bytes, files) beneath it. What goes while it is counted does not count."""
    size = count = 0
    for top, _, names in os.walk(path):
        for name in names:
            try:
                size += os.stat(os.path.join(top, name)).st_size
                count += 1
            except FileNotFoundError:
                pass
    return size, count


class Sampler(Actor):
    def __init__(self, path, period, programs, server_folder, worker_folders, more):
        """`programs()`: {name: pid} of those that run now. `more()`: further {column: number}."""
        super().__init__("sampler")
        self.path, self.period, self.programs, self.more = path, period, programs, more
        self.server_folder, self.worker_folders = server_folder, worker_folders
        self.samples = 0

    def act(self):
        begin = time.monotonic()
        with open(self.path, "w", newline="") as file:
            writer = None
            while not self.stopped():
                row = self._sample()
                if writer is None:
                    writer = csv.DictWriter(file, ["seconds", *row], restval="", extrasaction="ignore")
                    writer.writeheader()
                writer.writerow({"seconds": round(time.monotonic() - begin, 1), **row})
                file.flush()
                self.samples += 1
                self.pause(self.period)

    def _sample(self):
        row = {}
        for name, pid in self.programs().items():
            row.update({f"{name}.{what}": value for what, value in of_process(pid).items()})
        for what in ("", "-wal"):
            path = os.path.join(self.server_folder, "store.sqlite" + what)
            row["server." + ("wal_bytes" if what else "store_bytes")] = os.stat(path).st_size if os.path.exists(path) else 0
        row["server.log_bytes"], row["server.log_files"] = of_folder(os.path.join(self.server_folder, "logs"))
        for name, folder in self.worker_folders.items():
            row[f"{name}.work_bytes"], row[f"{name}.work_files"] = of_folder(folder)
        row.update(self.more())
        return row
