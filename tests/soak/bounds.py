"""What of a soak must be flat, and what may grow because it is kept by intent."""
from flatness import Allowed

MIB = 1 << 20
# What fills up once does so in the warm-up: the encoded events of the last 2,048 changes, of up to 1.5 KB each, SQLite's
# pages, and its log, which begins again at 16 MB. What grows for longer is kept by intent:
# a request's id is remembered for a day, in memory and in the store, so that a repeated request does nothing twice; the
# name of a deleted job until 10,000 more are deleted. Both are counted by `mutations`.
BOUNDS = {
    "server.rss_bytes": Allowed(2 * MIB, part=0.05, each=1024, counted="load.mutations"),
    "server.fds": Allowed(3),
    "server.threads": Allowed(3),
    "server.store_bytes": Allowed(1 * MIB, each=512, counted="load.mutations"),
    "server.wal_bytes": Allowed(1 * MIB),
    "server.log_bytes": Allowed(1 * MIB),
    "server.log_files": Allowed(50),
    "w1.rss_bytes": Allowed(2 * MIB, part=0.05),
    "w1.fds": Allowed(3),
    "w1.threads": Allowed(2),
    "w1.work_bytes": Allowed(256 << 10),
    # As many as the kept logs' bytes allow: the shorter the logs, the more of them.
    "w1.work_files": Allowed(50, part=1),
}
