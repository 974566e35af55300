# The public names and where they live: what type checkers read, and what __init__.py loads names by.

from .errors import (
    InputError as InputError,
)
from .errors import (
    JuliaError as JuliaError,
)
from .errors import (
    KeywordError as KeywordError,
)
from .errors import (
    MLPGFError as MLPGFError,
)
from .errors import (
    RuntimeUnavailable as RuntimeUnavailable,
)
from .errors import (
    ThreadError as ThreadError,
)
from .landscape.classify import (
    Classification as Classification,
)
from .landscape.classify import (
    Explanation as Explanation,
)
from .landscape.classify import (
    Polished as Polished,
)
from .landscape.classify import (
    classify as classify,
)
from .landscape.classify import (
    polish as polish,
)
from .landscape.distance import (
    TrajectoryDistance as TrajectoryDistance,
)
from .landscape.distance import (
    trajectory_distance as trajectory_distance,
)
from .landscape.subspace import (
    LinearSubspace as LinearSubspace,
)
from .landscape.subspace import (
    SubspaceGrid as SubspaceGrid,
)
from .landscape.subspace import (
    loss_grid as loss_grid,
)
from .landscape.subspace import (
    subspace_grid as subspace_grid,
)
from .landscape.subspace import (
    subspace_minloss as subspace_minloss,
)
from .landscape.symmetry import (
    DistinctMinima as DistinctMinima,
)
from .landscape.symmetry import (
    NeuronMatching as NeuronMatching,
)
from .landscape.symmetry import (
    SaddlePassage as SaddlePassage,
)
from .landscape.symmetry import (
    align as align,
)
from .landscape.symmetry import (
    cosine_similarity as cosine_similarity,
)
from .landscape.symmetry import (
    distinct_minima as distinct_minima,
)
from .landscape.symmetry import (
    escape_saddle as escape_saddle,
)
from .landscape.symmetry import (
    grow_net as grow_net,
)
from .landscape.symmetry import (
    match_neurons as match_neurons,
)
from .landscape.symmetry import (
    saddle_passages as saddle_passages,
)
from .landscape.symmetry import (
    shrink_net as shrink_net,
)
from .landscape.symmetry import (
    spectrum_along as spectrum_along,
)
from .landscape.symmetry import (
    split_neuron as split_neuron,
)
from .network.activations import (
    ACTIVATIONS as ACTIVATIONS,
)
from .network.activations import (
    Poly as Poly,
)
from .network.infinite import (
    InfiniteNet as InfiniteNet,
)
from .network.infinite import (
    gauss_hermite_net as gauss_hermite_net,
)
from .network.net import (
    Net as Net,
)
from .network.net import (
    TeacherNet as TeacherNet,
)
from .network.params import (
    Params as Params,
)
from .results.checkpoint import (
    Checkpoint as Checkpoint,
)
from .results.load import (
    load as load,
)
from .results.result import (
    DenseSolution as DenseSolution,
)
from .results.result import (
    TrainResult as TrainResult,
)
from .results.result import (
    Trajectory as Trajectory,
)
from .results.stops import (
    Stop as Stop,
)
from .runtime import (
    init as init,
)
from .runtime import (
    runtime_info as runtime_info,
)
from .solve.callbacks import (
    IntermediateResult as IntermediateResult,
)
from .solve.discrete import (
    Adam as Adam,
)
from .solve.discrete import (
    AdamW as AdamW,
)
from .solve.discrete import (
    CosineDecay as CosineDecay,
)
from .solve.discrete import (
    DiscreteMethod as DiscreteMethod,
)
from .solve.discrete import (
    ExponentialDecay as ExponentialDecay,
)
from .solve.discrete import (
    GradientDescent as GradientDescent,
)
from .solve.discrete import (
    Momentum as Momentum,
)
from .solve.discrete import (
    Nesterov as Nesterov,
)
from .solve.discrete import (
    RMSprop as RMSprop,
)
from .solve.resume import (
    resume as resume,
)
from .solve.train import (
    flow as flow,
)
from .solve.train import (
    minimize as minimize,
)
from .solve.train import (
    train as train,
)
from .sweeps.run import (
    Run as Run,
)
from .sweeps.sweep import (
    Sweep as Sweep,
)
from .sweeps.sweep import (
    sweep as sweep,
)
from .version import (
    __version__ as __version__,
)
