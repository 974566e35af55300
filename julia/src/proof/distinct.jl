# Two critical points that are proved to differ, whatever units are permuted, flipped and scaled.

"""
    proved_different(layers, x, r, losses, indices) -> D

`D[i, j]`: whether the critical points within r[i] of x[:, i] and within r[j] of x[:, j] are different for sure, modulo
permutations of hidden units, signs (of odd and even units, sigmoid and normal_cdf) and the scale of homogeneous
units. Losses, intervals, that do not overlap tell so, other indices, and units of the first layer (with their outgoing
weights, if it is the only hidden one) that cannot be assigned to each other.
"""
function proved_different(layers::Vector{Layer}, x::Matrix{Float64}, r::Vector{Float64},
                          losses::Vector{Interval{Float64}}, indices::Vector{Int})
    M = length(r)
    points = [[Interval(θ, θ) + Interval(-r[i], r[i]) for θ in x[:, i]] for i in 1:M]
    return Bool[i != j && (indices[i] != indices[j] || !overlap(losses[i], losses[j]) ||
                           !assignable(layers, points[i], points[j])) for i in 1:M, j in 1:M]
end

overlap(x::Interval, y::Interval) = !(x.hi < y.lo || y.hi < x.lo)

"Whether the units of the first layer may be those of the other, in some order."
function assignable(layers::Vector{Layer}, x::Vector{Interval{Float64}}, y::Vector{Interval{Float64}})
    first_layer = layers[1]
    # A net without hidden layers has no order of units; linear ones can be mixed, and those of limits change places in
    # groups.
    (length(layers) == 1 || !isempty(first_layer.chains) || any(c -> c.activation isa Identity, first_layer.columns)) &&
        return true
    k = first_layer.width
    cost = Float64[!alike(layers, x, i, y, j) for i in 1:k, j in 1:k]
    units = assign(cost)
    return all(i -> cost[i, units[i]] == 0, 1:k)
end

function alike(layers::Vector{Layer}, x, i::Int, y, j::Int)
    a, b = unit_activation(layers[1], i), unit_activation(layers[1], j)
    a == b || return false
    into, out = normal_form(layers, x, i)
    other_into, other_out = normal_form(layers, y, j)
    same(s, t) = all(overlap(u, s * v) for (u, v) in zip(into, other_into)) &&
                 all(overlap(u, t * v) for (u, v) in zip(out, other_out))
    return same(1, 1) || parity(a) != 0 && same(-1, parity(a)) || a isa Union{Sigmoid,NormalCdf} && same(-1, -1)
end

"Incoming weights and bias, the largest being one where the unit is homogeneous, and outgoing weights that fit."
function normal_form(layers::Vector{Layer}, x::Vector{Interval{Float64}}, j::Int)
    into = x[incoming(layers[1], j)]
    out = length(layers) == 2 ? x[outgoing(layers[2], j)] : Interval{Float64}[]
    k = homogeneity(unit_activation(layers[1], j))
    k == 0 && return into, out
    m = reduce(max, abs.(into))
    return into ./ m, out .* m^k
end

"Points that are proved to differ from each other, as many as are found on the way from the lowest loss to the highest."
function representatives(different::Matrix{Bool}, losses::Vector{Interval{Float64}})
    found = Int[]
    for i in sortperm([L.lo for L in losses])
        all(j -> different[i, j], found) && push!(found, i)
    end
    return found
end
