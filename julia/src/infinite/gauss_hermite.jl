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

const MOST_NODES = 10^7

"""
    gauss_hermite_grid(D, order, threshold = 1e-20) -> (X = X, w = w)

The product rule in D dimensions, X of D×N, without the nodes of weight below `threshold` of the largest: far from the
origin product rules have most of their nodes and next to no weight. Sparse grids (Smolyak) are no better for nets: with
some 5000 nodes in 4 dimensions the mean square of three tanh units of norm 1 is off by 1e-4, by the product rule with
4100 by 7e-6. They also have negative weights, with which a loss has no lower bound.
"""
function gauss_hermite_grid(D::Integer, order::Integer, threshold::Real=1e-20)
    0 <= threshold < 1 || throw(ArgumentError("threshold is $threshold; a number from 0 to below 1 is needed"))
    x, w = gauss_hermite(order)
    w /= maximum(w)
    X, v = zeros(0, 1), [1.0]
    for _ in 1:D
        kept = [(j, i) for i in 1:order for j in eachindex(v) if v[j] * w[i] > threshold]
        length(kept) <= MOST_NODES ||
            throw(ArgumentError("order $order in $D dimensions has more than $MOST_NODES nodes: choose a lower order " *
                                "or a higher threshold"))
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
