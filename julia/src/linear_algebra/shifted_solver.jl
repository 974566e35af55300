# Solving (H + λI) s = b for many λ: reduce H once to tridiagonal form T = QᵀHQ, then every shift costs O(P).

"""
    ShiftedSolver{T}(P)

Workspace that answers `(H + λI)⁻¹ b` for one symmetric `H` and many shifts. Householder reduction to
tridiagonal form (Golub & Van Loan, Matrix Computations, §8.3.1; 4P³/3 operations, plain loops, any
number type) and an LDLᵀ factorisation of the shifted tridiagonal matrix. Vectors live in the basis of `Q`:
use `rotate_in!` to enter and `rotate_out!` to leave it.
"""
struct ShiftedSolver{T<:AbstractFloat}
    reflectors::Matrix{T}   # column k holds the k-th Householder vector below the diagonal
    scale::Vector{T}        # its 2/‖v‖²
    diagonal::Vector{T}
    offdiagonal::Vector{T}
    pivot::Vector{T}        # of the LDLᵀ factorisation at the last shift
    lower::Vector{T}
    work::Vector{T}
end
function ShiftedSolver{T}(P::Int) where {T}
    z() = zeros(T, P)
    return ShiftedSolver{T}(zeros(T, P, P), z(), z(), z(), z(), z(), z())
end

"Reduce the symmetric matrix `H` (its lower triangle is read)."
function reduce!(S::ShiftedSolver{T}, H::Matrix{T}) where {T}
    A, w = S.reflectors, S.work
    P = size(A, 1)
    copyto!(A, H)
    @inbounds for k in 1:P-1
        S.diagonal[k] = A[k, k]
        largest = zero(T)
        for i in k+2:P
            largest = max(largest, abs(A[i, k]))
        end
        first = A[k+1, k]
        if iszero(largest)
            S.scale[k] = zero(T)
            S.offdiagonal[k] = first
            continue
        end
        largest = max(largest, abs(first))
        norm2 = zero(T)
        for i in k+1:P
            norm2 += abs2(A[i, k] / largest)
        end
        beta = -copysign(largest * sqrt(norm2), first)
        S.offdiagonal[k] = beta
        pivot = first - beta
        for i in k+2:P
            A[i, k] /= pivot
        end
        A[k+1, k] = one(T)
        tau = -pivot / beta
        S.scale[k] = tau
        # w = τ A v from the lower triangle of the trailing block
        for i in k+1:P
            w[i] = zero(T)
        end
        for j in k+1:P
            vj = A[j, k]
            s = zero(T)
            @simd for i in j+1:P
                w[i] = muladd(vj, A[i, j], w[i])
                s = muladd(A[i, j], A[i, k], s)
            end
            w[j] += vj * A[j, j] + s
        end
        wv = zero(T)
        @simd for i in k+1:P
            wv = muladd(w[i], A[i, k], wv)
        end
        half = tau * tau * wv / 2
        @simd for i in k+1:P
            w[i] = tau * w[i] - half * A[i, k]
        end
        for j in k+1:P
            vj, wj = A[j, k], w[j]
            @simd for i in j:P
                A[i, j] -= A[i, k] * wj + w[i] * vj
            end
        end
    end
    S.diagonal[P] = A[P, P]
    S.offdiagonal[P] = zero(T)
    return S
end

"`v ← Qᵀ v`."
function rotate_in!(S::ShiftedSolver{T}, v::Vector{T}) where {T}
    for k in 1:length(v)-2
        apply_reflector!(S, v, k)
    end
    return v
end

"`v ← Q v`."
function rotate_out!(S::ShiftedSolver{T}, v::Vector{T}) where {T}
    for k in length(v)-2:-1:1
        apply_reflector!(S, v, k)
    end
    return v
end

"The k-th reflection of the P numbers of `v` behind the first `offset`."
function apply_reflector!(S::ShiftedSolver{T}, v::Array{T}, k::Int, offset::Int=0) where {T}
    iszero(S.scale[k]) && return v
    A, P = S.reflectors, length(S.scale)
    s = zero(T)
    @inbounds begin
        @simd for i in k+1:P
            s = muladd(A[i, k], v[offset+i], s)
        end
        s *= S.scale[k]
        @simd for i in k+1:P
            v[offset+i] = muladd(-s, A[i, k], v[offset+i])
        end
    end
    return v
end

"Upper bound of the spectral norm (Gershgorin discs of the tridiagonal matrix)."
function norm_bound(S::ShiftedSolver{T}) where {T}
    bound = zero(T)
    @inbounds for i in eachindex(S.diagonal)
        left = i == 1 ? zero(T) : abs(S.offdiagonal[i-1])
        bound = max(bound, abs(S.diagonal[i]) + left + abs(S.offdiagonal[i]))
    end
    return bound
end

"Factor `T + shift I = L D Lᵀ`; false when it is not positive definite."
function factor!(S::ShiftedSolver{T}, shift::T) where {T}
    d, e, pivot, lower = S.diagonal, S.offdiagonal, S.pivot, S.lower
    P = length(d)
    @inbounds begin
        p = d[1] + shift
        p > 0 || return false
        pivot[1] = p
        for i in 1:P-1
            l = e[i] / p
            p = (d[i+1] + shift) - l * e[i]
            p > 0 || return false
            lower[i] = l
            pivot[i+1] = p
        end
    end
    return true
end

"`y ← (T + shift I)⁻¹ b` with the last factorisation; `y === b` is allowed."
function solve!(y::Vector{T}, S::ShiftedSolver{T}, b::Vector{T}) where {T}
    P = length(b)
    @inbounds begin
        y[1] = b[1]
        for i in 2:P
            y[i] = b[i] - S.lower[i-1] * y[i-1]
        end
        y[P] /= S.pivot[P]
        for i in P-1:-1:1
            y[i] = y[i] / S.pivot[i] - S.lower[i] * y[i+1]
        end
    end
    return y
end

"`vᵀ T v`."
function quadratic_form(S::ShiftedSolver{T}, v::Vector{T}) where {T}
    P = length(v)
    s = zero(T)
    @inbounds for i in 1:P-1
        s += v[i] * (S.diagonal[i] * v[i] + 2 * S.offdiagonal[i] * v[i+1])
    end
    return s + S.diagonal[P] * v[P]^2
end
