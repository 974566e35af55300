# Which hidden units are on their way to infinity, and to which limit.

"""
    Channel

Hidden units of a `layer` on their way to infinity. Two or three merge while their outgoing weights diverge: `cosine` of
the incoming weights of the first two (with biases, up to the sign for odd units), the `distance` of the two relative to
their length, `growth`, how many times larger the outgoing weights are than their sum, and `eps`, half of the distance,
which tends to zero. One unit acts by its exponential tail: `distance` is its largest slope on the samples, `growth` how
many times smaller its variation is than its size, `eps`² the exponential of its bias. Or one unit becomes a step or a
relu: `growth` is the pre-activation nearest to zero, `distance` how far the activation there is from its limit, 1/`eps`
the length of the incoming weights. Or two units that act by their tails merge; `eps` is that of tails. `kind` is
"pair", "triple", "tail", "tails" for two that merge, "step", "relu", or of relus "kink" with samples on it and "line"
if all samples are above it.
"""
struct Channel
    layer::Int
    units::Vector{Int}
    kind::String
    cosine::Float64
    distance::Float64
    growth::Float64
    eps::Float64
end

"""
    channels(net, θ; distance = 0.3, growth = 3) -> Vector{Channel}

Pairs of units, each in one of them at most and the nearest first, whose distance is below and whose growth is above
these bounds; triples of units, near to one another, of whose outgoing weights not even the first moments remain; and
single units that act by their tails, or become steps or relus.
"""
function channels(net::Net{T}, θ::AbstractVector; options...) where {T}
    check_data(net)
    θ = Vector{T}(θ)
    return channels(net.layers, Vector{Float64}(θ), activity(net, θ)[1:2]..., nearest_samples(net, θ); options...)
end
function channels(layers::Vector{Layer}, θ::Vector{Float64}, grams, slopes, nearest; distance::Real=0.3, growth::Real=3)
    found = Channel[]
    for l in 1:length(layers)-1
        layer, next = layers[l], layers[l+1]
        candidates, near = Channel[], Dict{Tuple{Int,Int},Channel}()
        free = [j for j in 1:layer.width
                if !in_chain(layer.chains, j) &&
                   !(unit_activation(layer, j) isa Union{Relu,Selu,Identity,Tail,Sharp,Inside})]
        for a in eachindex(free), b in a+1:length(free)
            pair = unknown(pair_channel)(θ, layer, next, l, free[a], free[b])::Union{Nothing,Channel}
            pair !== nothing && pair.distance < distance || continue
            near[free[a], free[b]] = pair
            pair.growth > growth && push!(candidates, pair)
        end
        for (i, j) in keys(near), k in free
            k > j && haskey(near, (i, k)) && haskey(near, (j, k)) || continue
            pairs = [near[i, j], near[i, k], near[j, k]]
            triple = unknown(triple_channel)(θ, layer, next, l, [i, j, k], pairs)::Union{Nothing,Channel}
            triple !== nothing && triple.growth > growth^2 && push!(candidates, triple)
        end
        tails = Channel[]
        for j in free
            has_tail(unit_activation(layer, j)) && layer.bias || continue
            unit_activation(layer, j) isa Tanh && !next.bias && continue
            small = variation(grams[l+1], j)
            single = unknown(tail_channel)(θ, layer, l, j, slopes[l][j], small)::Union{Nothing,Channel}
            single !== nothing && single.distance < distance && single.growth > growth && push!(tails, single)
        end
        append!(candidates, tails)
        for a in eachindex(tails), b in a+1:length(tails)
            both = unknown(tails_channel)(θ, layer, next, l, tails[a], tails[b])::Union{Nothing,Channel}
            both !== nothing && both.distance < distance && both.growth > growth && push!(candidates, both)
        end
        for j in free
            sharp = layer.bias ? sharp_channel(θ, layer, l, j, nearest[l][:, j], growth) : nothing
            sharp !== nothing && sharp.distance < distance && push!(candidates, sharp)
        end
        taken = Int[]
        # A triple comes before its pairs: two of the three are a pair only as long as the third waits. So do tails that
        # merge.
        for c in sort!(candidates; by=c -> (c.kind == "tails" ? -3 : -length(c.units), c.distance))
            isempty(intersect(taken, c.units)) || continue
            append!(taken, c.units)
            push!(found, c)
        end
    end
    return found
end

function pair_channel(θ, layer::Layer, next::Layer, l::Int, i::Int, j::Int)
    f = unit_activation(layer, i)
    f == unit_activation(layer, j) || return nothing
    u, v, a, b = θ[incoming(layer, i)], θ[incoming(layer, j)], θ[outgoing(next, i)], θ[outgoing(next, j)]
    cosine = cosine_similarity(transpose(u), transpose(v))[1]
    s = parity(f)::Int
    s != 0 && cosine < 0 && ((v, b, cosine) = (-v, s * b, -cosine))
    size = (norm(u) + norm(v)) / 2
    size > 0 && norm(u - v) > 64 * eps() * size || return nothing
    return Channel(l, [i, j], "pair", cosine, norm(u - v) / size, norm(a - b) / max(norm(a + b), floatmin()),
                   norm(u - v) / 2)
end

"Of three units, whose `pairs` are (1, 2), (1, 3) and (2, 3)."
function triple_channel(θ, layer::Layer, next::Layer, l::Int, units::Vector{Int}, pairs::Vector{Channel})
    q = copy(θ)
    into, out = [incoming(layer, j) for j in units], [outgoing(next, j) for j in units]
    align_signs!(q, into, out, parity(unit_activation(layer, units[1])))
    longest = argmax([p.distance for p in pairs])
    middle, (a, b) = 4 - longest, filter(!=(4 - longest), 1:3)
    along = (q[into[a]] - q[into[b]]) / norm(q[into[a]] - q[into[b]])
    t = [dot(along, q[into[m]] - q[into[middle]]) for m in 1:3]
    t[a] * t[b] < 0 || return nothing
    total = sum(norm(q[o]) for o in out)
    first = norm(sum(t[m] * q[out[m]] for m in 1:3)) / sum(abs(t[m]) * norm(q[out[m]]) for m in 1:3)
    zeroth = norm(sum(q[out[m]] for m in 1:3)) / total
    return Channel(l, units, "triple", minimum(p.cosine for p in pairs), pairs[longest].distance,
                   1 / max(zeroth, first^2, floatmin()), pairs[longest].eps)
end

function tail_channel(θ, layer::Layer, l::Int, j::Int, slope::Float64, variation::Float64)
    f, b = unit_activation(layer, j), θ[bias_offset(layer)+j]
    b < 0 || parity(f) == -1 || f isa Sigmoid || return nothing
    γ = tail(f)[3]
    # Tails that vary as much as they are large: by their slopes, that of sigmoid relative to its largest.
    f isa Union{Softplus,GFunction} && (variation = slope)
    f isa Sigmoid && b < 0 && (variation = 4 * slope)
    slope > 0 || return nothing
    return Channel(l, [j], "tail", 1.0, slope, 1 / max(variation, floatmin()), exp(-γ * abs(b) / 2))
end

"""
Of two units that act by their tails, whether these merge: by their weights without biases, and the sizes of the tails.
"""
function tails_channel(θ, layer::Layer, next::Layer, l::Int, first::Channel, second::Channel)
    i, j = first.units[1], second.units[1]
    f = unit_activation(layer, i)
    f == unit_activation(layer, j) || return nothing
    q = copy(θ)
    for unit in (i, j)
        tail_to_limit!(q, next, Tail(f), incoming(layer, unit), outgoing(next, unit))
    end
    u, v = q[incoming(layer, i)[1:end-1]], q[incoming(layer, j)[1:end-1]]
    a, b = q[outgoing(next, i)], q[outgoing(next, j)]
    size = (norm(u) + norm(v)) / 2
    size > 0 && norm(u - v) > 64 * eps() * size || return nothing
    return Channel(l, [i, j], "tails", cosine_similarity(transpose(u), transpose(v))[1], norm(u - v) / size,
                   norm(a - b) / max(norm(a + b), floatmin()), sqrt((first.eps^2 + second.eps^2) / 2))
end

# So near and grown that a point from which the loss falls without end may be said to be on its way to their limit.
const CHANNEL_DISTANCE, CHANNEL_GROWTH = 0.1, 10.0
# Every run looks for channels where it ends if that takes a few milliseconds: with k units and N samples (N + 500) k²
# steps of 3 ns (0.08 ms with 10 units and 100 samples, 5 ms with 60 units of 20 inputs; 460 ms with 1000 units and 3
# samples).
const CHANNELS_IN_PASSING = 2_000_000

"Channels so far along that they explain why the loss falls without end; none of nets that have no minimum at infinity."
ways_to_infinity(net::AbstractNet, θ) = Channel[]
ways_to_infinity(net::Net, θ) =
    unregularised(net) && length(net.layers) > 1 && n_samples(net) > 0 && all(isfinite, θ) ?
    channels(net, θ; distance=CHANNEL_DISTANCE, growth=CHANNEL_GROWTH) : Channel[]

"The same where a run has ended, if that takes no time to speak of."
seen_in_passing(net::AbstractNet, θ) = Channel[]
function seen_in_passing(net::Net, θ)
    widest = reduce(max, Int[l.width for l in net.layers[1:end-1]]; init=0)
    return (n_samples(net) + 500) * widest^2 <= CHANNELS_IN_PASSING ? ways_to_infinity(net, θ) : Channel[]
end

"Those ways as a `Classification` has them."
roads_of_channels(net::AbstractNet, θ) =
    Tuple{String,Int,Vector{Int},Int}[(ROAD_LABELS[c.kind], c.layer, c.units, 1) for c in ways_to_infinity(net, θ)]
const ROAD_LABELS = Dict("tail" => "tail unit", "tails" => "merging tails", "pair" => "diverging pair",
                         "triple" => "diverging triple", "step" => "step unit", "relu" => "relu unit",
                         "kink" => "relu unit", "line" => "relu unit")
