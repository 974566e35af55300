# Bivariate normal probabilities and Owen's T.

"""
    gauss_legendre(n) -> (x, w)

Nodes and weights of the Gauss–Legendre rule on [-1, 1], by Newton's method on the polynomial.
"""
function gauss_legendre(n::Int)
    x, w = zeros(n), zeros(n)
    for i in 1:n
        t = big(cos(pi * (i - 0.25) / (n + 0.5)))
        slope = big(1.0)
        for _ in 1:8
            p, q = big(1.0), t
            for k in 2:n
                p, q = q, ((2k - 1) * t * q - (k - 1) * p) / k
            end
            slope = n * (t * q - p) / (t * t - 1)
            t -= q / slope
        end
        x[i], w[i] = t, 2 / ((1 - t * t) * slope^2)
    end
    return x, w
end

const PANEL_X, PANEL_W = gauss_legendre(20)

Φ(x::Float64) = first(normal_cdf_pdf(x))
φ(x::Float64) = exp(-x * x / 2) * 0.3989422804014327
const INV_2PI = 0.15915494309189535

"""
    tetrachoric(h, k, ρ, s) = (1/2π) ∫ exp(-(h² - 2hk sin θ + k²)/(2 cos² θ)) dθ over θ from 0 to arcsin ρ

For 0 ≤ ρ ≤ 1, s = √(1 - ρ²): what correlation adds to Φ(h) Φ(k). With t = π/2 - θ the exponent is
-(h - k)²/(2 sin² t) - hk/(1 + cos t): smooth but for the layer at t ≈ |h - k|, so that Gauss–Legendre panels of
doubling length resolve it for every ρ up to 1. All terms are positive: small probabilities keep their relative
accuracy.
"""
function tetrachoric(h::Float64, k::Float64, ρ::Float64, s::Float64)
    δ = (h - k)^2 / 2
    # Below the second angle the integrand is under e^-40 of its value at π/2.
    a = max(atan(s, ρ), asin(sqrt(δ / (δ + 40 + max(h * k, 0.0) / 2))))
    bulge = 1.5 / sqrt(max(h * k, 1.0))                     # what is left at t = 0 for h = k is exp(-hk t²/8)
    total = 0.0
    while a < pi / 2
        b = min(max(2a, δ == 0 ? bulge : 0.0), pi / 2)
        pi / 2 - b < 0.1 && (b = pi / 2)
        half, mid, part = (b - a) / 2, (a + b) / 2, 0.0
        for i in eachindex(PANEL_X)
            sin_t, cos_t = sincos(muladd(half, PANEL_X[i], mid))
            part = muladd(PANEL_W[i], exp(-δ / (sin_t * sin_t) - h * k / (1 + cos_t)), part)
        end
        total = muladd(half, part, total)
        a = b
    end
    return INV_2PI * total
end

"""
    owens_t(h, a) = (1/2π) ∫ exp(-h²(1 + x²)/2)/(1 + x²) dx over x from 0 to a

Owen's function (D. B. Owen, Annals of Mathematical Statistics 27, 1956): with x = tan θ the same integral as
[`tetrachoric`](@ref) at k = 0.

    julia> owens_t(0.0, 1.0) == 1/8
    true
"""
function owens_t(h::Real, a::Real)
    r = hypot(1.0, Float64(a))
    ρ, s = isinf(a) ? (1.0, 0.0) : (abs(a) / r, 1 / r)
    return copysign(tetrachoric(Float64(h), 0.0, Float64(ρ), s), a)
end

"""
    bivariate_normal_cdf(h, k, ρ, s = √(1 - ρ²)) -> P(X ≤ h, Y ≤ k)

For standard normal X, Y of correlation ρ; give `s` where ρ is so near ±1 that it has lost digits. The integral over the
correlation is that of Z. Drezner and G. O. Wesolowsky (Journal of Statistical Computation and Simulation 35, 1990), as
in A. Genz (Statistics and Computing 14, 2004); its panels are ours.

    julia> bivariate_normal_cdf(0.0, 0.0, 0.5) ≈ 1/3
    true
"""
function bivariate_normal_cdf(h::Real, k::Real, ρ::Real, s::Real=sqrt((1 - ρ) * (1 + ρ)))
    -1 <= ρ <= 1 || throw(DomainError(ρ, "a correlation lies in [-1, 1]"))
    return min(max(bvn_cdf(Float64(h), Float64(k), Float64(ρ), Float64(s)), 0.0), 1.0)
end

bvn_cdf(h, k, ρ, s) = Φ(h) * Φ(k) + added_by_correlation(h, k, ρ, s)

"P(X ≤ h, Y ≤ k) - Φ(h) Φ(k)"
added_by_correlation(h::Float64, k::Float64, ρ::Float64, s::Float64) =
    ρ > 0 ? tetrachoric(h, k, ρ, s) : ρ < 0 ? -tetrachoric(h, -k, -ρ, s) : 0.0
