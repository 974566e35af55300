"""
    gauss_hermite(order) -> (x, w)

Nodes and weights with Σ wᵢ f(xᵢ) = E f(x), x ~ N(0, 1), exact for polynomials up to degree 2·order - 1: eigenvalues of
the Jacobi matrix (Golub and Welsch, Mathematics of Computation 23, 1969), one step of Newton's method on them, and
the Christoffel numbers as weights, which cost fewer digits than squared eigenvectors.

    julia> x, w = gauss_hermite(3);

    julia> sum(w .* x .^ 4) ≈ 3
    true
"""
function gauss_hermite(order::Integer)
    1 <= order <= 1000 || throw(ArgumentError("order is $order; 1 to 1000 is possible"))
    x = eigvals(SymTridiagonal(zeros(order), sqrt.(1.0:order-1)))
    x, w = (x - reverse(x)) / 2, zeros(order)                      # symmetric to the last bit
    for i in 1:order
        for last in (false, true)
            p, q, s = 0.0, 1.0, 0.0                                # orthonormal polynomials at x, and their squares
            for k in 1:order
                s += q * q
                p, q = q, (x[i] * q - sqrt(k - 1) * p) / sqrt(k)
            end
            isfinite(s) || break                                  # a node whose weight underflows
            last ? (w[i] = 1 / s) : (x[i] -= q / (sqrt(order) * p))
        end
    end
    return x, w / sum(w)
end

# With ten inputs 800 MB, and as much again in a net; a loss of five units takes a second.
const MOST_NODES = 10^7

"""
    count_nodes(order, D, threshold) -> nodes, part

How many nodes of the product rule have a weight above `threshold` of the largest, and which part of the whole weight
they have: (Inf, NaN) for more than `MOST_COUNTED`, or more kinds of nodes than can be looked at in a second.
"""
function count_nodes(order::Integer, D::Integer, threshold::Real; most::Real=MOST_COUNTED)
    w = gauss_hermite(order)[2]
    half = cld(order, 2)
    u = reverse(w[1:half]) ./ w[half]           # descending from the middle; all but a node at zero are there twice
    nodes, weight, kinds = 0.0, 0.0, 0
    function add(k, left, v, ways)
        kinds += 1
        (v <= threshold || nodes > most || kinds > MOST_KINDS) && return nothing
        left == 0 && (nodes += ways; weight += ways * v; return nothing)
        k > half && return nothing
        twice = k == 1 && isodd(order) ? 1.0 : 2.0
        for n in left:-1:0
            add(k + 1, left - n, v * u[k]^n, ways * choices(left, n) * twice^n)
        end
    end
    add(1, Int(D), 1.0, 1.0)
    nodes > most || kinds > MOST_KINDS || return nodes, weight * w[half]^D
    return Inf, NaN
end
const MOST_COUNTED, MOST_KINDS = 1e15, 2_000_000
choices(left::Int, n::Int) = foldl((c, i) -> c * (left - n + i) / i, 1:n; init=1.0)

"Why there is no such rule, and what there is."
function too_many_nodes(D::Integer, order::Integer, threshold::Real)
    fits(order, threshold) = count_nodes(order, D, threshold; most=MOST_NODES)
    nodes, lower = count_nodes(order, D, threshold)[1], 0
    while lower + 1 < order && fits(lower + 1, threshold)[1] < Inf
        lower += 1
    end
    size = round(nodes * D * 8 / 1e9; sigdigits=2)
    many = isfinite(nodes) ? "$(round(Int, nodes)) nodes, whose inputs take $size GB" :
           "more nodes than there is memory for"
    advice = lower > 1 ? ["order $lower has $(round(Int, fits(lower, threshold)[1]))"] : String[]
    k = findlast(k -> 10.0^-k > threshold && fits(order, 10.0^-k)[1] < Inf, 1:20)
    if k !== nothing
        left, part = fits(order, 10.0^-k)
        part > 0.99 && push!(advice, "threshold 1e-$k leaves $(round(Int, left)) nodes with " *
                                  "$(round(100 * part; sigdigits=4)) % of the weight")
    end
    return "order $order in $D dimensions has $many; at most $MOST_NODES are possible" *
           (isempty(advice) ? "" : ": ") * join(advice, "; ") * ". For one hidden layer an InfiniteNet has any " *
           "number of inputs; for others, take samples of a normal distribution as data"
end

"""
    gauss_hermite_grid(D, order, threshold = 1e-20) -> (X = X, w = w)

The product rule in D dimensions, X of D×N, without the nodes of weight below `threshold` of the largest: far from the
origin product rules have most of their nodes and next to no weight. Sparse grids (Smolyak) are no better for nets: with
some 5000 nodes in 4 dimensions the mean square of three tanh units of norm 1 is off by 1e-4, by the product rule with
4100 by 7e-6. They also have negative weights, with which a loss has no lower bound.
"""
function gauss_hermite_grid(D::Integer, order::Integer, threshold::Real=1e-20)
    0 <= threshold < 1 || throw(ArgumentError("threshold is $threshold; a number from 0 to below 1 is needed"))
    count_nodes(order, D, threshold; most=MOST_NODES)[1] < Inf ||
        throw(ArgumentError(too_many_nodes(D, order, threshold)))
    x, w = gauss_hermite(order)
    w /= maximum(w)
    X, v = zeros(0, 1), [1.0]
    for _ in 1:D
        kept = [(j, i) for i in 1:order for j in eachindex(v) if v[j] * w[i] > threshold]
        X = vcat(X[:, first.(kept)], permutedims([x[i] for (_, i) in kept]))
        v = [v[j] * w[i] for (j, i) in kept]
    end
    return (X=X, w=v / sum(v))
end

"""
    gauss_hermite_net(target, net; order = 30, threshold = 1e-20) -> Net

The network, loss and regularisers of `net` (any depth, few inputs) on Gauss–Hermite nodes as weighted samples: its
loss is the expectation over standard normal inputs. `target` maps D×N inputs to O×N targets: a
[`TeacherNet`](@ref), or a function. Nodes of weight below `threshold` of the largest are left out; at most 10⁷ may
remain.
"""
function gauss_hermite_net(target, net::Net{T}; order::Integer=30, threshold::Real=1e-20) where {T}
    X, w = gauss_hermite_grid(n_features(net), order, threshold)
    return on(net, T.(X), target(T.(X)); weights=length(w) * w)
end
