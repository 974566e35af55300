"""
    Jet(value, first, second)

A number with first and second derivative by one variable: forward-mode differentiation for users' activations.
Rules: (f∘u)' = f'u', (f∘u)'' = f''u'² + f'u''.
"""
struct Jet{T<:Real} <: Real
    value::T
    first::T
    second::T
end
Jet(x::Real) = Jet(x, zero(x), zero(x))
Jet{T}(x::Real) where {T<:Real} = Jet{T}(T(x), zero(T), zero(T))
Jet{T}(x::Jet) where {T<:Real} = Jet{T}(T(x.value), T(x.first), T(x.second))

Base.convert(::Type{Jet{T}}, x::Jet{T}) where {T<:Real} = x
Base.promote_rule(::Type{Jet{T}}, ::Type{S}) where {T<:Real,S<:Real} = Jet{T}
Base.promote_rule(::Type{BigFloat}, ::Type{Jet{T}}) where {T<:Real} = Jet{BigFloat}      # Base's own would be BigFloat
Base.promote_rule(::Type{Jet{T}}, ::Type{Jet{S}}) where {T<:Real,S<:Real} = Jet{promote_type(T, S)}
Base.float(x::Jet) = x
Base.zero(::Type{Jet{T}}) where {T} = Jet{T}(zero(T), zero(T), zero(T))
Base.one(::Type{Jet{T}}) where {T} = Jet{T}(one(T), zero(T), zero(T))
Base.zero(x::Jet) = zero(typeof(x))
Base.one(x::Jet) = one(typeof(x))

"f∘x from f, f', f'' at x.value"
@inline chain(x::Jet, f, d, s) = Jet(f, d * x.first, muladd(s, x.first * x.first, d * x.second))

@inline Base.:-(x::Jet) = Jet(-x.value, -x.first, -x.second)
@inline Base.:+(x::Jet{T}, y::Jet{T}) where {T} = Jet(x.value + y.value, x.first + y.first, x.second + y.second)
@inline Base.:-(x::Jet{T}, y::Jet{T}) where {T} = Jet(x.value - y.value, x.first - y.first, x.second - y.second)
@inline Base.:*(x::Jet{T}, y::Jet{T}) where {T} =
    Jet(x.value * y.value, x.first * y.value + x.value * y.first,
        x.second * y.value + 2 * x.first * y.first + x.value * y.second)
@inline Base.inv(x::Jet) = (v = inv(x.value); chain(x, v, -v * v, 2 * v * v * v))
@inline Base.:/(x::Jet{T}, y::Jet{T}) where {T} = x * inv(y)

@inline Base.:^(x::Jet, n::Integer) = n == 0 ? one(x) :
                                      chain(x, x.value^n, n * x.value^(n - 1), n * (n - 1) * x.value^(n - 2))
@inline Base.literal_pow(::typeof(^), x::Jet, ::Val{n}) where {n} = x^n
@inline Base.:^(x::Jet, y::Real) = chain(x, x.value^y, y * x.value^(y - 1), y * (y - 1) * x.value^(y - 2))
@inline Base.:^(x::Jet, y::Rational) = x^oftype(x.value, y)
@inline Base.:^(x::Jet, y::Jet) = exp(y * log(x))
@inline Base.:^(x::Real, y::Jet) = exp(y * log(x))
@inline Base.:^(::Irrational{:ℯ}, y::Jet) = exp(y)

@inline Base.exp(x::Jet) = (e = fast_exp(x.value); chain(x, e, e, e))
@inline Base.expm1(x::Jet) = (e = fast_exp(x.value); chain(x, expm1(x.value), e, e))
@inline Base.log(x::Jet) = (v = inv(x.value); chain(x, log(x.value), v, -v * v))
@inline Base.log1p(x::Jet) = (v = inv(1 + x.value); chain(x, log1p(x.value), v, -v * v))
@inline Base.sqrt(x::Jet) = (r = sqrt(x.value); chain(x, r, inv(2r), -inv(4 * r * x.value)))
@inline Base.sin(x::Jet) = ((s, c) = sincos(x.value); chain(x, s, c, -s))
@inline Base.cos(x::Jet) = ((s, c) = sincos(x.value); chain(x, c, -s, -c))
@inline Base.tan(x::Jet) = (t = tan(x.value); d = 1 + t * t; chain(x, t, d, 2 * t * d))
@inline Base.atan(x::Jet) = (d = inv(1 + x.value * x.value); chain(x, atan(x.value), d, -2 * x.value * d * d))
@inline Base.sinh(x::Jet) = (s = sinh(x.value); chain(x, s, cosh(x.value), s))
@inline Base.cosh(x::Jet) = (c = cosh(x.value); chain(x, c, sinh(x.value), c))
@inline Base.asinh(x::Jet) = (d = inv(sqrt(1 + x.value * x.value)); chain(x, asinh(x.value), d, -x.value * d * d * d))

# The kernels of our activations, so that these have third and fourth derivatives, too.
fast_exp(x::Jet) = exp(x)
@inline exp_expm1(x::Jet) = (e = exp_expm1(x.value); (chain(x, e[1], e[1], e[1]), chain(x, e[2], e[1], e[1])))
@inline function log1p_inv1p(x::Jet)
    l, v = log1p_inv1p(x.value)
    return chain(x, l, v, -v * v), chain(x, v, -v * v, 2 * v * v * v)
end
@inline half_gauss(x::Jet) = (g = half_gauss(x.value); chain(x, g, -x.value * g, (x.value * x.value - 1) * g))
@inline function fast_erf(x::Jet, gauss::Jet)
    d = 2 / sqrt(oftype(x.value, pi)) * gauss.value
    return chain(x, fast_erf(x.value, gauss.value), d, -2 * x.value * d)
end
@inline function normal_cdf_pdf(x::Jet, gauss::Jet)
    c, d = normal_cdf_pdf(x.value, gauss.value)
    return chain(x, c, d, -x.value * d), gauss / sqrt(2 * oftype(x.value, pi))
end

@inline Base.tanh(x::Jet) = chain(x, derivatives(tanh_, x.value)...)
@inline Base.abs(x::Jet) = ifelse(x.value < 0, -x, x)
@inline Base.sign(x::Jet) = Jet(sign(x.value))

# Kinks: the derivative of the branch taken. Base has methods of its own for floats and irrational numbers.
for op in (:<, :<=, :isless, :(==))
    @eval @inline Base.$op(x::Jet, y::Jet) = $op(x.value, y.value)
    for S in (:Real, :AbstractFloat, :AbstractIrrational)
        @eval @inline Base.$op(x::Jet, y::$S) = $op(x.value, y)
        @eval @inline Base.$op(x::$S, y::Jet) = $op(x, y.value)
    end
end
@inline Base.max(x::Jet{T}, y::Jet{T}) where {T} = ifelse(x.value < y.value, y, x)
@inline Base.min(x::Jet{T}, y::Jet{T}) where {T} = ifelse(y.value < x.value, y, x)
Base.isnan(x::Jet) = isnan(x.value)
Base.isfinite(x::Jet) = isfinite(x.value)

# Our activations are building blocks too, as in x -> x * sigmoid(2x).
@inline (a::Activation)(x::Jet) = chain(x, derivatives(a, x.value)...)
