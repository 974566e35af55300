# Numbers that are known to lie between two bounds. Every operation rounds outwards, so that what comes out contains
# whatever the exact operation gives for any numbers in the operands (R. E. Moore, Interval Analysis, 1966).

"""
    Interval(lo, hi)
    Interval{T}(x)

The real numbers from `lo` to `hi`, both of type `T`: Float64, whose results are moved by at least one unit in the last
place, or BigFloat, which MPFR rounds in the direction asked for. `Interval{T}(x)` contains the exact x. What is not
finite or not defined somewhere in its operands is [`entire`](@ref).
"""
struct Interval{T<:Union{Float64,BigFloat}} <: AbstractFloat
    lo::T
    hi::T
    Interval{T}(lo::T, hi::T) where {T} = new{T}(lo, hi)
end
Interval(lo::T, hi::T) where {T} = Interval{T}(lo, hi)

"Nothing is known."
entire(::Type{Interval{T}}) where {T} = Interval{T}(T(-Inf), T(Inf))

Base.show(io::IO, x::Interval) = print(io, "[", x.lo, ", ", x.hi, "]")

# ---- rounding ---------------------------------------------------------------------------------------------------

const DOWN, UP, NEAREST = Int32(3), Int32(2), Int32(0)      # MPFR_RNDD, MPFR_RNDU, MPFR_RNDN

# A number below the exact result that was rounded to x. 2⁻⁵²|x| is exact and at least one unit in the last place of a
# normal x, 2⁻¹⁰⁷⁴ is that of a subnormal one, so that the difference is at most the predecessor of x before it is
# rounded, and rounding keeps the order (cf. S. M. Rump, P. Zimmermann, S. Boldo and G. Melquiond, BIT 49, 2009).
@inline below(x::Float64) = x - (abs(x) * 2.0^-52 + 5.0e-324)
@inline above(x::Float64) = x + (abs(x) * 2.0^-52 + 5.0e-324)

for (f, name) in ((:sum_to, :mpfr_add), (:difference_to, :mpfr_sub), (:product_to, :mpfr_mul),
                  (:quotient_to, :mpfr_div))
    into = Symbol(f, :!)
    @eval function $into(z::BigFloat, x::BigFloat, y::BigFloat, direction::Int32)
        ccall(($(QuoteNode(name)), :libmpfr), Int32, (Ref{BigFloat}, Ref{BigFloat}, Ref{BigFloat}, Int32), z, x, y,
              direction)
        return z
    end
    @eval $f(x::BigFloat, y::BigFloat, direction::Int32) = $into(BigFloat(), x, y, direction)
end

for name in (:exp, :expm1, :log, :log1p, :sqrt, :erf, :erfc, :sin, :cos, :sinh, :cosh, :tanh, :atan, :asinh, :asin)
    @eval @inline function round_into!(z::BigFloat, ::Val{$(QuoteNode(name))}, x::BigFloat, direction::Int32)
        ccall(($(QuoteNode(Symbol(:mpfr_, name))), :libmpfr), Int32, (Ref{BigFloat}, Ref{BigFloat}, Int32), z, x,
              direction)
        return z
    end
end
rounded(f::Val, x::BigFloat, direction::Int32) = round_into!(BigFloat(), f, x, direction)

# In a number of 53 bits and MPFR's range of exponents, which then is rounded once more in the same direction.
function rounded(f::Val, x::Float64, direction::Int32)
    z = scratch()
    ccall((:mpfr_set_d, :libmpfr), Int32, (Ref{BigFloat}, Float64, Int32), z, x, NEAREST)
    return to_float64(round_into!(z, f, z, direction), direction)
end
"A number of 53 bits that this task overwrites again and again: a Hessian of a thousand rows would make a million."
scratch() = get!(() -> BigFloat(; precision=53), task_local_storage(), :scratch_of_intervals)::BigFloat

to_float64(x::BigFloat, direction::Int32) =
    ccall((:mpfr_get_d, :libmpfr), Float64, (Ref{BigFloat}, Int32), x, direction)

# ---- to and from other numbers ------------------------------------------------------------------------------------

Interval{T}(x::Interval{T}) where {T} = x
Interval{Float64}(x::Interval{BigFloat}) = Interval(to_float64(x.lo, DOWN), to_float64(x.hi, UP))
Interval{BigFloat}(x::Interval{Float64}) = Interval{BigFloat}(exact_big(x.lo), exact_big(x.hi))

Interval{Float64}(x::Union{Float64,Float32,Int32,Bool}) = (y = Float64(x); Interval(y, y))
Interval{Float64}(x::BigFloat) = Interval(to_float64(x, DOWN), to_float64(x, UP))
Interval{BigFloat}(x::Union{Float64,Float32,Int64,Int32,Bool}) = (y = exact_big(x); Interval(y, y))
Interval{BigFloat}(x::BigFloat) = Interval(x, x)
Interval{T}(x::Real) where {T} = around(T(x), x)    # an integer or π, which T(x) rounds to the nearest
Interval{T}(x::Rational{S}) where {T,S} = Interval{T}(numerator(x)) / Interval{T}(denominator(x))
around(y, x) = y == x ? Interval(y, y) : Interval(prevfloat(y), nextfloat(y))

"In as many bits as it has, at least 64, whatever the precision of BigFloat is."
exact_big(x) = BigFloat(x; precision=max(64, precision(BigFloat)))

Base.promote_rule(::Type{Interval{T}}, ::Type{<:Real}) where {T} = Interval{T}
Base.promote_rule(::Type{Interval{T}}, ::Type{Jet{S}}) where {T,S<:Real} = Jet{promote_type(Interval{T}, S)}
Base.float(x::Interval) = x
Base.zero(::Type{Interval{T}}) where {T} = Interval{T}(zero(T), zero(T))
Base.one(::Type{Interval{T}}) where {T} = Interval{T}(one(T), one(T))
Base.zero(x::Interval) = zero(typeof(x))
Base.one(x::Interval) = one(typeof(x))
Base.eps(::Type{Interval{T}}) where {T} = eps(T)

Base.isfinite(x::Interval) = isfinite(x.lo) && isfinite(x.hi)
Base.isnan(x::Interval) = isnan(x.lo) || isnan(x.hi)
Base.isinf(x::Interval) = !isfinite(x)
Base.in(x::Real, y::Interval) = y.lo <= x <= y.hi

"The number in the middle, rounded, and one that is at least as far from it as both bounds are."
function midpoint_radius(x::Interval{Float64})
    m = x.lo / 2 + x.hi / 2
    return m, above(max(above(x.hi - m), above(m - x.lo)))
end

"The largest absolute value."
magnitude(x::Interval) = max(abs(x.lo), abs(x.hi))

"The least interval that contains both."
@inline hull(x::Interval{T}, y::Interval{T}) where {T} =
    isnan(x) || isnan(y) ? entire(Interval{T}) : Interval{T}(x.lo < y.lo ? x.lo : y.lo, x.hi > y.hi ? x.hi : y.hi)

# ---- order ------------------------------------------------------------------------------------------------------

"What comparing two intervals gives where it holds for some of their numbers and not for others."
struct Undecided end

@inline select(::Undecided, x::Interval, y::Interval) = hull(x, y)

@inline Base.:<(x::Interval{T}, y::Interval{T}) where {T} = x.hi < y.lo ? true : x.lo >= y.hi ? false : Undecided()
@inline Base.:<=(x::Interval{T}, y::Interval{T}) where {T} = x.hi <= y.lo ? true : x.lo > y.hi ? false : Undecided()
@inline Base.:(==)(x::Interval{T}, y::Interval{T}) where {T} =
    x.lo == x.hi == y.lo == y.hi ? true : x.hi < y.lo || y.hi < x.lo ? false : Undecided()
Base.isless(x::Interval{T}, y::Interval{T}) where {T} = x < y
for op in (:<, :<=, :(==)), Exact in (:Integer, :Rational, :AbstractIrrational, :Float32, :Float64, :BigFloat)
    @eval @inline Base.$op(x::Interval{T}, y::$Exact) where {T} = $op(x, Interval{T}(y))
    @eval @inline Base.$op(x::$Exact, y::Interval{T}) where {T} = $op(Interval{T}(x), y)
end

"Any choice will do where both do."
exceeds(x::Interval, y::Interval) = x.lo + x.hi > y.lo + y.hi
may_be_positive(x::Interval) = !(x.hi <= 0)
@inline off_jump(x::Interval) = x.lo <= 0 <= x.hi || isnan(x) ? entire(typeof(x)) : zero(x)
@inline bend(x::Interval) = x.lo < 0 < x.hi || isnan(x) ? entire(typeof(x)) : zero(x)

@inline Base.abs(x::Interval{T}) where {T} =
    x.lo >= 0 ? x : x.hi <= 0 ? -x : Interval{T}(zero(T), max(-x.lo, x.hi))
@inline Base.max(x::Interval{T}, y::Interval{T}) where {T} = Interval{T}(max(x.lo, y.lo), max(x.hi, y.hi))
@inline Base.min(x::Interval{T}, y::Interval{T}) where {T} = Interval{T}(min(x.lo, y.lo), min(x.hi, y.hi))

# ---- arithmetic in Float64 ----------------------------------------------------------------------------------------

@inline Base.:-(x::Interval{T}) where {T} = Interval{T}(-x.hi, -x.lo)
@inline Base.:+(x::Interval) = x

# A sum is exact where a term or the sum is zero; it never underflows.
@inline lower_sum(x::Float64, y::Float64) = (s = x + y; ifelse((x == 0) | (y == 0) | (s == 0), s, below(s)))
@inline upper_sum(x::Float64, y::Float64) = (s = x + y; ifelse((x == 0) | (y == 0) | (s == 0), s, above(s)))
@inline finite_or_entire(lo::Float64, hi::Float64) =
    ifelse(isfinite(lo) & isfinite(hi), Interval(lo, hi), Interval(-Inf, Inf))

@inline Base.:+(x::Interval{Float64}, y::Interval{Float64}) =
    finite_or_entire(lower_sum(x.lo, y.lo), upper_sum(x.hi, y.hi))
@inline Base.:-(x::Interval{Float64}, y::Interval{Float64}) = x + -y

@inline smaller(x::Float64, y::Float64) = ifelse(x < y, x, y)
@inline larger(x::Float64, y::Float64) = ifelse(x > y, x, y)

@inline function Base.:*(x::Interval{Float64}, y::Interval{Float64})
    a, b, c, d = x.lo * y.lo, x.lo * y.hi, x.hi * y.lo, x.hi * y.hi
    isfinite((a + b) + (c + d)) || return Interval(-Inf, Inf)
    none = (x.lo == 0) & (x.hi == 0) | (y.lo == 0) & (y.hi == 0)
    lo, hi = smaller(smaller(a, b), smaller(c, d)), larger(larger(a, b), larger(c, d))
    return ifelse(none, Interval(0.0, 0.0), finite_or_entire(below(lo), above(hi)))
end

@inline function Base.inv(x::Interval{Float64})
    (x.lo > 0) | (x.hi < 0) || return Interval(-Inf, Inf)
    return finite_or_entire(below(1 / x.hi), above(1 / x.lo))
end
@inline function Base.:/(x::Interval{Float64}, y::Interval{Float64})
    (y.lo > 0) | (y.hi < 0) || return Interval(-Inf, Inf)
    a, b, c, d = x.lo / y.lo, x.lo / y.hi, x.hi / y.lo, x.hi / y.hi
    isfinite((a + b) + (c + d)) || return Interval(-Inf, Inf)
    lo, hi = smaller(smaller(a, b), smaller(c, d)), larger(larger(a, b), larger(c, d))
    return ifelse((x.lo == 0) & (x.hi == 0), Interval(0.0, 0.0), finite_or_entire(below(lo), above(hi)))
end
function Base.sqrt(x::Interval{Float64})
    x.lo >= 0 || return Interval(-Inf, Inf)
    return finite_or_entire(max(0.0, below(sqrt(x.lo))), iszero(x.hi) ? 0.0 : above(sqrt(x.hi)))
end

# ---- arithmetic in BigFloat ---------------------------------------------------------------------------------------

const BigInterval = Interval{BigFloat}

finite_or_entire(lo::BigFloat, hi::BigFloat) = isfinite(lo) && isfinite(hi) ? Interval(lo, hi) : entire(BigInterval)

Base.:+(x::BigInterval, y::BigInterval) = finite_or_entire(sum_to(x.lo, y.lo, DOWN), sum_to(x.hi, y.hi, UP))
Base.:-(x::BigInterval, y::BigInterval) =
    finite_or_entire(difference_to(x.lo, y.hi, DOWN), difference_to(x.hi, y.lo, UP))

function Base.:*(x::BigInterval, y::BigInterval)
    isfinite(x) && isfinite(y) || return entire(BigInterval)
    if x.lo >= 0
        a, b = y.lo >= 0 ? x.lo : x.hi, y.hi >= 0 ? x.hi : x.lo
        return finite_or_entire(product_to(a, y.lo, DOWN), product_to(b, y.hi, UP))
    elseif x.hi <= 0
        a, b = y.hi >= 0 ? x.lo : x.hi, y.lo >= 0 ? x.hi : x.lo
        return finite_or_entire(product_to(a, y.hi, DOWN), product_to(b, y.lo, UP))
    elseif y.lo >= 0 || y.hi <= 0
        return y * x
    end
    return finite_or_entire(min(product_to(x.lo, y.hi, DOWN), product_to(x.hi, y.lo, DOWN)),
                            max(product_to(x.lo, y.lo, UP), product_to(x.hi, y.hi, UP)))
end

function Base.inv(x::BigInterval)
    x.lo > 0 || x.hi < 0 || return entire(BigInterval)
    return finite_or_entire(quotient_to(BigFloat(1), x.hi, DOWN), quotient_to(BigFloat(1), x.lo, UP))
end
Base.:/(x::BigInterval, y::BigInterval) = x * inv(y)
function Base.sqrt(x::BigInterval)
    x.lo >= 0 || return entire(BigInterval)
    return Interval(rounded(Val(:sqrt), x.lo, DOWN), rounded(Val(:sqrt), x.hi, UP))
end

@inline Base.muladd(x::Interval{T}, y::Interval{T}, z::Interval{T}) where {T} = x * y + z
# The bounds of a product are numbers of its own, which the sum overwrites.
function Base.muladd(x::BigInterval, y::BigInterval, z::BigInterval)
    s = x * y
    return finite_or_entire(sum_to!(s.lo, s.lo, z.lo, DOWN), sum_to!(s.hi, s.hi, z.hi, UP))
end
Base.abs2(x::Interval) = x * x
function Base.:^(x::Interval, n::Integer)
    n < 0 && return inv(x^-n)
    y = n == 0 ? one(x) : Base.power_by_squaring(x, n)
    return iseven(n) ? max(y, zero(y)) : y
end
Base.literal_pow(::typeof(^), x::Interval, ::Val{n}) where {n} = x^n
Base.literal_pow(::typeof(^), x::Interval, ::Val{-1}) = inv(x)

# ---- elementary functions -----------------------------------------------------------------------------------------

for name in (:exp, :expm1, :sinh, :tanh, :atan, :asinh)                 # they grow everywhere
    @eval Base.$name(x::Interval) = increasing(Val($(QuoteNode(name))), x)
end
function increasing(f::Val, x::Interval)
    isfinite(x) || return entire(typeof(x))
    return finite_or_entire(rounded(f, x.lo, DOWN), rounded(f, x.hi, UP))
end
erf(x::Interval) = increasing(Val(:erf), x)
function erfc(x::Interval)
    isfinite(x) || return entire(typeof(x))
    return finite_or_entire(rounded(Val(:erfc), x.hi, DOWN), rounded(Val(:erfc), x.lo, UP))
end
Base.log(x::Interval) = x.lo > 0 ? increasing(Val(:log), x) : entire(typeof(x))
Base.log1p(x::Interval) = x.lo > -1 ? increasing(Val(:log1p), x) : entire(typeof(x))
Base.asin(x::Interval) = x.lo >= -1 && x.hi <= 1 ? increasing(Val(:asin), x) : entire(typeof(x))
function Base.cosh(x::Interval)
    y = abs(x)
    return increasing(Val(:cosh), y)
end

# Neither moves further than its argument.
for name in (:sin, :cos)
    @eval function Base.$name(x::Interval{T}) where {T}
        isfinite(x) || return entire(typeof(x))
        m = x.lo
        y = Interval{T}(rounded(Val($(QuoteNode(name))), m, DOWN), rounded(Val($(QuoteNode(name))), m, UP))
        w = x - Interval{T}(m, m)
        z = y + Interval{T}(-w.hi, w.hi)
        return Interval{T}(max(z.lo, T(-1)), min(z.hi, T(1)))
    end
end
Base.sincos(x::Interval) = (sin(x), cos(x))

fast_erf(x::Interval, gauss=nothing) = erf(x)
normal_cdf_pdf(x::Interval{T}, gauss=half_gauss(x)) where {T} =
    (erfc(-x / sqrt(Interval{T}(2))) / 2, gauss / sqrt(2 * Interval{T}(pi)))
