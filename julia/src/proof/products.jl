# Matrices of intervals as midpoints and radii, whose products BLAS computes (S. M. Rump, *Fast and parallel interval
# arithmetic*, BIT 39, 1999). What rounding does to them is bounded beforehand: a sum of n products in Float64, in
# whatever order, with or without fused operations, is off by at most γ(n) times the sum of their absolute values, plus
# half the least positive number for each product (N. J. Higham, *Accuracy and Stability of Numerical Algorithms*, 2002,
# ch. 3). Each bound is a sum of nonnegative numbers and bounded in the same way.

const Balls = Array{Interval{Float64}}
const LEAST = 5.0e-324

"At least n u/(1 − n u) with u = 2⁻⁵³, for n up to 2⁵¹."
γ(n::Int) = n * 2.0^-52

"At least what a sum of nonnegative numbers is that took `n` operations and gave `x`."
at_most(x::Float64, n::Int) = above(above(x * (1 + γ(n))) + n * LEAST)

"At least what rounding does to a sum of `n` products for one of absolute value `x`, without subnormal numbers."
rounding(n::Int, x::Float64) = x == 0 ? 0.0 : max(γ(n) * abs(x), 1e-300)

const BALL_TILE = 128        # columns: with 256 samples the tiles of a product take a megabyte and a half

"""
    split_columns!(M, R, A, a, n, p)

Midpoints of the first `n` rows and `p` columns of the panel `A`, after the first `a`, in `M`, radii in `R`.
"""
function split_columns!(M::Matrix{Float64}, R::Matrix{Float64}, A::Panel, a::Int, n::Int, p::Int)
    @inbounds for j in 1:p, i in 1:n
        M[i, j], R[i, j] = midpoint_radius(A.data[A.first+i-1+A.ld*(a+j-1)])
    end
    return nothing
end

# |ab − m n| ≤ |m| s + r (|n| + s) for a in m ± r, b in n ± s; with rounding |m| (s + γ|n|) + r (|n| + s).
function gram!(C::Panel{<:Balls}, p::Int, q::Int, A::Panel{Matrix{Interval{Float64}}},
               B::Panel{Matrix{Interval{Float64}}}, n::Int, lower::Bool=false)
    w = min(BALL_TILE, max(p, q))
    M, R, N, S = (zeros(n, w) for _ in 1:4)
    left, right = zeros(2n, w), zeros(2n, w)
    product, radius = zeros(w, w), zeros(w, w)
    for j0 in 0:w:q-1
        k = min(w, q - j0)
        split_columns!(N, S, B, j0, n, k)
        @inbounds for j in 1:k, r in 1:n
            right[r, j] = S[r, j] + rounding(n, N[r, j])
            right[n+r, j] = abs(N[r, j]) + S[r, j]
        end
        for i0 in (lower ? j0 : 0):w:p-1
            m = min(w, p - i0)
            split_columns!(M, R, A, i0, n, m)
            @inbounds for i in 1:m, r in 1:n
                left[r, i] = abs(M[r, i])
                left[n+r, i] = R[r, i]
            end
            gemm!('T', 'N', m, k, n, Panel(M), Panel(N), Panel(fill!(product, 0)))
            gemm!('T', 'N', m, k, 2n, Panel(left), Panel(right), Panel(fill!(radius, 0)))
            @inbounds for j in 1:k, i in (lower && i0 == j0 ? j : 1):m
                ρ = at_most(radius[i, j], 4n + 8)
                c = C.first - 1 + i0 + i + C.ld * (j0 + j - 1)
                C.data[c] += finite_or_entire(below(product[i, j] - ρ), above(product[i, j] + ρ))
            end
        end
    end
    return nothing
end

"""
    contraction(A, H, free) -> Z

At least ‖I − A K‖_∞ for every matrix K in the rows and columns `free` of `H`.
"""
function contraction(A::Matrix{Float64}, H::Matrix{Interval{Float64}}, free::Vector{Int})
    P, w = length(free), min(64, length(free))
    M, G = zeros(P, w), zeros(P, w)
    sums, radii = zeros(P), zeros(P)
    for j0 in 0:w:P-1
        k = min(w, P - j0)
        @inbounds for j in 1:k, i in 1:P
            m, r = midpoint_radius(H[free[i], free[j0+j]])
            M[i, j] = m
            radii[i] += r + rounding(P, m)
        end
        gemm!('N', 'N', P, k, P, Panel(A), Panel(M), Panel(fill!(G, 0)))
        @inbounds for j in 1:k, i in 1:P
            sums[i] += abs(G[i, j] - (i == j0 + j))
        end
    end
    add_products!(sums, A, radii)
    return at_most(maximum(sums) + P * (P * LEAST), 6P + 8)
end

"y += |A| x for x ≥ 0"
function add_products!(y::Vector{Float64}, A::Matrix{Float64}, x::Vector{Float64})
    @inbounds for j in axes(A, 2), i in axes(A, 1)
        y[i] += abs(A[i, j]) * x[j]
    end
    return y
end

"""
    eigenvalue_bounds(H, free, V, d) -> lower, upper

Bounds of the eigenvalues, ascending, of every symmetric matrix in the rows and columns `free` of `H`, which `V` nearly
diagonalises to `d` (ascending).

With K = M + D, M the midpoints and |D| at most the radii: eigenvalues move by at most ‖D‖_∞ (Weyl); those of VᵀMV
differ from `d` by at most ‖VᵀMV − diag(d)‖₁, and from those of M by factors between the extreme eigenvalues of VᵀV
(Ostrowski; R. A. Horn and C. R. Johnson, *Matrix Analysis*, 2013, theorems 4.3.1 and 4.5.9).
"""
function eigenvalue_bounds(H::Matrix{Interval{Float64}}, free::Vector{Int}, V::Matrix{Float64}, d::Vector{Float64})
    P, w = length(free), min(64, length(free))
    M, W, E = zeros(P, w), zeros(P, w), zeros(P, w)
    spread, rows, mass = zeros(P), zeros(P), zeros(P)            # ‖D‖; a = |V| e; |M| a
    @inbounds for j in 1:P, i in 1:P
        rows[i] += abs(V[i, j])
    end
    @inbounds for j in 1:P, i in 1:P
        m, r = midpoint_radius(H[free[i], free[j]])
        spread[i] += r
        mass[i] += abs(m) * rows[j]
    end
    skew = turned = 0.0
    for j0 in 0:w:P-1
        k = min(w, P - j0)
        fill!(W, 0)
        for l0 in 0:w:P-1
            n = min(w, P - l0)
            @inbounds for l in 1:n, i in 1:P
                M[i, l] = midpoint_radius(H[free[i], free[l0+l]])[1]
            end
            gemm!('N', 'N', P, k, n, Panel(M), Panel(V, 1 + l0 + P * j0, P), Panel(W))
        end
        gemm!('T', 'N', P, k, P, Panel(V), Panel(W), Panel(fill!(E, 0)))
        @inbounds for j in 1:k
            off = error = 0.0
            for i in 1:P
                off += abs(E[i, j] - (i == j0 + j ? d[i] : 0.0))
                error += rows[i] * abs(W[i, j]) + mass[i] * abs(V[i, j0+j])
            end
            turned = larger_or_nan(turned, off + γ(P + 1) * error)
        end
        gemm!('T', 'N', P, k, P, Panel(V), Panel(V, j0 + 1), Panel(fill!(E, 0)))
        @inbounds for j in 1:k
            off = error = 0.0
            for i in 1:P
                off += abs(E[i, j] - (i == j0 + j))
                error += rows[i] * abs(V[i, j0+j])
            end
            skew = larger_or_nan(skew, off + γ(P) * error)
        end
    end
    tiny = P * (P * (P * LEAST))
    δ, ε, ρ = at_most(skew + tiny, 8P + 8), at_most(turned + tiny, 8P + 8), at_most(maximum(spread), 2P)
    lower, upper = fill(-Inf, P), fill(Inf, P)
    δ < 0.5 && isfinite(ε) && isfinite(ρ) || return lower, upper
    for i in 1:P
        λ = (Interval(d[i], d[i]) + Interval(-ε, ε)) / (1 + Interval(-δ, δ)) + Interval(-ρ, ρ)
        lower[i], upper[i] = λ.lo, λ.hi
    end
    return lower, upper
end

larger_or_nan(x::Float64, y::Float64) = isnan(x) || isnan(y) ? NaN : max(x, y)
