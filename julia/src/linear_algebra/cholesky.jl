# Cholesky factors in place, in the lower triangle, without allocation: for Float64 and Float32 in registers, column by
# column in blocks of four, as small matrices need it; a plain loop for other numbers. Microseconds, OpenBLAS 0.3.9
# beside: 33 rows 1.9 (5.3), a solution 0.65 (1.6); 201 rows 94 (157), a solution 5.8 (25).

"Columns of a block. The first one has what is left over, so that the rows below a block are a multiple of four."
const TILE = 4

"From how many rows on LAPACK's factor is the faster one."
const LAPACK_ROWS = 256

"""
    cholesky_lower!(W) -> Bool

Overwrite the lower triangle of `W` with its Cholesky factor, and what is above it with anything; `false` if `W` is not
positive definite.
"""
function cholesky_lower!(W::Matrix{T}) where {T<:BlasReal}
    n = size(W, 1)
    if n >= LAPACK_ROWS
        return LinearAlgebra.LAPACK.potrf!('L', W)[2] == 0 && W[n, n] > 0       # OpenBLAS takes NaN for positive
    end
    odd = rem(n, TILE)
    odd_block!(factor_block!, odd, W) || return false
    for j in odd+1:TILE:n
        factor_block!(Val(TILE), W, j) || return false
    end
    return true
end

"What `f!` makes of the first block, of `odd` columns; true if there is none."
@inline odd_block!(f!::F, odd::Int, arrays...) where {F} =
    odd == 1 ? f!(Val(1), arrays..., 1) : odd == 2 ? f!(Val(2), arrays..., 1) : odd == 3 ? f!(Val(3), arrays..., 1) :
        true

"Vectors W[i:…, j:j+K-1] − W[i:…, 1:j-1] W[j:j+K-1, 1:j-1]ᵀ."
@inline @generated function reduced_tile(::Val{K}, ::Type{V}, W::Matrix{T}, i::Int, j::Int) where {K,V,T}
    s = [Symbol(:s, q) for q in 1:K]
    return quote
        n = size(W, 1)
        $((:($x = zero(V)) for x in s)...)
        row, pivot = i, j
        GC.@preserve W for p in 1:j-1
            a = load(V, W, row)
            $((:(@inbounds $(s[q]) = muladd(a, W[pivot+$(q - 1)], $(s[q]))) for q in 1:K)...)
            row += n
            pivot += n
        end
        return GC.@preserve W $(Expr(:tuple, (:(load(V, W, row + $(q - 1) * n) - $(s[q])) for q in 1:K)...))
    end
end

"Columns j to j+K-1 of the factor from those before them; `false` at a pivot that is not positive."
function factor_block!(::Val{K}, W::Matrix{T}, j::Int) where {K,T}
    n = size(W, 1)
    if j > 1
        store_tile!(Val(K), W, j, j, reduced_tile(Val(K), Vec{TILE,T}, W, j, j))
    end
    @inbounds for c in j:j+K-1
        for r in j:c-1, i in c:j+K-1
            W[i, c] -= W[i, r] * W[c, r]
        end
        W[c, c] > 0 || return false          # also false for NaN
        W[c, c] = pivot = sqrt(W[c, c])
        scale = inv(pivot)
        for i in c+1:j+K-1
            W[i, c] *= scale
        end
    end
    i = j + K
    while i + 2 * TILE - 1 <= n
        factor_rows!(Val(K), Vec{2 * TILE,T}, W, i, j)
        i += 2 * TILE
    end
    i < n && factor_rows!(Val(K), Vec{TILE,T}, W, i, j)
    return true
end

@inline @generated function store_tile!(::Val{K}, W::Matrix, i::Int, j::Int, tile) where {K}
    return quote
        at, n = i + (j - 1) * size(W, 1), size(W, 1)
        GC.@preserve W begin
            $((:(store!(W, at + $(q - 1) * n, tile[$q])) for q in 1:K)...)
        end
        return nothing
    end
end

"As many rows from i on as `V` has numbers, of a block whose triangle is there."
@inline @generated function factor_rows!(::Val{K}, ::Type{V}, W::Matrix, i::Int, j::Int) where {K,V}
    x = [Symbol(:x, q) for q in 1:K]
    steps = [quote
        $((:($(x[q]) -= $(x[r]) * W[j+$(q - 1), j+$(r - 1)]) for r in 1:q-1)...)
        $(x[q]) *= inv(W[j+$(q - 1), j+$(q - 1)])
    end for q in 1:K]
    return quote
        $(Expr(:tuple, x...)) = reduced_tile(Val(K), V, W, i, j)
        @inbounds begin
            $(steps...)
        end
        return store_tile!(Val(K), W, i, j, $(Expr(:tuple, x...)))
    end
end

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
function cholesky_solve!(W::Matrix{T}, b::Vector{T}) where {T<:BlasReal}
    n = length(b)
    odd = rem(n, TILE)
    odd_block!(forward_block!, odd, W, b)
    for j in odd+1:TILE:n
        forward_block!(Val(TILE), W, b, j)
    end
    for j in n-TILE+1:-TILE:odd+1
        backward_block!(Val(TILE), W, b, j)
    end
    odd_block!(backward_block!, odd, W, b)
    return b
end

"b[j:j+K-1] of the solution of L y = b, taken out of the rows below."
@generated function forward_block!(::Val{K}, W::Matrix{T}, b::Vector{T}, j::Int) where {K,T}
    y = [Symbol(:y, q) for q in 1:K]
    triangle = [quote
        $((:($(y[q]) -= W[j+$(q - 1), j+$(r - 1)] * $(y[r])) for r in 1:q-1)...)
        b[j+$(q - 1)] = $(y[q]) *= inv(W[j+$(q - 1), j+$(q - 1)])
    end for q in 1:K]
    return quote
        n = size(W, 1)
        @inbounds begin
            $((:($(y[q]) = b[j+$(q - 1)]) for q in 1:K)...)
            $(triangle...)
        end
        column = (j - 1) * n
        GC.@preserve W b for i in j+K:TILE:n
            x = load(Vec{TILE,T}, b, i)
            $((:(x -= load(Vec{TILE,T}, W, column + $(q - 1) * n + i) * $(y[q])) for q in 1:K)...)
            store!(b, i, x)
        end
        return nothing
    end
end

"b[j:j+K-1] of the solution of Lᵀ x = b, the rows below being solved."
@generated function backward_block!(::Val{K}, W::Matrix{T}, b::Vector{T}, j::Int) where {K,T}
    x, s = [Symbol(:x, q) for q in 1:K], [Symbol(:s, q) for q in 1:TILE]
    triangle = [quote
        $((:($(x[q]) -= W[j+$(r - 1), j+$(q - 1)] * $(x[r])) for r in K:-1:q+1)...)
        b[j+$(q - 1)] = $(x[q]) *= inv(W[j+$(q - 1), j+$(q - 1)])
    end for q in K:-1:1]
    return quote
        n, column = size(W, 1), (j - 1) * size(W, 1)
        $((:($z = zero(Vec{TILE,T})) for z in s)...)
        GC.@preserve W b for i in j+K:TILE:n
            known = load(Vec{TILE,T}, b, i)
            $((:($(s[q]) = muladd(load(Vec{TILE,T}, W, column + $(q - 1) * n + i), known, $(s[q]))) for q in 1:K)...)
        end
        total = sums($(s...))
        @inbounds begin
            $((:($(x[q]) = b[j+$(q - 1)] - total.data[$q].value) for q in 1:K)...)
            $(triangle...)
        end
        return nothing
    end
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
