"""
    AbstractNet{T}

Anything with a loss on a flat parameter vector of number type `T`. It has `n_params`, `loss`,
`value_and_gradient!`, `gradient!`, `hessian!` and `hvp!`; flow and minimize need nothing else.
"""
abstract type AbstractNet{T<:AbstractFloat} end

"""
    Layer

One fully connected layer, a = f(W x + b), and where its parameters lie in θ: `offset` entries come before
W (`width` rows of `fan_in` entries each), which is followed by b if `bias`.
"""
struct Layer
    fan_in::Int
    width::Int
    activation::Activation
    bias::Bool
    offset::Int
end

n_params(l::Layer) = l.width * (l.fan_in + l.bias)
bias_offset(l::Layer) = l.offset + l.width * l.fan_in

"""
    build_layers(specs, n_features) -> Vector{Layer}

From specs `(width, activation, bias)`, first layer first.
"""
function build_layers(specs, n_features::Int)
    isempty(specs) && throw(ArgumentError("layers is empty: give at least the output layer"))
    layers = Layer[]
    fan_in, offset = n_features, 0
    for spec in specs
        length(spec) == 3 || throw(ArgumentError("a layer is (width, activation, bias), got $spec"))
        width, f, bias = spec
        width isa Integer && width >= 1 || throw(ArgumentError("a layer's width is a positive integer, got $width"))
        bias isa Bool || throw(ArgumentError("a layer's bias is true or false, got $bias"))
        layer = Layer(fan_in, width, activation(f), bias, offset)
        push!(layers, layer)
        fan_in, offset = layer.width, offset + n_params(layer)
    end
    return layers
end

# 256 samples: a layer of 100 units fills half a megabyte, so that forward, backward and accumulation stay in
# the second-level cache, while loop and call overheads are spread over enough samples.
const BLOCK = 256

"""
    Block{T}

Up to `BLOCK` samples, one column a feature, so that loops over samples run through memory. The number of
rows `n` is a multiple of `LANES`: the last sample is repeated with weight 0. Column D + 1 of `X` holds ones.
"""
struct Block{T}
    n::Int
    X::Matrix{T}
    Y::Matrix{T}
    w::Vector{T}
end

function Block{T}(X::AbstractMatrix, Y::AbstractMatrix, w, samples::UnitRange{Int}) where {T}
    n = cld(length(samples), LANES) * LANES
    rows = [min(i, last(samples)) for i in first(samples):first(samples)+n-1]
    x = Matrix{T}(undef, n, size(X, 1) + 1)
    for d in 1:size(X, 1), r in 1:n
        x[r, d] = X[d, rows[r]]
    end
    x[:, end] .= 1
    y = T[Y[o, i] for i in rows, o in 1:size(Y, 1)]
    return Block{T}(n, x, y, T[r <= length(samples) ? (w === nothing ? 1 : w[rows[r]]) : 0 for r in 1:n])
end

blocks(::Type{T}, X, Y, w) where {T} =
    [Block{T}(X, Y, w, i:min(i + BLOCK - 1, size(X, 2))) for i in 1:BLOCK:size(X, 2)]

"""
    Workspace{T}

Buffers for one block, a matrix per layer with a column per unit. Activations `A` (column width + 1 holds
ones), f' `D`, f'' `S`, ∂ℓ/∂a `E`, ∂ℓ/∂h `Δ`; the letters with a dot are directional derivatives:
`Ȧ`, `Ḣ` (of pre-activations), `Δ̇`.
"""
struct Workspace{T}
    A::Vector{Matrix{T}}
    D::Vector{Matrix{T}}
    S::Vector{Matrix{T}}
    E::Vector{Matrix{T}}
    Δ::Vector{Matrix{T}}
    Ȧ::Vector{Matrix{T}}
    Ḣ::Vector{Matrix{T}}
    Δ̇::Vector{Matrix{T}}
end

function Workspace{T}(layers, rows) where {T}
    buffers(extra) = [zeros(T, rows, l.width + extra) for l in layers]
    ws = Workspace{T}(buffers(1), buffers(0), buffers(0), buffers(0), buffers(0), buffers(1), buffers(0), buffers(0))
    for A in ws.A
        A[:, end] .= 1
    end
    return ws
end

"""
    HessianBuffers{T}

Made at the first Hessian of a net: `Z` holds a block's weighted derivatives, a column per parameter;
`product` one block of the Hessian before it is added to its place.
"""
struct HessianBuffers{T}
    Z::Matrix{T}
    product::Matrix{T}
end

"""
    Net(; layers, input, target, weights = nothing, T = promoted from input and target)

A multilayer perceptron with its data and the loss L(θ) = (1/N) Σᵢ wᵢ ‖f(xᵢ; θ) − yᵢ‖².

`layers`: a tuple of `(width, activation, bias)`, the output layer last. `input`: D×N. `target`: O×N or a
vector of length N for one output. `weights`: one per sample, default 1. The data are copied once, into blocks.

A net owns the buffers its functions work in: use one net per task.

    julia> net = Net(layers = ((5, softplus, true), (1, identity, true)), input = randn(2, 100), target = randn(1, 100));

    julia> n_params(net)
    21
"""
mutable struct Net{T} <: AbstractNet{T}
    layers::Vector{Layer}
    blocks::Vector{Block{T}}
    n_samples::Int
    n_params::Int
    workspace::Workspace{T}
    hessian_buffers::Union{Nothing,HessianBuffers{T}}
    monitor::Union{Nothing,Monitor}
end

function Net(; layers, input, target, weights=nothing, T=nothing)
    X = input isa AbstractVector ? reshape(input, 1, :) : input
    Y = target isa AbstractVector ? reshape(target, 1, :) : target
    S = T === nothing ? float(promote_type(eltype(X), eltype(Y))) : T
    return Net{S}(build_layers(layers, size(X, 1)), X, Y, weights)
end

function Net{T}(layers::Vector{Layer}, X::AbstractMatrix, Y::AbstractMatrix, weights) where {T}
    N = size(X, 2)
    N >= 1 && size(X, 1) >= 1 || throw(ArgumentError("input is empty: $(size(X, 1)) features × $N samples"))
    size(Y) == (last(layers).width, N) ||
        throw(DimensionMismatch("target is $(size(Y)), but layers and input ask for ($(last(layers).width), $N)"))
    weights === nothing || length(weights) == N ||
        throw(DimensionMismatch("weights has $(length(weights)) entries for $N samples"))
    all(isfinite, X) || throw(ArgumentError("input contains NaN or Inf"))
    all(isfinite, Y) || throw(ArgumentError("target contains NaN or Inf"))
    weights === nothing || all(w -> isfinite(w) && w >= 0, weights) ||
        throw(ArgumentError("weights must be finite and not negative"))
    bs = blocks(T, X, Y, weights)
    return Net{T}(layers, bs, N, sum(n_params, layers), Workspace{T}(layers, first(bs).n), nothing, nothing)
end

function watch!(net::Net, monitor)
    net.monitor = monitor
    return nothing
end

n_params(net::Net) = net.n_params
n_samples(net::Net) = net.n_samples
n_features(net::Net) = first(net.layers).fan_in
n_outputs(net::Net) = last(net.layers).width

Base.show(io::IO, net::Net{T}) where {T} = print(io, "Net{", T, "}(", n_features(net), " → ",
    join(("$(l.width) $(l.activation)" * (l.bias ? "" : " (no bias)") for l in net.layers), " → "), "; ",
    net.n_samples, " samples, ", net.n_params, " parameters)")

function check_params(net::AbstractNet, θ)
    length(θ) == n_params(net) ||
        throw(DimensionMismatch("this net has $(n_params(net)) parameters, got $(length(θ))"))
    return nothing
end
