# Pairs of units with closed forms. Polynomials need none: their Hermite series end.

"""
    rectified_pair!(m, p, q, u, order)

relu with relu, with biases: arc-cosine kernels (Cho and Saul, NIPS 2009) where these are zero. With unit normals x and
y along the directions, X = x + b₁/r₁ > 0 and Y = y + b₂/r₂ > 0, everything follows from P(X, Y > 0), the densities `D1`
at X = 0, Y > 0 and `D2` at Y = 0, X > 0, and the density at the corner times s = √(1 - u²), which stays finite where
directions meet; the basis is orthonormal.
"""
function rectified_pair!(m::Moments, p::Neuron, q::Neuron, u, order::Int)
    a, b = p.r, q.r
    t1, t2 = p.b / a, q.b / b
    s = orthonormal!(m, p, q, u)
    P = bvn_cdf(t1, t2, u, s)
    μ1, μ2 = left_over(t2, t1, u, s), left_over(t1, t2, u, s) # means of Y where X = 0, and of X where Y = 0
    D1, D2 = φ(t1) * Φ(ratio(μ1, s)), φ(t2) * Φ(ratio(μ2, s))
    corner = φ(t1) * φ(ratio(μ1, s))
    m.m00 = a * b * ((u + t1 * t2) * P + t2 * D1 + t1 * D2 + s * corner)
    order == 0 && return m
    N1, N2 = muladd(μ1, D1, s * corner), muladd(μ2, D2, s * corner)       # E[δ(X) Y₊], E[X₊ δ(Y)]
    m.m10, m.x10, m.y10 = b * (u * D1 + D2 + t2 * P), b * (N1 + u * P), b * s * P
    m.m01, m.x01, m.y01 = a * (D1 + u * D2 + t1 * P), a * (P + u * N2), a * s * N2
    order == 1 && return m
    m.m11, m.x11, m.y11 = P, D1 + u * D2, s * D2
    m.xx11 = -t1 * D1 - t2 * D2 * u^2 + corner * u * s
    m.xy11 = s * (-t2 * D2 * u + corner * s)
    m.yy11 = s * (-t2 * D2 * s - corner * u)
    c = b / a
    m.m20, m.x20, m.y20 = c * N1, -c * t1 * N1, c * s * D1
    m.xx20, m.xy20, m.yy20 = c * (t1^2 - 1) * N1, -c * t1 * s * D1, c * s * corner
    c = a / b
    m.m02 = c * N2
    m.x02, m.y02 = turn(u, s, -c * t2 * N2, c * s * D2)
    m.xx02, m.xy02, m.yy02 = turn(u, s, c * (t2^2 - 1) * N2, -c * t2 * s * D2, c * s * corner)
    return m
end

"t - u t′. Divided by s, what round-off leaves where directions meet (s → 0) would count: 1 - |u| is taken from s."
left_over(t, t′, u, s) = exceeds(u, zero(u)) ? (t - t′) + t′ * s^2 / (1 + u) : (t + t′) - t′ * s^2 / (1 - u)

# Where both vanish, X = 0 and Y = 0 are one line, and half of it counts.
ratio(μ, s) = μ == 0 ? zero(μ) : s == 0 ? copysign(Inf, μ) : μ / s

"Mean of gain Φ - (gain - 1) at z: Φ(z), or erf(z/√2)."
mean_at(gain, z) = gain == 2 ? fast_erf(z * sqrt(oftype(z, 0.5))) : Φ(z)

"""
    cumulative_pair!(e, p, q, u, s, order)

normal_cdf and sigmoid2 with each other. Φ(h) is the probability that another normal is below h: E[f g] is a bivariate
normal probability, and derivatives by the biases give the rest (for sigmoid2 without biases the arcsine
kernel of C. K. I. Williams, Neural Computation 10, 1998).
"""
function cumulative_pair!(e::PairSums, p::Neuron, q::Neuron, u, s, order::Int)
    a, b, c, d = p.r, q.r, p.gain, q.gain
    τ1, τ2 = hypot(one(a), a), hypot(one(b), b)
    z1, z2 = p.b / τ1, q.b / τ2
    ρ = (a / τ1) * (b / τ2) * u
    σ = sqrt(1 + a * a + b * b + (a * b * s)^2) / (τ1 * τ2)
    f, g = mean_at(c, z1), mean_at(d, z2)
    e.e00 = f * g + c * d * added_by_correlation(z1, z2, ρ, σ)
    order == 0 && return e
    w1, w2 = (z2 - ρ * z1) / σ, (z1 - ρ * z2) / σ
    ψ = c * d * φ(z1) * φ(w1) / σ
    G1, H1 = c * φ(z1) * mean_at(d, w1), d * φ(z2) * mean_at(c, w2)
    G2, H2 = -z1 * G1 - ρ * ψ, -z2 * H1 - ρ * ψ
    e.e10, e.e01 = G1 / τ1, H1 / τ2
    e.e20, e.e11, e.e02 = G2 / τ1^2, ψ / (τ1 * τ2), H2 / τ2^2
    order == 1 && return e
    ℓ1, ℓ2, v = -w2 / σ, -w1 / σ, 1 / (σ * σ)
    ψ11, ψ12, ψ22 = ψ * (ℓ1^2 - v), ψ * (ℓ1 * ℓ2 + ρ * v), ψ * (ℓ2^2 - v)
    G3, H3 = -G1 - z1 * G2 - ρ * ψ * ℓ1, -H1 - z2 * H2 - ρ * ψ * ℓ2
    G4, H4 = -2G2 - z1 * G3 - ρ * ψ11, -2H2 - z2 * H3 - ρ * ψ22
    i, j = a / τ1, b / τ2
    e.e21, e.e12, e.e22 = ψ * ℓ1 / (τ1^2 * τ2), ψ * ℓ2 / (τ1 * τ2^2), ψ12 / (τ1 * τ2)^2
    e.e30, e.e31, e.e40 = i * G3 / τ1^2, i * ψ11 / (τ1^2 * τ2), i * i * G4 / τ1^2
    e.e03, e.e13, e.e04 = j * H3 / τ2^2, j * ψ22 / (τ1 * τ2^2), j * j * H4 / τ2^2
    return e
end

"""
    exponential_pair!(e, p, q, u, scratch, nodes, order)

exp with anything: E[exp(h₁) g(h₂)] = exp(b₁ + r₁²/2) E[g(h₂ + r₁r₂u)], and exp is its own derivative.
"""
function exponential_pair!(e::PairSums, p::Neuron, q::Neuron, u::Float64, shifted::Neuron, nodes::Nodes, order::Int)
    c, a, a2 = exp(p.b + p.r^2 / 2), p.r, p.r^2
    shifted.r, shifted.b, shifted.stage = q.r, q.b + p.r * q.r * u, 0
    expand!(shifted, nodes, 1)
    g0, g1, g2 = c * shifted.A[1], c * shifted.B[1], c * shifted.C[1]
    g3, g4 = c * shifted.C1[1], c * shifted.C2[1]
    e.e00 = e.e10 = e.e20 = g0
    e.e01 = e.e11 = e.e21 = g1
    e.e02 = e.e12 = e.e22 = g2
    e.e30, e.e40, e.e31 = a * g0, a2 * g0, a * g1
    e.e03, e.e13, e.e04 = g3, g3, g4
    return e
end

"The same with the roles exchanged."
function flip!(e::PairSums)
    e.e10, e.e01 = e.e01, e.e10
    e.e20, e.e02 = e.e02, e.e20
    e.e30, e.e03 = e.e03, e.e30
    e.e21, e.e12 = e.e12, e.e21
    e.e40, e.e04 = e.e04, e.e40
    e.e31, e.e13 = e.e13, e.e31
    return e
end

"relu(σ z + mean) averaged over z: see [`Smoothed`](@ref)."
function smoothed_relu!(out::Smoothed, mean::Float64, σ::Float64)
    t = mean / σ
    out.f, out.d = mean * Φ(t) + σ * φ(t), Φ(t)
    out.s = out.sz = out.szz = 0.0
    return out
end

"selu(σ z + mean) averaged over z, from T = E[exp(h); h < 0] and its derivatives by the mean."
function smoothed_selu!(out::Smoothed, mean::Float64, σ::Float64)
    above, below = derivatives(selu, 1.0)[2], derivatives(selu, 0.0)[2]           # λ and λα
    t = mean / σ
    z = t + σ
    # exp(mean + σ²/2) Φ(-z), where z is large by Mills' ratio 1/z - 1/z³ + …
    T = z > 20 ? φ(t) / z * (1 - (1 - (3 - (15 - 105 / z^2) / z^2) / z^2) / z^2) : exp(mean + σ^2 / 2) * Φ(-z)
    out.f = above * (mean * Φ(t) + σ * φ(t)) + below * (T - Φ(-t))
    out.d = above * Φ(t) + below * T
    out.s = below * T
    out.sz = below * (σ * T - φ(t))
    out.szz = below * (σ^2 * T - σ * φ(t) + t * φ(t))
    return out
end
