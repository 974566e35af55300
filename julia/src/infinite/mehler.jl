# Pairs by Mehler's formula: for standard normals x, y of correlation u, E[he_k(x) he_l(y)] = δ_kl u^k, so that
# E[f(r₁x + b₁) g(r₂y + b₂)] = Σ_k u^k A_k(f) A_k(g), and the same for derivatives of f and g.

"""
    mehler_stage(p, q, u) -> stage, or 0

How many coefficients make the truncated sums good to 1e-12 of √(E f² E g²) in the Hessian, and better in gradient and
loss; 0: more than there are.
The rest of the slowest sum is about c₁c₂ |u|^K min(K, 1/(1 - |u|)), with the last coefficients of f'' and g''.
"""
function mehler_stage(p::Neuron, q::Neuron, u::Float64, nodes::Nodes)
    for stage in 1:length(STAGES)
        expand!(p, nodes, stage)
        expand!(q, nodes, stage)
        K = STAGES[stage]
        scale = max(p.r, q.r, 1.0)^2
        rest = scale * p.decay[stage] * q.decay[stage] * abs(u)^K * min(K, 1 / (1 - abs(u)))
        rest <= 1e-12 * p.norm * q.norm && return stage
        # NaN goes through any rule
        isfinite(rest) || return stage
    end
    return 0
end

"E[f⁽ᵖ⁾ g⁽ᵠ⁾] for p + q ≤ 2·order, in the order of `PairSums`: derivatives beyond the second are times r."
function mehler!(e::PairSums, p::Neuron, q::Neuron, u::Float64, order::Int, powers::Vector{Float64}, terms::Int)
    K = min(terms, min(p.terms, q.terms) + 2)
    powers!(powers, u, K)
    e.e00 = triple(p.A, q.A, powers, K)
    order == 0 && return e
    e.e10, e.e01 = triple(p.B, q.A, powers, K), triple(p.A, q.B, powers, K)
    e.e20, e.e02 = triple(p.C, q.A, powers, K), triple(p.A, q.C, powers, K)
    e.e11 = triple(p.B, q.B, powers, K)
    order == 1 && return e
    e.e21, e.e12, e.e22 = triple(p.C, q.B, powers, K), triple(p.B, q.C, powers, K), triple(p.C, q.C, powers, K)
    e.e30, e.e31, e.e40 = triple(p.C1, q.A, powers, K), triple(p.C1, q.B, powers, K), triple(p.C2, q.A, powers, K)
    e.e03, e.e13, e.e04 = triple(p.A, q.C1, powers, K), triple(p.B, q.C1, powers, K), triple(p.A, q.C2, powers, K)
    return e
end

function powers!(powers::Vector{Float64}, u::Float64, K::Int)
    u2 = u * u
    powers[1], powers[2], powers[3], powers[4] = 1.0, u, u2, u2 * u
    u4 = u2 * u2
    @inbounds for k in 5:4:K
        powers[k], powers[k+1], powers[k+2], powers[k+3] =
            powers[k-4] * u4, powers[k-3] * u4, powers[k-2] * u4, powers[k-1] * u4
    end
    return powers
end

@inline function triple(X, Y, w, K)
    s = 0.0
    @inbounds @simd for k in 1:K
        s = muladd(X[k] * Y[k], w[k], s)
    end
    return s
end
