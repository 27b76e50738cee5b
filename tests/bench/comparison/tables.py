"""The comparison's tables, in Markdown, from the results of every machine."""
import glob
import json
import os

from comparison import convergence, grid, plots

TITLES = {
    "speed": "Sequence parallelism: tokens a second in all",
    "slow_link": "The same over TCP alone, gradients not summed: tokens a second in all",
    "data_parallel": "Data parallelism under LASP",
    "plans": "Activation plans",
    "length": "The longest sequence, in tokens of one sequence",
    "ablation": "LASP with something left out",
}


def machines(folder):
    """[(the GPU's name, its number, cells)] of each results file."""
    found = []
    for path in sorted(glob.glob(os.path.join(folder, "comparison", "*-x[0-9]*.json"))):
        with open(path) as file:
            content = json.load(file)
        cells = list(content["cells"].values())
        if cells:
            found.append((content["gpu"], max(cell["gpus"] for cell in cells), cells))
    return found


def thousands(tokens):
    return f"{tokens // grid.K:,}K"


def ran(cell):
    return "tokens_per_second_per_gpu" in cell


def in_all(cell):
    """Of a model whose layers take as long as the one that was measured."""
    return cell["tokens_per_second_per_gpu"] * cell["gpus"]


def extrapolated(cell):
    return ran(cell) and cell["layers"] != grid.LAYERS


def speed_text(cell):
    if cell is None:
        return ""
    if not ran(cell):
        return "out of memory" if cell.get("out_of_memory") else "failed"
    if extrapolated(cell):
        return f"one layer: {in_all(cell):,}"
    return f"{in_all(cell):,} ({cell['used_gib']:.0f} GiB{', R' if cell['plan'] == 'RECOMPUTE' else ''})"


def methods_table(cells):
    """A row a length, a column a method."""
    methods = [method for method in grid.SP_METHODS if any(cell["sp_method"] == method for cell in cells)]
    for data_parallel in sorted({cell["data_parallel"] for cell in cells}):
        at = {(cell["tokens"], cell["sp_method"]): cell for cell in cells if cell["data_parallel"] == data_parallel}
        yield f"{data_parallel}; R: recomputed, where keeping did not fit; memory of one GPU:\n"
        yield f"| tokens | {' | '.join(methods)} | LASP over the best other baseline |"
        yield "|---" * (len(methods) + 2) + "|"
        for tokens in sorted({tokens for tokens, _ in at}):
            row = [at.get((tokens, method)) for method in methods]
            others = [in_all(at[tokens, method]) for method in ("ULYSSES", "MEGATRON_SP", "RING_ATTENTION")
                      if (tokens, method) in at and ran(at[tokens, method]) and not extrapolated(at[tokens, method])]
            lasp = at.get((tokens, "LASP"))
            ratio = f"{in_all(lasp) / max(others):.2f}" if others and lasp and ran(lasp) else ""
            yield f"| {thousands(tokens)} | {' | '.join(map(speed_text, row))} | {ratio} |"
        yield ""


def figures(cell):
    if not ran(cell):
        return "out of memory | |" if cell.get("out_of_memory") else "failed | |"
    return f"{cell['tokens_per_second_per_gpu']:,} | {cell['used_gib']:.1f} |"


def data_parallel_table(cells):
    yield "| method | tokens | tokens/s a GPU | GiB |"
    yield "|---|---|---|---|"
    for cell in sorted(cells, key=lambda cell: grid.DP_METHODS.index(cell["data_parallel"])):
        yield f"| {cell['data_parallel']} | {thousands(cell['tokens'])} | {figures(cell)}"
    yield ""


def plans_table(cells):
    yield "| tokens a GPU | plan | tokens/s a GPU | GiB |"
    yield "|---|---|---|---|"
    for cell in sorted(cells, key=lambda cell: cell["tokens"]):
        yield f"| {thousands(cell['tokens'] // cell['gpus'])} | {cell['plans'][0]} | {figures(cell)}"
    yield ""


def length_table(cells):
    yield "| plan | " + " | ".join(method for method in ("DDP", "ZERO3")) + " |"
    yield "|---|---|---|"
    for plan in ("KEEP", "RECOMPUTE", "OFFLOAD", "STREAM"):
        texts = []
        for method in ("DDP", "ZERO3"):
            of = [cell for cell in cells if cell["plans"] == [plan] and cell["data_parallel"] == method]
            longest = max((cell for cell in of if ran(cell)), key=lambda cell: cell["tokens"], default=None)
            refused = [cell["tokens"] for cell in of if cell.get("out_of_memory")]
            text = f"{thousands(longest['tokens'])} at {longest['tokens_per_second_per_gpu']:,} tokens/s a GPU" if longest else ""
            texts.append(text + (f"; not {thousands(min(refused))}" if refused else "; nothing longer was tried" if longest else ""))
        yield f"| {plan} | {' | '.join(texts)} |"
    yield ""


def ablation_table(cells):
    """Both, one and none of the single pass and the cached states, as in the paper."""
    yield ("Without fusion: each rank's own tokens first, then a product a head with the state that came, and a pass that decays and adds "
           "it. Without caching: the backward forms all states anew, exchange included.\n")
    yield "| tokens a GPU | fusion | caching | tokens/s a GPU | GiB | over none |"
    yield "|---|---|---|---|---|---|"
    for tokens in sorted({cell["tokens"] for cell in cells}):
        at = {cell.get("without", ""): cell for cell in cells if cell["tokens"] == tokens}
        none = at.get("fusion,caching")
        for without, cell in at.items():
            more = (f"{100 * (cell['tokens_per_second_per_gpu'] / none['tokens_per_second_per_gpu'] - 1):+.1f} %"
                    if none and ran(none) and ran(cell) else "")
            yield (f"| {thousands(tokens // cell['gpus'])} | {'no' if 'fusion' in without else 'yes'} | "
                   f"{'no' if 'caching' in without else 'yes'} | {figures(cell)} {more} |")
    yield ""


MAKERS = {"speed": methods_table, "slow_link": methods_table, "data_parallel": data_parallel_table, "plans": plans_table,
          "length": length_table, "ablation": ablation_table}


def converged(folder):
    content = convergence.results_of(os.path.join(folder, "comparison", "convergence.json"))
    runs = list(content["runs"].values())
    if not runs:
        return
    yield "## Convergence\n"
    ranks, gpus = runs[0]["ranks"], content["gpus"]
    where = f"{ranks} × {content['gpu']}" if gpus >= ranks else f"{ranks} ranks that share {gpus} × {content['gpu']}"
    planned = len(convergence.runs(ranks))
    so_far = f"{len(runs)} of {planned} runs so far. " if len(runs) < planned else ""
    yield (f"{so_far}{where}, 92M parameters, {runs[0]['tokens'] / 1e6:.0f}M tokens of C sources a run "
           f"(order-1 entropy {content['corpus']['order_1_entropy']:.2f} nats a byte), sequences of {thousands(convergence.SEQUENCE)}; the mean loss of the last {convergence.LAST_STEPS} of {runs[0]['steps']} steps. "
           f"Without LASP the ranks are replicas:\n")
    yield from convergence.table(content["runs"])
    yield ("Beside them what the README of [LASP's repository](https://github.com/OpenNLPLab/LASP) reports: 0.4B parameters on eight A100, sequences of 16K, "
           "50K updates, by tokens of a vocabulary and not by bytes, so that only the differences compare:\n")
    yield from convergence.published_table()


def document(found, folder):
    yield "# The comparison of LASP's paper on our own kernels\n"
    yield ("Made by `tests/bench/paper` from the files beside it; TransNormerLLM-1B (16 layers, 2048, 16 heads, GLU 5632, vocabulary 64000), "
           "bf16 with fp32 masters, one sequence a step, SP over all GPUs. Each figure is the median of the steps after two of warm-up, a full "
           "optimizer step. Every method runs on the same kernels, its messages under the computation where its mathematics lets them be. "
           "RING_ATTENTION is the left product; its right-product form is LASP itself. MEGATRON_SP shards the weights too, unlike the others with DDP.\n")
    for gpu, count, cells in found:
        commits = ", ".join(sorted({cell["commit"] for cell in cells}))
        yield f"## {count} × {gpu}\n\nCommit {commits}.\n"
        for name in grid.TABLES:
            of = [cell for cell in cells if cell["table"] == name]
            if of:
                yield f"### {TITLES[name]}\n"
                yield from MAKERS[name](of)
    yield from converged(folder)


def documents(folder):
    """{path: text} of the document and its plots; nothing without results."""
    found = machines(folder)
    if not found and not list(converged(folder)):
        return {}
    wanted = {os.path.join(folder, "comparison.md"): "\n".join(document(found, folder)).rstrip() + "\n"}
    for _, count, cells in found:
        of = [cell for cell in cells if cell["table"] == "speed" and cell["data_parallel"] == "DDP" and ran(cell) and not extrapolated(cell)]
        if of:
            wanted[os.path.join(folder, f"comparison-speed-x{count}.svg")] = "\n".join(plots.speed_plot(of, count)) + "\n"
    return wanted
