"""Time of gradients and Hessians against PyTorch and JAX.

One hidden layer of 10, 50 and 100 softplus units (41, 201 and 401 parameters), 2 inputs, 10 to 100 000 samples (Brea et
al., arXiv 2301.10638): ``pymlpgf bench`` as an experiment of the paper. Writes derivatives.csv and derivatives.png.
"""

import csv
import subprocess
import sys

from common import arguments, claim

#: what the times of others are to be of ours, at least: quantity -> contender -> factor
CLAIMS = {"gradient": {"PyTorch": 5, "JAX": 3}, "hessian": {"PyTorch": 50, "JAX": 10}}


def smallest(rows, quantity, contender):
    """The smallest ratio of the contender's time to ours in the paper's grid, one thread and float64."""
    times = {}
    for row in rows:
        if (row["threads"], row["dtype"], row["quantity"]) == ("1", "float64", quantity) and row["k"]:
            times.setdefault(row["case"], {})[row["contender"]] = float(row["microseconds"])
    ratios = [case[contender] / case["pymlpgf"] for case in times.values() if contender in case]
    return min(ratios, default=None)


def main():
    options = arguments(__doc__).parse_args()
    quick = [] if options.mode == "full" else ["--quick"]
    subprocess.run([sys.executable, "-m", "pymlpgf", "bench", *quick, "--output", str(options.output)], check=True)
    with open(options.output / "derivatives.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for quantity, factors in CLAIMS.items():
        for contender, factor in factors.items():
            ratio = smallest(rows, quantity, contender)
            if ratio is None:
                print(f"{contender} is not installed")
            else:
                claim(f"{quantity}: {contender} takes at least {factor} times as long (smallest ratio {ratio:.1f})",
                      ratio >= factor)  # fmt: skip


if __name__ == "__main__":
    main()
