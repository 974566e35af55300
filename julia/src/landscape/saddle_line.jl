# The line of fixed points on which a unit is split in two, and where it is stable.
#
# Let θ be a fixed point of a net, unit i of a hidden layer with incoming weights u (and bias) and outgoing weights a.
# In the wide net, with u₁ = u₂ = u, a₁ = γa, a₂ = (1 − γ)a, write
#
#     u₁ = u + (1 − γ)η,  u₂ = u − γη,  a₁ = γA + B,  a₂ = (1 − γ)A − B
#
# at a fixed γ. What the two units add to the next layer is then, to second order in η and B,
#
#     A f(u·x) + B f′(u·x) (η·x) + ½ γ(1 − γ) a f″(u·x) (η·x)²:
#
# η and B come in no term of first order and in none with the other parameters, so that the Hessian falls into that of
# the narrow net, in (u, A) and the rest, and into
#
#     K(γ) = [γ(1 − γ) M  Dᵀ; D  0]   with   M = f″ x xᵀ, summed over samples with weight ∂L/∂(output of the unit),
#                                            D = f′ x, summed with weight ∂L/∂h of each unit of the next layer.
#
# M is Fukumizu and Amari's matrix (Neural Networks 13, 2000, theorem 3, for one output). There D vanishes, since
# ∂L/∂u = Dᵀa = 0. With more units in the next layer D need not, and K has as many negative eigenvalues as D has rank,
# and those of γ(1 − γ)M on the kernel of D (Nocedal and Wright, Numerical Optimization, 2006, theorem 16.3).

"""
    split_curvature(net, θ, i; layer = 1) -> M, D, noise of M, noise of D

Curvature matrix M (d×d) and coupling D (units of the next layer × d) of unit `i` under a split, for its d incoming
weights (and bias): see above. The noise is what rounding does to entries, from sums without cancellation.
"""
function split_curvature(net::Net{T}, θ::Vector{T}, i::Int; layer::Int=1) where {T}
    check_unit(net.layers, layer, i)
    check_data(net)
    unit, next = net.layers[layer], net.layers[layer+1]
    d, ws, scale = unit.fan_in + unit.bias, net.crew.workers[1].workspace, one(T) / net.n_samples
    M, D, size_M, size_D = zeros(d, d), zeros(next.width, d), 0.0, 0.0
    x = zeros(d)
    for block in net.blocks
        second_order_pass!(ws, net, θ, block, mean_loss(net), scale, layer)
        X = layer_input(ws, block, layer)
        for r in 1:block.n
            for k in 1:unit.fan_in
                x[k] = X[r, k]
            end
            unit.bias && (x[d] = 1)
            length_x = sum(abs2, x)
            c = Float64(ws.E[layer][r, i]) * Float64(ws.S[layer][r, i])
            for k in 1:d, j in 1:d
                M[j, k] += c * x[j] * x[k]
            end
            size_M += abs(c) * length_x
            for o in 1:next.width
                c = Float64(ws.Δ[layer+1][r, o]) * Float64(ws.D[layer][r, i])
                for k in 1:d
                    D[o, k] += c * x[k]
                end
                size_D += abs(c) * sqrt(length_x)
            end
        end
    end
    return M, D, Float64(eps(T)) * size_M, Float64(eps(T)) * size_D
end

"""
    SaddleLine

What [`saddle_line`](@ref) found: the wide `net`, `layer`, `unit` and its `copy`; `curvature` M, `coupling` D, which
incoming weights are `open`, for the two units to differ in (all of them but under a constraint), and the `rank` of D in
these; the eigenvalues of M on the kernel of D, `curvatures`, and their `tolerance`; how many of them are `negative`,
`positive` and `null`; `narrow_index` of the fixed point that is split; predicted indices `index_inside` (0 < γ < 1),
`index_outside` and `index_at_ends`; `gamma`, the `eigenvalues` (P×G) of the Hessian of the wide net along it,
continued, `eigenvectors` at each γ (P×P×G), both in the coordinates of a constraint, and `counted`, the number of
negative ones; the points `x` of the line; the `ends`, where eigenvalues change sign, and how many do at each,
`crossing`.
"""
struct SaddleLine{T}
    net::AbstractNet{T}
    layer::Int
    unit::Int
    copy::Int
    curvature::Matrix{Float64}
    coupling::Matrix{Float64}
    open::Vector{Int}
    rank::Int
    curvatures::Vector{Float64}
    tolerance::Float64
    negative::Int
    positive::Int
    null::Int
    narrow_index::Int
    index_inside::Int
    index_outside::Int
    index_at_ends::Int
    gamma::Vector{Float64}
    x::Matrix{T}
    eigenvalues::Matrix{T}
    eigenvectors::Array{T,3}
    counted::Vector{Int}
    ends::Vector{Float64}
    crossing::Vector{Int}
end
Base.show(io::IO, s::SaddleLine) = print(io, "SaddleLine(unit ", s.unit, " of layer ", s.layer, "; index ",
    s.index_inside, " for 0 < γ < 1, ", s.index_outside, " outside; changes at γ = ", join(s.ends, ", "), ")")

"""
    saddle_line(net, θ, i; layer = 1, gamma = range(-1, 2; length = 101)) -> SaddleLine

The line of fixed points of the net with one unit more on which unit `i` is split in two, for a fixed point θ of `net`
without regularisers; see [`split_neuron`](@ref). Under a constraint (θ are its coordinates then) the wide net's holds
of both units' incoming weights and of the sum of their outgoing ones: the two units differ in those incoming weights
that are free, and may share the outgoing ones in any way.
"""
function saddle_line(net::Union{Net{T},ConstrainedNet{T}}, θ::AbstractVector, i::Int; layer::Int=1,
                     gamma=range(-1, 2; length=101)) where {T}
    layers = layers_in(net)
    check_unit(layers, layer, i)
    unregularised(net) ||
        throw(ArgumentError("this net has a regulariser, under which splits of a fixed point are not fixed points: " *
                            "make a net without (net.replace(l2=0, …)) and minimize"))
    θ, γ = Vector{T}(θ), Vector{Float64}(gamma)
    length(γ) >= 2 && issorted(γ) && allunique(γ) && all(isfinite, γ) ||
        throw(ArgumentError("gamma must be at least two finite numbers that ascend"))
    point = classified_fixed_point(net, θ)
    θ, free = parameters_from(net, θ), innermost(net)
    a = norm(θ[outgoing(layers[layer+1], i)])
    a > 0 || throw(ArgumentError("this unit has no outgoing weights: all of its splits are the same point"))
    M, D, noise_M, noise_D = split_curvature(free, θ, i; layer=layer)
    into = incoming(layers[layer], i)
    open = net isa Net ? collect(eachindex(into)) : findall(in(free_parameters(net.constraint)), into)
    # One hundred times what rounding and the gradient that is left at θ explain.
    S = svd(D[:, open]; full=true)
    rank = count(σ -> σ > 100 * (noise_D + Float64(point.gnorm) * sqrt(length(D)) / a), S.S)
    Z = S.V[:, rank+1:end]
    curvatures = isempty(Z) ? Float64[] : eigvals(Symmetric(Z' * M[open, open] * Z))
    tolerance = 100 * noise_M
    negative, positive = count(<(-tolerance), curvatures), count(>(tolerance), curvatures)
    wide = split_neuron(free, θ, i, 0.5; layer=layer)[1]
    net isa Net || (wide = ConstrainedNet(wide, split_constraint(net.constraint, layers, layer, i)[2]))
    points = reduce(hcat, (split_unit(layers, θ, layer, i, g)[3] for g in γ))
    H = Matrix{T}(undef, n_params(wide), n_params(wide))
    within_line(x) = parameters_within(wide, x)
    pairs(g) = Eigenpairs(copy(hessian!(H, wide, within_line(split_unit(layers, θ, layer, i, g)[3]))))
    all_pairs, τ = [pairs(γ[1])], zeros(length(γ))
    for k in eachindex(γ)
        k > 1 && push!(all_pairs, continue_eigenpairs(pairs, all_pairs[k-1], γ[k-1], γ[k], τ[k-1]))
        τ[k] = noise(wide, within_line(points[:, k]), Float64(maximum(abs, all_pairs[k].λ)))[1]
    end
    λ, V = reduce(hcat, (e.λ for e in all_pairs)), cat((e.V for e in all_pairs)...; dims=3)
    counted = [count(<(-τ[k]), λ[:, k]) for k in eachindex(γ)]
    ends, crossing = sign_changes(pairs, γ, all_pairs, τ)
    base = point.index + rank
    null = length(curvatures) - negative - positive
    return SaddleLine{T}(wide, layer, i, layers[layer].width + 1, M, D, open, rank, curvatures, tolerance, negative,
                         positive, null, point.index, base + negative, base + positive, base, γ, points, λ, V, counted,
                         ends, crossing)
end

"The classification of θ, if it is a fixed point; else an error."
function classified_fixed_point(net::AbstractNet, θ)
    point = classify(net, θ)
    point.kind in ("minimum", "saddle", "degenerate") && return point
    what = point.kind == "escaping" ? "escaping" : "not a fixed point"
    throw(ArgumentError("p is $what (gnorm $(point.gnorm)): minimize or polish first"))
end

"The γ at which continued eigenvalues change sign, ascending, and how many do at each."
function sign_changes(pairs, γ, all_pairs::Vector{Eigenpairs{T}}, τ) where {T}
    found = Float64[]
    for j in eachindex(all_pairs[1].λ)
        last = 0                                         # where the eigenvalue was last seen to have a sign
        for k in eachindex(γ)
            abs(all_pairs[k].λ[j]) > τ[k] || continue
            last > 0 && all_pairs[last].λ[j] * all_pairs[k].λ[j] < 0 &&
                push!(found, zero_between(pairs, γ[last], all_pairs[last], γ[k], all_pairs[k], j, max(τ[last], τ[k])))
            last = k
        end
    end
    sort!(found)
    ends, crossing = Float64[], Int[]
    for g in found                                       # several at once, each known to rounding
        another = isempty(ends) || g - ends[end] > eps(T)^(3 / 8) * (1 + abs(g))
        another ? (push!(ends, g); push!(crossing, 1)) : (crossing[end] += 1)
    end
    return ends, crossing
end

"""
The zero of eigenvalue `j` between two γ, by the Illinois method on the eigenvalue whose vector is nearest to that of
the nearer end (the vector turns little over one step of γ).
"""
function zero_between(pairs, a, at_a::Eigenpairs, b, at_b::Eigenpairs, j::Int, τ)
    fa, fb, va, vb = Float64(at_a.λ[j]), Float64(at_b.λ[j]), at_a.V[:, j], at_b.V[:, j]
    c = a
    for attempt in 1:60
        c = (a * fb - b * fa) / (fb - fa)
        (c <= min(a, b) || c >= max(a, b)) && (c = (a + b) / 2)
        E = pairs(c)::typeof(at_a)
        near = abs(c - a) <= abs(c - b) ? va : vb
        overlap = E.V' * near
        k = argmax(abs.(overlap))
        f, v = Float64(E.λ[k]), E.V[:, k] .* sign(overlap[k])
        abs(f) <= τ / 100 && return c                    # the secant is exact here: below it lies rounding alone
        if f * fb < 0
            a, fa, va = b, fb, vb
        else
            fa /= 2
        end
        b, fb, vb = c, f, v
        abs(a - b) <= 4 * eps() * (1 + abs(c)) && return c
    end
    return c
end

"""
    off_line(line, θ, γ; side = 1, size = 1e-3) -> θ′

The split with parameter γ, displaced by the length `size` along the direction across the line of the lowest
curvature, to either `side`: η is the lowest eigenvector of γ(1 − γ)M, or of K(γ) with its part B if D has a rank; its
largest component is positive for `side` 1. At the same γ the two sides differ; side −1 at 1 − γ is side 1 with the
units exchanged.
"""
function off_line(layers::Vector{Layer}, θ::Vector, layer::Int, i::Int, M::Matrix{Float64}, D::Matrix{Float64},
                  rank::Int, γ; side=1, size=1e-3, open=axes(M, 1))
    wide, _, x = split_unit(layers, θ, layer, i, γ)
    isempty(open) && throw(ArgumentError("the constraint holds all incoming weights of the unit: there is no " *
                                         "direction across the line"))
    M, D = M[open, open], D[:, open]
    d, c = Base.size(M, 1), γ * (1 - γ)
    v = eigenpairs!(rank == 0 ? c * M : [c*M D'; D zeros(Base.size(D, 1), Base.size(D, 1))]).vectors[:, 1]
    η, B = v[1:d], rank == 0 ? zeros(Base.size(D, 1)) : v[d+1:end]
    step, k = zero(x), wide[layer].width
    step[incoming(wide[layer], i)[open]] = (1 - γ) * η
    step[incoming(wide[layer], k)[open]] = -γ * η
    step[outgoing(wide[layer+1], i)] = B
    step[outgoing(wide[layer+1], k)] = -B
    return x + (side * size * sign(v[argmax(abs.(v))]) / norm(step)) * step
end

"""
    pair_state(layers, θ, layer, i, j, ε) -> gap, rest, channel

How far apart the incoming weights of units i and j are, relative to 1 + their norm; what is left of their outgoing
weights' sum, relative to their sizes; and whether they are on the way into a channel, as for
[`roads_to_infinity`](@ref).
"""
function pair_state(layers::Vector{Layer}, θ::Vector{Float64}, layer::Int, i::Int, j::Int, ε::Float64)
    into_i, into_j = incoming(layers[layer], i), incoming(layers[layer], j)
    out_i, out_j = outgoing(layers[layer+1], i), outgoing(layers[layer+1], j)
    gap = norm(θ[into_i] - θ[into_j]) / (1 + norm(θ[into_i]))
    rest = norm(θ[out_i] + θ[out_j]) / (norm(θ[out_i]) + norm(θ[out_j]))
    return (gap=gap, rest=rest, channel=!isempty(pair_direction(θ, into_i, into_j, out_i, out_j, ε)))
end
