# Relus at infinity whose kink stays on samples: softplus units whose incoming weights diverge, while the
# pre-activations of some samples stay finite. A sample on the kink gives nothing to the limit; where its pre-activation
# stays is decided at the next order. In the first layer, where a sample on the kink is a linear condition on (w, b),
# the limit is a minimum under a Constraint.

# So much nearer to the kink than the farthest sample, a sample is on it: all but rounding.
const ON_KINK = 1e-11
"Samples on the kink, by the pre-activations `h` of a unit."
on_kink(h::Vector{Float64}) = findall(x -> abs(x) <= ON_KINK * maximum(abs, h), h)

"The (layer, unit) that are relus at infinity."
relus(net::Net) = [(l, j) for l in 1:length(net.layers)-1 for j in 1:net.layers[l].width if is_relu(net, l, j)]
is_relu(net::Net, l::Int, j::Int) = is_relu(unit_activation(net.layers[l], j))
is_relu(f::Activation) = f isa Sharp && f.ε == 0 && is_ramp(f.f)

"""
    held_at_kinks(net, q) -> Constraint or nothing

The parameters for which the samples that are on the kinks of relus in the first layer stay there.
"""
function held_at_kinks(net::Net{T}, q::Vector{T}) where {T}
    P, held, columns = n_params(net), Int[], Vector{Float64}[]
    for (l, j) in relus(net)
        l == 1 || continue
        X, h, _ = sharp_samples(net, q, 1, j)
        on, into = on_kink(h), incoming(net.layers[1], j)
        isempty(on) && continue
        append!(held, into)
        B = nullspace(permutedims(X[:, on]))
        for k in axes(B, 2)
            column = zeros(P)
            column[into] = B[:, k]
            push!(columns, column)
        end
    end
    isempty(held) && return nothing
    free = [unit_vector(P, i) for i in setdiff(1:P, held)]
    return Constraint{T}(Constraint(reduce(hcat, [free; columns]), zeros(P)))
end

"The limit of `net` as a search at `q` moves in it: with those samples held, or under the net's own constraint."
function held(limit::Net, net::Net, q)
    C = held_at_kinks(limit, q)
    return C === nothing ? limit : ConstrainedNet(limit, C)
end
held(limit::Net, net::ConstrainedNet, q) = under(limit, net)

"""
    kink_forces(net, q, j) -> samples, E, μ, X, h

The samples on the kink of unit `j` of the first layer, how fast the loss grows with what the unit gives there, and the
forces μ with which they hold it: the loss by (w, b) without these samples has the gradient −Σ μᵢ xᵢ at a minimum where
they stay. As a sample leaves to the inactive side the loss changes by μ, to the active one by E − μ, times the
distance; it stays if both are positive.
"""
function kink_forces(net::Net{T}, q::Vector{T}, j::Int) where {T}
    X, h, c = sharp_samples(net, q, 1, j)
    E = unit_activation(net.layers[1], j).f isa Softplus ? c : -c
    on = on_kink(h)
    active = [i for i in eachindex(h) if h[i] > 0 && !(i in on)]
    g = X[:, active] * E[active]
    return on, E[on], isempty(on) ? Float64[] : X[:, on] \ -g, X, h
end

"""
The pre-activation at which a sample on the kink stays, f′(x) = σ, on the convex part of f.
"""
function resting_place(f::Activation, σ::Float64)
    low, high = -END_OF_BEND(f), END_OF_BEND(f)
    for _ in 1:60
        middle = (low + high) / 2
        derivatives(f, middle)[2] < σ ? (low = middle) : (high = middle)
    end
    return (low + high) / 2
end
"Where the convex part of f ends: the zeros of f″."
END_OF_BEND(::Softplus) = 40.0       # where f′ is 1 to rounding
END_OF_BEND(::Gelu) = sqrt(2.0)      # f″ = (2 − x²) φ(x)
END_OF_BEND(::Silu) = 2.399357280520547

"Σ E f(x) − μ x over the samples on the kink of unit `j`, and where they are: L = L₀ + hε to first order."
function kink_coefficient(net::Net, q, j::Int)
    f = unit_activation(net.layers[1], j).f
    on, E, μ, X, _ = kink_forces(net, q, j)
    x = [resting_place(f, μ[k] / E[k]) for k in eachindex(on)]
    return sum(E[k] * f(x[k]) - μ[k] * x[k] for k in eachindex(on)), X[:, on], x
end

"""
Samples on the kink of unit `j` at their finite pre-activations, in the ordinary net at `θ`, which is at `q` in the
limit.
"""
function keep_on_kink!(θ::Vector, net::Net{T}, q::Vector{T}, j::Int) where {T}
    isempty(on_kink(sharp_samples(net, q, 1, j)[2])) && return θ
    _, X, x = kink_coefficient(net, q, j)
    θ[incoming(net.layers[1], j)] += pinv(permutedims(X)) * x
    return θ
end

"""
The limit's parameters with those samples on kinks that are so in the ordinary net at the distances `ε`: nearer than a
third of all others (see [`sharp_channel`](@ref)), and no more than there are inputs.
"""
function with_samples_on_kinks(limit::Net{T}, q::Vector{T}, ε::Vector{T}) where {T}
    q = copy(q)
    for (k, (l, chain)) in enumerate([(l, c) for (l, layer) in enumerate(limit.layers) for c in approaches(layer)])
        l == 1 && is_relu(chain.activation) || continue
        X, h, _ = sharp_samples(limit, q, 1, chain.units[1])
        h ./= ε[k]
        order = sortperm(abs.(h))
        p = findfirst(p -> abs(h[order[p+1]]) > max(FAR, p == 0 ? 0 : 3 * abs(h[order[p]])),
                      0:min(MOST_INSIDE, limit.layers[1].fan_in, length(h) - 1))
        (p === nothing || p == 1) && continue
        put_on_kink!(q, incoming(limit.layers[1], chain.units[1]), X[:, order[1:p-1]])
    end
    return q
end
function put_on_kink!(q::Vector, into, X::Matrix{Float64})
    q[into] -= pinv(permutedims(X)) * (permutedims(X) * q[into])
    return q
end

# Iterations of a search in a limit.
const MOST_IN_LIMIT = 20_000

# A search that ends on no minimum, so near to a kink as this part of the farthest sample, has met it.
const MET_KINK = 1e-3

"""
    search_in_limit!(rounds, net, limit, q, iterations, target) -> result, kind, q

[`a_round!`](@ref) in a limit of `net`, in which samples are put on the kink of a relu where the search ends on one, and
let off where the loss falls that way, until neither is called for. Below the loss `target`, which the ordinary net has
reached, the search goes on as long as it gets on, but for a quarter of what is left to do at most.
"""
function search_in_limit!(rounds, net::AbstractNet{T}, limit::Net{T}, q::Vector{T}, iterations::Int,
                          target::T) where {T}
    tried, before, fitted = Set{Vector{Vector{Int}}}(), T(Inf), false
    left = rounds.options.maxiterations - rounds.iterations
    last = rounds.iterations + clamp(left / 4, 2 * iterations, max(2 * iterations, MOST_IN_LIMIT))
    while true
        inner = held(limit, net, q)
        start = parameters_within(inner, q)
        n, kind = fitted ? a_round!(rounds, inner, start, iterations, in_channels(inner)) :
                  a_round!(rounds, inner, start, iterations)
        q = parameters_from(inner, n.x)
        kind == BEYOND && return n, kind, q
        settled = kind in ("minimum", "degenerate")
        next = net isa Net ? let_off(limit, q, settled ? zero(T) : 10 * n.gnorm) : nothing
        next === nothing && !settled && net isa Net && (next = met(limit, q))
        next === nothing && settled && return n, kind, q
        push!(tried, samples_on_kinks(limit, q))
        fresh = next !== nothing && !(samples_on_kinks(limit, next) in tried)
        on = !settled && n.loss < target && (n.loss < before || fitted)
        (fresh || on) && !over(rounds) && rounds.iterations < last || return n, "unsettled", q
        fresh ? (q = next) : (iterations *= 2)
        before = fresh ? T(Inf) : n.loss
        fitted = !fitted && in_channels(inner) !== nothing
    end
end
"The samples on the kink of each relu in the first layer."
samples_on_kinks(limit::Net, q) =
    [on_kink(sharp_samples(limit, q, 1, j)[2]) for (l, j) in relus(limit) if l == 1]

"A point at which the sample that leaves its kink with the steepest fall, if above `least`, has left it, or nothing."
function let_off(limit::Net{T}, q::Vector{T}, least::T) where {T}
    steepest, best = -Float64(least), nothing
    for (l, j) in relus(limit)
        l == 1 || continue
        on, E, μ, X, h = kink_forces(limit, q, j)
        for k in eachindex(on), (slope, side) in ((μ[k], -1), (E[k] - μ[k], 1))
            slope < steepest && ((steepest, best) = (slope, (j, k, side, X[:, on], h)))
        end
    end
    best === nothing && return nothing
    j, k, side, X, h = best
    # a tenth of the way to the next sample, so that no other is passed
    h = sort!(abs.(h))
    δ = side * h[findfirst(x -> x > ON_KINK * h[end], h)] / 10
    x = copy(q)
    x[incoming(limit.layers[1], j)] += δ * pinv(permutedims(X))[:, k]
    return x
end

"A point at which the sample nearest to a kink, if it is very near, is on it."
function met(limit::Net{T}, q::Vector{T}) where {T}
    nearest, best = MET_KINK, nothing
    for (l, j) in relus(limit)
        l == 1 || continue
        X, h, _ = sharp_samples(limit, q, 1, j)
        on = on_kink(h)
        length(on) < limit.layers[1].fan_in || continue
        for i in setdiff(eachindex(h), on)
            distance = abs(h[i]) / maximum(abs, h)
            distance < nearest && ((nearest, best) = (distance, (j, X[:, [on; i]])))
        end
    end
    return best === nothing ? nothing : put_on_kink!(copy(q), incoming(limit.layers[1], best[1]), best[2])
end

"Channels of relus by their names: lines if they are on at all samples, and kinks if some are on theirs."
function name_relus(seen::Vector{Channel}, limit::Net{T}, q::Vector{T}) where {T}
    return map(seen) do c
        c.kind in ("relu", "kink", "line") || return c
        h = sharp_samples(limit, q, c.layer, c.units[1])[2]
        kind = all(>(0), h) ? "line" : c.layer == 1 && !isempty(on_kink(h)) ? "kink" : "relu"
        Channel(c.layer, c.units, kind, c.cosine, c.distance, c.growth, c.eps)
    end
end
