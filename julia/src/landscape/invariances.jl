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

"Reasons that are known for a net; none for nets that are not multilayer perceptrons with data."
invariances(net::AbstractNet, θ) = Invariance[]

"""
What the input and each layer give to the next on the samples that count: Gram matrices of their activations and a one;
and the largest |f'| of each unit.
"""
function activity(net::Net{T}, θ) where {T}
    layers = net.layers
    sizes = [first(layers).fan_in; [l.width for l in layers]]
    grams = [zeros(k + 1, k + 1) for k in sizes]
    slopes = [zeros(l.width) for l in layers]
    ws = net.shares[1].workspace
    for block in net.blocks
        forward!(ws, net, θ, block, 1)
        rows = findall(>(0), block.w)
        for m in 0:length(layers)
            A = Float64.(view(m == 0 ? block.X : ws.A[m], rows, 1:sizes[m+1]+1))
            grams[m+1] .+= A' * A
            m > 0 && (slopes[m] .= max.(slopes[m], vec(maximum(abs, view(ws.D[m], rows, 1:sizes[m+1]), dims=1))))
        end
    end
    return grams, slopes
end

function invariances(net::Net{T}, θ::Vector{T}) where {T}
    layers, found = net.layers, Invariance[]
    P, L = net.n_params, length(net.layers)
    unit_vector(i) = (e = zeros(P); e[i] = 1; e)
    grams, slopes = activity(net, θ)
    size = 1 + norm(θ)
    for l in 1:L-1
        layer, next = layers[l], layers[l+1]
        G = grams[l+1]
        into, out = [incoming(layer, j) for j in 1:layer.width], [outgoing(next, j) for j in 1:layer.width]
        largest = maximum(G[i, i] for i in axes(G, 1))
        silent(j) = norm(view(θ, out[j])) <= sqrt(eps(T)) * size
        for j in 1:layer.width
            if slopes[l][j] <= eps(T)
                free = iszero(G[j, j]) ? [into[j]; out[j]] : into[j]
                push!(found, Invariance("dead unit", l, [j], unit_vector.(free)))
            elseif silent(j)
                push!(found, Invariance("silent unit", l, [j], unit_vector.(into[j])))
            end
        end
        for i in 1:layer.width, j in i+1:layer.width         # proportional: outgoing weights can be traded
            G[i, i] > 1e-20 * largest && G[j, j] > 1e-20 * largest || continue
            abs2(G[i, j]) >= (1 - 1e-10) * G[i, i] * G[j, j] || continue
            directions = map(1:next.width) do o
                e = unit_vector(out[i][o])
                e[out[j][o]] = -G[i, j] / G[j, j]
                e
            end
            push!(found, Invariance("duplicate units", l, [i, j], directions))
        end
        for j in 1:layer.width                               # f(αh) = αᵏf(h)
            k = homogeneity(unit_activation(layer, j))
            k > 0 || continue
            e = zeros(P)
            e[into[j]], e[out[j]] = θ[into[j]], -k * θ[out[j]]
            push!(found, Invariance("scale of a unit", l, [j], [e]))
        end
        for j in 1:layer.width                               # a linear unit's bias is one of the next layer's
            layer.bias && next.bias && unit_activation(layer, j) isa Identity || continue
            e = unit_vector(bias_offset(layer) + j)
            e[bias_offset(next) .+ (1:next.width)] = -θ[out[j]]
            push!(found, Invariance("linear units", l, [j], [e]))
        end
        for i in 1:layer.width, j in 1:layer.width           # (A W, V A⁻¹) computes what (W, V) does
            i != j && all(u -> unit_activation(layer, u) isa Identity, (i, j)) || continue
            e = zeros(P)
            e[into[i]], e[out[j]] = θ[into[j]], -θ[out[i]]
            push!(found, Invariance("linear units", l, [i, j], [e]))
        end
    end
    for m in 0:L-1                                           # what layer m + 1 sees is linearly dependent
        next, G = layers[m+1], grams[m+1]
        kept = next.bias ? axes(G, 1) : 1:Base.size(G, 1)-1
        for u in null_vectors(G[kept, kept])
            directions = map(1:next.width) do o
                e = zeros(P)
                for (c, x) in zip(kept, u)
                    e[c > next.fan_in ? bias_offset(next) + o : next.offset + (o - 1) * next.fan_in + c] = x
                end
                e
            end
            units = [c for (c, x) in zip(kept, u) if c <= next.fan_in && abs(x) > 1e-6]
            push!(found, Invariance(m == 0 ? "dependent inputs" : "dependent units", m, units, directions))
        end
    end
    if last(layers).activation isa Softmax                   # equal changes of all logits
        layer = last(layers)
        directions = map(1:layer.fan_in+layer.bias) do i
            e = zeros(P)
            for j in 1:layer.width
                e[incoming(layer, j)[i]] = 1
            end
            e
        end
        push!(found, Invariance("softmax shift", L, collect(1:layer.width), directions))
    end
    return found
end

"A basis of the null space of a Gram matrix, to 1e-6 of each column's own norm."
function null_vectors(G)
    scale = [G[i, i] > 0 ? sqrt(G[i, i]) : 1.0 for i in axes(G, 1)]
    F = eigen(Symmetric(G ./ (scale .* scale')))
    return [normalize(F.vectors[:, i] ./ scale) for i in eachindex(F.values) if F.values[i] <= 1e-12]
end

"""
    explain(net, θ, N) -> explanations, unexplained

How many dimensions of the null space spanned by the orthonormal columns of `N` each invariance accounts for, each
dimension counted once, and how many none accounts for.
"""
function explain(net::AbstractNet, θ, N::AbstractMatrix)
    explanations, basis = Tuple{Invariance,Int}[], Vector{Float64}[]
    for invariance in invariances(net, θ)
        count = 0
        for e in invariance.directions
            length_e = norm(e)
            length_e > 0 || continue
            v = N * (N' * (e / length_e))
            norm(v - e / length_e) <= 1e-3 || continue       # not null: a regulariser sees it
            for repeat in 1:2, b in basis
                v -= dot(b, v) * b
            end
            norm(v) > 1e-4 || continue
            push!(basis, v / norm(v))
            count += 1
        end
        count > 0 && push!(explanations, (invariance, count))
    end
    return explanations, size(N, 2) - length(basis)
end
