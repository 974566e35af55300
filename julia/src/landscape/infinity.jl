# Minima at infinity: where the loss falls for ever and no parameters are the lowest.

"The parameters of the last layer: its scale is a road to infinity for classifiers."
last_layer(net::AbstractNet) = 1:0
last_layer(net::Net) = last(net.layers).offset+1:net.n_params

"""
    separates(net, θ) -> Bool

Whether a net with negative log-likelihood and no regulariser tells all its labelled samples apart. Then the loss falls
for ever as the weights of the last layer grow, towards an infimum of zero that no parameters reach: the derivative
along them is −Σᵢ wᵢ Σₒ pₒ (h_label − hₒ)/N < 0, even where it is too small for a floating-point number.
"""
separates(net::AbstractNet, θ) = false
separates(net::Net, θ) =
    net.objective isa NegativeLogLikelihood && n_outputs(net) > 1 && unregularised(net) &&
    unknown(tells_all_apart)(net, θ)::Bool
function tells_all_apart(net::Net{T}, θ::Vector{T}) where {T}
    P, i = predict(net, θ), 0
    for block in net.blocks, r in 1:min(block.n, n_samples(net) - i)
        i += 1
        block.w[r] > 0 || continue
        label, p = argmax(view(block.Y, r, :)), view(P, :, i)
        # probabilities, which finite weights may meet
        sum(view(block.Y, r, :)) == block.Y[r, label] || return false
        all(o == label || p[o] < p[label] for o in eachindex(p)) || return false
    end
    return true
end
function output_direction(net::Net{T}, θ::Vector{T}) where {T}
    d = zero(θ)
    d[last_layer(net)] = θ[last_layer(net)]
    return d ./ norm(d)
end

"""
    escape_direction(net, θ, g, F) -> unit vector or nothing

A direction along which the loss falls without end: strictly, at every point of a ray from θ that is followed to
10¹³ times 1 + ‖θ‖, or until nothing is left to fall. Tried are the Newton direction with |λᵢ| (which is longest
where the loss is flattest), θ itself and the part of it in the last layer. Where the valley bends, as for two units
whose outgoing weights diverge while their incoming ones merge, no ray does: then the Newton direction is followed
with the loss minimised in its complement, which counts if the slope along it stays negative and is what is left of
the gradient.
"""
function escape_direction(net::AbstractNet{T}, θ::Vector{T}, g::Vector{T}, F) where {T}
    largest = maximum(abs, F.values)
    iszero(largest) && return nothing
    slopes = F.vectors' * g
    flat = -(F.vectors * (slopes ./ max.(abs.(F.values), largest * eps(T))))
    output = zero(θ)
    output[last_layer(net)] = θ[last_layer(net)]
    for d in (flat, θ, output)
        size = norm(d)
        isfinite(size) && size > 0 && dot(d, g) < 0 || continue
        falls_along_ray(net, θ, d / size, g) && return d / size
    end
    size = norm(flat)
    isfinite(size) && size > 0 || return nothing
    # Only for the tail of a run: from anywhere else a search in the complement would find other valleys.
    norm(g) <= eps(T)^T(0.25) * sqrt(2 * loss_scale(net, θ) * largest) || return nothing
    # Not inferred before it is needed: the minimizer on a line's complement is another one to compile.
    return Base.invokelatest(falls_along_valley, net, θ, flat / size) ? flat / size : nothing
end

function falls_along_ray(net, θ::Vector{T}, d, g) where {T}
    before, h, nothing_left = loss(net, θ), T(1 + norm(θ)) / 4, eps(T) * loss_scale(net, θ)
    gradient = similar(θ)
    for k in 1:48
        k > 1 && (h *= 2)
        value = value_and_gradient!(gradient, net, θ + h * d)
        isfinite(value) && value <= before || return false
        abs(value) <= nothing_left && return k > 2
        dot(gradient, d) <= 0 || return false
        # Rounding, or a loss that has reached its limit: what came before must have been a fall.
        value >= before - 64 * eps(T) * abs(before) && return k > 2
        before = value
    end
    return true
end

function falls_along_valley(net, θ::Vector{T}, d) where {T}
    line = LinearSubspace(θ, d)
    g = similar(θ)
    x, before = θ, loss(net, θ)
    h = T(1 + norm(θ)) / 8
    for k in 1:6
        m = subspace_minloss(net, line, [h], x; maxiterations=300)
        value = value_and_gradient!(g, net, m.x)
        slope = dot(g, d)
        isfinite(value) && value < before && slope < 0 && m.gnorm <= abs(slope) / 2 || return false
        x, before = m.x, value
        h *= 2
    end
    return true
end

# ---- roads to infinity, where a run has followed them to the end of its digits ---------------------------------------

"""
    roads_to_infinity(net, θ, N) -> Vector{Invariance}

Which null directions, of the orthonormal columns of `N`, lead to a minimum at infinity, by what the units look like
there:

- "diverging pair": incoming weights that have nearly merged while outgoing weights grow with opposite signs (or both
  with odd signs), so that the difference of the two becomes a derivative of one unit;
- "tail unit": a unit that is nearly constant on the samples, whose large outgoing weights live on what varies: the
  exponential tail of its activation;
- "step unit": a unit whose incoming weights can all grow, since every sample lies where its activation is flat, on
  different sides;
- "relu unit": a smoothed relu whose incoming weights can all grow as the outgoing ones shrink, since every sample is
  far from its bend, on different sides.
"""
roads_to_infinity(net::AbstractNet, θ, N) = Invariance[]
roads_to_infinity(net::Net{T}, θ::Vector{T}, N::Matrix{Float64}) where {T} =
    roads_to_infinity(net.layers, Vector{Float64}(θ), activity(net, θ), nearest_samples(net, θ), Float64(eps(T)), N)

# How near to its end a road must be: at 1/10 the difference of two units is a derivative to 1 %.
const NEAR_INFINITY = 0.1

function roads_to_infinity(layers::Vector{Layer}, θ::Vector{Float64}, (grams, slopes, steep), nearest,
                           ε::Float64, N::Matrix{Float64})
    roads = Invariance[]
    for l in 1:length(layers)-1
        layer, next, G = layers[l], layers[l+1], grams[l+1]
        samples = G[end, end]
        into = Vector{Int}[incoming(layer, j) for j in 1:layer.width]
        out = Vector{Int}[outgoing(next, j) for j in 1:layer.width]
        for i in 1:layer.width, j in i+1:layer.width
            (in_chain(layer.chains, i) || in_chain(layer.chains, j)) && continue
            e = pair_direction(θ, into[i], into[j], out[i], out[j], ε)
            isempty(e) || add_road!(roads, "diverging pair", l, [i, j], e, N)
        end
        varies = Float64[variation(G, j) for j in 1:layer.width]
        matters = Float64[norm(θ[out[j]]) * sqrt(G[j, j]) * varies[j] for j in 1:layer.width]
        for j in 1:layer.width
            in_chain(layer.chains, j) || unit_activation(layer, j) isa Union{Sharp,Inside} && continue
            varies[j] > sqrt(ε) && matters[j] > sqrt(ε) * sum(matters) || continue
            if varies[j] < NEAR_INFINITY && slopes[l][j] < NEAR_INFINITY
                add_road!(roads, "tail unit", l, [j], null_vector_within(N, vcat(into[j], out[j], biases(next))), N)
            elseif varies[j] > NEAR_INFINITY && steep[l][j] < NEAR_INFINITY * samples
                e = zeros(length(θ))
                e[into[j]] = θ[into[j]]
                add_road!(roads, "step unit", l, [j], e / norm(e), N)
            elseif is_ramp(unit_activation(layer, j)) &&
                   sharp_channel(θ, layer, l, j, nearest[l][:, j], CHANNEL_GROWTH) !== nothing
                e = zeros(length(θ))
                e[into[j]], e[out[j]] = θ[into[j]], -θ[out[j]]
                add_road!(roads, "relu unit", l, [j], e / norm(e), N)
            end
        end
    end
    return roads
end

"Add a road if its direction `e`, of unit length, is a null direction."
function add_road!(roads::Vector{Invariance}, label::String, l::Int, units::Vector{Int}, e::Vector{Float64},
                   N::Matrix{Float64})
    v = N * (N' * e)
    norm(v - e) <= NEAR_INFINITY && push!(roads, Invariance(label, l, units, [v / norm(v)]))
    return roads
end

"The unit vector in the span of `N` whose entries outside of `home` are smallest."
function null_vector_within(N::Matrix{Float64}, home::Vector{Int})
    v = N * svd(N[home, :]).V[:, 1]
    e = zero(v)
    e[home] = v[home]
    return e / norm(e)
end

biases(layer::Layer) = layer.bias ? collect(bias_offset(layer)+1:bias_offset(layer)+layer.width) : Int[]

"Standard deviation of a unit over its root mean square on the samples; zero for a dead one."
function variation(G::Matrix{Float64}, j::Int)
    n = size(G, 1)
    G[j, j] > 0 && G[n, n] > 0 || return 0.0
    return sqrt(max(1 - G[j, n]^2 / (G[j, j] * G[n, n]), 0.0))
end

"""
The direction, of unit length, in which outgoing weights of two units grow and their incoming ones merge; empty where
they are not on this road: both must be far along it, but not the same to rounding.
"""
function pair_direction(θ::Vector{Float64}, into_i, into_j, out_i, out_j, ε::Float64)
    for sign in (1, -1)         # odd units merge up to the sign, too
        gap, rest = θ[into_i] - sign * θ[into_j], θ[out_i] + sign * θ[out_j]
        near = norm(gap) / norm(θ[into_i])
        64 * ε < near < NEAR_INFINITY || continue
        norm(rest) < NEAR_INFINITY / 2 * (norm(θ[out_i]) + norm(θ[out_j])) || continue
        e = zero(θ)
        e[out_i] = (θ[out_i] - sign * θ[out_j]) / 2
        e[out_j] = -sign * e[out_i]
        e[into_i] = -gap / 2
        e[into_j] = sign * gap / 2
        return e / norm(e)
    end
    return Float64[]
end
