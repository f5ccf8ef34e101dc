"""How plan, update and SIGReg grow with their sizes, beside their operations.

    python -m benchmarks.scaling [--rounds=N] [--only=plan] [--out=FOLDER]

Draws `plan_scaling.png`, `update_scaling.png` and `sigreg_scaling.png`. The
dashed line is the time of the largest size, scaled by the count of operations.
"""

from pathlib import Path

from benchmarks import harness
from benchmarks.harness import Case

PLAN, UPDATE, SIGREG = "plan", "update", "sigreg"
PLAN_AXES = {
  "candidates": (125, 250, 500, 1000, 2000),
  "horizon": (3, 6, 12, 24),
  "envs": (1, 2, 4, 8),
}
BATCHES = (4, 8, 16, 32)
SIGREG_SIZES = {"n": 1024, "d": 512, "m": 1024}
SIGREG_AXES = {
  "n": (128, 256, 512, 1024, 2048, 4096),
  "d": (64, 128, 256, 512, 1024, 2048),
  "m": (128, 256, 512, 1024, 2048, 4096),
}
LABELS = {
  "envs": "environments",
  "batch": "sequences of a batch",
  "n": "N, samples",
  "d": "D, dimensions",
  "m": "M, slices",
}


def plan_cases(axis: str) -> list[Case]:
  """One row for each value of `axis`, the others at the paper's sizes."""
  return [
    Case(f"{axis}={n}", "benchmarks.plan:ours", options={axis: n})
    for n in PLAN_AXES[axis]
  ]


def update_cases() -> list[Case]:
  """Updates of the CPU default with more and more sequences."""
  build = "benchmarks.cpu_default:patches"
  return [Case(f"batch={n}", build, options={"batch": n}) for n in BATCHES]


def sigreg_cases(axis: str) -> list[Case]:
  """One row for each value of `axis`, the others at `SIGREG_SIZES`."""
  return [
    Case(f"{axis}={n}", "benchmarks.sigreg:ours", SIGREG_SIZES | {axis: n})
    for n in SIGREG_AXES[axis]
  ]


def draw(tables: dict[str, tuple], path: Path) -> None:
  """Draws one panel per axis: sizes, rows and operations of each."""
  from matplotlib.figure import Figure
  from matplotlib.ticker import LogLocator

  figure = Figure(figsize=(4 * len(tables), 3.5), layout="constrained")
  panels = figure.subplots(1, len(tables), squeeze=False)[0]
  for panel, (axis, (sizes, rows, cost)) in zip(panels, tables.items()):
    times = [1e3 * row["median_s"] for row in rows]
    low = [1e3 * (row["median_s"] - row["min_s"]) for row in rows]
    high = [1e3 * (row["max_s"] - row["median_s"]) for row in rows]
    panel.errorbar(sizes, times, (low, high), marker="o", label="measured")
    line = [times[-1] * c / cost[-1] for c in cost]
    panel.plot(sizes, line, "--", color="grey", label="operations")
    panel.set(xscale="log", yscale="log", xlabel=LABELS.get(axis, axis))
    panel.set_ylabel("milliseconds")
    panel.set_xticks(sizes, [str(n) for n in sizes])
    panel.minorticks_off()
    panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.yaxis.set_major_formatter("{x:g}")
    panel.legend(loc="upper left")
  figure.savefig(path, dpi=120)
  print(f"drawn: {path}")


def grow(title, axes, cases, flags) -> dict[str, tuple]:
  """Measures along every axis; what `draw` takes."""
  tables = {}
  for axis, sizes in axes.items():
    rows = measure(f"{title} by {axis}", cases(axis), flags)
    tables[axis] = sizes, rows, [row["flop"] for row in rows]
  return tables


def measure(title, cases, flags) -> list[dict]:
  """Rows of a table, all of which must have run to be drawn."""
  rows = harness.compare(title, cases, rounds=flags.rounds, out=flags.json)
  failed = [row["case"] for row in rows if "failed" in row]
  if failed:
    raise SystemExit(f"not drawn, these failed: {', '.join(failed)}")
  return rows


def main() -> None:
  parser = harness.parser(__doc__.splitlines()[0])
  parser.add_argument("--out", type=Path, default=Path("docs"))
  flags = parser.parse_args()
  if flags.without or flags.matmul:
    parser.error("a curve takes all its rows: no --without and no --matmul")
  flags.out.mkdir(parents=True, exist_ok=True)
  if flags.only in PLAN:
    tables = grow("Plan", PLAN_AXES, plan_cases, flags)
    draw(tables, flags.out / "plan_scaling.png")
  if flags.only in UPDATE:
    rows = measure("Update by batch", update_cases(), flags)
    # All that an update does is done for each sequence, but the optimiser.
    draw({"batch": (BATCHES, rows, BATCHES)}, flags.out / "update_scaling.png")
  if flags.only in SIGREG:
    tables = grow("SIGReg", SIGREG_AXES, sigreg_cases, flags)
    draw(tables, flags.out / "sigreg_scaling.png")


if __name__ == "__main__":
  main()
