# Networks of other widths that compute the same function: grow, shrink, split.

"The activation of unit `j`."
unit_activation(layer::Layer, j::Int) =
    layer.activation isa PerUnit ? layer.activation.activations[j] : layer.activation

function check_hidden(layers, layer::Int)
    1 <= layer < length(layers) ||
        throw(ArgumentError("layer is $layer; the hidden layers of this net are 1 to $(length(layers) - 1)"))
    return nothing
end
function check_unit(layers, layer::Int, i::Int)
    check_hidden(layers, layer)
    1 <= i <= layers[layer].width ||
        throw(ArgumentError("unit is $i; layer $layer has the units 1 to $(layers[layer].width)"))
    return nothing
end

"""
    rewire(layers, l, units) -> layers′, source

Layer `l` with one unit for each entry of `units`: a copy of that unit, or a new one where the entry is 0 (with the
activation of the last). `source[i]` is the parameter that the i-th new one copies, or 0.
"""
function rewire(layers::Vector{Layer}, l::Int, units::Vector{Int})
    isempty(units) && throw(ArgumentError("layer $l has one unit: it cannot be removed"))
    isempty(layers[l].chains) ||
        throw(ArgumentError("units of a limit depend on each other: add, remove or split those of the ordinary net"))
    width(m) = m == l ? length(units) : layers[m].width
    function activation_of(m)
        old = layers[m].activation
        return m == l && old isa PerUnit ? Tuple(old.activations[u == 0 ? end : u] for u in units) :
               old isa PerUnit ? Tuple(old.activations) : old
    end
    new = build_layers([(width(m), activation_of(m), layers[m].bias) for m in eachindex(layers)], first(layers).fan_in)
    source = Int[]
    for (m, layer) in enumerate(layers)
        rows = m == l ? units : collect(1:layer.width)
        columns = m == l + 1 ? units : collect(1:layer.fan_in)
        for r in rows, c in columns
            push!(source, r == 0 || c == 0 ? 0 : layer.offset + (r - 1) * layer.fan_in + c)
        end
        layer.bias && append!(source, [r == 0 ? 0 : bias_offset(layer) + r for r in rows])
    end
    return new, source
end

gather(θ::AbstractVector{T}, source) where {T} = T[s == 0 ? zero(T) : θ[s] for s in source]

"The same data, loss and regularisers on the rewired layers; a `merge` penalty of a removed unit goes with it."
function with_layers(net::Net{T}, layers::Vector{Layer}, source::Vector{Int}) where {T}
    place = zeros(Int, net.n_params)
    for i in length(source):-1:1                     # a unit that is there twice keeps its first place
        source[i] > 0 && (place[source[i]] = i)
    end
    old = net.regulariser
    pairs = [(place[i], place[j], λ) for (i, j, λ) in old.pairs if place[i] > 0 && place[j] > 0]
    return rebuilt(net; layers=layers, params=length(source), regulariser=Regulariser{T}(old.l2, old.maxnorm, pairs))
end

"Indices of the incoming weights and the bias of unit `j`."
function incoming(layer::Layer, j::Int)
    weights = collect(layer.offset .+ (j - 1) * layer.fan_in .+ (1:layer.fan_in))
    return layer.bias ? push!(weights, bias_offset(layer) + j) : weights
end
"Indices of the weights from unit `j` of the layer before to the units of `next`."
outgoing(next::Layer, j::Int) = collect(next.offset + j:next.fan_in:next.offset + j + (next.width - 1) * next.fan_in)

"""
    grow_net(net, θ; layer = 1, incoming = zeros) -> net′, θ′

One unit more in a hidden layer, with these `incoming` weights (fan_in of them, then the bias if the layer has one)
and outgoing weights zero, so that the outputs stay what they are. It has the activation of the layer's last unit.
"""
function grow_net(net::Net, θ; layer::Int=1, incoming=nothing)
    layers, source, θ′ = grown(net.layers, θ, layer, incoming)
    return with_layers(net, layers, source), θ′
end
function grown(old::Vector{Layer}, θ, layer::Int, weights)
    check_hidden(old, layer)
    layers, source = rewire(old, layer, [1:old[layer].width; 0])
    θ′ = gather(θ, source)
    if weights !== nothing
        places = incoming(layers[layer], layers[layer].width)
        length(weights) == length(places) ||
            throw(DimensionMismatch("incoming has $(length(weights)) entries; a unit of layer $layer has " *
                                    "$(length(places))"))
        θ′[places] = weights
    end
    return layers, source, θ′
end

"""
    shrink_net(net, θ, i; layer = 1, into = nothing) -> net′, θ′

Without unit `i` of a hidden layer; its outgoing weights are added to those of unit `into`, if that is given. This
undoes [`grow_net`](@ref), and with `into` [`split_neuron`](@ref).
"""
function shrink_net(net::Net, θ, i::Int; layer::Int=1, into=nothing)
    layers, source, θ′ = shrunk(net.layers, θ, layer, i, into)
    return with_layers(net, layers, source), θ′
end
function shrunk(old::Vector{Layer}, θ, layer::Int, i::Int, into)
    check_unit(old, layer, i)
    θ = collect(θ)
    if into !== nothing
        check_unit(old, layer, into)
        into == i && throw(ArgumentError("unit $i cannot be merged into itself"))
        θ[outgoing(old[layer+1], into)] .+= θ[outgoing(old[layer+1], i)]
    end
    layers, source = rewire(old, layer, filter(!=(i), 1:old[layer].width))
    return layers, source, gather(θ, source)
end

"""
    split_neuron(net, θ, i, γ; layer = 1, j = width + 1) -> net′, θ′

Unit `i` twice: a copy with the same incoming weights becomes unit `j` of its layer, by default the last one, and
takes the part 1 − γ of the outgoing weights. Outputs and data loss stay what they are for every γ (Fukumizu and
Amari, Neural Networks 13, 2000); `l2` and `maxnorm` see other parameters.
"""
function split_neuron(net::Net, θ, i::Int, γ::Real; layer::Int=1, j::Int=net.layers[layer].width + 1)
    layers, source, θ′ = split_unit(net.layers, θ, layer, i, γ, j)
    return with_layers(net, layers, source), θ′
end
function split_unit(old::Vector{Layer}, θ, layer::Int, i::Int, γ::Real, j::Int=old[layer].width + 1)
    check_unit(old, layer, i)
    isfinite(γ) || throw(ArgumentError("γ is $γ; a finite number is needed"))
    k = old[layer].width
    1 <= j <= k + 1 || throw(ArgumentError("j is $j; the copy's place is from 1 to $(k + 1)"))
    layers, source = rewire(old, layer, [1:j-1; i; j:k])
    θ′ = gather(θ, source)
    θ′[outgoing(layers[layer+1], i + (i >= j))] .*= γ
    θ′[outgoing(layers[layer+1], j)] .*= 1 - γ
    return layers, source, θ′
end
