"""The cells of the fault matrix: which fault, at which place in a rank's life, on whom."""
from dataclasses import dataclass

# Position: (SP, DP) of the job, and the rank. With two ranks in a group nobody is in the middle.
POSITIONS = {
    "rank-0": ((2, 2), 0),
    "sp-head": ((2, 2), 2),
    "sp-middle": ((4, 1), 1),
    "sp-tail": ((2, 2), 1),
    "other-replica": ((2, 2), 3),
}
STEP_PLACES = ("forward", "backward", "gradient-sync")
PLACES = ("start-up", *STEP_PLACES, "checkpoint-write", "commit", "restore", "drain")
# What the rank does itself.
DEADLY = ("sigkill", "sigsegv", "out-of-memory")
# What is noticed by what does not happen.
SILENT = ("sigstop", "hang", "partition-ranks")


@dataclass(frozen=True)
class Cell:
    fault: str
    place: str
    position: str  # of POSITIONS

    @property
    def name(self):
        return f"{self.fault}.{self.place}.{self.position}"

    @property
    def shape(self):
        return POSITIONS[self.position][0]

    @property
    def rank(self):
        return POSITIONS[self.position][1]

    @property
    def notice_limit(self):
        """Seconds in which it has to be noticed; None for what does not end a generation."""
        if self.fault == "out-of-memory":
            return 2.0  # it takes it bit by bit
        if self.fault in DEADLY:
            return 1.0
        if self.fault == "partition-agent":
            return 10.0
        return 22.0 if self.fault in SILENT else None


def all_cells():
    """Those that are noticed at once come first."""
    cells = []

    def add(fault, places, positions=tuple(POSITIONS)):
        cells.extend(Cell(fault, place, position) for place in places for position in positions)

    for fault in DEADLY:
        add(fault, PLACES)
    add("nan", ("forward", "backward"))
    add("coordinator-kill", PLACES, ("rank-0",))
    add("store-full", ("start-up", "forward", "checkpoint-write", "commit", "drain"), ("rank-0",))
    add("store-read-only", ("forward",), ("rank-0",))
    add("checkpoint-disk-full", ("checkpoint-write", "drain"), ("rank-0",))
    add("flipped-bit", ("restore",))
    add("torn-manifest", ("restore",), ("rank-0",))
    for clock in ("clock-forward", "clock-back", "agent-clock-forward", "agent-clock-back"):
        add(clock, ("forward", "checkpoint-write"), ("rank-0",))
    add("slow-quota", ("forward",))
    add("slow-duty", ("forward",))
    add("partition-agent", ("start-up", "forward", "checkpoint-write", "commit", "restore", "drain"),
        ("rank-0", "other-replica"))
    add("partition-ranks", ("start-up", "forward", "backward", "gradient-sync", "checkpoint-write", "restore"),
        ("rank-0", "other-replica"))
    add("sigstop", PLACES)
    add("hang", tuple(place for place in PLACES if place != "commit"))
    return cells


# A few of each kind, for the suite.
QUICK = ("sigkill.start-up.sp-head", "sigkill.forward.sp-middle", "sigsegv.commit.rank-0", "out-of-memory.checkpoint-write.sp-tail",
         "nan.backward.other-replica", "coordinator-kill.commit.rank-0", "checkpoint-disk-full.checkpoint-write.rank-0",
         "flipped-bit.restore.sp-head")
