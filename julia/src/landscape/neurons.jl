# Units of one layer beside each other: which are alike, which of many runs are the same, and one in place of several.

"Incoming weights, and the bias, of the units of layer `l`: a row each."
function unit_rows(layers::Vector{Layer}, θ, l::Int)
    1 <= l <= length(layers) || throw(ArgumentError("layer is $l; this net has the layers 1 to $(length(layers))"))
    layer = layers[l]
    rows = zeros(layer.width, layer.fan_in + layer.bias)
    for j in 1:layer.width
        rows[j, :] = θ[incoming(layer, j)]
    end
    return rows
end

"""
    Likeness

Units compared in pairs: `cosine` of incoming weights and bias, without signs; `sign`, −1 where a unit is nearer to
the mirror image of the other, which an odd or even activation computes too; `angle` and `distance`, of the nearer
one. Infinite where units have different activations.
"""
struct Likeness
    cosine::Matrix{Float64}
    sign::Matrix{Int}
    angle::Matrix{Float64}
    distance::Matrix{Float64}
end

"""
    likeness(A, B, f, g) -> Likeness

Of the rows of `A`, units with the activations `f`, and those of `B`, with `g`.
"""
function likeness(A::Matrix{Float64}, B::Matrix{Float64}, f::Vector, g::Vector)
    L = Likeness(cosine_similarity(A, B), ones(Int, size(A, 1), size(B, 1)), zeros(size(A, 1), size(B, 1)),
                 zeros(size(A, 1), size(B, 1)))
    for i in axes(A, 1), j in axes(B, 1)
        s = parity(f[i])::Int != 0 && L.cosine[i, j] < 0 ? -1 : 1
        L.sign[i, j] = s
        L.angle[i, j] = f[i] == g[j] ? angle_between(A[i, :], s * B[j, :]) : Inf
        L.distance[i, j] = f[i] == g[j] ? norm(A[i, :] - s * B[j, :]) : Inf
    end
    return L
end

"""
The angle between two vectors, to rounding where it is small too (Kahan, How Futile are Mindless Assessments of
Roundoff, section 12); a right one if a vector is zero.
"""
function angle_between(a::Vector{Float64}, b::Vector{Float64})
    m, n = norm(a), norm(b)
    m > 0 && n > 0 || return π / 2
    return 2 * atan(norm(a / m - b / n), norm(a / m + b / n))
end

unit_activations(layer::Layer) = Activation[unit_activation(layer, j) for j in 1:layer.width]

"""
    compare_neurons(layers, θ; layer = 1) -> Likeness
    compare_neurons(layers, θ, teacher_layers, ϑ; layer = 1) -> Likeness

The units of a layer with each other, or a student's (rows) with a teacher's, whose activations do not count: only that
of the student says whether signs matter.
"""
function compare_neurons(layers::Vector{Layer}, θ; layer::Int=1)
    rows, f = unit_rows(layers, θ, layer), unit_activations(layers[layer])
    return likeness(rows, rows, f, f)
end
function compare_neurons(layers::Vector{Layer}, θ, others::Vector{Layer}, ϑ; layer::Int=1)
    A, B = unit_rows(layers, θ, layer), unit_rows(others, ϑ, layer)
    size(A, 2) == size(B, 2) && layers[layer].bias == others[layer].bias ||
        throw(ArgumentError("layer $layer of student and teacher must take the same inputs, with or without biases"))
    f = unit_activations(layers[layer])
    L = likeness(A, B, f, fill(f[1], size(B, 1)))
    for i in findall(!=(f[1]), f)           # a student's units may be of several kinds
        row = likeness(A[i:i, :], B, f[i:i], fill(f[i], size(B, 1)))
        L.angle[i, :], L.distance[i, :] = row.angle[1, :], row.distance[1, :]
    end
    return L
end

"""
    linked(D, tolerance; average = false) -> labels

Groups by the distances `D` (n×n, symmetric), numbered in the order of their first members: joined by single linkage, so
that two are in one group if a chain of steps of at most `tolerance` leads from one to the other; or by average linkage
(UPGMA: Sokal and Michener, University of Kansas Science Bulletin 38, 1958), where the mean distance of two groups
counts.
"""
function linked(D::AbstractMatrix, tolerance::Real; average::Bool=false)
    n = size(D, 1)
    size(D, 2) == n || throw(DimensionMismatch("distances are $(size(D)); a square matrix is needed"))
    distance, members = Matrix{Float64}(D), ones(Int, n)
    labels, alive = collect(1:n), trues(n)
    while true
        a, b, least = 0, 0, Inf
        for j in 1:n, i in 1:j-1
            alive[i] && alive[j] && distance[i, j] < least && ((a, b, least) = (i, j, distance[i, j]))
        end
        a > 0 && least <= tolerance || break
        for k in 1:n
            alive[k] && k != a && k != b || continue
            d = average ? (members[a] * distance[a, k] + members[b] * distance[b, k]) / (members[a] + members[b]) :
                min(distance[a, k], distance[b, k])
            distance[a, k] = distance[k, a] = d
        end
        members[a] += members[b]
        alive[b] = false
        labels[labels.==b] .= a
    end
    order = unique(labels)
    return Int[findfirst(isequal(l), order) for l in labels]
end

"""
    cluster_neurons(layers, points; layer = 1, tolerance, distances = false) -> (labels, sign, centre, spread)

Units of the columns of `points` (P×S), of S runs, in clusters by average linkage of their angles modulo sign, or of
their distances: the step from many students to common units in Expand-and-Cluster (Martinelli, Şimşek, Gerstner and
Brea, arXiv 2304.12794). `labels` and `sign` (width×S) of each unit; `centre` (features × clusters), the means of unit
vectors, or of the vectors themselves; `spread`, the median angle or distance from the centre. Clusters of most members
come first.
"""
function cluster_neurons(layers::Vector{Layer}, points::AbstractMatrix; layer::Int=1, tolerance::Real,
                         distances::Bool=false)
    k, S = layers[layer].width, size(points, 2)
    rows = reduce(vcat, [unit_rows(layers, points[:, s], layer) for s in 1:S])
    f = repeat(unit_activations(layers[layer]), S)
    L = likeness(rows, rows, f, f)
    D = distances ? L.distance : L.angle
    raw = linked(D, tolerance; average=true)
    order = sortperm([count(isequal(c), raw) for c in 1:maximum(raw)]; rev=true, alg=MergeSort)
    labels, signs = invperm(order)[raw], ones(Int, k * S)
    centres, spread = zeros(size(rows, 2), length(order)), zeros(length(order))
    for c in eachindex(order)
        own = findall(isequal(c), labels)
        size_of(v) = distances ? 1.0 : max(norm(v), floatmin(Float64))
        for i in own
            signs[i] = L.sign[first(own), i]
            centres[:, c] .+= signs[i] .* rows[i, :] ./ size_of(rows[i, :]) ./ length(own)
        end
        distance(a, b) = distances ? norm(a - b) : angle_between(a, b)
        away = [distance(signs[i] * rows[i, :], centres[:, c]) for i in own]
        spread[c] = sort(away)[cld(length(away), 2)]
    end
    return (labels=reshape(labels, k, S), sign=reshape(signs, k, S), centre=centres, spread=spread)
end

"""
    merge_neurons(layers, θ, groups; layer = 1) -> layers′, source, θ′

One unit in place of each of the `groups` of units: their outgoing weights are added, and their incoming ones averaged,
weighted by the norms of the outgoing ones; modulo sign for odd and even units, and scale for homogeneous ones. Where
the units of a group are the same but for these, the outputs stay what they are; [`split_neuron`](@ref) is undone.
"""
function merge_neurons(old::Vector{Layer}, θ, groups; layer::Int=1)
    check_hidden(old, layer)
    y, removed = collect(Float64, θ), Int[]
    f = unit_activations(old[layer])
    for group in groups
        foreach(i -> check_unit(old, layer, i), group)
        isempty(group) && throw(ArgumentError("a group of units is empty"))
        all(i -> f[i] == f[first(group)], group) ||
            throw(ArgumentError("units $(join(group, ", ")) have different activations"))
        merge_group!(y, θ, old, layer, group, f[first(group)])
        append!(removed, group[2:end])
    end
    named = reduce(vcat, groups; init=Int[])
    allunique(named) || throw(ArgumentError("a unit is in two groups, or twice in one: $(join(named, ", "))"))
    layers, source = rewire(old, layer, filter(i -> !(i in removed), 1:old[layer].width))
    return layers, source, gather(y, source)
end

function merge_group!(y::Vector{Float64}, θ, layers, l::Int, group, f::Activation)
    into, out = [incoming(layers[l], i) for i in group], [outgoing(layers[l+1], i) for i in group]
    k, p = homogeneity(f), parity(f)
    v = [Float64.(θ[i]) for i in into]
    scale = k > 0 ? norm.(v) : ones(length(group))
    weights = [norm(θ[o]) for o in out] .* scale .^ k
    any(>(0), weights) || (weights = float.(scale .> 0))
    sum(weights) > 0 || (weights = ones(length(group)))
    mean, total = zero(v[1]), zeros(length(out[1]))
    for i in eachindex(group)
        s = p != 0 && dot(v[i], v[1]) < 0 ? -1 : 1
        scale[i] > 0 && (mean .+= weights[i] * s / scale[i] .* v[i])
        # f(s n v) = sᵖ nᵏ f(v)
        total .+= (s == -1 && p == -1 ? -1 : 1) * (k > 0 && scale[1] > 0 ? (scale[i] / scale[1])^k : 1.0) .* θ[out[i]]
    end
    mean ./= sum(weights)
    k > 0 && norm(mean) > 0 && (mean .*= scale[1] / norm(mean))
    y[into[1]] = mean
    y[out[1]] = total
    return y
end

"""
    neurons_along(layers, X; layer = 1) -> (incoming, outgoing, cosine, angle)

At each column of `X` (P×M): norms of incoming weights with bias and of outgoing weights (width×M), and cosines and
angles between the incoming ones of each pair (width×width×M), without signs.
"""
function neurons_along(layers::Vector{Layer}, X::AbstractMatrix; layer::Int=1)
    check_hidden(layers, layer)
    k, M = layers[layer].width, size(X, 2)
    norms, out, cosines, angles = zeros(k, M), zeros(k, M), zeros(k, k, M), zeros(k, k, M)
    for m in 1:M
        rows = unit_rows(layers, X[:, m], layer)
        for j in 1:k
            norms[j, m] = norm(rows[j, :])
            out[j, m] = norm(X[outgoing(layers[layer+1], j), m])
        end
        cosines[:, :, m] = cosine_similarity(rows, rows)
        angles[:, :, m] = [angle_between(rows[i, :], rows[j, :]) for i in 1:k, j in 1:k]
    end
    return (incoming=norms, outgoing=out, cosine=cosines, angle=angles)
end

"""
    binomial_interval(k, n; confidence = 0.95) -> low, high

The probabilities that `k` successes of `n` do not rule out: the exact interval of Clopper and Pearson (Biometrika 26,
1934), at whose ends so many successes, or more extreme numbers of them, have the probability (1 − confidence)/2.
"""
function binomial_interval(k::Int, n::Int; confidence::Real=0.95)
    0 <= k <= n && n > 0 || throw(ArgumentError("k is $k and n is $n; 0 ≤ k ≤ n with n > 0 is needed"))
    0 < confidence < 1 || throw(ArgumentError("confidence is $confidence; a number between 0 and 1 is needed"))
    choose = cumsum([0.0; [log((n - j) / (j + 1)) for j in 0:n-1]])       # log of n over j
    chance(p, range) = sum(exp(choose[j+1] + j * log(p) + (n - j) * log1p(-p)) for j in range)
    α = (1 - confidence) / 2
    low = k == 0 ? 0.0 : bisect(p -> chance(p, k:n) - α)
    high = k == n ? 1.0 : bisect(p -> α - chance(p, 0:k))
    return low, high
end

"Where a function that grows on (0, 1) is zero."
function bisect(f)
    low, high = 0.0, 1.0
    while true
        middle = (low + high) / 2
        low < middle < high || return middle
        f(middle) < 0 ? (low = middle) : (high = middle)
    end
end
