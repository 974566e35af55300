"Units that share an activation are computed together."
columns(a::Activation, width::Int) = [Columns(a, 1, width)]
function columns(a::PerUnit, width::Int)
    groups, chains = Columns[], find_chains(a)
    for (j, f) in enumerate(a.activations)
        in_chain(chains, j) && (f = identity_)       # what a chain does to them comes afterwards
        isempty(groups) || last(groups).activation !== f ? push!(groups, Columns(f, j, j)) : (last(groups).last = j)
    end
    return groups
end

"""
    Layer

One fully connected layer, a = f(W x + b), and where its parameters lie in θ: `offset` entries come before
W (`width` rows of `fan_in` entries each), which is followed by b if `bias`. Mutable, so that passing it on does not
allocate.
"""
mutable struct Layer
    fan_in::Int
    width::Int
    activation::Activation
    bias::Bool
    offset::Int
    columns::Vector{Columns}
    chains::Vector{Chain}
end

n_params(l::Layer) = l.width * (l.fan_in + l.bias)
bias_offset(l::Layer) = l.offset + l.width * l.fan_in

"""
    build_layers(specs, n_features) -> Vector{Layer}

From specs `(width, activation, bias)`, first layer first; `activation` may be a tuple, one for each unit.
"""
function build_layers(specs, n_features::Int)
    isempty(specs) && throw(ArgumentError("layers is empty: give at least the output layer"))
    layers = Layer[]
    fan_in, offset = n_features, 0
    for (number, spec) in enumerate(specs)
        length(spec)::Int == 3 || throw(ArgumentError("a layer is (width, activation, bias), got $spec"))
        given, f, bias = spec
        given isa Integer && given >= 1 || throw(ArgumentError("a layer's width is a positive integer, got $given"))
        width = Int(given)::Int
        bias isa Bool || throw(ArgumentError("a layer's bias is true or false, got $bias"))
        a = f isa Union{Tuple,AbstractVector} ? PerUnit(Activation[activation(h) for h in f]) : activation(f)
        a isa PerUnit && length(a.activations) != width &&
            throw(ArgumentError("layer $number has $width units and $(length(a.activations)) activations"))
        a isa Derivative && throw(ArgumentError("layer $number: a Derivative is the activation of one unit"))
        groups = unknown(columns)(a, width)::Vector{Columns}
        any(c -> c.activation isa Softmax, groups) && !(a isa Softmax && number == length(specs)) &&
            throw(ArgumentError("softmax is for the output layer as a whole"))
        chains = unknown(find_chains)(a)::Vector{Chain}
        isempty(chains) || number < length(specs) || throw(ArgumentError("Derivatives are for hidden layers"))
        push!(layers, Layer(fan_in, width, a, bias, offset, groups, chains))
        fan_in, offset = width, offset + n_params(last(layers))
    end
    return layers
end

# 256 samples: a layer of 100 units fills half a megabyte, so that forward, backward and accumulation stay in
# the second-level cache, while loop and call overheads are spread over enough samples.
const BLOCK = 256

"""
    KinkSides{T}

A kink of the activation of units `first:last` of a layer, at `position`, where f' grows by `jump`, over the samples of
a block: on which `side` of it each pre-activation is taken to be (0 below, 1 above, between where the flow slides along
it), whatever its sign; how far beyond the kink it was in the last forward pass, `h`, which is known up to `noise`; and
the `margin` by which it must be beyond its side to be believed to be there. `early` and `late` are `h` at two ends of a
piece of a step. See [`Kinks`](@ref).
"""
mutable struct KinkSides{T}
    layer::Int
    first::Int
    last::Int
    position::T
    jump::T
    side::Matrix{T}
    h::Matrix{T}
    early::Matrix{T}
    late::Matrix{T}
    margin::Matrix{T}
    noise::T
end
function KinkSides{T}(layer::Int, first::Int, last::Int, position, jump, rows::Int) where {T}
    z() = zeros(T, rows, last - first + 1)
    return KinkSides{T}(layer, first, last, position, jump, z(), z(), z(), z(), z(), zero(T))
end

"""
    Block{T}

Up to `BLOCK` samples, one column a feature, so that loops over samples run through memory. The number of
rows `n` is a multiple of `LANES`: the last sample is repeated with weight 0. Column D + 1 of `X` holds ones; there are
as many columns as [`gram!`](@ref) reads. Mutable, as a [`Layer`](@ref) is.
"""
mutable struct Block{T}
    n::Int
    X::Matrix{T}
    Y::Matrix{T}
    w::Vector{T}
    kinks::Vector{KinkSides{T}}     # with sides given, in a flow only
end
Block{T}(n::Int, X, Y, w) where {T} = Block{T}(n, X, Y, w, KinkSides{T}[])

function Block{T}(X::AbstractMatrix, Y::AbstractMatrix, w, samples::UnitRange{Int}) where {T}
    n = cld(length(samples), LANES) * LANES
    rows = [min(i, last(samples)) for i in first(samples):first(samples)+n-1]
    x = zeros(T, n, columns_for(size(X, 1)))
    for d in 1:size(X, 1), r in 1:n
        x[r, d] = X[d, rows[r]]
    end
    x[:, size(X, 1)+1] .= 1
    y = T[Y[o, i] for i in rows, o in 1:size(Y, 1)]
    return Block{T}(n, x, y, T[r <= length(samples) ? (w === nothing ? 1 : w[rows[r]]) : 0 for r in 1:n])
end

blocks(::Type{T}, X, Y, w) where {T} =
    [Block{T}(X, Y, w, i:min(i + BLOCK - 1, size(X, 2))) for i in 1:BLOCK:size(X, 2)]

"""
    Workspace{T}

Buffers for one block, a matrix per layer with a column per unit. Activations `A` (column width + 1 holds
ones, others follow for `gram!`), f' `D`, f'' `S`, ∂ℓ/∂a `E`, ∂ℓ/∂h `Δ`; the letters with a dot are directional
derivatives: `Ȧ`, `Ḣ` (of pre-activations), `Δ̇`. `row` has five columns for what a loss keeps per sample, `chains` what
each chain of a layer keeps. Mutable, as a [`Layer`](@ref) is.
"""
mutable struct Workspace{T}
    A::Vector{Matrix{T}}
    D::Vector{Matrix{T}}
    S::Vector{Matrix{T}}
    E::Vector{Matrix{T}}
    Δ::Vector{Matrix{T}}
    Ȧ::Vector{Matrix{T}}
    Ḣ::Vector{Matrix{T}}
    Δ̇::Vector{Matrix{T}}
    row::Matrix{T}
    chains::Vector{Vector{ChainBuffers{T}}}
end

function Workspace{T}(layers, rows) where {T}
    buffers(columns=identity) = [zeros(T, rows, columns(l.width)) for l in layers]
    ws = Workspace{T}(buffers(columns_for), buffers(), buffers(), buffers(), buffers(), buffers(columns_for), buffers(),
                      buffers(columns_for), zeros(T, rows, 5),
                      [ChainBuffers{T}[ChainBuffers{T}(c, rows) for c in l.chains] for l in layers])
    for (A, l) in zip(ws.A, layers)
        A[:, l.width+1] .= 1
    end
    return ws
end
