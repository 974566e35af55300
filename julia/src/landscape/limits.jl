# The limit of a net in which hidden units merge while their outgoing weights diverge (Martinelli, van Meegen, Şimşek,
# Gerstner and Brea, Flat channels to infinity in neural loss landscapes, arXiv 2506.14951): where a channel leads, and
# how the loss falls on the way.

"""
    limit_net(net, groups; sharp = [], layer = 1, ε = 0) -> net′

The net with the pairs or triples of hidden units in `groups` replaced by chains (see [`Derivative`](@ref)): what it
tends to as the units of each group merge and their outgoing weights diverge. A group of one unit becomes the
exponential [`Tail`](@ref) of its activation; two that are tails already may merge, too (see [`Derivative`](@ref)). The
units `sharp` become steps or relus (see [`Sharp`](@ref)). With `ε` > 0, for all but triples, it is the same net in
other parameters. It has as many parameters as `net`, in the same places. Two tails that merge have a limit, but no
parameters at a distance.
"""
function limit_net(net::Net{T}, groups; sharp=Int[], layer::Int=1, ε::Real=0) where {T}
    unregularised(net) ||
        throw(ArgumentError("a net with regularisers has no minimum at infinity: set l2, maxnorm and merge aside"))
    check_hidden(net.layers, layer)
    activations = limit_activations(net.layers[layer], groups, sharp, ε)
    specs = Any[(l.width, m == layer ? activations : spec_activation(l), l.bias) for (m, l) in enumerate(net.layers)]
    return with_specs(net, specs)
end
spec_activation(l::Layer) = l.activation isa PerUnit ? Tuple(l.activation.activations) : l.activation

with_specs(net::Net, specs) = rebuilt(net; layers=build_layers(specs, n_features(net)), monitor=net.monitor)

function limit_activations(layer::Layer, groups, sharp, ε::Real)
    activations = Activation[unit_activation(layer, j) for j in 1:layer.width]
    for group in [collect(groups); [[j] for j in sharp]]
        length(group) in 1:3 || throw(ArgumentError("$group: one, two or three units are needed"))
        for j in group
            1 <= j <= layer.width || throw(ArgumentError("unit is $j; this layer has the units 1 to $(layer.width)"))
            ordinary = !(activations[j] isa Union{Derivative,Sharp,Inside}) && !in_chain(layer.chains, j) &&
                !(activations[j] isa Tail && length(group) != 2)
            ordinary && activations[j] == activations[group[1]] ||
                throw(ArgumentError("units $(join(group, ", ")) must be different ordinary units with one activation"))
        end
    end
    allunique(Int[vcat(sharp, groups...);]) || throw(ArgumentError("each unit can go to one limit only"))
    for j in sharp
        activations[j] = Sharp(activations[j], ε)
        layer.bias || throw(ArgumentError("a unit without a bias cannot become a step or a relu at any place"))
    end
    for group in groups
        for (order, j) in enumerate(group[2:end])
            activations[j] = Derivative(group[1], order, ε)
        end
        length(group) > 1 && continue
        activations[group[1]] = Tail(activations[group[1]], ε)
        layer.bias || throw(ArgumentError("a unit without a bias has no exponential tail to go to"))
    end
    return Tuple(activations)
end

"What units of a layer tend to: its chains, then as chains of one unit its tails, and what becomes a step or a relu."
approaches(layer::Layer) = Chain[layer.chains; alone(layer)]
function alone(layer::Layer)
    found = Chain[]
    for j in 1:layer.width
        f = unit_activation(layer, j)
        f isa Union{Tail,Sharp,Inside} && !in_chain(layer.chains, j) &&
            push!(found, Chain(f, [j], f isa Inside ? 0.0 : f.ε))
    end
    return found
end
merges(chain::Chain) = length(chain.units) > 1

"The activation of which one is the limit."
ordinary(f::Activation) = f
ordinary(f::Union{Tail,Sharp,Inside}) = f.f

"""
    without_chains(net) -> net′

The net of which `net` is a limit: each unit of a chain with the chain's activation.
"""
without_chains(net::Net) = with_specs(net, map(net.layers) do l
    isempty(approaches(l)) && return (l.width, spec_activation(l), l.bias)
    activations = Activation[unit_activation(l, j) for j in 1:l.width]
    for chain in approaches(l), j in chain.units
        activations[j] = ordinary(chain.activation)
    end
    (l.width, all(==(activations[1]), activations) ? activations[1] : Tuple(activations), l.bias)
end)

count_chains(layers::Vector{Layer}) = sum(l -> length(approaches(l)), layers)

"""
    to_limit(layers, θ) -> q, ε

The parameters in the net with these chains that are nearest to θ in the ordinary net, and how far each chain is from
its limit. Of a pair with w ± εΔ and (c ± a/ε)/2 as incoming and outgoing weights, ‖Δ‖ = 1, they are (w, Δ) and (c, a);
odd units may differ by a sign. Of a triple w, s, k and the outgoing weights of the parabola w + st + kt² through its
three units, ‖s‖ = 1. A chain that has an ε of its own keeps it, and the parameters are exact.
"""
function to_limit(layers::Vector{Layer}, θ::AbstractVector{T}) where {T}
    q, found = Vector{T}(θ), T[]
    for (l, layer) in enumerate(layers), chain in approaches(layer)
        f = chain.activation
        into = Vector{Int}[incoming(layer, j) for j in chain.units]
        out = Vector{Int}[outgoing(layers[l+1], j) for j in chain.units]
        align_signs!(q, into, out, parity(f))
        push!(found, f isa Tail ? tails_to_limit!(q, layers[l+1], f, into, out) :
                     length(into) == 1 ? sharp_to_limit!(q, f, into[1], out[1]) :
                     length(into) == 2 ? pair_to_limit!(q, into, out, T(chain.ε)) : triple_to_limit!(q, into, out))
    end
    return q, found
end

"Signs of odd or even units as those of the first."
function align_signs!(q, into, out, parity::Int)
    parity == 0 && return q
    for m in 2:length(into)
        dot(q[into[1]], q[into[m]]) < 0 || continue
        q[into[m]] *= -1
        q[out[m]] *= parity
    end
    return q
end

function pair_to_limit!(q::Vector{T}, (i, j), (ci, cj), ε::T) where {T}
    w, d, c, a = (q[i] + q[j]) / 2, (q[i] - q[j]) / 2, q[ci] + q[cj], q[ci] - q[cj]
    e = iszero(ε) ? norm(d) : ε
    e > 0 || throw(ArgumentError("the two units have the same incoming weights: they merge from no direction"))
    q[i], q[j], q[ci], q[cj] = w, d / e, c, a * e
    return e
end

function triple_to_limit!(q::Vector{T}, into, out) where {T}
    w = [q[i] for i in into]
    distances = [norm(w[2] - w[3]), norm(w[1] - w[3]), norm(w[1] - w[2])]
    middle = argmax(distances)                      # the unit opposite of the longest side
    ends = filter(!=(middle), 1:3)
    e = distances[middle] / 2
    e > 0 || throw(ArgumentError("the three units have the same incoming weights: they merge from no direction"))
    along = (w[ends[1]] - w[ends[2]]) / (2e)
    t = [dot(along, w[m] - w[middle]) for m in 1:3]
    V = [t[m]^p for m in 1:3, p in 0:2]
    all(>(0), (abs(t[ends[1]]), abs(t[ends[2]]))) || throw(ArgumentError("the three units do not lie along a curve"))
    curve = V \ reduce(vcat, transpose.(w))         # rows: w, s, k
    weights = transpose(V) * reduce(vcat, [transpose(q[o]) for o in out])
    size = norm(curve[2, :])
    for (m, factor) in ((1, one(T)), (2, size), (3, size^2))
        q[into[m]] = curve[m, :] / factor
        q[out[m]] = weights[m, :] * factor
    end
    return e * size
end

"Of one unit, or of two that merge."
function tails_to_limit!(q::Vector{T}, next::Layer, unit::Tail, into, out) where {T}
    e = [tail_to_limit!(q, next, unit, into[m], out[m]) for m in eachindex(into)]
    return length(into) == 1 ? e[1] : merged_tails!(q, into, out, e)
end
function tail_to_limit!(q::Vector{T}, next::Layer, unit::Tail, into, out) where {T}
    α, β, γ = tail(unit.f)
    b = last(into)
    if q[b] > 0 && (parity(unit.f) == -1 || unit.f isa Sigmoid && next.bias)
        q[into] *= -1                               # the other end is the mirror image
        unit.f isa Sigmoid && (q[biases(next)] += q[out])
        q[out] *= -1
    end
    check_constant(α, next)
    e = iszero(unit.ε) ? exp(γ * q[b] / 2) : T(unit.ε)
    α == 0 || (q[biases(next)] += α * q[out])
    q[into] *= γ
    q[b] -= 2 * log(e)
    q[out] *= β * e^2
    return e
end
check_constant(α, next::Layer) =
    α == 0 || next.bias || throw(ArgumentError("a layer without biases cannot take the constant of a tail"))
function tail_from_limit!(θ::Vector{T}, next::Layer, unit::Tail, into, out, e::T) where {T}
    α, β, γ = tail(unit.f)
    check_constant(α, next)
    θ[last(into)] += 2 * log(e)
    θ[into] /= γ
    θ[out] /= β * e^2
    α == 0 || (θ[biases(next)] -= α * θ[out])
    return θ
end

# Two tails A₁ exp(w₁x) + A₂ exp(w₂x), whose biases are B ± τ and A ∓ in all of what follows, merge as w₁ − w₂ and
# exp(B) go to zero together: then A₁ − A₂ grows so that β₂(A₁ exp(2w₁x + B + τ) + A₂ exp(2w₂x + B − τ)) stays. What is
# left is of the order of exp(B) cosh τ; exp(B) sinh τ = ε² is the shift of the weights. τ is free: it is asinh 1 here.
const MERGED_TAILS = asinh(1)

"The limit of two tails with biases at zero, at the distances `e` of each."
function merged_tails!(q::Vector{T}, (i, j), (ci, cj), e) where {T}
    weights(into) = into[1:end-1]
    d, A1, A2 = (q[weights(i)] - q[weights(j)]) / 2, q[ci], q[cj]
    a = A1 * e[1]^2 + A2 * e[2]^2
    norm(a) > 0 && norm(d) > 0 || throw(ArgumentError("the two tails are the same, or have no second term"))
    q[weights(i)] = (q[weights(i)] + q[weights(j)]) / 2
    q[weights(j)] = d * (dot(A1 - A2, a) / dot(a, a))
    q[last(j)] = 0
    q[ci], q[cj] = A1 + A2, a
    return sqrt((e[1]^2 + e[2]^2) / 2cosh(T(MERGED_TAILS)))
end
function merged_from_limit!(θ::Vector{T}, next::Layer, unit::Tail, (i, j), (ci, cj), e::T) where {T}
    w, s, c, a, τ = θ[i], θ[j], θ[ci], θ[cj], asinh(one(T))
    θ[i], θ[j], θ[ci], θ[cj] = w + e^2 * s, w - e^2 * s, (c + a / e^2) / 2exp(τ), (c - a / e^2) / 2exp(-τ)
    θ[last(i)] += τ
    θ[last(j)] -= τ
    for (into, out) in ((i, ci), (j, cj))
        tail_from_limit!(θ, next, unit, into, out, e)
    end
    return θ
end

"""
    from_limit(layers, q, ε) -> θ

Parameters of the ordinary net at the distances `ε` from the limit, one for each chain: the inverse of
[`to_limit`](@ref).
"""
function from_limit(layers::Vector{Layer}, q::AbstractVector{T}, ε) where {T}
    θ, number = Vector{T}(q), 0
    length(ε) == count_chains(layers) ||
        throw(DimensionMismatch("ε has $(length(ε)) entries for $(count_chains(layers)) pairs or triples"))
    all(e -> isfinite(e) && e > 0, ε) || throw(ArgumentError("ε is $ε; positive numbers are needed"))
    for (l, layer) in enumerate(layers), chain in approaches(layer)
        e = T(ε[number+=1])
        into = Vector{Int}[incoming(layer, j) for j in chain.units]
        out = Vector{Int}[outgoing(layers[l+1], j) for j in chain.units]
        if !merges(chain) || chain.activation isa Tail
            f = chain.activation
            merges(chain) ? merged_from_limit!(θ, layers[l+1], f, into, out, e) :
            f isa Tail ? tail_from_limit!(θ, layers[l+1], f, into[1], out[1], e) :
                sharp_from_limit!(θ, f, into[1], out[1], e)
            continue
        end
        w, s, c, a = θ[into[1]], θ[into[2]], θ[out[1]], θ[out[2]]
        if length(into) == 2
            θ[into[1]], θ[into[2]], θ[out[1]], θ[out[2]] = w + e * s, w - e * s, (c + a / e) / 2, (c - a / e) / 2
        else
            k, b = θ[into[3]], θ[out[3]]
            θ[into[2]], θ[into[3]] = w + e * s + e^2 * k, w - e * s + e^2 * k
            θ[out[1]], θ[out[2]], θ[out[3]] = c - b / e^2, (b / e + a) / 2e, (b / e - a) / 2e
        end
    end
    return θ
end

"""
The scale of each pair and triple at which ‖Δ‖ = 1, with bias 0 in Δ of two tails, that of each other tail at which its
outgoing weights have length 1, and that of sharp units at which ‖(w, b)‖ = 1: outputs stay what they are.
"""
function normalise!(q::Vector{T}, layers::Vector{Layer}) where {T}
    for (l, layer) in enumerate(layers), chain in approaches(layer)
        iszero(chain.ε) || continue
        f = chain.activation
        into = Vector{Int}[incoming(layer, j) for j in chain.units]
        out = Vector{Int}[outgoing(layers[l+1], j) for j in chain.units]
        if merges(chain)
            normalise_chain!(q, into, out, f)
        elseif f isa Tail
            size = norm(q[out[1]])
            size > 0 || continue
            q[out[1]] /= size
            q[last(into[1])] += log(size)
        else
            normalise_sharp!(q, f, into[1], out[1])
        end
    end
    return q
end
function normalise_chain!(q::Vector, into, out, f::Activation)
    if f isa Tail                                   # (Δx + δ) exp(wx): δ is part of c
        δ = last(into[2])
        q[out[1]] += q[δ] * q[out[2]]
        q[δ] = 0
    end
    size = norm(q[into[2]])
    size > 0 || return q
    if f isa Tail                                   # exp(h) and exp(2h) grow with the bias of h
        q[last(into[1])] -= log(size)
        q[out[1]] *= size
    end
    for order in 1:length(into)-1
        q[into[order+1]] /= size^order
        q[out[order+1]] *= size^(f isa Tail ? 2 : order)
    end
    return q
end

"""
    channel_coefficients(net, q) -> h

The coefficient of ε² in the loss at `from_limit(q, ε)`, for each chain of a limit net: L = L₀ + Σ hε² + …, exact. As
the gradient is zero at a minimum q of the limit, the lowest loss at a distance ε is this, too, to that order: a channel
with h > 0 leads down to infinity. For a step or a relu it is that of the distance of f from its limit at the nearest
sample; see [`sharp_coefficient`](@ref).
"""
function channel_coefficients(net::Net{T}, q::AbstractVector) where {T}
    check_data(net)
    ws, q, h = net.crew.workers[1].workspace, Vector{T}(q), zeros(T, count_chains(net.layers))
    for block in net.blocks
        second_order_pass!(ws, net, q, block, mean_loss(net), one(T) / net.n_samples)
        number = 0
        for (l, layer) in enumerate(net.layers), chain in approaches(layer)
            iszero(chain.ε) || throw(ArgumentError("this net is not at its limit: ε = $(chain.ε)"))
            number += 1
            chain.activation isa Union{Sharp,Inside} && continue
            H = similar(ws.A[l], size(ws.A[l], 1), layer.width)
            linear!(H, layer_input(ws, block, l), q, layer, block.n)
            h[number] += chain.activation isa Tail ?
                next_of_tail(chain.activation.f, H, ws.E[l], chain.units, block.n) :
                Base.invokelatest(curvature, chain.activation, H, ws.E[l], chain.units, block.n)
        end
    end
    number = 0
    for (l, layer) in enumerate(net.layers), chain in approaches(layer)
        number += 1
        chain.activation isa Union{Sharp,Inside} && (h[number] = sharp_coefficient(net, q, l, chain.units[1]))
    end
    return h
end

"Σ E times what of the tail f is of order ε², β₂ exp(2h), or of two that merge."
function next_of_tail(f::Activation, H::Matrix{T}, E::Matrix{T}, units::Vector{Int}, n::Int) where {T}
    (β₂, β₃), sum = T.(next_terms(f)), zero(T)
    for r in 1:n
        e = exp(H[r, units[1]])
        sum += E[r, units[1]] * β₂ * e^2
        length(units) == 2 && (sum += E[r, units[2]] * 2 * (β₂ * H[r, units[2]] * e^2 + β₃ * e^3))
    end
    return length(units) == 2 ? sum * cosh(T(MERGED_TAILS)) : sum
end

"Σ E times what of the outputs of a chain is of order ε²: Taylor coefficients of σ(h + st + kt²) two orders higher."
function curvature(f::Activation, H::Matrix{T}, E::Matrix{T}, units::Vector{Int}, n::Int) where {T}
    sum = zero(T)
    for r in 1:n
        s = H[r, units[2]]
        _, _, f2, f3, f4 = four_derivatives(f, H[r, units[1]])
        if length(units) == 2
            sum += E[r, units[1]] * s^2 * f2 / 2 + E[r, units[2]] * s^3 * f3 / 6
        else
            k = H[r, units[3]]
            sum += E[r, units[2]] * (s^3 * f3 / 6 + s * k * f2) +
                   E[r, units[3]] * (s^4 * f4 / 24 + s^2 * k * f3 / 2 + k^2 * f2 / 2)
        end
    end
    return sum
end

"The limit net with other distances, one for each chain and tail."
function at_distances(net::Net, ε)
    number = 0
    return with_specs(net, map(net.layers) do l
        activations = Activation[unit_activation(l, j) for j in 1:l.width]
        for chain in approaches(l)
            number += 1
            e, first = Float64(ε[number]), chain.units[1]
            merges(chain) || (activations[first] = Tail(chain.activation.f, e))
            for j in chain.units[2:end]
                activations[j] = Derivative(first, activations[j].order, e)
            end
        end
        (l.width, l.activation isa PerUnit ? Tuple(activations) : l.activation, l.bias)
    end)
end

"""
    next_coefficients(net, q) -> K

At a minimum q of a limit net of pairs and tails the lowest loss at the distances ε is L₀ + Σ hₘ εₘ² + Σ Kₘₙ εₘ² εₙ² +
…, with ‖Δ‖ = 1 for each pair and the bias of each tail fixed. K is ½ ∂²L/∂τₘ∂τₙ − ½ Gₘᵀ H⁻¹ Gₙ with τ = ε², the changes
Gₘ of the gradient with τₘ, and the Hessian H of the limit, both in the complement of these scales, and in the
coordinates of a constraint. Derivatives by τ are differences in BigFloat, of so small a step that they are exact in
Float64.
"""
next_coefficients(net::Net, q::AbstractVector) = next_coefficients(net, q, Matrix{Float64}(I, length(q), length(q)))
next_coefficients(r::ConstrainedNet, q::AbstractVector) =
    next_coefficients(r.net, q, Matrix(Constraint{Float64}(r.constraint)))
function next_coefficients(net::Net, q::AbstractVector, free::Matrix{Float64})
    any(c -> c.activation isa Union{Sharp,Inside} || length(c.units) > (c.activation isa Tail ? 1 : 2),
        channels_of(net.layers)) &&
        throw(ArgumentError("the next coefficients are known for pairs and tails, not for triples, tails that merge, " *
                            "steps and relus"))
    n, ε = count_chains(net.layers), 2.0^-40
    return setprecision(BigFloat, 768) do
        x, big_net, τ = BigFloat.(q), with_number_type(BigFloat, net), big(ε)^2
        chart(distances) = at_distances(big_net, distances)
        unit(m, e) = Float64[k == m ? e : 0 for k in 1:n]
        L0, g0 = loss(big_net, x), gradient(big_net, x)
        L = [loss(chart(unit(m, ε)), x) for m in 1:n]
        G = [(gradient(chart(unit(m, ε)), x) - g0) / τ for m in 1:n]
        K, B = zeros(n, n), free * nullspace(fixed_scales(net.layers, Vector{Float64}(q)) * free)
        H = B' * Float64.(hessian(big_net, x)) * B
        for m in 1:n, k in m:n
            bend = m == k ? (loss(chart(unit(m, 2ε)), x) - 4 * L[m] + 3 * L0) / 12τ^2 :
                (loss(chart(unit(m, ε) + unit(k, ε)), x) - L[m] - L[k] + L0) / 2τ^2
            K[m, k] = K[k, m] = Float64(bend) - dot(B' * Float64.(G[m]), H \ (B' * Float64.(G[k]))) / 2
        end
        K
    end
end

"A row for each direction in which parameters do not change: the length of Δ, the bias of a tail."
function fixed_scales(layers::Vector{Layer}, q::Vector{Float64})
    rows = Vector{Float64}[]
    for layer in layers, chain in approaches(layer)
        row, into = zeros(length(q)), incoming(layer, last(chain.units))
        merges(chain) ? (row[into] = q[into]) : (row[last(into)] = 1)
        push!(rows, row)
    end
    return permutedims(reduce(hcat, rows))
end

"""
    original_metric(net) -> tauinv

The inverse time constants with which the flow of a limit net at distances ε > 0 is that of the ordinary net: in
(w, Δ, c, a) the squared length of a step is 2‖dw‖² + 2ε²‖dΔ‖² + (‖dc‖² + ‖da‖²/ε²)/2.
"""
function original_metric(net::Net)
    τ = ones(n_params(net))
    for (l, layer) in enumerate(net.layers), chain in approaches(layer)
        length(chain.units) == 2 && chain.ε > 0 ||
            throw(ArgumentError("the metric of the ordinary net is diagonal for pairs at a distance above zero"))
        i, j = chain.units
        τ[incoming(layer, i)] /= 2
        τ[incoming(layer, j)] /= 2 * chain.ε^2
        τ[outgoing(net.layers[l+1], i)] *= 2
        τ[outgoing(net.layers[l+1], j)] *= 2 * chain.ε^2
    end
    return τ
end
