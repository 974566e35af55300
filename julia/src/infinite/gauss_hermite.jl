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

"""
    gauss_hermite_grid(D, order) -> (X = X, w = w)

The product rule in D dimensions, X of D×N, without the nodes of weight below 1e-20 of the largest.
"""
function gauss_hermite_grid(D::Integer, order::Integer)
    1 <= D <= 3 || throw(ArgumentError("a product rule serves 1 to 3 inputs, this net has $D: use InfiniteNet, or samples"))
    x, w = gauss_hermite(order)
    order^D <= 10^7 || throw(ArgumentError("order $order in $D dimensions has $(order^D) nodes; 10^7 is the limit"))
    nodes = [i for i in CartesianIndices(ntuple(_ -> order, D)) if prod(w[l] for l in i.I) > 1e-20 * maximum(w)^D]
    X = [x[i[d]] for d in 1:D, i in nodes]
    v = [prod(w[l] for l in i.I) for i in nodes]
    return (X=X, w=v / sum(v))
end

"""
    gauss_hermite_net(target, net; order = 30) -> Net

The network, loss and regularisers of `net` (1 to 3 inputs, any depth) on Gauss–Hermite nodes as weighted samples: its
loss is the expectation over standard normal inputs. `target` maps D×N inputs to O×N targets: a
[`TeacherNet`](@ref), or a function.
"""
function gauss_hermite_net(target, net::Net{T}; order::Integer=30) where {T}
    X, w = gauss_hermite_grid(n_features(net), order)
    return on(net, T.(X), target(T.(X)); weights=length(w) * w)
end
