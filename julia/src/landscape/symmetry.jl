# Parameters modulo what does not change the function: permutations of hidden units, signs of odd and even ones, and
# the scale of homogeneous ones.

"Degree k of f(αx) = αᵏ f(x) for α > 0; 0 for activations that are not homogeneous."
homogeneity(::Activation) = 0
homogeneity(::Union{Identity,Relu}) = 1
homogeneity(::Square) = 2
homogeneity(::Cube) = 3
homogeneity(a::Sharp) = Int(is_ramp(a.f) && a.ε == 0)
homogeneity(p::Poly) = count(!iszero, p.coefficients) == 1 ? findfirst(!iszero, p.coefficients) - 1 : 0

"1 if f(−x) = f(x), −1 if f(−x) = −f(x), else 0."
parity(::Activation) = 0
parity(::Union{Identity,Tanh,Sigmoid2,Cube}) = -1
parity(::Square) = 1
function parity(p::Poly)
    odd, even = any(!iszero, p.coefficients[2:2:end]), any(!iszero, p.coefficients[1:2:end])
    return odd && !even ? -1 : even && !odd ? 1 : 0
end

"""
    cosine_similarity(A, B) -> C

Cosines between the rows of `A` (m×D) and of `B` (n×D), m×n; 0 where a row is zero.
"""
function cosine_similarity(A::AbstractMatrix, B::AbstractMatrix)
    size(A, 2) == size(B, 2) ||
        throw(DimensionMismatch("rows of $(size(A, 2)) and of $(size(B, 2)) entries cannot be compared"))
    a, b = [norm(A[i, :]) for i in axes(A, 1)], [norm(B[j, :]) for j in axes(B, 1)]
    C = A * B'
    cosine(i, j) = a[i] == 0 || b[j] == 0 ? zero(C[i, j]) : clamp(C[i, j] / (a[i] * b[j]), -1, 1)
    return [cosine(i, j) for i in axes(A, 1), j in axes(B, 1)]
end

"""
    assign(cost) -> columns

One column for each row of `cost` (m×n, m ≤ n), all different, with the lowest sum: the Hungarian method with
potentials, O(m²n) (Kuhn, Naval Research Logistics Quarterly 2, 1955; Jonker and Volgenant, Computing 38, 1987).
"""
function assign(cost::AbstractMatrix{T}) where {T}
    m, n = size(cost)
    m <= n || throw(DimensionMismatch("$m rows cannot have different ones of $n columns"))
    u, v = zeros(T, m + 1), zeros(T, n + 1)
    row, way = zeros(Int, n + 1), zeros(Int, n + 1)          # column n + 1 is the root of the search
    for i in 1:m
        row[n+1] = i
        j0 = n + 1
        least, used = fill(T(Inf), n + 1), falses(n + 1)
        while true
            used[j0] = true
            i0, δ, j1 = row[j0], T(Inf), 0
            for j in 1:n
                used[j] && continue
                reduced = cost[i0, j] - u[i0] - v[j]
                reduced < least[j] && (least[j] = reduced; way[j] = j0)
                least[j] < δ && (δ = least[j]; j1 = j)
            end
            for j in 1:n+1
                used[j] ? (u[row[j]] += δ; v[j] -= δ) : (least[j] -= δ)
            end
            j0 = j1
            row[j0] == 0 && break
        end
        while j0 != n + 1
            row[j0] = row[way[j0]]
            j0 = way[j0]
        end
    end
    columns = zeros(Int, m)
    for j in 1:n
        row[j] > 0 && (columns[row[j]] = j)
    end
    return columns
end

"""
    NeuronMatching

`unit[j]` is the student's unit for unit j of the teacher (0: the student has none left), `sign[j]` the sign that
was taken, `similarity[j]` the cosine, and `cosines` (student × teacher) all of them, without signs.
"""
struct NeuronMatching
    unit::Vector{Int}
    sign::Vector{Int}
    similarity::Vector{Float64}
    cosines::Matrix{Float64}
end

"""
    match_neurons(layers, θ, teacher_layers, θ_teacher; layer = 1) -> NeuronMatching

For each unit of the teacher's layer another unit of the student's, with the largest sum of cosine similarities of
incoming weights and biases; modulo sign where the student's activation is odd or even.
"""
function match_neurons(layers::Vector{Layer}, θ, others::Vector{Layer}, ϑ; layer::Int=1)
    1 <= layer <= min(length(layers), length(others)) || throw(ArgumentError("layer is $layer; both nets must have it"))
    a, b = layers[layer], others[layer]
    rows(l, x) = reduce(vcat, [Float64.(x[incoming(l, j)])' for j in 1:l.width])
    a.bias == b.bias && a.fan_in == b.fan_in ||
        throw(ArgumentError("layer $layer of student and teacher must take the same inputs, with or without biases"))
    C = cosine_similarity(rows(a, θ), rows(b, ϑ))
    signed = [parity(unit_activation(a, i)) != 0 for i in 1:a.width]
    value = [signed[i] ? abs(C[i, j]) : C[i, j] for i in 1:a.width, j in 1:b.width]
    unit = zeros(Int, b.width)
    if a.width >= b.width
        unit .= assign(permutedims(1 .- value))
    else
        for (i, j) in enumerate(assign(1 .- value))
            unit[j] = i
        end
    end
    sign = [u == 0 ? 1 : signed[u] && C[u, j] < 0 ? -1 : 1 for (j, u) in enumerate(unit)]
    return NeuronMatching(unit, sign, [u == 0 ? 0.0 : value[u, j] for (j, u) in enumerate(unit)], C)
end
match_neurons(net::Net, θ, teacher::Net, ϑ; options...) = match_neurons(net.layers, θ, teacher.layers, ϑ; options...)

"Scale homogeneous units until incoming and outgoing weights have the same norm; the function stays the same."
function balance!(θ::Vector, layers::Vector{Layer})
    for sweep in 1:100
        largest = 1.0
        for l in 1:length(layers)-1, j in 1:layers[l].width
            k = homogeneity(unit_activation(layers[l], j))
            k > 0 || continue
            into, out = incoming(layers[l], j), outgoing(layers[l+1], j)
            a, b = norm(view(θ, into)), norm(view(θ, out))
            a > 0 && b > 0 || continue
            α = (b / a)^(1 / (k + 1))
            θ[into] .*= α
            θ[out] ./= α^k
            largest = max(largest, α, 1 / α)
        end
        largest < 1 + 1e-14 && break
    end
    return θ
end

"""
    align(layers, θ, reference) -> θ′

θ with hidden units permuted, signs of odd and even units flipped, and homogeneous units scaled (to equal norms of
incoming and outgoing weights) so that it is near the `reference`, which is scaled in the same way; its outputs are
those of θ. Layer by layer the best assignment, repeated until nothing changes: the nearest such point for one
hidden layer, a good one for more.
"""
function align(layers::Vector{Layer}, θ::AbstractVector, reference::AbstractVector)
    x, y = balance!(collect(float(θ)), layers), balance!(collect(float(reference)), layers)
    L = length(layers)
    for sweep in 1:20
        before = copy(x)
        for l in 1:L-1
            # In the first sweep the order of the units that follow is not known yet, unless they are outputs.
            with_outgoing = sweep > 1 || l == L - 1
            k = layers[l].width
            cost, flip = zeros(k, k), falses(k, k)
            for i in 1:k, j in 1:k
                a, b = x[incoming(layers[l], i)], y[incoming(layers[l], j)]
                c, d = x[outgoing(layers[l+1], i)], y[outgoing(layers[l+1], j)]
                s = parity(unit_activation(layers[l], i))
                out = with_outgoing ? sum(abs2, c - d) : 0.0
                cost[i, j] = sum(abs2, a - b) + out
                if unit_activation(layers[l], i) != unit_activation(layers[l], j)
                    cost[i, j] = 1e30
                elseif s != 0
                    flipped = sum(abs2, a + b) + (with_outgoing ? sum(abs2, s * c - d) : 0.0)
                    flipped < cost[i, j] && (cost[i, j] = flipped; flip[i, j] = true)
                end
            end
            columns = assign(cost)
            for i in 1:k
                flip[i, columns[i]] || continue
                x[incoming(layers[l], i)] .*= -1
                x[outgoing(layers[l+1], i)] .*= parity(unit_activation(layers[l], i))
            end
            x = gather(x, rewire(layers, l, sortperm(columns))[2])
        end
        x == before && break
    end
    return x
end

"""
    distinct_minima(layers, points, losses; tolerance = 1e-4) -> labels, representatives

Group the columns of `points` (P×M) that are the same point modulo permutation, sign and scale of hidden units (see
[`align`](@ref)), to `tolerance` relative to 1 + ‖θ‖. Groups are numbered by their lowest loss; the representative
of a group is its member with the lowest loss. Runs that ended on a degenerate valley of minima stay apart.
"""
function distinct_minima(layers::Vector{Layer}, points::AbstractMatrix, losses::AbstractVector; tolerance::Real=1e-4)
    size(points, 2) == length(losses) ||
        throw(DimensionMismatch("$(size(points, 2)) points and $(length(losses)) losses"))
    labels, representatives = zeros(Int, length(losses)), Int[]
    for i in sortperm(losses)
        for (number, r) in enumerate(representatives)
            # Points that are near have losses that are near: to first order in the tolerance.
            abs(losses[i] - losses[r]) <= 100 * tolerance * (1 + abs(losses[r])) || continue
            y = balance!(float(points[:, r]), layers)
            norm(align(layers, points[:, i], y) - y) <= tolerance * (1 + norm(y)) || continue
            labels[i] = number
            break
        end
        labels[i] > 0 && continue
        push!(representatives, i)
        labels[i] = length(representatives)
    end
    return labels, representatives
end
distinct_minima(net::Net, points, losses; options...) = distinct_minima(net.layers, points, losses; options...)
