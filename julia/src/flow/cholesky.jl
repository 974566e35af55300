# Cholesky factors in place, in the lower triangle, without allocation. LAPACK for its own number types; a
# plain loop for the others.

"""
    cholesky_lower!(W) -> Bool

Overwrite the lower triangle of `W` with its Cholesky factor; `false` if `W` is not positive definite.
"""
cholesky_lower!(W::Matrix{<:LinearAlgebra.BlasReal}) =
    isempty(W) || LinearAlgebra.LAPACK.potrf!('L', W)[2] == 0

function cholesky_lower!(W::Matrix)
    n = size(W, 1)
    for j in 1:n
        for k in 1:j-1, i in j:n
            W[i, j] -= W[i, k] * W[j, k]
        end
        W[j, j] > 0 || return false          # also false for NaN
        pivot = sqrt(W[j, j])
        for i in j:n
            W[i, j] /= pivot
        end
    end
    return true
end

"Solve `W u = b` in place of `b`, from the factor that `cholesky_lower!` left in `W`."
function cholesky_solve!(W::Matrix{T}, b::Vector{T}) where {T<:LinearAlgebra.BlasReal}
    isempty(b) || LinearAlgebra.LAPACK.potrs!('L', W, b)
    return b
end

function cholesky_solve!(W::Matrix{T}, b::Vector{T}) where {T}
    n = length(b)
    for j in 1:n
        b[j] /= W[j, j]
        for i in j+1:n
            b[i] -= W[i, j] * b[j]
        end
    end
    for j in n:-1:1
        for i in j+1:n
            b[j] -= W[i, j] * b[i]
        end
        b[j] /= W[j, j]
    end
    return b
end
