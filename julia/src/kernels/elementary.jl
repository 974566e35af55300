# Branch-free exp, log1p and expm1 for the block loops: plain arithmetic, selects and integer shifts, so that
# the compiler turns a loop over samples into vector instructions. `Base.exp` and friends branch or call out,
# which leaves the loop scalar (8 to 15 ns a call against under 1 ns here). Other number types take Base's.

"A number or a vector of numbers of type `T`."
const Numbers{T} = Union{T,Vec{<:Any,T}}

# Horner's rule for the even and the odd powers: half as long a chain of dependent operations.
@inline polynomial(x, xx, c::Tuple) = muladd(x, horner(xx, odd_powers(c)), horner(xx, even_powers(c)))
@inline horner(x, c::Tuple{Any}) = oftype(x, c[1])
@inline horner(x, c::Tuple) = muladd(x, horner(x, Base.tail(c)), c[1])
@generated even_powers(c::Tuple) = Expr(:tuple, (:(c[$i]) for i in 1:2:fieldcount(c))...)
@generated odd_powers(c::Tuple) = Expr(:tuple, (:(c[$i]) for i in 2:2:fieldcount(c))...)

"""
    @lanes r n body

Run `body` for `r` in `1:n`, `n` a multiple of `LANES`, in chunks of fixed length that vectorise. A plain
`1:n` loop is unrolled further and leaves up to 31 samples to a scalar tail, most of the time at small N.
"""
macro lanes(r, n, body)
    chunk = gensym(:chunk)
    return esc(quote
        for $chunk in 0:WIDE:$n-WIDE
            @simd ivdep for $r in $chunk+1:$chunk+WIDE
                $body
            end
        end
        $(WIDE == LANES ? nothing : quote
            $n % WIDE == 0 || @simd ivdep for $r in $n-LANES+1:$n
                $body
            end
        end)
    end)
end

# x = k ln2 + r with |r| <= ln2/2; adding and subtracting 1.5·2^(mantissa bits) rounds to an integer k and
# leaves k in the low bits of t. e^r = 1 + r + r² Q(r); Q interpolates at Chebyshev nodes: relative error of e^r 2e-17
# (1e-8).
const EXP_64 = (0.5000000000000001, 0.16666666666666669, 0.04166666666662413, 0.008333333333330062,
                0.0013888888917213717, 0.00019841269863053618, 2.4801521295954376e-05, 2.7557268459997064e-06,
                2.7620088445409746e-07, 2.510038549551032e-08)
const EXP_32 = (0.5f0, 0.16666576f0, 0.041666552f0, 0.008363233f0, 0.001392625f0)

for (T, I, magic, bias, bits, lo, hi, ln2lo, coefs) in (
        (Float64, Int64, 6755399441055744.0, 1023, 52, -708.0, 709.0, 2.3190468138462996e-17, EXP_64),
        (Float32, Int32, 12582912.0f0, 127, 23, -87.0f0, 88.0f0, -1.9046542f-9, EXP_32))
    ln2hi = T(log(big(2)))
    log2e = T(1 / log(big(2)))
    @eval begin
        # e^r - 1 and 2ᵏ
        @inline function split_exp(x::Numbers{$T})
            x = select(x < $lo, $lo, x)
            t = muladd(x, $log2e, $magic)
            k = t - $magic
            r = muladd(k, $(-ln2hi), x)
            r = muladd(k, $(-ln2lo), r)
            rr = r * r
            return muladd(rr, polynomial(r, rr, $coefs), r), scale_bits(t, $(I(bits)), $(I(bias) << bits))
        end
        @inline function fast_exp(x::Numbers{$T})
            m, scale = split_exp(select(x > $hi, $hi, x))
            y = select(x > $hi, $(T(Inf)), muladd(m, scale, scale))
            return select(x < $lo, $(zero(T)), y)
        end
        @inline function exp_expm1(x::Numbers{$T})
            m, scale = split_exp(x)
            return muladd(m, scale, scale), muladd(m, scale, scale - 1)
        end
    end
end

"""
    fast_exp(x)

eˣ to 2 ulp for x >= log(floatmin), zero below (no subnormal numbers). NaN stays NaN, overflow is Inf.
"""
fast_exp(x) = exp(x)

"""
    exp_expm1(x) -> (eˣ, eˣ − 1)

For x <= 0, both to 2 ulp.
"""
exp_expm1(x) = (exp(x), expm1(x))

# log(1 + e) = 2 artanh(s) with s = e/(2 + e) <= 1/3, an odd function: 2s(1 + s² Q(s²)). Q interpolates at Chebyshev
# nodes: relative error 7e-18 (1e-9).
const ARTANH_64 = (0.3333333333333333, 0.20000000000007292, 0.1428571428355438, 0.11111111358713932,
                   0.09090894718066429, 0.07692785032479312, 0.06657072104827468, 0.06000536404795356,
                   0.04400369243072337, 0.08082022805971766)
const ARTANH_32 = (0.33333334f0, 0.19999853f0, 0.14296179f0, 0.108532876f0, 0.11612165f0)

for (T, coefs) in ((Float64, ARTANH_64), (Float32, ARTANH_32))
    @eval @inline function log1p_inv1p(e::Numbers{$T})
        u, d = 1 + e, 2 + e
        q = 1 / (u * d)                 # one division serves 1/u and e/d
        s = e * (u * q)
        z = s * s
        s2 = s + s
        return muladd(s2 * z, polynomial(z, z * z, $coefs), s2), q * d
    end
end

"""
    log1p_inv1p(e) -> (log(1 + e), 1/(1 + e))

For 0 <= e <= 1, both to 2 ulp with a single division.
"""
log1p_inv1p(e) = (log1p(e), inv(1 + e))

# erf is x P(x²) on [0, 1]; erfc is exp(-x²) Q(t)/(1 + 2x) with t = (x - 4)/(x + 4) on [1, 27] ([1, 10] in Float32),
# beyond which it underflows. Chebyshev interpolation at 60 digits: relative errors 5e-17 and 6e-17 (1e-9).
const ERF_64 = (1.1283791670955126, -0.37612638903183543, 0.11283791670945006, -0.02686617064323777,
                0.0052239776071164225, -0.0008548325975389692, 0.00012055294904839707, -1.492473690741966e-05,
                1.6447424703317362e-06, -1.6208483801871705e-07, 1.3720064546777686e-08, -7.795898827002142e-10)
const ERFC_64 = (1.2329951186255526, -0.13962111684056208, 0.015379652102624132, 0.06809705425462612,
                 -0.1010390660366234, 0.0937328350013173, -0.06633036580350803, 0.03716751547630097,
                 -0.01619773417360187, 0.005031970673725753, -0.0007577724583353905, -0.00019926143318270184,
                 0.00015061844364926304, -2.43792654970449e-05, -1.1216150157036454e-05, 5.6582617601788695e-06,
                 2.93741256006822e-07, -7.485665385927743e-07, 5.8632670800485456e-08, 5.2832487553960354e-08)
const ERF_32 = (1.1283791658483509f0, -0.37612626666720334f0, 0.11283594715160218f0, -0.026854212010626412f0,
                0.005189087423433974f0, -0.000801686428716587f0, 7.875875062685488f-05)
const ERFC_32 = (1.2329951187346504f0, -0.13962109607571407f0, 0.01537965123315873f0, 0.06809569939068363f0,
                 -0.10104015317275332f0, 0.09375690878204804f0, -0.06629926281975708f0, 0.03701080385686839f0,
                 -0.016468520538413293f0, 0.005336325319659717f0)

for (T, small, tail, last) in ((Float64, ERF_64, ERFC_64, 27.0), (Float32, ERF_32, ERFC_32, 10.0f0))
    @eval begin
        @inline function erfc_tail(y::Numbers{$T}, gauss)          # y >= 1, gauss = exp(-y²)
            w = 1 + 2 * y
            q = 1 / (w * (y + 4))
            t = (y - 4) * w * q
            return gauss * polynomial(t, t * t, $tail) * (y + 4) * q
        end
        @inline function fast_erf(x::Numbers{$T}, gauss=fast_exp(-x * x))
            y = abs(x)
            y = select(y > $last, $last, y)
            z = y * y
            e = 1 - erfc_tail(y, gauss)
            return select(y < 1, x * polynomial(z, z * z, $small), select(x < 0, -e, e))
        end
        # with the rounding error of x² given back: relative accuracy in the far tail too
        @inline function half_gauss(x::Numbers{$T})
            h = x * x
            lost = select(h < $(sqrt(floatmax(T))), fma(x, x, -h), zero(x))
            return fast_exp($(T(-0.5)) * h) * (1 - $(T(0.5)) * lost)
        end
        @inline function normal_cdf_pdf(x::Numbers{$T}, gauss=half_gauss(x))
            y = abs(x) * $(sqrt(T(0.5)))
            y = select(y > $last, $last, y)
            z = y * y
            small = $(T(0.5)) * y * polynomial(z, z * z, $small)
            tail = $(T(0.5)) * erfc_tail(y, gauss)
            lower = select(y < 1, $(T(0.5)) - small, tail)     # Φ(-|x|)
            return select(x < 0, lower, 1 - lower), $(inv(sqrt(2 * T(pi)))) * gauss
        end
    end
end

"""
    half_gauss(x)

exp(−x²/2).
"""
half_gauss(x) = exp(-x * x / 2)

"""
    fast_erf(x, gauss = exp(-x²))

The error function to 2 ulp, branch-free; `BigFloat` by MPFR.
"""
fast_erf(x::BigFloat, gauss=nothing) = mpfr(:erf, x)

"""
    normal_cdf_pdf(x, gauss = exp(-x²/2)) -> (Φ(x), φ(x))

Distribution function and density of the standard normal, with full relative accuracy in the lower tail.
"""
normal_cdf_pdf(x::BigFloat, gauss=half_gauss(x)) = (mpfr(:erfc, -x / sqrt(big(2))) / 2, gauss / sqrt(2 * big(pi)))

function mpfr(name::Symbol, x::BigFloat)
    z = BigFloat()
    if name === :erf
        ccall((:mpfr_erf, :libmpfr), Int32, (Ref{BigFloat}, Ref{BigFloat}, Int32), z, x, 0)
    else
        ccall((:mpfr_erfc, :libmpfr), Int32, (Ref{BigFloat}, Ref{BigFloat}, Int32), z, x, 0)
    end
    return z
end
