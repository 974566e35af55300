"""
Gradient flow and minima of multilayer perceptrons: `Net`, `loss`, `gradient!`, `hessian!`, `hvp!`, `flow`,
`minimize`, `train`.
"""
module MLPGF

using LinearAlgebra, Mmap, Random

include("kernels/registry.jl")
include("kernels/protocol.jl")
include("kernels/stops.jl")
include("kernels/vectors.jl")
include("kernels/elementary.jl")
include("kernels/blas.jl")
include("kernels/transposed.jl")
include("kernels/gram.jl")

include("network/activations.jl")
include("network/jets.jl")
include("network/chains.jl")
include("network/sharp.jl")
include("network/layers.jl")
include("network/losses.jl")
include("network/correlation.jl")
include("network/regularisers.jl")
include("network/crew.jl")
include("network/net.jl")
include("network/params.jl")
include("network/constraint.jl")

include("derivatives/products.jl")
include("derivatives/chains.jl")
include("derivatives/shares.jl")
include("derivatives/gradient.jl")
include("derivatives/hvp.jl")
include("derivatives/hessian.jl")
include("derivatives/single_hidden_layer.jl")
include("derivatives/correlation.jl")
include("derivatives/constrained.jl")
include("derivatives/output_layer.jl")
include("derivatives/residuals.jl")

include("linear_algebra/cholesky.jl")
include("linear_algebra/shifted_solver.jl")
include("linear_algebra/eigen.jl")
include("linear_algebra/lanczos.jl")
include("linear_algebra/tall_qr.jl")

include("flow/kinks.jl")
include("flow/problem.jl")
include("flow/sliding.jl")
include("flow/deciding.jl")
include("flow/controller.jl")
include("flow/trajectory.jl")
include("flow/events.jl")
include("flow/shifted.jl")
include("flow/newton.jl")
include("flow/explicit.jl")
include("flow/methods/rk4.jl")
include("flow/methods/tsit5.jl")
include("flow/methods/rodas5p.jl")
include("flow/methods/trbdf2.jl")
include("flow/methods/qndf.jl")
include("flow/methods/exponential.jl")
include("flow/methods/exp_adams.jl")
include("flow/methods/auto.jl")
include("flow/options.jl")
include("flow/flow.jl")
include("flow/loop.jl")
include("flow/gradient_flow_problem.jl")
include("flow/distance.jl")

include("discrete/method.jl")
include("discrete/methods/momentum.jl")
include("discrete/methods/adaptive.jl")
include("discrete/methods/rule.jl")
include("discrete/batches.jl")
include("discrete/descent.jl")
include("discrete/batch_flow.jl")

include("minimize/problem.jl")
include("minimize/subproblem.jl")
include("minimize/options.jl")
include("minimize/acceptance.jl")
include("minimize/minimize.jl")
include("minimize/memory.jl")
include("minimize/linesearch.jl")
include("minimize/methods/trust_region.jl")
include("minimize/methods/quasi_newton.jl")
include("minimize/methods/bfgs.jl")
include("minimize/methods/lbfgs.jl")
include("minimize/methods/newton.jl")
include("minimize/methods/levenberg_marquardt.jl")
include("minimize/methods/newton_krylov.jl")
include("minimize/methods/newton_lbfgs.jl")
include("minimize/methods/variable_projection.jl")
include("minimize/methods/auto.jl")
include("minimize/second_opinion.jl")

include("solve/providers.jl")
include("solve/train.jl")

include("infinite/normal.jl")
include("infinite/neuron.jl")
include("infinite/moments.jl")
include("infinite/nodes.jl")
include("infinite/expansion.jl")
include("infinite/mehler.jl")
include("infinite/quadrature.jl")
include("infinite/closed_forms.jl")
include("infinite/pairs.jl")
include("infinite/network.jl")
include("infinite/derivatives.jl")
include("infinite/second_derivatives.jl")
include("infinite/gauss_hermite.jl")

include("landscape/growth.jl")
include("landscape/symmetry.jl")
include("landscape/neurons.jl")
include("landscape/subspace.jl")
include("landscape/invariances.jl")
include("landscape/classify.jl")
include("landscape/infinity.jl")
include("landscape/along.jl")
include("landscape/polish.jl")
include("landscape/constrained.jl")
include("landscape/recordings.jl")
include("landscape/eigenpairs.jl")
include("landscape/saddle_line.jl")
include("landscape/homotopy.jl")
include("landscape/follow.jl")
include("landscape/limits.jl")
include("landscape/channels.jl")
include("landscape/margin.jl")
include("landscape/sharp.jl")
include("landscape/constrained_limits.jl")
include("landscape/kinked.jl")
include("landscape/lines.jl")
include("landscape/at_infinity.jl")

include("proof/interval.jl")
include("proof/products.jl")
include("proof/certify.jl")
include("proof/gauges.jl")
include("proof/distinct.jl")
include("proof/infinite.jl")

include("interface/json.jl")
include("interface/facts.jl")
include("interface/c_interface.jl")
include("interface/tools.jl")
include("interface/c_solve.jl")
include("interface/workload.jl")
include("interface/precompile.jl")

export Net, loss, gradient, gradient!, value_and_gradient!, hessian, hessian!, hvp, hvp!, predict, random_params,
    unpack, n_params
export FlowOptions, MinimizeOptions
export minimize, AutoMinimizer, NewtonLBFGS, VariableProjection, Newton, NewtonTrustRegion, LevenbergMarquardt
export NewtonKrylov, BFGS, LBFGS, train
export flow, Tsit5, RK4, Rodas5P, TRBDF2, QNDF, Exprb53s3, ExpAdams, Auto, Stop, Monitor, GradientFlowProblem
export GradientDescent, Momentum, Nesterov, RMSprop, Adam, AdamW, UpdateRule, ExponentialDecay, CosineDecay
export trajectory_distance
export softplus, relu, sigmoid, sigmoid2, normal_cdf, gelu, silu, selu, square, cube, softmax, Poly, activation
export classify, polish, grow_net, shrink_net, split_neuron, LinearSubspace, subspace_minloss, subspace_grid, loss_grid
export cosine_similarity, match_neurons, compare_neurons, cluster_neurons, merge_neurons, neurons_along,
    binomial_interval, recorded_eigenvalues, recorded_unit_norms, distinct_minima, spectrum_along, escape_saddle,
    saddle_passages
export saddle_line, follow
export InfiniteNet, TeacherNet, gauss_hermite, gauss_hermite_net, bivariate_normal_cdf, owens_t
export Constraint, ConstrainedNet
export certify, Certificate, proved_different
export data_loss, gauss_newton, hessian_blocks, jacobian, tangent_kernel
end # module
