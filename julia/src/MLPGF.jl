"""
Gradient flow and minima of multilayer perceptrons: `Net`, `loss`, `gradient!`, `hessian!`, `hvp!`, `flow`,
`minimize`, `train`.
"""
module MLPGF

using LinearAlgebra, Printf

include("elementary.jl")
include("activations.jl")
include("blas.jl")
include("network.jl")
include("products.jl")
include("gradient.jl")
include("hvp.jl")
include("hessian.jl")
include("params.jl")
include("stops.jl")

export Net, loss, gradient, gradient!, value_and_gradient!, hessian, hessian!, hvp, hvp!, predict, random_params,
    unpack, n_params
export softplus, relu, sigmoid, sigmoid2, g, activation
end # module
