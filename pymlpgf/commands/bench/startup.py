"""What a fresh process waits for: the first and the second call of every public function, with and without an image."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping

from ...errors import MLPGFError
from ...facts import ACTIVATIONS, DISCRETE_METHODS, FLOW_DEFAULTS, MINIMIZE_DEFAULTS
from ...solve.options import FLOW_ALGORITHMS, OPTIM_SOLVERS

__all__ = ["CALLS", "FLOW", "Timing", "measure", "table"]

SETUP = """
import time
begin = time.perf_counter()
import tempfile
import numpy as np
import pymlpgf as mg
from pymlpgf import plot
rng = np.random.default_rng(0)
X = rng.normal(size=(200, 2))
Y = np.tanh(X[:, 0] + X[:, 1]) - np.tanh(X[:, 0]) + 0.1 * rng.normal(size=200)
LAYERS = [(3, "tanh", True), (1, "identity", True)]
net = mg.Net(layers=LAYERS, input=X, target=Y)
p = net.random_params(seed=0).flat
v = np.ones_like(p)
def student(f="tanh", g="identity", dtype=None, **options):
    return mg.Net(layers=[(3, f, True), (1, g, True)], input=X, target=Y, dtype=dtype, **options)
def classifier():
    labels = (Y > 0).astype(int)
    return mg.Net(layers=[(3, "relu", True), (2, "softmax", True)], input=X, target=labels, loss="nll")
def infinite(f="tanh", g="tanh"):
    out = (1, "identity", True)
    model = mg.Net(layers=[(2, f, True), out], n_features=2)
    teacher = mg.TeacherNet(layers=[(2, f, True), out], params=model.random_params(seed=1), n_features=2)
    return mg.InfiniteNet(teacher, [(3, g, True), out])
"""

#: to the first result of a flow, with everything on the way
FLOW = "mg.flow(net, p, maxT=10.0, verbosity=0)"

_SOLVE = "maxtime_ode=1, maxtime_optim=1, verbosity=0"
_RUN = "run = mg.flow(net, p, maxT=100.0, dense=True, verbosity=0); end = mg.minimize(net, p, verbosity=0)"

#: name -> (what comes before, the call): every public function, and the kinds of solvers, nets and data
CALLS: Mapping[str, tuple[str, str]] = {
    "flow": ("", FLOW),
    "minimize": ("", "mg.minimize(net, p, verbosity=0)"),
    "train": ("", f"mg.train(net, p, {_SOLVE})"),
    **{f"flow {alg}": ("", f"mg.flow(net, p, alg={alg!r}, maxT=10.0, verbosity=0)")
       for alg in FLOW_ALGORITHMS if alg != FLOW_DEFAULTS["alg"]},
    **{f"flow {alg}": ("", f"mg.flow(net, p, alg={alg!r}, maxT=1.0, batchsize=16, verbosity=0)")
       for alg in DISCRETE_METHODS},
    **{f"minimize {name}": ("", f"mg.minimize(net, p, optim_solver={name!r}, maxiterations_optim=50, verbosity=0)")
       for name in OPTIM_SOLVERS if name != MINIMIZE_DEFAULTS["optim_solver"]},
    **{f"train {f}": ("", f"n = student({f!r}); mg.train(n, n.random_params(), {_SOLVE})")
       for f in ACTIVATIONS if f not in ("identity", "tanh", "softmax")},
    "train float32": ("", f"n = student(dtype='float32'); mg.train(n, n.random_params(), {_SOLVE})"),
    "train nll": ("", f"n = classifier(); mg.train(n, n.random_params(), {_SOLVE})"),
    "train l2, maxnorm, merge": (
        "", f"n = student(l2=1e-3, maxnorm=1.0, merge=(0, 0, 1, 0.1)); mg.train(n, n.random_params(), {_SOLVE})"),
    "train deep": ("", "n = mg.Net(layers=[(4, 'tanh', True), (3, 'sigmoid', False), (1, 'identity', True)], input=X, "
                       f"target=Y); mg.train(n, n.random_params(), {_SOLVE})"),
    "train InfiniteNet": ("", f"n = infinite(); mg.train(n, n.random_params(), {_SOLVE})"),
    "train InfiniteNet relu": ("", f"n = infinite('relu', 'relu'); mg.train(n, n.random_params(), {_SOLVE})"),
    "flow large": ("", "n = mg.Net(layers=[(200, 'tanh', True), (1, 'identity', True)], input=X, target=Y); "
                       "mg.flow(n, n.random_params(), maxT=0.1, alg='QNDF', verbosity=0)"),
    "flow dense, event, observable": ("", "mg.flow(net, p, maxT=1e3, dense=True, event=lambda t, x: t - 5, "
                                          "observables={'norm': np.linalg.norm}, verbosity=0)"),
    "flow callback, tauinv": (
        "", "mg.flow(net, p, maxT=10.0, callback=lambda s: None, tauinv=np.ones(len(p)), verbosity=0)"),
    "Net.loss": ("", "net.loss(p)"),
    "Net.gradient": ("", "net.gradient(p)"),
    "Net.hessian": ("", "net.hessian(p)"),
    "Net.hvp": ("", "net.hvp(p, v)"),
    "Net.__call__": ("", "net(p, X)"),
    "Net.on": ("", "net.on(X[:5], Y[:5]).loss(p)"),
    "Net.hessian_spectrum": ("", "net.hessian_spectrum(p)"),
    "Net.hessian_blocks": ("", "net.hessian_blocks(p)"),
    "Net.jacobian": ("", "net.jacobian(p)"),
    "Net.gauss_newton": ("", "net.gauss_newton(p)"),
    "Net.tangent_kernel": ("", "net.tangent_kernel(p)"),
    "Net.data_terms": ("", "net.data_terms(p)"),
    "TeacherNet": ("", "infinite().teacher(X)"),
    "InfiniteNet.hessian": ("", "n = infinite(); n.hessian(n.random_params())"),
    "gauss_hermite_net": ("", "mg.gauss_hermite_net(lambda x: x[:, 0], net, order=5).loss(p)"),
    "classify": (_RUN, "mg.classify(net, end)"),
    "polish": (_RUN, "mg.polish(net, end, digits=25, verbosity=0)"),
    "trajectory_distance": (_RUN, "mg.trajectory_distance(run, run)"),
    "grow_net": ("", "mg.grow_net(net, p)"),
    "shrink_net": ("", "mg.shrink_net(net, p, 0)"),
    "split_neuron": ("", "mg.split_neuron(net.params(p), 0, 0.5)"),
    "align": ("", "mg.align(net, p, p)"),
    "match_neurons": ("", "mg.match_neurons(net, p, net, v)"),
    "cosine_similarity": ("", "mg.cosine_similarity(X[:3], X[:3])"),
    "distinct_minima": ("", "mg.distinct_minima(net, [p, p, v])"),
    "LinearSubspace": ("", "mg.LinearSubspace(net, p, v)"),
    "loss_grid": ("", "mg.loss_grid(net, mg.LinearSubspace(net, p, v), [0.0, 0.1])"),
    "subspace_minloss": ("", "mg.subspace_minloss(net, mg.LinearSubspace(net, p, v), [0.1], verbosity=0)"),
    "subspace_grid": ("", "mg.subspace_grid(net, mg.LinearSubspace(net, p, v), [0.1], verbosity=0)"),
    "escape_saddle": ("", "mg.escape_saddle(net, p)"),
    "saddle_passages": (_RUN, "mg.saddle_passages(net, run)"),
    "spectrum_along": (_RUN, "mg.spectrum_along(net, run)"),
    "subspace_points": ("", "mg.subspace_points(net, mg.LinearSubspace(net, p, v), [[0.1]], verbosity=0)"),
    "minima_catalogue": (_RUN, "mg.minima_catalogue(net, [end, end])"),
    "compare_neurons": ("", "mg.compare_neurons(net, p)"),
    "neuron_pairs": ("", "mg.neuron_pairs(net, p)"),
    "neuron_groups": ("", "mg.neuron_groups(net, p)"),
    "merge_neurons": ("", "mg.merge_neurons(net, p, [[0, 1]])"),
    "cluster_neurons": ("", "mg.cluster_neurons(net, [p, v])"),
    "neurons_along": (_RUN, "mg.neurons_along(net, run)"),
    "channels": ("", "mg.channels(net, p)"),
    "minimize at infinity": (
        "", "mg.minimize(net, p, at_infinity=True, maxtime_optim=1, maxiterations_optim=300, verbosity=0)"),
    "minimize with tied and frozen parameters": (
        "", "mg.minimize(net, p, freeze='b1', tie=[('w2[0, 0]', 'w2[0, 1]')], verbosity=0)"),
    "flow with recordings": ("", "mg.flow(net, p, maxT=10.0, observables={'ends': mg.Eigenvalues()}, verbosity=0)"),
    "saddle_line": (_RUN, "mg.saddle_line(net, end, 0)"),
    "follow": (_RUN, "mg.follow(net, end, 'l2', bounds=(0, 0.01), verbosity=0)"),
    "certify": (_RUN, "proof = mg.certify(net, end)"),
    "distinct": (_RUN + "; proof = mg.certify(net, end)", "mg.distinct([proof])"),
    "resume": ("path = tempfile.mkdtemp() + '/c.npz'; mg.flow(net, p, maxT=1, checkpoint=path, verbosity=0)",
               "mg.resume(path, verbosity=0)"),
    "load": (_RUN + "; folder = tempfile.mkdtemp(); end.save(folder + '/r')", "mg.load(folder + '/r.npz')"),
}  # fmt: skip

CODE = """
{setup}
{before}
ready = time.perf_counter()
{call}
first = time.perf_counter()
{call}
second = time.perf_counter()
import json
print(json.dumps([ready - begin, first - ready, second - first, first - begin]))
"""


class Timing:
    """Medians in seconds: until the call, the first, the second, and from import to the first's end."""

    def __init__(self, samples: list[list[float]]) -> None:
        self.ready, self.first, self.second, self.total = (
            statistics.median(column) for column in zip(*samples, strict=True)
        )


def measure(name: str, repeats: int, image: bool) -> Timing:
    """Time the call ``name`` of ``CALLS`` in ``repeats`` fresh processes."""
    before, call = CALLS[name]
    code = CODE.format(setup=SETUP, before=before, call=call)
    environment = {**os.environ, "PYMLPGF_IMAGE": "auto" if image else "off"}
    samples = []
    for _ in range(repeats):
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise MLPGFError(f"{name} failed in a fresh process: {done.stderr.strip().splitlines()[-1:]}")
        samples.append(json.loads(done.stdout.splitlines()[-1]))
    return Timing(samples)


def table(repeats: int, quick: bool) -> bool:
    """Print the table; true where every first call is within 0.3 s of its second with the image."""
    from ... import runtime

    good = True
    runtime.start()
    with_image = runtime.info().get("image") is not None
    if not with_image:
        print("There is no system image here: `pymlpgf install` builds it. Without it:")
    images = [True] if quick and with_image else [True, False] if with_image else [False]
    print(f"{'seconds':<32} " + "  ".join(f"{'image' if i else 'no image':>9}: first   second" for i in images))
    for name in CALLS:
        cells = []
        for image in images:
            timing = measure(name, repeats if image or name == "flow" else 1, image)
            cells.append(f"{timing.first:16.3f} {timing.second:8.3f}")
            good &= not image or timing.first - timing.second <= 0.3
            if name == "flow":
                print(f"import to first flow, {'with' if image else 'without'} image: {timing.total:.2f} s")
        print(f"{name:<32} " + "  ".join(cells), flush=True)
    return good
