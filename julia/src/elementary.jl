# Branch-free exp, log1p and expm1 for the block loops: plain arithmetic, selects and integer shifts, so that
# the compiler turns a loop over samples into vector instructions. `Base.exp` and friends branch or call out,
# which leaves the loop scalar (8 to 15 ns a call against under 1 ns here). Other number types take Base's.

"Samples per inner loop: every block is a multiple of this, so no loop has a scalar remainder."
const LANES = 16

"""
    @lanes r n body

Run `body` for `r` in `1:n`, `n` a multiple of `LANES`, in chunks of fixed length that vectorise. A plain
`1:n` loop is unrolled further and leaves up to 31 samples to a scalar tail, most of the time at small N.
"""
macro lanes(r, n, body)
    chunk = gensym(:chunk)
    return esc(quote
        for $chunk in 0:LANES:$n-LANES
            @simd ivdep for $r in $chunk+1:$chunk+LANES
                $body
            end
        end
    end)
end

# x = k ln2 + r with |r| <= ln2/2; adding and subtracting 1.5·2^(mantissa bits) rounds to an integer k and
# leaves k in the low bits of t. Taylor to degree 13 (7 in Float32) has a remainder below 1e-17 (1e-9).
const EXP_64 = (1.0, 1.0, 1/2, 1/6, 1/24, 1/120, 1/720, 1/5040, 1/40320, 1/362880, 1/3628800, 1/39916800,
                1/479001600, 1/6227020800)
const EXP_32 = map(Float32, EXP_64[1:8])

for (T, I, magic, bias, bits, lo, hi, ln2lo, coefs) in (
        (Float64, Int64, 6755399441055744.0, 1023, 52, -708.0, 709.0, 2.3190468138462996e-17, EXP_64),
        (Float32, Int32, 12582912.0f0, 127, 23, -87.0f0, 88.0f0, -1.9046542f-9, EXP_32))
    ln2hi = T(log(big(2)))
    log2e = T(1 / log(big(2)))
    @eval begin
        @inline function reduce_exp(x::$T)
            x = ifelse(x < $lo, $lo, x)
            t = muladd(x, $log2e, $magic)
            k = t - $magic
            r = muladd(k, $(-ln2hi), x)
            r = muladd(k, $(-ln2lo), r)
            n = reinterpret($I, t) << $(I(bits))
            return r, reinterpret($T, n + $(I(bias) << bits))
        end
        @inline function fast_exp(x::$T)
            r, scale = reduce_exp(ifelse(x > $hi, $hi, x))
            y = ifelse(x > $hi, $(T(Inf)), evalpoly(r, $coefs) * scale)
            return ifelse(x < $lo, $(zero(T)), y)
        end
        @inline function exp_expm1(x::$T)
            r, scale = reduce_exp(x)
            m = r * evalpoly(r, $(coefs[2:end]))
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

# log(m) = f - f²/2 + s(f²/2 + R(s²)), f = m - 1, s = f/(2 + f): the minimax R of FreeBSD's msun e_log.c/e_logf.c.
const LOG_64 = (6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
                2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
                1.479819860511658591e-01)
const LOG_32 = (0.66666662693f0, 0.40000972152f0, 0.28498786688f0, 0.24279078841f0)

for (T, coefs) in ((Float64, LOG_64), (Float32, LOG_32))
    sqrt2, ln2 = sqrt(T(2)), T(log(big(2)))
    @eval @inline function log1p_inv1p(e::$T)
        u = 1 + e
        c = e - (u - 1)                 # what rounding 1 + e lost
        big = u > $sqrt2
        f = ifelse(big, $(T(0.5)) * u, u) - 1
        d = 2 + f
        q = 1 / (u * d)                 # one division serves 1/u and f/(2 + f)
        v = q * d
        s = f * q * u
        z = s * s
        h = $(T(0.5)) * f * f
        return ifelse(big, $ln2, $(zero(T))) + (f - (h - s * muladd(z, evalpoly(z, $coefs), h)) + c * v), v
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
        @inline function erfc_tail(y::$T, gauss::$T)          # y >= 1, gauss = exp(-y²)
            w = 1 + 2y
            q = 1 / (w * (y + 4))
            t = (y - 4) * w * q
            return gauss * evalpoly(t, $tail) * (y + 4) * q
        end
        @inline function fast_erf(x::$T)
            y = abs(x)
            y = ifelse(y > $last, $last, y)
            e = 1 - erfc_tail(y, fast_exp(-y * y))
            return ifelse(y < 1, x * evalpoly(x * x, $small), ifelse(x < 0, -e, e))
        end
        @inline function normal_cdf_pdf(x::$T)
            y = abs(x) * $(sqrt(T(0.5)))
            y = ifelse(y > $last, $last, y)
            # exp(-x²/2) with the rounding error of x² given back: relative accuracy in the far tail too
            h = x * x
            gauss = fast_exp($(T(-0.5)) * h) * (1 - $(T(0.5)) * ifelse(h < $(sqrt(floatmax(T))), fma(x, x, -h), zero(x)))
            small = $(T(0.5)) * y * evalpoly(y * y, $small)
            tail = $(T(0.5)) * erfc_tail(y, gauss)
            lower = ifelse(y < 1, $(T(0.5)) - small, tail)     # Φ(-|x|)
            return ifelse(x < 0, lower, 1 - lower), $(inv(sqrt(2 * T(pi)))) * gauss
        end
    end
end

"""
    fast_erf(x)

The error function to 2 ulp, branch-free; `BigFloat` by MPFR.
"""
fast_erf(x::BigFloat) = mpfr(:erf, x)

"""
    normal_cdf_pdf(x) -> (Φ(x), φ(x))

Distribution function and density of the standard normal, with full relative accuracy in the lower tail.
"""
normal_cdf_pdf(x::BigFloat) = (mpfr(:erfc, -x / sqrt(big(2))) / 2, exp(-x * x / 2) / sqrt(2 * big(pi)))

function mpfr(name::Symbol, x::BigFloat)
    z = BigFloat()
    if name === :erf
        ccall((:mpfr_erf, :libmpfr), Int32, (Ref{BigFloat}, Ref{BigFloat}, Int32), z, x, 0)
    else
        ccall((:mpfr_erfc, :libmpfr), Int32, (Ref{BigFloat}, Ref{BigFloat}, Int32), z, x, 0)
    end
    return z
end
