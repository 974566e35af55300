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

"What a product of `n` rows works in: midpoints and radii of some columns of either factor, and what bounds the radii."
struct BallProduct
    M::Matrix{Float64}
    R::Matrix{Float64}
    N::Matrix{Float64}
    S::Matrix{Float64}
    left::Matrix{Float64}
    right::Matrix{Float64}
    product::Matrix{Float64}
    radius::Matrix{Float64}
end
function BallProduct(n::Int)
    w = BALL_TILE
    return BallProduct((zeros(n, w) for _ in 1:4)..., zeros(2n, w), zeros(2n, w), zeros(w, w), zeros(w, w))
end
"The one of this task, which is kept from product to product."
ball_product(n::Int) = get!(() -> BallProduct(n), task_local_storage(), (BallProduct, n))::BallProduct

function clear_corner!(A::Matrix{Float64}, m::Int, k::Int)
    @inbounds for j in 1:k, i in 1:m
        A[i, j] = 0
    end
    return A
end

# |ab − m n| ≤ |m| s + r (|n| + s) for a in m ± r, b in n ± s; with rounding |m| (s + γ|n|) + r (|n| + s).
function gram!(C::Panel{<:Balls}, p::Int, q::Int, A::Panel{Matrix{Interval{Float64}}},
               B::Panel{Matrix{Interval{Float64}}}, n::Int, lower::Bool=false)
    w, t = BALL_TILE, ball_product(n)
    for j0 in 0:w:q-1
        k = min(w, q - j0)
        split_columns!(t.N, t.S, B, j0, n, k)
        @inbounds for j in 1:k, r in 1:n
            t.right[r, j] = t.S[r, j] + rounding(n, t.N[r, j])
            t.right[n+r, j] = abs(t.N[r, j]) + t.S[r, j]
        end
        for i0 in (lower ? j0 : 0):w:p-1
            m = min(w, p - i0)
            split_columns!(t.M, t.R, A, i0, n, m)
            @inbounds for i in 1:m, r in 1:n
                t.left[r, i] = abs(t.M[r, i])
                t.left[n+r, i] = t.R[r, i]
            end
            gemm!('T', 'N', m, k, n, Panel(t.M), Panel(t.N), Panel(clear_corner!(t.product, m, k)))
            gemm!('T', 'N', m, k, 2n, Panel(t.left), Panel(t.right), Panel(clear_corner!(t.radius, m, k)))
            @inbounds for j in 1:k, i in (lower && i0 == j0 ? j : 1):m
                ρ = at_most(t.radius[i, j], 4n + 8)
                c = C.first - 1 + i0 + i + C.ld * (j0 + j - 1)
                C.data[c] += finite_or_entire(below(t.product[i, j] - ρ), above(t.product[i, j] + ρ))
            end
        end
    end
    return nothing
end

# One thread works on the nets of proofs, and a share's own matrix would take as much memory as all else.
n_shares(::MatrixPass, net::Net{Interval{Float64}}) = 1

"""
    TwoMatrices(P)

Memory for two P×P matrices of numbers, or for one of intervals, which all that a proof has of this size lives in. It is
mapped, since what is taken from the heap and given back there may stay with the process.
"""
struct TwoMatrices
    numbers::Vector{Float64}
    P::Int
end
TwoMatrices(P::Int) = TwoMatrices(Mmap.mmap(Vector{Float64}, 2P^2; shared=false), P)

# The caller keeps the memory alive (`prove`).
"The first or the second as an n×n matrix."
sheet(m::TwoMatrices, which::Int, n::Int) = unsafe_wrap(Array, pointer(m.numbers, 1 + (which - 1) * m.P^2), (n, n))
"""
Give the pages of the memory back to the system, until they are written to again; what was there is lost. Nothing
happens where the system is another one than Linux.
"""
function release!(m::TwoMatrices)
    # 4 is MADV_DONTNEED; the memory begins with a page.
    Sys.islinux() && ccall(:madvise, Cint, (Ptr{Cvoid}, Csize_t, Cint), m.numbers, sizeof(m.numbers), 4)
    return nothing
end
interval_matrix(m::TwoMatrices) = unsafe_wrap(Array, Ptr{Interval{Float64}}(pointer(m.numbers)), (m.P, m.P))

"""
    midpoints!(m, free) -> M, radii

Of the matrix of intervals in `m` the midpoints of the rows and columns `free`, which take its place as the first
matrix, and for each row the sum of the radii, not rounded upwards.
"""
function midpoints!(m::TwoMatrices, free::Vector{Int})
    x, F, k = m.numbers, length(free), 0
    radii = zeros(F)
    # No number is written before it is read: the k-th comes from places 2k − 1 and 2k, or further on.
    @inbounds for j in free, i in 1:F
        place = 2 * (free[i] + m.P * (j - 1))
        middle, r = midpoint_radius(Interval(x[place-1], x[place]))
        x[k+=1] = middle
        radii[i] += r
    end
    return sheet(m, 1, F), radii
end

"""
    contraction(A, M, radii) -> Z

At least ‖I − A K‖_∞ for every matrix K with midpoints `M` and radii whose sums over rows are `radii`.
"""
function contraction(A::Matrix{Float64}, M::Matrix{Float64}, radii::Vector{Float64})
    P, w = size(M, 1), min(64, size(M, 1))
    G, sums, errors = zeros(P, w), zeros(P), copy(radii)
    for j0 in 0:w:P-1
        k = min(w, P - j0)
        gemm!('N', 'N', P, k, P, Panel(A), Panel(M, j0 + 1), Panel(fill!(G, 0)))
        @inbounds for j in 1:k, i in 1:P
            sums[i] += abs(G[i, j] - (i == j0 + j))
            errors[i] += rounding(P, M[i, j0+j])
        end
    end
    add_products!(sums, A, errors)
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
    eigenvalue_bounds(M, radii, V, d) -> lower, upper

Bounds of the eigenvalues, ascending, of every symmetric matrix with midpoints `M` and radii whose sums over rows are
`radii`; `V` nearly diagonalises M to `d` (ascending).

With K = M + D, |D| at most the radii: eigenvalues move by at most ‖D‖_∞ (Weyl); those of VᵀMV differ from `d` by at
most ‖VᵀMV − diag(d)‖₁, and from those of M by factors between the extreme eigenvalues of VᵀV (Ostrowski; R. A. Horn and
C. R. Johnson, *Matrix Analysis*, 2013, theorems 4.3.1 and 4.5.9).
"""
function eigenvalue_bounds(M::Matrix{Float64}, radii::Vector{Float64}, V::Matrix{Float64}, d::Vector{Float64})
    P, w = size(M, 1), min(64, size(M, 1))
    W, E = zeros(P, w), zeros(P, w)
    rows, mass = zeros(P), zeros(P)                              # a = |V| e; |M| a
    add_products!(rows, V, ones(P))
    add_products!(mass, M, rows)
    skew = turned = 0.0
    for j0 in 0:w:P-1
        k = min(w, P - j0)
        gemm!('N', 'N', P, k, P, Panel(M), Panel(V, j0 + 1), Panel(fill!(W, 0)))
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
    δ, ε, ρ = at_most(skew + tiny, 8P + 8), at_most(turned + tiny, 8P + 8), at_most(maximum(radii), 2P)
    lower, upper = fill(-Inf, P), fill(Inf, P)
    δ < 0.5 && isfinite(ε) && isfinite(ρ) || return lower, upper
    for i in 1:P
        λ = (Interval(d[i], d[i]) + Interval(-ε, ε)) / (1 + Interval(-δ, δ)) + Interval(-ρ, ρ)
        lower[i], upper[i] = λ.lo, λ.hi
    end
    return lower, upper
end

larger_or_nan(x::Float64, y::Float64) = isnan(x) || isnan(y) ? NaN : max(x, y)
