"""Time of gradients and Hessians against PyTorch, JAX and NumPy by hand.

One hidden layer of 10, 50 and 100 softplus units (41, 201 and 401 parameters), 2 inputs, 10 to 100 000 samples (Brea et
al., arXiv 2301.10638): ``pymlpgf bench`` as an experiment of the paper, --quick with fewer samples. Writes
derivatives.json, derivatives.md and derivatives.png.
"""

import argparse

from common import arguments, claim

from pymlpgf.commands.bench import derivatives


def main():
    options = arguments(__doc__).parse_args()
    quick = options.mode != "full"
    rows = derivatives.run(argparse.Namespace(quick=quick, output=options.output, peer_julia=None, peer_project=None))
    for (quantity, contender), ratios in derivatives.grid_ratios(rows).items():
        goal, smallest = derivatives.grid_goal(quantity, contender), min(ratios)
        claim(f"{quantity}: {contender} takes at least {goal:g} times as long (smallest ratio {smallest:.1f})",
              smallest >= goal)  # fmt: skip


if __name__ == "__main__":
    main()
