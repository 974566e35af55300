# Symmetric eigendecomposition in place, without allocation: Householder's reduction to tridiagonal form and the QL
# method with implicit shifts; LAPACK's divide and conquer for large matrices of its own number types.

"""
    SymmetricEigen{T}(n)

After [`decompose!`](@ref): `values`, in no particular order, and `vectors`, the columns belonging to them.
"""
struct SymmetricEigen{T<:AbstractFloat}
    values::Vector{T}
    vectors::Matrix{T}
    reduced::ShiftedSolver{T}
    work::Vector{T}
    iwork::Vector{BLAS.BlasInt}
end

"From how many rows on LAPACK is the faster one."
const LAPACK_EIGEN_ROWS = 128

function SymmetricEigen{T}(n::Int) where {T}
    lapack = T <: BlasReal && n >= LAPACK_EIGEN_ROWS
    work, iwork = lapack ? syevd_workspace(T, n) : (T[], BLAS.BlasInt[])
    return SymmetricEigen{T}(zeros(T, n), zeros(T, n, n), ShiftedSolver{T}(lapack ? 0 : n), work, iwork)
end

syevd_workspace(::Type{T}, n::Int) where {T} = zeros(T, 1 + 6n + 2n^2), zeros(BLAS.BlasInt, 3 + 5n)

"""
    decompose!(e, H) -> Bool

Eigenvalues and eigenvectors of the symmetric matrix `H`, of which the lower triangle is read; `false` if they were not
found.
"""
decompose!(e::SymmetricEigen{T}, H::Matrix{T}) where {T} = isempty(e.work) ? decompose_small!(e, H) :
    syevd!(copyto!(e.vectors, H), e.values, e.work, e.iwork) == 0

function decompose_small!(e::SymmetricEigen{T}, H::Matrix{T}) where {T}
    n = size(H, 1)
    n == 0 && return true
    reduce!(e.reduced, H)
    basis!(e.vectors, e.reduced)
    d, off = e.values, e.reduced.offdiagonal
    largest = zero(T)
    for i in 1:n
        d[i] = e.reduced.diagonal[i]
        largest = max(largest, abs(d[i]), abs(off[i]))
    end
    iszero(largest) && return true
    isfinite(largest) || return false
    for i in 1:n                    # so that no square overflows
        d[i] /= largest
        off[i] /= largest
    end
    diagonalise!(d, off, e.vectors) || return false
    for i in 1:n
        d[i] *= largest
    end
    return true
end

"The columns of Q, H = Q T Qᵀ: the product of the reflections, from the last one on."
function basis!(Q::Matrix{T}, S::ShiftedSolver{T}) where {T}
    n = size(Q, 1)
    fill!(Q, zero(T))
    for k in n:-1:1
        Q[k, k] = one(T)
        for j in k+1:n
            apply_reflector!(S, Q, k, (j - 1) * n)
        end
    end
    return Q
end

"""
    diagonalise!(d, off, V) -> Bool

Eigenvalues, into `d`, of the tridiagonal matrix of diagonal `d` and `off` beside it (Golub and Van Loan, Matrix
Computations, 8.3; Martin and Wilkinson, Numer. Math. 12 (1968) 377), of which no number is above one; the columns of
`V` are rotated along.
"""
function diagonalise!(d::Vector{T}, off::Vector{T}, V::Matrix{T}) where {T}
    n = length(d)
    @inbounds for first in 1:n
        for sweep in 0:60
            last = first
            # Relative to the whole: relative to its neighbours the method is slow where they fall by powers of ten.
            while last < n && abs(off[last]) > eps(T)
                last += 1
            end
            last == first && break
            sweep == 60 && return false
            # Wilkinson's shift
            g = (d[first+1] - d[first]) / (2 * off[first])
            g = d[last] - d[first] + off[first] / (g + copysign(sqrt(1 + g^2), g))
            s, c, p = one(T), one(T), zero(T)
            whole = true
            for i in last-1:-1:first
                f, b = s * off[i], c * off[i]
                r = sqrt(f^2 + g^2)
                off[i+1] = r
                if iszero(r)            # the matrix falls apart here
                    d[i+1] -= p
                    off[last] = zero(T)
                    whole = false
                    break
                end
                s, c = f / r, g / r
                g = d[i+1] - p
                r = (d[i] - g) * s + 2 * c * b
                p = s * r
                d[i+1] = g + p
                g = c * r - b
                rotate_columns!(V, i, c, s)
            end
            if whole
                d[first] -= p
                off[first], off[last] = g, zero(T)
            end
        end
    end
    return true
end

"Columns i and i + 1 of `V`, turned by the angle of cosine `c` and sine `s`."
@inline function rotate_columns!(V::Matrix{T}, i::Int, c::T, s::T) where {T}
    n = size(V, 1)
    a, b = (i - 1) * n, i * n
    @inbounds @simd for k in 1:n
        x, y = V[a+k], V[b+k]
        V[b+k] = muladd(s, x, c * y)
        V[a+k] = muladd(c, x, -s * y)
    end
    return nothing
end

const liblapack = isdefined(LinearAlgebra.BLAS, :libblastrampoline) ? libblas : Base.liblapack_name

for (T, syevd) in ((Float64, :dsyevd_), (Float32, :ssyevd_))
    syevd = :(LinearAlgebra.BLAS.@blasfunc($syevd))
    @eval function syevd!(A::Matrix{$T}, w::Vector{$T}, work::Vector{$T}, iwork::Vector{BLAS.BlasInt})
        n = size(A, 1)
        info = Ref{BLAS.BlasInt}(0)
        GC.@preserve A w work iwork ccall(($syevd, liblapack), Cvoid,
            (Ref{UInt8}, Ref{UInt8}, Ref{BLAS.BlasInt}, Ptr{$T}, Ref{BLAS.BlasInt}, Ptr{$T}, Ptr{$T},
             Ref{BLAS.BlasInt}, Ptr{BLAS.BlasInt}, Ref{BLAS.BlasInt}, Ptr{BLAS.BlasInt}, Clong, Clong),
            'V', 'L', n, pointer(A), max(1, n), pointer(w), pointer(work), length(work), pointer(iwork), length(iwork),
            info, 1, 1)
        return Int(info[])
    end
    @eval rotate!(out::Vector{$T}, trans::Char, e::SymmetricEigen{$T}, v::Vector{$T}) =
        isempty(v) ? out : LinearAlgebra.BLAS.gemv!(trans, one($T), e.vectors, v, zero($T), out)
end

const Eigenbasis{T} = NamedTuple{(:values, :vectors),Tuple{Vector{T},Matrix{T}}}

"""
    eigenpairs!(H; sparing = false) -> (values = …, vectors = …)

Ascending eigenvalues and eigenvectors of the symmetric matrix `H`, which must be finite; the eigenvectors take its
place. By LAPACK's divide and conquer, which works in two more matrices, or, to spare memory, by its QR method (1001
rows: 0.2 and 0.8 s). `eigen` calls another one, syevr, as quick as the first, which gives up on some clusters of
eigenvalues or, met with Hessians at huge weights and with Gram matrices of equal columns, goes on forever.
"""
function eigenpairs!(H::Matrix{T}; sparing::Bool=false) where {T<:BlasReal}
    all_finite(H) || throw(ArgumentError("a matrix with NaN or Inf has no eigenvectors"))
    # Its type is asserted: Julia 1.5's compiler aborts at the assignment of an array or a pair of arrays to two
    # variables.
    sparing && return (NamedTuple{(:values, :vectors)}(LAPACK.syev!('V', 'L', H)))::Eigenbasis{T}
    values, (work, iwork) = zeros(T, size(H, 1)), syevd_workspace(T, size(H, 1))
    info = syevd!(H, values, work, iwork)
    info == 0 || throw(LAPACKException(info))
    return (values=values, vectors=H)
end
eigenpairs(H::Matrix) = eigenpairs!(copy(H))

"Into the basis of eigenvectors ('T') and out of it ('N')."
function rotate!(out::Vector{T}, trans::Char, e::SymmetricEigen{T}, v::Vector{T}) where {T}
    V = e.vectors
    fill!(out, zero(T))
    for j in eachindex(v), i in eachindex(v)
        trans == 'N' ? (out[i] += V[i, j] * v[j]) : (out[j] += V[i, j] * v[i])
    end
    return out
end
