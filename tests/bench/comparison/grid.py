"""What is compared: every cell of every table is one run of train_step_cuda."""
import dataclasses

K = 1024
SP_METHODS = ("LASP", "LASP2", "ALL_SCAN", "ULYSSES", "MEGATRON_SP", "RING_ATTENTION")
DP_METHODS = ("DDP", "LEGACY_DDP", "ZERO1", "ZERO2", "ZERO3")
# Those that the claim is about first.
LENGTHS = (128 * K, 256 * K, 512 * K, 64 * K, 32 * K, 1024 * K, 2048 * K)
# Of the left product, whose cost grows with the square of the length: the longest whole model, beyond which one
# layer is measured.
LEFT_PRODUCT_TOKENS = 512 * K
# TransNormerLLM-1B.
LAYERS = 16
# NCCL over TCP alone, as between hosts without anything better.
SLOW_LINK = {"NCCL_P2P_DISABLE": "1", "NCCL_SHM_DISABLE": "1", "NCCL_IB_DISABLE": "1", "NCCL_SOCKET_IFNAME": "lo"}


@dataclasses.dataclass(frozen=True)
class Cell:
    table: str
    gpus: int
    # Of the whole sequence, over all GPUs of the SP group, which are all there are.
    tokens: int
    sp_method: str = "LASP"
    data_parallel: str = "DDP"
    # Tried in turn until one fits.
    plans: tuple = ("KEEP",)
    layers: int = LAYERS
    slow_link: bool = False
    # What is left out of LASP, of train_step_cuda's --without.
    without: str = ""

    def key(self):
        """Names the cell among the results."""
        return (f"{self.table} {self.gpus} {self.tokens} {self.sp_method} {self.data_parallel} {'|'.join(self.plans)}"
                + (f" {self.layers} layers" if self.layers != LAYERS else "") + (f" without {self.without}" if self.without else ""))

    def seconds(self):
        """Of a step, about."""
        seconds = self.tokens / self.gpus / 75_000
        # The left product's own share grows with the square of the length.
        return seconds * (1 + self.tokens / (12 * K)) if self.sp_method == "RING_ATTENTION" else seconds

    def steps(self):
        """Enough for a median, a minute at most where one step takes less; two where it takes long."""
        seconds = self.seconds()
        return max(2, min(12, 2 + int(12 / seconds)))

    def timeout_seconds(self):
        """Of one run: starting, filling memory, finding the fastest products, the steps at half the speed."""
        return 180 + 2 * self.steps() * self.seconds()

    def arguments(self, plan):
        """Of train_step_cuda."""
        by = "nccl" if self.slow_link else "copies"
        return [str(self.tokens // self.gpus), str(self.layers), str(self.steps()), str(self.gpus), str(self.gpus), by, "", "4",
                self.sp_method, f"--data_parallel={self.data_parallel}", f"--activations={plan}",
                *(["--no_gradient_sync"] if self.slow_link else []), *([f"--without={self.without}"] if self.without else [])]

    def environment(self):
        return SLOW_LINK if self.slow_link else {}


def layers_of(method, tokens):
    return 1 if method == "RING_ATTENTION" and tokens > LEFT_PRODUCT_TOKENS else LAYERS


def speed(gpus):
    """The SP methods against each other; KEEP where it fits, else RECOMPUTE."""
    return [Cell("speed", gpus, tokens, method, data_parallel, ("KEEP", "RECOMPUTE"), layers_of(method, tokens))
            for data_parallel in ("DDP", "ZERO3") for tokens in LENGTHS for method in SP_METHODS
            if gpus > 1]


def slow_link(gpus):
    """The same where GPUs reach each other through TCP."""
    return [Cell("slow_link", gpus, tokens, method, "DDP", ("KEEP", "RECOMPUTE"), layers_of(method, tokens), slow_link=True)
            for tokens in (128 * K, 512 * K) for method in SP_METHODS if gpus > 1]


def data_parallel(gpus):
    return [Cell("data_parallel", gpus, 32 * K * gpus, "LASP", method) for method in DP_METHODS]


def plans(gpus):
    """What it costs to hold less."""
    return [Cell("plans", gpus, tokens * gpus, plans=(plan,))
            for tokens, of in ((32 * K, ("KEEP", "SELECTIVE", "RECOMPUTE", "OFFLOAD")), (128 * K, ("RECOMPUTE", "OFFLOAD")),
                               (1024 * K, ("STREAM",)), (4096 * K, ("STREAM",)))
            for plan in of]


def length(gpus):
    """How far each plan goes on GPUs of 141 GB."""
    return [Cell("length", gpus, tokens * gpus, "LASP", method, (plan,))
            for method in ("DDP", "ZERO3") for plan, of in (
                ("KEEP", (64 * K, 96 * K, 128 * K)), ("RECOMPUTE", (512 * K, 640 * K, 768 * K)),
                ("OFFLOAD", (768 * K, 896 * K, 1024 * K)), ("STREAM", (16384 * K,)))
            for tokens in of if gpus > 1 or method == "DDP"]


def ablation(gpus):
    """What LASP's single pass and its cached states are worth; the gradients' sum is the same in all."""
    return [Cell("ablation", gpus, tokens * gpus, without=without)
            for tokens in (8 * K, 64 * K) for without in ("", "fusion", "caching", "fusion,caching") if gpus > 1]


TABLES = {"plans": plans, "data_parallel": data_parallel, "speed": speed, "slow_link": slow_link, "length": length,
          "ablation": ablation}
