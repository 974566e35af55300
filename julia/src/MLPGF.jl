"""
Gradient flow and minima of multilayer perceptrons: `Net`, `loss`, `gradient!`, `hessian!`, `hvp!`, `flow`,
`minimize`, `train`.
"""
module MLPGF

using LinearAlgebra, Random

include("stops.jl")
include("vectors.jl")
include("elementary.jl")
include("activations.jl")
include("jets.jl")
include("blas.jl")
include("transposed.jl")
include("gram.jl")
include("layers.jl")
include("losses.jl")
include("regularisers.jl")
include("network.jl")
include("products.jl")
include("gradient.jl")
include("hvp.jl")
include("hessian.jl")
include("single_hidden_layer.jl")
include("params.jl")
include("linear_algebra/cholesky.jl")
include("linear_algebra/shifted_solver.jl")
include("linear_algebra/eigen.jl")
include("flow/kinks.jl")
include("flow/problem.jl")
include("flow/sliding.jl")
include("flow/controller.jl")
include("flow/trajectory.jl")
include("flow/events.jl")
include("flow/shifted.jl")
include("flow/newton.jl")
include("flow/rk4.jl")
include("flow/tsit5.jl")
include("flow/rodas5p.jl")
include("flow/trbdf2.jl")
include("flow/qndf.jl")
include("flow/exponential.jl")
include("flow/auto.jl")
include("discrete/method.jl")
include("discrete/momentum.jl")
include("discrete/adaptive.jl")
include("discrete/batches.jl")
include("flow/flow.jl")
include("discrete/descent.jl")
include("flow/distance.jl")
include("minimize/problem.jl")
include("minimize/subproblem.jl")
include("minimize/minimize.jl")
include("minimize/trust_region.jl")
include("minimize/linesearch.jl")
include("minimize/quasi_newton.jl")
include("minimize/bfgs.jl")
include("minimize/lbfgs.jl")
include("minimize/newton.jl")
include("minimize/levenberg_marquardt.jl")
include("minimize/newton_krylov.jl")
include("providers.jl")
include("train.jl")
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
include("landscape/subspace.jl")
include("landscape/invariances.jl")
include("landscape/classify.jl")
include("landscape/along.jl")
include("landscape/polish.jl")
include("landscape/border.jl")
include("c_interface.jl")
include("c_solve.jl")
include("workload.jl")
include("precompile.jl")

export Net, loss, gradient, gradient!, value_and_gradient!, hessian, hessian!, hvp, hvp!, predict, random_params,
    unpack, n_params
export minimize, Newton, NewtonTrustRegion, LevenbergMarquardt, NewtonKrylov, BFGS, LBFGS, train
export flow, Tsit5, RK4, Rodas5P, TRBDF2, QNDF, Exprb53s3, Auto, Stop, Monitor
export GradientDescent, Momentum, Nesterov, RMSprop, Adam, AdamW, ExponentialDecay, CosineDecay
export trajectory_distance
export softplus, relu, sigmoid, sigmoid2, normal_cdf, gelu, silu, selu, square, cube, g, softmax, Poly, activation
export classify, polish, grow_net, shrink_net, split_neuron, LinearSubspace, subspace_minloss, subspace_grid, loss_grid
export cosine_similarity, match_neurons, distinct_minima, spectrum_along, escape_saddle, saddle_passages
export InfiniteNet, TeacherNet, gauss_hermite, gauss_hermite_net, bivariate_normal_cdf, owens_t
export data_loss, with_data, gauss_newton, hessian_blocks, jacobian, tangent_kernel
end # module
