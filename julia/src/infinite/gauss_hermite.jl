"""
    gauss_hermite(order) -> (x, w)

Nodes and weights with Σ wᵢ f(xᵢ) = E f(x), x ~ N(0, 1), exact for polynomials up to degree 2·order - 1: eigenvalues and
eigenvectors of the Jacobi matrix (Golub and Welsch, Mathematics of Computation 23, 1969).

    julia> x, w = gauss_hermite(3);

    julia> sum(w .* x .^ 4) ≈ 3
    true
"""
function gauss_hermite(order::Integer)
    1 <= order <= 1000 || throw(ArgumentError("order is $order; 1 to 1000 is possible"))
    order == 1 && return [0.0], [1.0]
    x, V = eigen(SymTridiagonal(zeros(order), sqrt.(1.0:order-1)))
    x, w = (x - reverse(x)) / 2, (V[1, :] .^ 2 + reverse(V[1, :] .^ 2)) / 2          # symmetric to the last bit
    return x, w / sum(w)
end

"""
    gauss_hermite_grid(D, order) -> (X, w)

The product rule in D dimensions, X of D×N, without the nodes of weight below 1e-20 of the largest.
"""
function gauss_hermite_grid(D::Integer, order::Integer)
    1 <= D <= 3 || throw(ArgumentError("a product rule serves 1 to 3 inputs, this net has $D: use InfiniteNet, or samples"))
    x, w = gauss_hermite(order)
    order^D <= 10^7 || throw(ArgumentError("order $order in $D dimensions has $(order^D) nodes; 10^7 is the limit"))
    nodes = [i for i in CartesianIndices(ntuple(_ -> order, D)) if prod(w[l] for l in i.I) > 1e-20 * maximum(w)^D]
    X = [x[i[d]] for d in 1:D, i in nodes]
    v = [prod(w[l] for l in i.I) for i in nodes]
    return X, v / sum(v)
end

"""
    gauss_hermite_net(target, net; order = 30) -> Net

The network, loss and regularisers of `net` (1 to 3 inputs, any depth) on Gauss–Hermite nodes as weighted samples: its
loss is the expectation over standard normal inputs. `target` maps D×N inputs to O×N targets: a
[`TeacherNet`](@ref), or a function.
"""
function gauss_hermite_net(target, net::Net{T}; order::Integer=30) where {T}
    X, w = gauss_hermite_grid(n_features(net), order)
    return with_data(net, T.(X), target(T.(X)); weights=length(w) * w)
end
