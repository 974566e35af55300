# Softplus units that become linear: their biases go to infinity, until no sample sees the bend. As f(x) − f(−x) = x
# for softplus, gelu and silu, such a unit lets all others turn around: f(h) becomes h + f(−h), and it takes h. Units
# that merge or act by their tails only after a turn, while what they have of linear parts diverges and cancels, are
# found so.

"The ramp of layer `l` that is nearest to a line, if all samples are more than `FAR` above its bend; else 0."
function straightest(net::Net{T}, θ::Vector{T}, l::Int) where {T}
    best, unit = Float64(FAR), 0
    for j in 1:net.layers[l].width
        is_ramp(unit_activation(net.layers[l], j)) || continue
        h = minimum(sharp_samples(net, θ, l, j)[2])
        h > best && ((best, unit) = (h, j))
    end
    return unit
end

# Where a line is put: its bend this many times as far below zero as the samples reach.
const ROOM = 10

"""
    with_lines(net, θ) -> [(θ′, channel), …]

The same function with a linear unit, to all digits in the limit of the `channel`: as it is, and with those units turned
around that have positive biases, so that opposite units become equal ones and tails lie at −∞. For one output and
layers with biases.
"""
function with_lines(net::Net{T}, θ::Vector{T}) where {T}
    found = Tuple{Vector{T},Channel}[]
    for l in 1:length(net.layers)-1
        layer, next = net.layers[l], net.layers[l+1]
        next.width == 1 && layer.bias && next.bias || continue
        j = straightest(net, θ, l)
        j > 0 && !iszero(θ[outgoing(next, j)][1]) || continue
        into, out, offset = incoming(layer, j), outgoing(next, j)[1], biases(next)[1]
        for turn in (false, true)
            x = copy(θ)
            for i in 1:layer.width
                other, b = incoming(layer, i), bias_offset(layer) + i
                turn && i != j && x[b] > 0 && unit_activation(layer, i) == unit_activation(layer, j) || continue
                x[into] += x[outgoing(next, i)[1]] / x[out] * x[other]
                x[other] *= -1
            end
            X, h, _ = sharp_samples(net, x, l, j)
            b = last(into)
            shift = ROOM * maximum(abs, h .- x[b]) - x[b]
            x[b] += shift
            x[offset] -= x[out] * shift
            push!(found, (x, Channel(l, [j], "line", 1.0, 0.0, minimum(h) + shift, 1 / norm(x[into]))))
        end
    end
    return found
end

with_lines(::ConstrainedNet{T}, z) where {T} = Tuple{Vector{T},Channel}[]

"The bias of a relu at infinity that is on at all samples is one of the next layer's."
function add_lines!(found::Vector{Invariance}, net::Net{T}, θ::Vector{T}) where {T}
    for (l, j) in relus(net)
        net.layers[l].bias && net.layers[l+1].bias && all(>(0), sharp_samples(net, θ, l, j)[2]) || continue
        e = bias_direction(Float64.(θ), net.layers[l], net.layers[l+1], j)
        push!(found, Invariance("linear units", l, [j], [e]))
    end
    return found
end
