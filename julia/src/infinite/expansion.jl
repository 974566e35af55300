# Coefficients of f(r x + b) and its derivatives in orthonormal Hermite polynomials he_k. Integration by parts gives
# those of f and f' from those of f'': B_k = r C_{k-1}/√k, A_k = r B_{k-1}/√k.

const REACH = 12.5                   # he_k(x) φ(x) < 1e-16 beyond, for every k: it is bounded by 0.6 exp(-x²/4)
const FINEST = 7                     # the step of the trapezoid at level l is 2^-l

"""
    HermiteTable

Trapezoidal rule of step 2^-level on [0, REACH]: `x`, a row for each node, those of the coarser level first, then those
between them, each half padded to a multiple of `LANES` (the first has
`half` rows); `T[row, k+1]` is step · φ(x) he_k(x).
"""
struct HermiteTable
    x::Vector{Float64}
    T::Matrix{Float64}
    half::Int
end

function HermiteTable(level::Int)
    h = 2.0^-level
    J = ceil(Int, REACH / h)
    padded(js) = (n = cld(length(js), LANES) * LANES; (Float64[h * js[min(i, length(js))] for i in 1:n], length(js)))
    (even, n_even), (odd, n_odd) = padded(0:2:J), padded(1:2:J)
    x = [even; odd]
    T = zeros(length(x), TERMS)
    for i in eachindex(x)
        i <= n_even || length(even) < i <= length(even) + n_odd || continue
        w = h * exp(-x[i]^2 / 2) / sqrt(2pi) * (x[i] == 0 ? 0.5 : 1.0)    # both ±0 are counted
        p, q = 0.0, w
        for k in 1:TERMS
            T[i, k] = q
            p, q = q, (x[i] * q - sqrt(k - 1) * p) / sqrt(k)
        end
    end
    return HermiteTable(x, T, length(even))
end

const TABLES = Vector{Union{Nothing,HermiteTable}}(nothing, FINEST)
function table(level::Int)
    t = TABLES[level]
    t === nothing || return t::HermiteTable
    return (TABLES[level] = HermiteTable(level))::HermiteTable
end

"""
    expand!(p::Neuron, nodes, stage)

Make the first `STAGES[stage]` coefficients of `p` valid.
"""
function expand!(p::Neuron, nodes::Nodes, stage::Int)
    p.stage >= stage && return nothing
    if p.r == 0 || !isfinite(p.r + p.b)
        expand_constant!(p)
    elseif p.kind == exponential
        expand_exponential!(p)
    elseif p.kind == rectified
        expand_rectified!(p)
    elseif p.kind == piecewise || (is_sharp(p, p.r) && needed_level(p) > FINEST)
        expand_by_panels!(p, nodes)
    else
        expand_smooth!(p, nodes, stage)
    end
    return nothing
end

"A, B, C1 and C2 up to `terms` from A₀, B₀ and C, and the size of C at the end of each stage up to `to`."
function finish!(p::Neuron, terms::Int, to::Int)
    A, B, C, r = p.A, p.B, p.C, p.r
    C[terms+1] = C[terms+2] = B[terms+2] = 0
    p.C1[terms+1] = p.C1[terms+2] = p.C2[terms+1] = p.C2[terms+2] = 0
    s = A[1]^2
    @inbounds for k in 1:terms
        B[k+1] = r * C[k] / sqrt(k)
        p.C1[k] = sqrt(k) * C[k+1]
        p.C2[k] = sqrt(k * (k + 1)) * C[k+2]
    end
    @inbounds for k in 1:terms+1
        A[k+1] = r * B[k] / sqrt(k)
        s += A[k+1]^2
    end
    p.norm, p.terms, p.stage = sqrt(s), terms, to
    for m in 1:to
        last = 0.0
        K = min(STAGES[m], terms)
        for k in max(K - 15, 1):K
            last += C[k]^2
        end
        p.decay[m] = sqrt(last / 16)
    end
    return nothing
end

complete!(p::Neuron, terms::Int) = (finish!(p, terms, length(STAGES)); terms < TERMS && fill!(p.decay, 0); nothing)

function expand_constant!(p::Neuron)
    p.A[1], p.B[1], p.C[1] = p.r == p.r ? derivatives(p.activation, p.b) : (NaN, NaN, NaN)
    complete!(p, 1)
end

function expand_exponential!(p::Neuron)
    c = exp(p.b + p.r^2 / 2)
    p.A[1] = p.B[1] = c
    for k in 1:TERMS
        p.C[k] = c
        c *= p.r / sqrt(k)
    end
    complete!(p, TERMS)
end

"Add jump · δ(h - kink) to the coefficients of f''."
function add_kink!(p::Neuron, kink::Float64, jump::Float64)
    t = (kink - p.b) / p.r
    last, this = 0.0, jump * φ(t) / p.r
    @inbounds for k in 1:TERMS
        p.C[k] += this
        last, this = this, (t * this - sqrt(k - 1) * last) / sqrt(k)
    end
    return nothing
end

function expand_rectified!(p::Neuron)
    t = p.b / p.r
    p.A[1], p.B[1] = p.b * Φ(t) + p.r * φ(t), Φ(t)
    fill!(p.C, 0)
    add_kink!(p, 0.0, 1.0)
    complete!(p, TERMS)
end

function expand_by_panels!(p::Neuron, nodes::Nodes)
    panels_for!(nodes, p, p.r, p.b, REACH, min(1.0, longest_panel(p, p.r)))
    n = nodes.n
    evaluate_at!(p, nodes, p.r, p.b)
    A0 = B0 = 0.0
    fill!(p.C, 0)
    @inbounds for i in 1:n
        A0 = muladd(nodes.w[i], nodes.H[i], A0)
        B0 = muladd(nodes.w[i], nodes.D[i], B0)
        nodes.H[i], nodes.D[i] = nodes.w[i] * nodes.S[i], 0.0             # he_k and he_{k-1}, weighted
    end
    @inbounds for k in 1:TERMS
        a, b, s = 1 / sqrt(k), sqrt((k - 1) / k), 0.0
        @simd for i in 1:n
            this = nodes.H[i]
            s += this
            nodes.H[i] = a * nodes.x[i] * this - b * nodes.D[i]
            nodes.D[i] = this
        end
        p.C[k] = s
    end
    p.A[1], p.B[1] = A0, B0
    for (kink, jump) in zip(p.kinks, p.jumps)
        add_kink!(p, kink, jump)
    end
    complete!(p, TERMS)
end

function expand_smooth!(p::Neuron, nodes::Nodes, stage::Int)
    wanted = p.degree >= 0 ? max(p.degree - 1, 1) : STAGES[stage]
    p.stage == 0 && sample!(p, nodes, first_level(p))
    # Halving the step squares the error of the trapezoidal rule.
    while !((transform!(p, wanted) <= 1e-6 * p.scale && p.resolved) || p.degree >= 0)
        p.level == FINEST && throw(ArgumentError(
            "the activation $(p.activation) is too sharp at a weight norm of $(p.r) for the integrals over infinite " *
            "data"))
        sample!(p, nodes, p.level + 1)
    end
    p.measured = p.level == first_level(p) ? p.bandwidth : (2pi * 2.0^p.level - 20) / p.r
    p.degree >= 0 ? complete!(p, wanted) : finish!(p, wanted, stage)
    return nothing
end

# The transform of he_k φ reaches to √k + 6.
needed_level(p::Neuron) = max(ceil(Int, log2((p.bandwidth * p.r + 20) / 2pi)), 2)
first_level(p::Neuron) = min(needed_level(p), FINEST)

"The rule of that level: A₀, B₀, and f''(x) ± f''(-x) at its nodes in `p.even` and `p.odd`."
function sample!(p::Neuron, nodes::Nodes, level::Int)
    t = table(level)
    x, rows = t.x, length(t.x)
    reserve!(nodes, rows)
    resize!(p.even, rows)
    resize!(p.odd, rows)
    H, D, S, even, odd = nodes.H, nodes.D, nodes.S, p.even, p.odd
    @inbounds @simd for i in 1:rows
        H[i, 1] = muladd(p.r, x[i], p.b)
        H[i, 2] = muladd(-p.r, x[i], p.b)
    end
    nodes.n = rows
    unknown(evaluate!)(p.activation, nodes, 1)
    unknown(evaluate!)(p.activation, nodes, 2)
    A0 = B0 = change = squares = size = peak = 0.0
    @inbounds @simd for i in 1:rows
        w, f = t.T[i, 1], H[i, 1] + H[i, 2]
        A0 = muladd(w, f, A0)
        B0 = muladd(w, D[i, 1] + D[i, 2], B0)
        change += ifelse(i <= t.half, w, -w) * f
        squares += w * (H[i, 1] * H[i, 1] + H[i, 2] * H[i, 2])
        peak = max(peak, abs(S[i, 1]), abs(S[i, 2]))
        even[i], odd[i] = S[i, 1] + S[i, 2], S[i, 1] - S[i, 2]
        size += w * (even[i] * even[i] + odd[i] * odd[i])
    end
    # Where f'' comes from beyond the nodes, 1e-14 of the largest value seen stands for nothing.
    p.A[1], p.B[1], p.scale, p.level, p.transformed = A0, B0, max(sqrt(size / 2), 1e-8 * peak), level, 0
    # Between two nodes a step of f may hide all of f''; f itself shows it. Relative to the size of f, not of f(x) +
    # f(-x), of which an odd function whose bias has come down to round-off leaves nothing but rounding.
    p.resolved = !(abs(change) > 1e-6 * sqrt(squares))
    return nothing
end

"The coefficients that are missing up to `terms`; returns how much the two halves of the rule differ in them."
function transform!(p::Neuron, terms::Int)
    T = table(p.level).T
    rows, half, error = size(T, 1), table(p.level).half, 0.0
    for k in p.transformed+1:terms
        f = k % 2 == 1 ? p.even : p.odd
        s1, s2 = hermite_dot(f, T, k, 1, half), hermite_dot(f, T, k, half + 1, rows)
        p.C[k] = s1 + s2
        error = ifelse(abs(s1 - s2) <= error, error, abs(s1 - s2))           # NaN stays
    end
    p.transformed = terms
    return isfinite(error) ? error : 0.0
end

@inline function hermite_dot(f, T, k, from, to)
    s = 0.0
    @inbounds @simd for i in from:to
        s = muladd(f[i], T[i, k], s)
    end
    return s
end
