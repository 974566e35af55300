# The public names and where they live: what type checkers read, and what __init__.py loads names by.

from .errors import (
    InputError as InputError,
    JuliaError as JuliaError,
    KeywordError as KeywordError,
    MLPGFError as MLPGFError,
    RuntimeUnavailable as RuntimeUnavailable,
    ThreadError as ThreadError,
)
from .landscape.catalogue import Catalogue as Catalogue, minima_catalogue as minima_catalogue
from .landscape.channels import channels as channels
from .landscape.classify import Classification as Classification, Explanation as Explanation, classify as classify
from .landscape.distance import TrajectoryDistance as TrajectoryDistance, trajectory_distance as trajectory_distance
from .landscape.follow import (
    Branch as Branch,
    Followed as Followed,
    SpecialPoint as SpecialPoint,
    follow as follow,
)
from .landscape.neurons import (
    Likeness as Likeness,
    NeuronClusters as NeuronClusters,
    NeuronPair as NeuronPair,
    NeuronsAlong as NeuronsAlong,
    cluster_neurons as cluster_neurons,
    compare_neurons as compare_neurons,
    merge_neurons as merge_neurons,
    neuron_groups as neuron_groups,
    neuron_pairs as neuron_pairs,
    neurons_along as neurons_along,
)
from .landscape.polish import Polished as Polished, polish as polish
from .landscape.saddle_line import Departure as Departure, SaddleLine as SaddleLine, saddle_line as saddle_line
from .landscape.saddles import (
    SaddlePassage as SaddlePassage,
    escape_saddle as escape_saddle,
    saddle_passages as saddle_passages,
    spectrum_along as spectrum_along,
)
from .landscape.subspace import (
    LinearSubspace as LinearSubspace,
    SubspaceGrid as SubspaceGrid,
    SubspacePoints as SubspacePoints,
    loss_grid as loss_grid,
    subspace_grid as subspace_grid,
    subspace_minloss as subspace_minloss,
    subspace_points as subspace_points,
)
from .landscape.symmetry import (
    DistinctMinima as DistinctMinima,
    NeuronMatching as NeuronMatching,
    align as align,
    cosine_similarity as cosine_similarity,
    distinct_minima as distinct_minima,
    match_neurons as match_neurons,
)
from .landscape.widths import grow_net as grow_net, shrink_net as shrink_net, split_neuron as split_neuron
from .network.activations import (
    ACTIVATIONS as ACTIVATIONS,
    Derivative as Derivative,
    Inside as Inside,
    Poly as Poly,
    Sharp as Sharp,
    Tail as Tail,
)
from .network.constraints import ConstrainedNet as ConstrainedNet
from .network.infinite import InfiniteNet as InfiniteNet, gauss_hermite_net as gauss_hermite_net
from .network.net import Net as Net
from .network.params import Params as Params
from .network.teacher import TeacherNet as TeacherNet
from .proof.certificate import Certificate as Certificate, Gauge as Gauge
from .proof.certify import certify as certify
from .proof.distinct import ProvedDistinct as ProvedDistinct, distinct as distinct
from .results.at_infinity import Channel as Channel, MinimumAtInfinity as MinimumAtInfinity
from .results.checkpoint import Checkpoint as Checkpoint
from .results.load import load as load
from .results.peer import read_peer as read_peer, write_peer as write_peer
from .results.result import DenseSolution as DenseSolution, TrainResult as TrainResult, Trajectory as Trajectory
from .results.stops import Stop as Stop
from .runtime import init as init, runtime_info as runtime_info
from .solve.callbacks import IntermediateResult as IntermediateResult
from .solve.discrete import (
    Adam as Adam,
    AdamW as AdamW,
    CosineDecay as CosineDecay,
    DiscreteMethod as DiscreteMethod,
    ExponentialDecay as ExponentialDecay,
    GradientDescent as GradientDescent,
    Momentum as Momentum,
    Nesterov as Nesterov,
    RMSprop as RMSprop,
    UpdateRule as UpdateRule,
)
from .solve.recordings import (
    Eigenvalues as Eigenvalues,
    ParameterNorm as ParameterNorm,
    Projections as Projections,
    Recording as Recording,
    UnitCosines as UnitCosines,
    UnitNorms as UnitNorms,
)
from .solve.resume import resume as resume
from .solve.train import flow as flow, minimize as minimize, train as train
from .sweeps.run import Run as Run
from .sweeps.sweep import Sweep as Sweep, sweep as sweep
from .version import __version__ as __version__
