# Symmetric eigendecomposition in place, without allocation: LAPACK's divide and conquer for its own number types,
# Jacobi's method for the others.

"""
    SymmetricEigen{T}(n)

After [`decompose!`](@ref): `values`, in no particular order, and `vectors`, the columns belonging to them.
"""
struct SymmetricEigen{T<:AbstractFloat}
    values::Vector{T}
    vectors::Matrix{T}
    work::Vector{T}
    iwork::Vector{BLAS.BlasInt}
end

# The workspace that LAPACK's syevd asks for.
SymmetricEigen{T}(n::Int) where {T} =
    SymmetricEigen{T}(zeros(T, n), zeros(T, n, n), zeros(T, T <: BlasReal ? 1 + 6n + 2n^2 : n^2),
                      zeros(BLAS.BlasInt, T <: BlasReal ? 3 + 5n : 0))

const liblapack = isdefined(LinearAlgebra.BLAS, :libblastrampoline) ? libblas : Base.liblapack_name

for (T, syevd) in ((Float64, :dsyevd_), (Float32, :ssyevd_))
    syevd = :(LinearAlgebra.BLAS.@blasfunc($syevd))
    @eval function decompose!(e::SymmetricEigen{$T}, H::Matrix{$T})
        n = size(H, 1)
        n == 0 && return true
        A, w, work, iwork = e.vectors, e.values, e.work, e.iwork
        copyto!(A, H)
        info = Ref{BLAS.BlasInt}(0)
        GC.@preserve A w work iwork ccall(($syevd, liblapack), Cvoid,
            (Ref{UInt8}, Ref{UInt8}, Ref{BLAS.BlasInt}, Ptr{$T}, Ref{BLAS.BlasInt}, Ptr{$T}, Ptr{$T},
             Ref{BLAS.BlasInt}, Ptr{BLAS.BlasInt}, Ref{BLAS.BlasInt}, Ptr{BLAS.BlasInt}, Clong, Clong),
            'V', 'L', n, pointer(A), n, pointer(w), pointer(work), length(work), pointer(iwork), length(iwork), info,
            1, 1)
        return info[] == 0
    end
    @eval rotate!(out::Vector{$T}, trans::Char, e::SymmetricEigen{$T}, v::Vector{$T}) =
        isempty(v) ? out : LinearAlgebra.BLAS.gemv!(trans, one($T), e.vectors, v, zero($T), out)
end

"""
    decompose!(e, H) -> Bool

Eigenvalues and eigenvectors of the symmetric matrix `H`, of which the lower triangle is read. Jacobi's cyclic method
(Golub and Van Loan, Matrix Computations, 8.5).
"""
function decompose!(e::SymmetricEigen{T}, H::Matrix{T}) where {T}
    n = size(H, 1)
    V, A = e.vectors, reshape(e.work, n, n)
    for j in 1:n, i in j:n
        A[i, j] = A[j, i] = H[i, j]
        V[i, j] = V[j, i] = i == j
    end
    for sweep in 1:60
        off = zero(T)
        for q in 2:n, p in 1:q-1
            off += A[p, q]^2
        end
        off <= (eps(T) * sum(abs2, A))^2 && break
        for q in 2:n, p in 1:q-1
            iszero(A[p, q]) && continue
            τ = (A[q, q] - A[p, p]) / (2 * A[p, q])
            t = (τ >= 0 ? one(T) : -one(T)) / (abs(τ) + sqrt(1 + τ^2))
            c = 1 / sqrt(1 + t^2)
            s = t * c
            for k in 1:n
                A[k, p], A[k, q] = c * A[k, p] - s * A[k, q], s * A[k, p] + c * A[k, q]
            end
            for k in 1:n
                A[p, k], A[q, k] = c * A[p, k] - s * A[q, k], s * A[p, k] + c * A[q, k]
                V[k, p], V[k, q] = c * V[k, p] - s * V[k, q], s * V[k, p] + c * V[k, q]
            end
        end
    end
    for i in 1:n
        e.values[i] = A[i, i]
    end
    return true
end

"Into the basis of eigenvectors ('T') and out of it ('N')."
function rotate!(out::Vector{T}, trans::Char, e::SymmetricEigen{T}, v::Vector{T}) where {T}
    V = e.vectors
    fill!(out, zero(T))
    for j in eachindex(v), i in eachindex(v)
        trans == 'N' ? (out[i] += V[i, j] * v[j]) : (out[j] += V[i, j] * v[i])
    end
    return out
end
