# Directions in which the function on the data does not change at all, to first order in a small step and beyond: where
# the null directions of a Hessian come from.

"""
    Invariance

A reason for null directions: `label`, the `layer` and `units` it is about (counted from 1, the input is layer 0),
and the directions (P entries each).
"""
struct Invariance
    label::String
    layer::Int
    units::Vector{Int}
    directions::Vector{Vector{Float64}}
end

"Reasons that are known for a net; few for nets that are not multilayer perceptrons with data."
invariances(net::AbstractNet, θ) = Invariance[]
invariances(net::InfiniteNet, θ) =
    add_scales!(Invariance[], net.student.layers[1], net.student.layers[2], 1, Vector{Float64}(θ))

"""
What the input and each layer give to the next on the samples that count: Gram matrices of their activations and a one;
the largest |f'| of each unit, and on how many samples |f'| exceeds `FLAT`.
"""
function activity(net::Net, θ)
    layers = net.layers
    sizes = [first(layers).fan_in; Int[l.width for l in layers]]
    grams = Matrix{Float64}[zeros(k + 1, k + 1) for k in sizes]
    slopes = Vector{Float64}[zeros(l.width) for l in layers]
    steep = Vector{Int}[zeros(Int, l.width) for l in layers]
    ws = net.crew.workers[1].workspace
    for block in net.blocks
        forward!(ws, net, θ, block, 1)
        for m in 0:length(layers)
            add_gram!(grams[m+1], m == 0 ? block.X : ws.A[m], block.w)
            m > 0 && see_slopes!(slopes[m], steep[m], ws.D[m], block.w)
        end
    end
    return grams, slopes, steep
end

function add_gram!(G::Matrix{Float64}, A::Matrix, w::Vector)
    for i in axes(G, 1), j in axes(G, 2), r in eachindex(w)
        w[r] > 0 && (G[i, j] += Float64(A[r, i]) * Float64(A[r, j]))
    end
    return G
end
const FLAT = 0.01

function see_slopes!(slopes::Vector{Float64}, steep::Vector{Int}, D::Matrix, w::Vector)
    for j in eachindex(slopes), r in eachindex(w)
        w[r] > 0 || continue
        slopes[j] = max(slopes[j], abs(Float64(D[r, j])))
        steep[j] += abs(D[r, j]) > FLAT
    end
    return slopes
end

# Plain loops on one number type: this is compiled at the first use, once.
function invariances(net::Net{T}, θ::Vector{T}) where {T}
    found = invariances(net.layers, Vector{Float64}(θ), activity(net, θ)[1:2]..., Float64(eps(T)))
    add_places!(found, net, θ)
    add_lines!(found, net, θ)
    net.objective isa NegativeLogLikelihood && add_shift!(found, last(net.layers), length(net.layers), length(θ))
    net.objective isa Correlation && add_output_freedom!(found, net, θ)
    return found
end

function unit_vector(P::Int, i::Int)
    e = zeros(P)
    e[i] = 1
    return e
end

function invariances(layers::Vector{Layer}, θ::Vector{Float64}, grams, slopes, ε::Float64)
    found = Invariance[]
    for l in 1:length(layers)-1
        add_hidden!(found, layers[l], layers[l+1], l, θ, grams[l+1], slopes[l], ε)
    end
    for m in 0:length(layers)-1
        add_dependent!(found, layers[m+1], m, length(θ), grams[m+1])
    end
    return found
end

"Scale and offset of linear outputs."
function add_output_freedom!(found::Vector{Invariance}, net::Net, θ)
    layer, L = last(net.layers), length(net.layers)
    layer.activation isa Identity || return found
    for j in 1:layer.width
        into, P = incoming(layer, j), length(θ)
        e = zeros(P)
        e[into] = θ[into]
        directions = layer.bias ? [e, unit_vector(P, last(into))] : [e]
        push!(found, Invariance("scale and offset of an output", L, [j], directions))
    end
    return found
end

"Reasons that lie in one hidden layer."
function add_hidden!(found::Vector{Invariance}, layer::Layer, next::Layer, l::Int, θ::Vector{Float64},
                     G::Matrix{Float64}, slopes::Vector{Float64}, ε::Float64)
    P, size = length(θ), 1 + norm(θ)
    into = Vector{Int}[incoming(layer, j) for j in 1:layer.width]
    out = Vector{Int}[outgoing(next, j) for j in 1:layer.width]
    linear = Bool[unit_activation(layer, j) isa Identity for j in 1:layer.width]
    largest = maximum(diag(G))
    for j in 1:layer.width
        in_chain(layer.chains, j) && continue
        dead = slopes[j] <= ε
        # What it gives to the next layer must be small, too: outgoing weights near zero may follow incoming ones to
        # infinity.
        output = G[end, end] > 0 ? sqrt(G[j, j] / G[end, end]) : 0.0
        dead || norm(θ[out[j]]) * max(1, output) <= sqrt(ε) * size || continue
        if dead && is_step(unit_activation(layer, j)) && !iszero(G[j, j])
            push!(found, Invariance("place of a step", l, [j], [unit_vector(P, i) for i in into[j]]))
            continue
        end
        free = dead && iszero(G[j, j]) ? vcat(into[j], out[j]) : into[j]
        push!(found, Invariance(dead ? "dead unit" : "silent unit", l, [j], [unit_vector(P, i) for i in free]))
    end
    for i in 1:layer.width, j in i+1:layer.width             # proportional: outgoing weights can be traded
        G[i, i] > 1e-20 * largest && G[j, j] > 1e-20 * largest || continue
        abs2(G[i, j]) >= (1 - 1e-10) * G[i, i] * G[j, j] || continue
        directions = Vector{Float64}[]
        for o in 1:next.width
            e = unit_vector(P, out[i][o])
            e[out[j][o]] = -G[i, j] / G[j, j]
            push!(directions, e)
        end
        push!(found, Invariance("duplicate units", l, [i, j], directions))
    end
    add_scales!(found, layer, next, l, θ)
    for chain in layer.chains
        has_offset(chain, layer) &&
            push!(found,
                  Invariance("offset of a derivative", l, chain.units, [offset_direction(θ, layer, next, chain.units)]))
        length(chain.units) == 3 &&
            push!(found,
                  Invariance("curve of three units", l, chain.units, curve_directions(chain.units, into, out, θ)))
    end
    for j in findall(linear)
        layer.bias && next.bias || break
        push!(found, Invariance("linear units", l, [j], [bias_direction(θ, layer, next, j)]))
    end
    for i in findall(linear), j in findall(linear)           # (A W, V A⁻¹) computes what (W, V) does
        i == j && continue
        push!(found, Invariance("linear units", l, [i, j], [mixing_direction(θ, into[i], into[j], out[i], out[j])]))
    end
    # Norms see those before. What is left of them for linear units, and for proportional ones of relu's kind, is this.
    for i in 1:layer.width, j in i+1:layer.width
        f = unit_activation(layer, i)
        f === unit_activation(layer, j) && homogeneity(f) == 1 && !in_chain(layer.chains, i) || continue
        linear[i] || G[i, j] > 0 && abs2(G[i, j]) >= (1 - 1e-10) * G[i, i] * G[j, j] || continue
        push!(found, Invariance("turn of units", l, [i, j], [turning_direction(θ, into[i], into[j], out[i], out[j])]))
    end
    return found
end

"Two units that turn into each other: of equal outputs but for a factor, or linear ones, and of the same norms."
function turning_direction(θ::Vector, into_i, into_j, out_i, out_j)
    e = zero(θ)
    e[into_i], e[into_j] = θ[into_j], -θ[into_i]
    e[out_i], e[out_j] = θ[out_j], -θ[out_i]
    return e
end

"Other scales of the parameter of the curve h + st + kt² that three units form, and other origins: t → t + βt²."
function curve_directions(units::Vector{Int}, into, out, θ::Vector{Float64})
    scale = zeros(length(θ))
    for (order, j) in enumerate(units[2:end])
        scale[into[j]] = order * θ[into[j]]
        scale[out[j]] = -order * θ[out[j]]
    end
    bend = zeros(length(θ))
    bend[into[units[3]]] = θ[into[units[2]]]
    bend[out[units[2]]] = -θ[out[units[3]]]
    return [scale, bend]
end

function add_scales!(found::Vector{Invariance}, layer::Layer, next::Layer, l::Int, θ::Vector{Float64})
    for j in 1:layer.width
        e = scale_direction(θ, layer, next, j)
        isempty(e) || push!(found, Invariance("scale of a unit", l, [j], [e]))
    end
    return found
end

"""
How incoming weights of unit `j` grow as outgoing ones shrink without a change of the outputs, exactly; empty where they
cannot: f(αh) = αᵏf(h), exp(h + β) = e^β exp(h), and s σ′(h) of a pair at its limit, which is linear in s.
"""
function scale_direction(θ::Vector, layer::Layer, next::Layer, j::Int)
    f, into, out, e = unit_activation(layer, j), incoming(layer, j), outgoing(next, j), zero(θ)
    k = f isa Derivative ? Int(scales(layer.chains, j)) : in_chain(layer.chains, j) ? 0 : homogeneity(f)::Int
    if k > 0
        e[into] = θ[into]
        e[out] = -k * θ[out]
    elseif layer.bias && is_exponential(f)
        e[last(into)] = one(eltype(θ))
        e[out] = -θ[out]
        for i in members(layer.chains, j)[2:end]    # s exp(h), and of tails exp(2h), too
            out, k = outgoing(next, i), f isa Tail ? 2 : 1
            e[out] = -k * θ[out]
            f isa Tail && (e[incoming(layer, i)] = θ[incoming(layer, i)])
        end
    else
        return e[1:0]
    end
    return e
end
is_exponential(f::Activation) = f isa Exp || f isa Tail && f.ε == 0
"The units of the chain that begins with `j`, or `j` alone."
function members(chains::Vector{Chain}, j::Int)
    for chain in chains
        chain.units[1] == j && return chain.units
    end
    return [j]
end

"Whether (Δx + δ) exp(h) is the derivative of a pair, in which δ is part of the factor of exp(h)."
has_offset(chain::Chain, layer::Layer) =
    layer.bias && length(chain.units) == 2 && is_exponential(chain.activation) && iszero(chain.ε)
function offset_direction(θ::Vector, layer::Layer, next::Layer, (i, j))
    e = zero(θ)
    e[last(incoming(layer, j))] = one(eltype(θ))
    e[outgoing(next, i)] = -θ[outgoing(next, j)]
    return e
end

"Whether `j` is the second unit of a pair at its limit, but for two tails."
scales(chains::Vector{Chain}, j::Int) =
    any(c -> length(c.units) == 2 && c.units[2] == j && iszero(c.ε) && !(c.activation isa Tail), chains)

"Linear unit i gets something of what unit j gets, and unit j gives it less to the next layer."
function mixing_direction(θ::Vector, into_i, into_j, out_i, out_j)
    e = zero(θ)
    e[into_i] = θ[into_j]
    e[out_j] = -θ[out_i]
    return e
end

"The bias of linear unit j is one of the next layer's."
function bias_direction(θ::Vector, layer::Layer, next::Layer, j::Int)
    e = zero(θ)
    e[bias_offset(layer)+j] = one(eltype(θ))
    e[bias_offset(next)+1:bias_offset(next)+next.width] = -θ[outgoing(next, j)]
    return e
end

"What layer `m` gives to the `next` is linearly dependent on the samples."
function add_dependent!(found::Vector{Invariance}, next::Layer, m::Int, P::Int, G::Matrix{Float64})
    n = next.fan_in + next.bias
    for u in null_vectors(G[1:n, 1:n])
        directions = Vector{Float64}[]
        for o in 1:next.width
            e = zeros(P)
            for c in 1:n
                e[c > next.fan_in ? bias_offset(next) + o : next.offset + (o - 1) * next.fan_in + c] = u[c]
            end
            push!(directions, e)
        end
        units = Int[c for c in 1:next.fan_in if abs(u[c]) > 1e-6]
        push!(found, Invariance(m == 0 ? "dependent inputs" : "dependent units", m, units, directions))
    end
    return found
end

"Equal changes of all logits."
function add_shift!(found::Vector{Invariance}, layer::Layer, L::Int, P::Int)
    into = Vector{Int}[incoming(layer, j) for j in 1:layer.width]
    directions = Vector{Float64}[]
    for i in 1:layer.fan_in+layer.bias
        e = zeros(P)
        for j in 1:layer.width
            e[into[j][i]] = 1
        end
        push!(directions, e)
    end
    return push!(found, Invariance("softmax shift", L, collect(1:layer.width), directions))
end

"A basis of the null space of a Gram matrix, to 1e-6 of each column's own norm."
function null_vectors(G::Matrix{Float64})
    n = size(G, 1)
    scale = Float64[G[i, i] > 0 ? sqrt(G[i, i]) : 1.0 for i in 1:n]
    for i in 1:n, j in 1:n
        G[i, j] /= scale[i] * scale[j]
    end
    vectors = Vector{Float64}[]
    all_finite(G) || return vectors                             # of a Gram matrix that overflows nothing is known
    d, U = try
        eigenpairs!(G)
    catch failure
        failure isa LAPACKException || rethrow()
        return vectors
    end
    for k in 1:n
        d[k] <= 1e-12 || continue
        v = Float64[U[i, k] / scale[i] for i in 1:n]
        push!(vectors, rmul!(v, 1 / norm(v)))
    end
    return vectors
end

"""
    explain(net, θ, N) -> explanations, unexplained

How many dimensions of the null space spanned by the orthonormal columns of `N` each invariance accounts for, each
dimension counted once, and how many none accounts for.
"""
function explain(net::AbstractNet, θ, N::Matrix{Float64})
    explanations, basis = Tuple{Invariance,Int}[], Vector{Float64}[]
    for invariance in invariances(net, θ)
        count = 0
        for e in invariance.directions
            new_direction!(basis, e, N) && (count += 1)
        end
        count > 0 && push!(explanations, (invariance, count))
    end
    return explanations, size(N, 2) - length(basis)
end

"Add `e` to the `basis` if it lies in the span of `N` (else a regulariser sees it) and is new."
function new_direction!(basis::Vector{Vector{Float64}}, e::Vector{Float64}, N::Matrix{Float64})
    size = norm(e)
    size > 0 || return false
    v = N * (N' * e)
    distance = 0.0
    for i in eachindex(v)
        distance += abs2(v[i] - e[i])
    end
    sqrt(distance) <= 1e-3 * size || return false
    rmul!(v, 1 / size)
    for repeat in 1:2, b in basis
        BLAS.axpy!(-BLAS.dot(b, v), b, v)
    end
    norm(v) > 1e-4 || return false
    push!(basis, rmul!(v, 1 / norm(v)))
    return true
end
