# The population loss in intervals, for pairs of units whose expectations have closed forms: relu with relu, sigmoid2
# and normal_cdf with each other, and polynomials and exp with all of these.

function with_number_type(::Type{S}, net::InfiniteNet) where {S<:AbstractFloat}
    S <: Interval && check_closed_forms(net.units)
    return InfiniteNet{S}(TeacherNet(with_number_type(S, net.teacher.net), S.(net.teacher.params)),
                          with_number_type(S, net.student))
end

function check_closed_forms(units::Vector{<:Neuron})
    simple(p) = p.degree >= 0 || p.kind == exponential
    known(p) = simple(p) || p.kind == rectified || p.kind == cumulative
    for p in units, q in units
        known(p) && known(q) && (simple(p) || simple(q) || p.kind == q.kind) || throw(Unproved(
            "there is no closed form of the expectations of $(p.activation) with $(q.activation): on infinite data " *
            "there are " *
            "proofs for relu with relu, for sigmoid2 and normal_cdf with each other, and for polynomials and exp " *
            "with all of these"))
    end
    return nothing
end

function expectations!(ws::PairWorkspace{S}, p::Neuron{S}, q::Neuron{S}, order::Int) where {S<:Interval}
    m, e = ws.moments, ws.sums
    u = p === q ? one(S) : direction_cosine(p.n, q.n)
    if p.kind == rectified && q.kind == rectified
        p === q && return rectified_self!(m, p, order)
        rectified_pair!(m, p, q, u, order)
        order == 2 && isfinite(u) && !all(isfinite, m.v2) &&
            throw(Unproved("two relu units may look in the same direction " *
            "here, as where a student's unit copies the teacher's, and second derivatives have no bounds there"))
        return m
    elseif p.kind == cumulative && q.kind == cumulative
        sine = sqrt(max((1 - u) * (1 + u), zero(u)))                     # whose square is not negative
        cumulative_pair!(e, p, q, u, sine, order)
    elseif p.degree >= 0
        polynomial_pair!(e, p, q, u)
    elseif q.degree >= 0
        flip!(polynomial_pair!(e, q, p, u))
    elseif p.kind == exponential
        exponential_pair!(e, p, q, u)
    else
        flip!(exponential_pair!(e, q, p, u))
    end
    return from_sums!(m, e, p, q, order)
end

function single(p::Neuron{<:Interval}, nodes::Nodes)
    g = derivative_means(p, p.b, 4)
    return g[1], g[2], g[3], p.r * g[4], p.r * p.r * g[5]
end

"""
    derivative_means(p, b, n) -> [E[f(h)], …, E[f⁽ⁿ⁾(h)]]

For h = p.r x + b, x standard normal: the first one and its derivatives by b.
"""
function derivative_means(p::Neuron{S}, b::S, n::Int) where {S<:Interval}
    p.degree >= 0 && return polynomial_means(power_coefficients(p.activation), p.r, b, n)
    p.kind == exponential && return fill(exp(b + p.r * p.r / 2), n + 1)
    if p.kind == rectified
        t = b / p.r
        return [[b * Φ(t) + p.r * φ(t), Φ(t)]; density_derivatives(b, p.r, n - 2)]
    end
    τ = hypot(one(S), p.r)
    return [mean_at(p.gain, b / τ); S(p.gain) .* density_derivatives(b, τ, n - 1)]
end

"φ(b/τ)/τ and its first `n` derivatives by b."
function density_derivatives(b::S, τ::S, n::Int) where {S<:Interval}
    d = [φ(b / τ) / τ]
    for k in 0:n-1
        push!(d, -(b * d[k+1] + (k == 0 ? zero(S) : k * d[k])) / (τ * τ))
    end
    return d
end

power_coefficients(::Identity) = (0.0, 1.0)
power_coefficients(::Square) = (0.0, 0.0, 0.5)
power_coefficients(::Cube) = (0.0, 0.0, 0.0, 1.0)
power_coefficients(p::Poly) = p.coefficients

function polynomial_means(c, r::S, b::S, n::Int) where {S<:Interval}
    powers = [one(S), b]                                                 # E[hⁱ]
    for i in 2:length(c)-1
        push!(powers, b * powers[i] + (i - 1) * r * r * powers[i-1])
    end
    g = zeros(S, n + 1)
    for j in 0:min(n, length(c) - 1), i in j:length(c)-1
        g[j+1] += prod(S[S(l) for l in i-j+1:i]) * S(c[i+1]) * powers[i-j+1]
    end
    return g
end

"""
    polynomial_pair!(e, p, q, u)

A polynomial with anything: by R. Price's theorem (IRE Transactions on Information Theory 4, 1958) derivatives of E[f g]
by the covariance c are E[f⁽ᵏ⁾ g⁽ᵏ⁾], so that E[f g] = Σ cᵏ/k! E[f⁽ᵏ⁾] E[g⁽ᵏ⁾].
"""
function polynomial_pair!(e::PairSums{S}, p::Neuron{S}, q::Neuron{S}, u::S) where {S<:Interval}
    K, a, b = p.degree, p.r, q.r
    F, G = derivative_means(p, p.b, K + 4), derivative_means(q, q.b, K + 4)
    weights = [one(S)]
    for k in 1:K
        push!(weights, weights[k] * (a * b * u) / k)
    end
    mean(i, j) = sum(S[weights[k+1] * F[i+k+1] * G[j+k+1] for k in 0:K])
    e.e00, e.e10, e.e01 = mean(0, 0), mean(1, 0), mean(0, 1)
    e.e20, e.e11, e.e02 = mean(2, 0), mean(1, 1), mean(0, 2)
    e.e21, e.e12, e.e22 = mean(2, 1), mean(1, 2), mean(2, 2)
    e.e30, e.e31, e.e40 = a * mean(3, 0), a * mean(3, 1), a * a * mean(4, 0)
    e.e03, e.e13, e.e04 = b * mean(0, 3), b * mean(1, 3), b * b * mean(0, 4)
    return e
end

"exp with anything, as for numbers: the other unit's bias is shifted by the covariance."
function exponential_pair!(e::PairSums{S}, p::Neuron{S}, q::Neuron{S}, u::S) where {S<:Interval}
    a, b = p.r, q.r
    g = exp(p.b + a * a / 2) .* derivative_means(q, q.b + a * b * u, 4)
    e.e00 = e.e10 = e.e20 = g[1]
    e.e01 = e.e11 = e.e21 = g[2]
    e.e02 = e.e12 = e.e22 = g[3]
    e.e30, e.e40, e.e31 = a * g[1], a * a * g[1], a * g[2]
    e.e03, e.e13, e.e04 = b * g[4], b * g[4], b * b * g[5]
    return e
end

"relu with itself: [`rectified_pair!`](@ref) where u = 1."
function rectified_self!(m::Moments{S}, p::Neuron{S}, order::Int) where {S<:Interval}
    a, t = p.r, p.b / p.r
    P, d = Φ(t), φ(t)
    clear!(m)
    copyto!(m.v1, p.n)
    fill!(m.v2, zero(S))
    m.m00 = a * a * ((1 + t * t) * P + t * d)
    m.m10 = m.m01 = a * (d + t * P)
    m.x10 = m.x01 = a * P
    m.m11, m.x11, m.xx11 = P, d, -t * d
    return m
end

"""
    added_by_correlation(h, k, ρ, s)

By the mean value theorem from a point in the intervals, with the derivatives of the bivariate normal probability.
"""
function added_by_correlation(h::S, k::S, ρ::S, ::S) where {S<:Interval}
    isfinite(h) && isfinite(k) && isfinite(ρ) || return entire(S)
    magnitude(h) == 0 && magnitude(k) == 0 && return asin(ρ) / (2 * S(pi))
    # Of all correlations in the interval: the sine of directions in a box need not contain that of the middle.
    s = sqrt((1 - ρ) * (1 + ρ))
    s.lo > 0 || return entire(S)
    h0, k0, ρ0 = middle(h), middle(k), middle(ρ)
    bits = S == BigInterval ? precision(BigFloat) : 96                   # more than Float64 has
    at_middle = setprecision(BigFloat, bits) do
        S(correlated(BigInterval(h0), BigInterval(k0), BigInterval(ρ0)))
    end
    v, w = (h - ρ * k) / s, (k - ρ * h) / s
    return at_middle + φ(h) * (Φ(w) - Φ(k)) * (h - S(h0)) + φ(k) * (Φ(v) - Φ(h)) * (k - S(k0)) +
           φ(h) * φ(w) / s * (ρ - S(ρ0))
end

middle(x::Interval) = clamp(x.lo / 2 + x.hi / 2, x.lo, x.hi)

"P(X ≤ h, Y ≤ k) - Φ(h) Φ(k) for numbers h, k and ρ, by Owen's function (Owen 1956, see [`owens_t`](@ref))."
function correlated(h::BigInterval, k::BigInterval, ρ::BigInterval)
    s = sqrt((1 - ρ) * (1 + ρ))
    s.lo > 0 || return entire(BigInterval)
    magnitude(h) == 0 && magnitude(k) == 0 && return asin(ρ) / (2 * BigInterval(pi))
    P, Q = Φ(h), Φ(k)
    opposite = h.lo * k.lo < 0 || (h.lo * k.lo == 0 && h.lo + k.lo < 0)
    return (P + Q - opposite) / 2 - owens_ratio(h, (k - ρ * h) / s) - owens_ratio(k, (h - ρ * k) / s) - P * Q
end

"Owen's T(h, w/h) for a number h; 1/4 with the sign of w for h = 0."
function owens_ratio(h::BigInterval, w::BigInterval)
    h.lo < 0 && return -owens_ratio(-h, w)                               # T is even in h and odd in w/h
    magnitude(w) <= h.lo && return owens_series(h, w / h)
    w.hi < 0 && return -owens_ratio(h, -w)
    w.lo > 0 || return entire(BigInterval)
    # on which side of 1 their ratio is, is not known
    if w.lo < h.lo
        a = BigFloat(1)
        near = owens_series(h, BigInterval((w / h).lo, a))
        return hull(near, owens_reflected(h, w, BigInterval((h / w).lo, a)))
    end
    return owens_reflected(h, w, min(h / w, one(BigInterval)))
end

owens_reflected(h, w, a) =
    one(BigInterval) / 4 - erf(h / sqrt(BigInterval(2))) * erf(w / sqrt(BigInterval(2))) / 4 - owens_series(w, a)

"""
    owens_series(h, a)

Owen's T(h, a) = (atan a - Σⱼ (-1)ʲ Qⱼ a²ʲ⁺¹/(2j + 1))/2π for |a| ≤ 1, where Qⱼ is the probability that a Poisson
variable of mean h²/2 exceeds j (Owen 1956). The terms after the last are less than what is left of that probability.
"""
function owens_series(h::BigInterval, a::BigInterval)
    x = h * h / 2
    x.hi - x.lo <= 1 && isfinite(a) || return entire(BigInterval)
    least = BigFloat(2)^-(precision(BigFloat) + 8)
    p = [exp(-x)]
    if p[1].hi < least                                                   # |T| ≤ exp(-h²/2) atan(|a|)/2π
        t = p[1].hi
        return Interval(a.lo >= 0 ? zero(t) : -t, a.hi <= 0 ? zero(t) : t)
    end
    while p[end].hi > least || length(p) < 2 * x.hi                      # from there on they fall by half at least
        push!(p, p[end] * x / length(p))
    end
    rest = p[end].hi
    Q, total = Interval(zero(rest), rest), Interval(-rest, rest)
    for j in length(p)-1:-1:0
        total = Q / (2j + 1) - a * a * total
        Q += p[j+1]
    end
    return (atan(a) - a * total) / (2 * BigInterval(pi))
end

Φ(x::Interval) = first(normal_cdf_pdf(x))
φ(x::Interval) = last(normal_cdf_pdf(x))

# A direction that may vanish is not known: what is divided by its norm tells.
negligible(s::Interval) = false
sees_nothing(s::Interval) = false
ratio(μ::Interval, s::Interval) = magnitude(μ) == 0 ? zero(μ) : μ / s
Base.hypot(x::Interval{T}, y::Interval{T}) where {T} = sqrt(x^2 + y^2)
