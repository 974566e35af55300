# Matrices turned over in registers, four numbers by four.

"Numbers of `x` and `y`, one after the other and counted from 0, in the order of `Order`."
@inline @generated function shuffle(x::Vec{4,T}, y::Vec{4,T}, ::Val{Order}) where {T,Order}
    t, D = llvm_type(T), NTuple{4,VecElement{T}}
    order = join(("i32 $i" for i in Order), ", ")
    code = "%r = shufflevector <4 x $t> %0, <4 x $t> %1, <4 x i32> <$order>\nret <4 x $t> %r"
    return :(Vec{4,T}(Base.llvmcall($code, $D, Tuple{$D,$D}, x.data, y.data)))
end

"The rows of a 4 × 4 matrix whose columns are given."
@inline function transposed(a::V, b::V, c::V, d::V) where {V<:Vec{4}}
    ab, AB = shuffle(a, b, Val((0, 4, 2, 6))), shuffle(a, b, Val((1, 5, 3, 7)))
    cd, CD = shuffle(c, d, Val((0, 4, 2, 6))), shuffle(c, d, Val((1, 5, 3, 7)))
    return (shuffle(ab, cd, Val((0, 1, 4, 5))), shuffle(AB, CD, Val((0, 1, 4, 5))),
            shuffle(ab, cd, Val((2, 3, 6, 7))), shuffle(AB, CD, Val((2, 3, 6, 7))))
end

"B[j:j+3, i:i+3] = A[i:i+3, j:j+3]ᵀ"
@inline function transpose_tile!(B::Matrix{T}, A::Matrix{T}, i::Int, j::Int) where {T<:BlasReal}
    V, la, lb = Vec{4,T}, size(A, 1), size(B, 1)
    from, to = (j - 1) * la + i, (i - 1) * lb + j
    GC.@preserve A B begin
        a, b, c, d = transposed(load(V, A, from), load(V, A, from + la), load(V, A, from + 2la), load(V, A, from + 3la))
        store!(B, to, a)
        store!(B, to + lb, b)
        store!(B, to + 2lb, c)
        store!(B, to + 3lb, d)
    end
    return nothing
end

"B = Aᵀ for the first `m` rows and `p` columns of `A`, and up to three more: both matrices must have them."
function transpose_into!(B::Matrix{T}, A::Matrix{T}, m::Int, p::Int) where {T<:BlasReal}
    for i in 1:4:m, j in 1:4:p
        transpose_tile!(B, A, i, j)
    end
    return B
end

"""
Copy the lower triangle to the upper one, in tiles that fit into cache: 401 × 401 numbers in registers 21 µs, one by one
39 µs.
"""
function mirror!(H::Matrix{T}) where {T<:BlasReal}
    P, tile = size(H, 1), 32
    whole = P - mod(P, 4)
    for J in 1:tile:whole, I in J:tile:whole, j in J:4:min(J + tile - 1, whole)
        I == J && mirror_block!(H, j, j + 3)
        for i in max(I, j + 4):4:min(I + tile - 1, whole)
            transpose_tile!(H, H, i, j)
        end
    end
    @inbounds for i in whole+1:P, j in 1:i-1
        H[j, i] = H[i, j]
    end
    return H
end
mirror!(H) = mirror_block!(H, 1, size(H, 1))

function mirror_block!(H, first::Int, last::Int)
    @inbounds for j in first:last, i in j+1:last
        H[j, i] = H[i, j]
    end
    return H
end
