# Householder's QR decomposition of a tall matrix that comes in blocks of rows; its normal equations would lose half
# the digits.

"""
    TallQR{T}(P, rows)

The triangular factor `R` of a matrix of P columns, and for each of its blocks of rows, `rows[b]` of them, the
reflections that took it in: block b holds vectors whose first number, a one in a row of `R`, is left out, and
`scale[b]` their 2/‖v‖².
"""
struct TallQR{T<:AbstractFloat}
    R::Matrix{T}
    blocks::Vector{Matrix{T}}
    scale::Vector{Vector{T}}
end
TallQR{T}(P::Int, rows) where {T} =
    TallQR{T}(zeros(T, P, P), [zeros(T, n, P) for n in rows], [zeros(T, P) for _ in rows])

"Take the rows that are in block `b` into `R` (Golub & Van Loan, Matrix Computations, 5.1 and 6.5.3)."
function take_in!(q::TallQR{T}, b::Int) where {T}
    R, V, scale = q.R, q.blocks[b], q.scale[b]
    n, P = size(V)
    @inbounds for k in 1:P
        largest = abs(R[k, k])
        for i in 1:n
            largest = max(largest, abs(V[i, k]))
        end
        scale[k] = zero(T)
        iszero(largest) && continue
        s = abs2(R[k, k] / largest)
        @simd for i in 1:n
            s += abs2(V[i, k] / largest)
        end
        first = R[k, k]
        beta = -copysign(largest * sqrt(s), first)
        pivot = first - beta
        @simd for i in 1:n
            V[i, k] /= pivot
        end
        R[k, k] = beta
        tau = scale[k] = -pivot / beta
        for j in k+1:P
            s = R[k, j]
            @simd for i in 1:n
                s = muladd(V[i, k], V[i, j], s)
            end
            s *= tau
            R[k, j] -= s
            @simd for i in 1:n
                V[i, j] = muladd(-s, V[i, k], V[i, j])
            end
        end
    end
    return q
end

"Apply the reflections of block `b` to a right-hand side: `z` belongs to the rows of `R`, `e` to those of the block."
function reflect!(z::AbstractVector{T}, e::AbstractVector{T}, q::TallQR{T}, b::Int) where {T}
    V, scale = q.blocks[b], q.scale[b]
    n, P = size(V)
    @inbounds for k in 1:P
        iszero(scale[k]) && continue
        s = z[k]
        @simd for i in 1:n
            s = muladd(V[i, k], e[i], s)
        end
        s *= scale[k]
        z[k] -= s
        @simd for i in 1:n
            e[i] = muladd(-s, V[i, k], e[i])
        end
    end
    return z
end

"`z ← R⁻¹ z`"
function back_substitute!(z::AbstractVector{T}, q::TallQR{T}) where {T}
    R = q.R
    @inbounds for k in length(z):-1:1
        z[k] /= R[k, k]
        s = z[k]
        @simd for i in 1:k-1
            z[i] = muladd(-s, R[i, k], z[i])
        end
    end
    return z
end

"The largest number on the diagonal of `R`."
function largest_pivot(q::TallQR{T}) where {T}
    m = zero(T)
    for k in 1:size(q.R, 1)
        m = max(m, abs(q.R[k, k]))
    end
    return m
end
