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
include("flow/problem.jl")
include("flow/controller.jl")
include("flow/trajectory.jl")
include("flow/cholesky.jl")
include("flow/tsit5.jl")
include("flow/rodas5p.jl")
include("flow/flow.jl")
include("minimize/problem.jl")
include("minimize/shifted_solver.jl")
include("minimize/subproblem.jl")
include("minimize/minimize.jl")
include("minimize/trust_region.jl")
include("minimize/linesearch.jl")
include("minimize/bfgs.jl")
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
include("c_interface.jl")


include("precompile.jl")

export Net, loss, gradient, gradient!, value_and_gradient!, hessian, hessian!, hvp, hvp!, predict, random_params,
    unpack, n_params
export minimize, NewtonTrustRegion, BFGS, train
export flow, Tsit5, Rodas5P, Auto, Stop, Monitor
export softplus, relu, sigmoid, sigmoid2, normal_cdf, gelu, silu, selu, square, cube, g, softmax, Poly, activation
export InfiniteNet, TeacherNet, gauss_hermite, gauss_hermite_net, bivariate_normal_cdf, owens_t
export data_loss, with_data, gauss_newton, hessian_blocks, jacobian, tangent_kernel
end # module
