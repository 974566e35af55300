# Units whose incoming weights go to infinity: steps and relus (see `Sharp`).

"A step stays where it is; of a relu the incoming weights shrink as the outgoing ones grow. ‖(w, b)‖ = 1 afterwards."
function sharp_to_limit!(q::Vector{T}, unit::Union{Sharp,Inside}, into, out) where {T}
    size = norm(q[into])
    size > 0 || throw(ArgumentError("the unit has no incoming weights: it becomes no step or relu"))
    unit isa Inside && return 1 / size              # which has the weights of the ordinary unit
    e = iszero(unit.ε) ? 1 / size : T(unit.ε)
    q[into] *= e
    is_ramp(unit.f) && (q[out] /= e)
    return e
end
function sharp_from_limit!(θ::Vector{T}, unit::Union{Sharp,Inside}, into, out, e::T) where {T}
    unit isa Inside && return θ
    θ[into] /= e
    is_ramp(unit.f) && (θ[out] *= e)
    return θ
end
function normalise_sharp!(q::Vector, unit::Union{Sharp,Inside}, into, out)
    size = norm(q[into])
    size > 0 && unit isa Sharp || return q
    q[into] /= size
    is_ramp(unit.f) && (q[out] *= size)
    return q
end

# So many samples, as long as there are no more than inputs, may be inside of a step and stay at finite pre-activations.
const MOST_INSIDE = 4
"Pre-activations beyond this are far out on one side."
const FAR = 3

"""
For each hidden layer a column for each unit: its pre-activations nearest to zero, $(MOST_INSIDE + 1) of them, and how
many are below and above zero, without those between -$FAR and $FAR.
"""
function nearest_samples(net::Net{T}, θ::Vector{T}) where {T}
    found = [[fill(Inf, MOST_INSIDE + 1, l.width); zeros(2, l.width)] for l in net.layers]
    ws = net.crew.workers[1].workspace
    for block in net.blocks
        forward!(ws, net, θ, block, 0)
        for l in 1:length(net.layers)-1
            H = similar(ws.A[l], size(ws.A[l], 1), net.layers[l].width)
            linear!(H, layer_input(ws, block, l), θ, net.layers[l], block.n)
            see_nearest!(found[l], H, block.w, block.n)
        end
    end
    return found
end
function see_nearest!(near::Matrix{Float64}, H::Matrix, w::Vector, n::Int)
    for j in axes(near, 2), r in 1:n
        w[r] > 0 || continue
        x = Float64(abs(H[r, j]))
        x > FAR && (near[MOST_INSIDE+(H[r, j] < 0 ? 2 : 3), j] += 1)
        for k in 1:MOST_INSIDE+1
            x < near[k, j] && ((x, near[k, j]) = (near[k, j], x))
        end
    end
    return near
end

"How far f is from its limit where its argument is −m or m."
from_limit_at(f::Activation, m) = abs(f(-m) - (is_ramp(f) ? 0 : floor_of(f)))

"""
Unit `j` as a step or a relu if all samples are farther from its middle than `growth`; of a step, and of a relu in the
first layer, some samples may be nearer, if all others are three times as far as these.
"""
function sharp_channel(θ, layer::Layer, l::Int, j::Int, near, growth::Real)
    f = unit_activation(layer, j)
    (is_sigmoidal(f) || is_ramp(f)) && near[end] > 0 && near[end-1] > 0 || return nothing
    for p in 0:(is_ramp(f) && l > 1 ? 0 : min(layer.fan_in, MOST_INSIDE))
        m = near[p+1]
        growth < m < Inf && (p == 0 || m > 3 * near[p]) || continue
        return Channel(l, [j], !is_ramp(f) ? "step" : p == 0 ? "relu" : "kink", 1.0, from_limit_at(f, m), m,
                       1 / norm(θ[incoming(layer, j)]))
    end
    return nothing
end

"""
    sharp_samples(net, q, l, j) -> X, h, c

What unit `j` of layer `l`, a step or a relu, has as its inputs (a column for each, and a one where there is a bias),
its pre-activations, and how much the loss grows as its output there moves from the limit as that of f does. Equal
inputs count as one sample.
"""
function sharp_samples(net::Net{T}, q::Vector{T}, l::Int, j::Int) where {T}
    layer, ws = net.layers[l], net.crew.workers[1].workspace
    f = ordinary(unit_activation(layer, j))
    places, X, h, c = Dict{Vector{Float64},Int}(), Vector{Float64}[], Float64[], Float64[]
    for block in net.blocks
        second_order_pass!(ws, net, q, block, mean_loss(net), one(T) / net.n_samples)
        A, H = layer_input(ws, block, l), similar(ws.A[l], size(ws.A[l], 1), layer.width)
        linear!(H, A, q, layer, block.n)
        for r in 1:block.n
            block.w[r] > 0 || continue
            x = [Float64.(A[r, 1:layer.fan_in]); ones(layer.bias)]
            k = get!(places, x, length(h) + 1)
            k > length(h) && (push!(X, x); push!(h, H[r, j]); push!(c, 0))
            c[k] += f isa Softplus ? ws.E[l][r, j] : is_ramp(f) ? -ws.E[l][r, j] : -sign(H[r, j]) * ws.E[l][r, j]
        end
    end
    # What is smaller than the rounding errors of residuals is none of them.
    noise = 4096 * eps(T) * norm(q[outgoing(net.layers[l+1], j)]) * sqrt(loss_scale(net, q)) / net.n_samples
    c[abs.(c).<=noise] .= 0
    return reduce(hcat, X), h, c
end

"The samples inside of a step, and those outside."
inside(f::Activation, h) = f isa Inside ? findall(x -> abs(x) <= END_OF_STEP, h) : Int[]
outside(f::Activation, h) = setdiff(eachindex(h), inside(f, h))

# Samples so much further off than the nearest are as near: they are equally far but for rounding.
const AS_NEAR = 1e-9

"""
    sharp_coefficient(net, q, l, j) -> h

With the pre-activation m nearest to zero, the loss at `from_limit(q, ε)` is L₀ + h δ(m/ε), with δ(m) = |f(−m) − f(−∞)|
how far a step is from its limit there, or ε δ(m/ε) for a relu, but for terms that are exponentially smaller: h is the
sum of what the loss has as derivatives by the outputs at the nearest samples, with their signs. With samples on the
kink of a relu it is L₀ + hε + …; see [`kink_coefficient`](@ref).
"""
function sharp_coefficient(net::Net{T}, q::Vector{T}, l::Int, j::Int) where {T}
    _, h, c = sharp_samples(net, q, l, j)
    l == 1 && is_relu(net, l, j) && !isempty(on_kink(h)) && return T(kink_coefficient(net, q, j)[1])
    out = outside(unit_activation(net.layers[l], j), h)
    nearest = minimum(abs, h[out])
    return T(sum(c[i] for i in out if abs(h[i]) <= (1 + AS_NEAR) * nearest))
end

"""
    step_between(X, sides) -> u

The unit vector (w, b) on whose `sides` (±1) the columns of `X` lie as far off as possible, with those of side 0 on the
step itself; empty where there is none.
"""
function step_between(X::Matrix{Float64}, sides::Vector{Float64})
    on = findall(iszero, sides)
    B = isempty(on) ? Matrix{Float64}(I, size(X, 1), size(X, 1)) : nullspace(permutedims(X[:, on]))
    size(B, 2) == 0 && return Float64[]
    off = findall(!iszero, sides)
    u = B * least_norm(permutedims(B' * (X[:, off] .* permutedims(sides[off]))); none=zeros(size(B, 2)))
    return iszero(u) ? Float64[] : u / norm(u)
end

"Twice as far as a step reaches: where samples outside are put, so that none comes near while others move inside."
const OUTSIDE = 2 * END_OF_STEP

"The net and parameters in which the samples `within` are inside of step `j`, at the pre-activations they have in `h`."
function put_inside(net::Net{T}, q::Vector{T}, l::Int, j::Int, X, h::Vector{Float64}, within::Vector{Int}) where {T}
    sides = [i in within ? 0.0 : sign(h[i]) for i in eachindex(h)]
    u = step_between(X, sides)
    isempty(u) && return nothing
    f = unit_activation(net.layers[l], j).f
    activations = Activation[unit_activation(net.layers[l], k) for k in 1:net.layers[l].width]
    activations[j] = isempty(within) ? Sharp(f) : Inside(f)
    changed = with_specs(net, [(L.width, m == l ? Tuple(activations) : spec_activation(L), L.bias)
                               for (m, L) in enumerate(net.layers)])
    x = copy(q)
    x[incoming(net.layers[l], j)] = isempty(within) ? u : stretched(X, sides, u, h)
    return changed, x
end
"""
(w, b) at which the samples of side 0 have the pre-activations `h` and the others at least `OUTSIDE`, or at 1/ε times u.
"""
function stretched(X, sides, u, h; ε=nothing)
    on, off = findall(iszero, sides), findall(!iszero, sides)
    v = isempty(on) ? zero(u) : pinv(permutedims(X[:, on])) * h[on]
    K = ε === nothing ? maximum((OUTSIDE + abs(dot(v, X[:, i]))) / abs(dot(u, X[:, i])) for i in off) : 1 / ε
    return K * u + v
end

"""
A limit with the samples inside of its steps that are so in the ordinary net at θ: nearer to the middle than a third of
all others (see [`sharp_channel`](@ref)).
"""
function with_insides(limit::Net{T}, q::Vector{T}, ε::Vector{T}) where {T}
    for (k, (l, chain)) in enumerate([(l, c) for (l, layer) in enumerate(limit.layers) for c in approaches(layer)])
        is_step(chain.activation) || continue
        X, h, _ = sharp_samples(limit, q, l, chain.units[1])
        h ./= ε[k]
        order = sortperm(abs.(h))
        p = findfirst(p -> abs(h[order[p+1]]) > max(FAR, p == 0 ? 0 : 3 * abs(h[order[p]])),
                      0:min(MOST_INSIDE, length(h) - 1))
        (p === nothing || p == 1) && continue
        put = put_inside(limit, q, l, chain.units[1], X, h, order[1:p-1])
        put === nothing || ((limit, q) = put)
    end
    return limit, q
end

"Each step that is between samples as far from them as possible."
function place_steps!(net::Net{T}, q::Vector{T}) where {T}
    for (l, j) in steps(net)
        unit_activation(net.layers[l], j) isa Inside && continue
        X, h, _ = sharp_samples(net, q, l, j)
        all(!iszero, h) || continue
        u = step_between(X, sign.(h))
        isempty(u) || (q[incoming(net.layers[l], j)] = u)
    end
    return q
end
steps(net::Net) = [(l, j) for l in 1:length(net.layers)-1 for j in 1:net.layers[l].width
                   if is_step(unit_activation(net.layers[l], j))]

"""
    pulling(net, q, l, j) -> samples, c, X, h

The samples for which the loss falls as they come nearer to the step `j` of layer `l`, and how fast, among those that
are the nearest to it in some place that the step may have. As the loss is L₀ + Σ c δ over all samples, of which the
nearest counts, the limit is a minimum if there are none.
"""
function pulling(net::Net{T}, q::Vector{T}, l::Int, j::Int) where {T}
    X, h, c = sharp_samples(net, q, l, j)
    f = unit_activation(net.layers[l], j)
    on = inside(f, h)
    samples = [i for i in outside(f, h) if c[i] < 0 && !isempty(nearest_to(X, h, on, i))]
    sort!(samples; by=i -> c[i])
    return samples, c[samples], X, h
end
"""
A (w, b) at which all samples are on the side of the step that they have in `h`, or on it, and `i` is nearer than the
others.
"""
function nearest_to(X::Matrix{Float64}, h::Vector{Float64}, on::Vector{Int}, i::Int)
    B = isempty(on) ? Matrix{Float64}(I, size(X, 1), size(X, 1)) : nullspace(permutedims(X[:, on]))
    S = B' * (X .* permutedims(sign.(h)))
    others = (S[:, k] - S[:, i] for k in eachindex(h) if k != i && !(k in on))
    return B * least_norm(permutedims(hcat(S[:, i], others...)); none=zeros(size(B, 2))) |> u -> iszero(u) ? Float64[] :
           u
end

"""
Points of the ordinary net in which the sample that pulls step `j` most has come near to it, to the pre-activations ±1
to ±16; of a limit of which only the steps are not at their distances.
"""
function nearer(limit::Net{T}, q::Vector{T}, θ::Vector{T}, l::Int, j::Int) where {T}
    samples, _, X, h = pulling(limit, q, l, j)
    isempty(samples) && return Vector{T}[]
    i, on = first(samples), inside(unit_activation(limit.layers[l], j), h)
    u = nearest_to(X, h, on, i)
    sides = [k in on ? 0.0 : sign(h[k]) for k in eachindex(h)]
    return map(0:4) do k
        x = copy(θ)
        x[incoming(limit.layers[l], j)] = stretched(X, sides, u, h; ε=abs(dot(u, X[:, i])) / 2.0^k)
        x
    end
end

"""
    ways_down(net, q) -> h

[`channel_coefficients`](@ref), but for a step that a sample pulls to itself how fast the loss falls then.
"""
function ways_down(net::Net{T}, q::Vector{T}) where {T}
    h, number = channel_coefficients(net, q), 0
    for (l, layer) in enumerate(net.layers), chain in approaches(layer)
        number += 1
        is_step(chain.activation) || continue
        _, c, _, _ = pulling(net, q, l, chain.units[1])
        isempty(c) || (h[number] = first(c))
    end
    return h
end
"""
Whether the loss falls in all channels towards the limit: sharp units of a perfect fit have h = 0, and it is zero there.
"""
leads_down(net::Net, h) = all(h[k] > 0 || h[k] == 0 && c.activation isa Union{Sharp,Inside}
                              for (k, c) in enumerate(channels_of(net.layers)))

"""
    from_limit(net, q, ε) -> θ

The same with the data of `net`, which say how a step with samples inside goes on to infinity: with weights of length
1/ε and more; and where samples on the kink of a relu stay.
"""
function from_limit(net::Net{T}, q::Vector{T}, ε) where {T}
    θ, number = from_limit(net.layers, q, ε), 0
    for (l, layer) in enumerate(net.layers), chain in approaches(layer)
        number += 1
        n_samples(net) > 0 && l == 1 && is_relu(chain.activation) && keep_on_kink!(θ, net, q, chain.units[1])
        chain.activation isa Inside && n_samples(net) > 0 || continue
        X, h, _ = sharp_samples(net, q, l, chain.units[1])
        on = inside(chain.activation, h)
        sides = [i in on ? 0.0 : sign(h[i]) for i in eachindex(h)]
        u = step_between(X, sides)
        isempty(u) || (θ[incoming(layer, chain.units[1])] = stretched(X, sides, u, h; ε=Float64(ε[number])))
    end
    return θ
end

"What moves a step without a change of the pre-activations of the samples inside."
function add_places!(found::Vector{Invariance}, net::Net{T}, θ::Vector{T}) where {T}
    for (l, j) in steps(net)
        f = unit_activation(net.layers[l], j)
        f isa Inside || continue
        X, h, _ = sharp_samples(net, θ, l, j)
        on = inside(f, h)
        isempty(on) && continue
        B = nullspace(permutedims(X[:, on]))
        directions = map(1:size(B, 2)) do k
            e = zeros(length(θ))
            e[incoming(net.layers[l], j)] = B[:, k]
            e
        end
        push!(found, Invariance("step through samples", l, [j], directions))
    end
    return found
end
