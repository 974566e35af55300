"""
    AbstractNet{T}

Anything with a loss on a flat parameter vector of number type `T`. It has `n_params`, `loss`,
`value_and_gradient!`, `gradient!`, `hessian!` and `hvp!`; flow and minimize need nothing else.
"""
abstract type AbstractNet{T<:AbstractFloat} end

"""
    Net(; layers, input, target, weights = nothing, loss = "mse", l2 = 0, maxnorm = Inf, merge = nothing,
        output_factor = 1, n_features = nothing, threads = 1, T = promoted from input and target)

A multilayer perceptron with its data and the loss

    L(θ) = (1/N) Σᵢ wᵢ ℓ(f(xᵢ; θ), yᵢ) + R(θ).

`layers`: a tuple of `(width, activation, bias)`, the output layer last. `input`: D×N. `target`: O×N or a
vector of length N for one output; for `loss = "nll"` also N labels from 1 to O. `weights`: one per sample, default 1.
`loss`: "mse", ‖f − y‖²; "nll", −Σₒ yₒ log fₒ with a softmax output, or with an output layer of logits; "correlation",
see [`Correlation`](@ref); or a function of one output and its target, such as `(f, y) -> log(cosh(f - y))`, summed over
outputs. `l2`, `maxnorm`, `merge`: see [`Regulariser`](@ref). `output_factor`: outputs are multiplied by it. The data
are copied once, into blocks; a net without data (`n_features` in place of `input`) has outputs, and a loss on other
data. `threads`: how many of Julia's threads share the samples.

A net owns the buffers its functions work in: use one net per task.

    julia> net = Net(layers = ((5, softplus, true), (1, identity, true)), input = randn(2, 9), target = randn(1, 9));

    julia> n_params(net)
    21
"""
mutable struct Net{T} <: AbstractNet{T}
    layers::Vector{Layer}
    blocks::Vector{Block{T}}
    n_samples::Int
    n_params::Int
    objective::Loss
    regulariser::Regulariser{T}
    output_factor::T
    crew::Crew{T}
    monitor::Union{Nothing,Monitor}
end

function Net(; layers, input=nothing, target=nothing, n_features=nothing, T=nothing, options...)
    if input === nothing
        n_features isa Integer && n_features >= 1 ||
            throw(ArgumentError("a net without input needs n_features, a positive integer"))
        return Net{T === nothing ? Float64 : T}(build_layers(layers, Int(n_features)), nothing, nothing; options...)
    end
    target === nothing && throw(ArgumentError("input is given without target"))
    X = input isa AbstractVector ? reshape(input, 1, :) : input
    n_features === nothing || n_features == size(X, 1) ||
        throw(DimensionMismatch("n_features is $n_features, the input has $(size(X, 1))"))
    S = T === nothing ? float(eltype(target) <: Integer ? eltype(X) : promote_type(eltype(X), eltype(target))) : T
    return Net{S}(build_layers(layers, size(X, 1)), X, target; options...)
end

function Net{T}(layers::Vector{Layer}, input, target; weights=nothing, loss="mse", l2=0, maxnorm=Inf, merge=nothing,
                output_factor=1, threads=1) where {T}
    objective = loss_by_name(loss)
    fits(objective, last(layers).activation)
    0 < abs(output_factor) < Inf || throw(ArgumentError("output_factor is $output_factor; finite and not 0 is needed"))
    1 <= threads <= Threads.nthreads() ||
        throw(ArgumentError("threads is $threads; Julia runs with $(Threads.nthreads())"))
    regulariser = Regulariser{T}(layers, l2, maxnorm, merge)
    if input === nothing
        bs, N = Block{T}[], 0
    else
        bs, N = data_blocks(T, layers, objective, input, target, weights), size(input, 2)
    end
    return Net{T}(layers, bs, N, sum(n_params, layers), own_loss(objective, T, last(layers).width), regulariser,
                  T(output_factor), Crew{T}(layers, bs, threads), nothing)
end

function data_blocks(::Type{T}, layers, objective::Loss, X, target, weights) where {T}
    N = size(X, 2)
    N >= 1 && size(X, 1) >= 1 || throw(ArgumentError("input is empty: $(size(X, 1)) features × $N samples"))
    size(X, 1) == first(layers).fan_in ||
        throw(DimensionMismatch("this net takes $(first(layers).fan_in) features, the input has $(size(X, 1))"))
    Y = unknown(converted_target)(objective, T, target, last(layers).width)::Matrix{T}
    size(Y) == (last(layers).width, N) ||
        throw(DimensionMismatch("target is $(size(target)), but layers and input ask for ($(last(layers).width), $N)"))
    weights === nothing || length(weights) == N ||
        throw(DimensionMismatch("weights has $(length(weights)) entries for $N samples"))
    all(isfinite, X) || throw(ArgumentError("input contains NaN or Inf"))
    all(isfinite, Y) || throw(ArgumentError("target contains NaN or Inf"))
    weights === nothing || all(w -> isfinite(w) && w >= 0, weights) ||
        throw(ArgumentError("weights must be finite and not negative"))
    return blocks(T, X, Y, weights)
end

converted_target(objective::Loss, ::Type{T}, target, outputs::Int) where {T} =
    convert(Matrix{T}, target_matrix(objective, T, target, outputs))

"""
    on(net, input, target; weights = nothing) -> Net

The same network, loss and regularisers on other data.
"""
function on(net::Net{T}, input, target; weights=nothing) where {T}
    bs = data_blocks(T, net.layers, net.objective, input, target, weights)
    return rebuilt(net; blocks=bs, samples=size(input, 2), monitor=net.monitor)
end

"The same network with other layers, blocks of samples or workspaces, which are its own in any case."
rebuilt(net::Net{T}; layers=net.layers, blocks=net.blocks, samples=net.n_samples, params=net.n_params,
        regulariser=net.regulariser, threads=length(net.crew.workers), monitor=nothing) where {T} =
    Net{T}(layers, blocks, samples, params, own_loss(net.objective, T, last(layers).width), regulariser,
           net.output_factor, Crew{T}(layers, blocks, threads), monitor)

"Whether the loss is that of the data alone."
unregularised(::AbstractNet) = false
unregularised(net::Net) = (R = net.regulariser; R.l2 == 0 && R.maxnorm == Inf && isempty(R.pairs))

"The same loss in buffers of its own: for whoever asks for a derivative while a solver works in those of `net`."
function twin(net::AbstractNet)
    other = deepcopy(net)
    watch!(other, nothing)
    return other
end
twin(net::Net) = rebuilt(net)           # with the data of the other

function check_data(net::Net)
    isempty(net.blocks) && throw(ArgumentError("this net has no data: give input and target"))
    return nothing
end

function watch!(net::Net, monitor)
    net.monitor = monitor
    return nothing
end

"The number of parameters."
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
