# C += AᵀB for tall, narrow A and B whose columns are samples: sums over samples of products of columns. Both operands
# run through memory along the sum, so a tile of 4 × 3 sums in registers needs no packing and is bound by arithmetic;
# OpenBLAS reached a fifth of that for 41 columns, half for 401.

"Four sums over a vector each."
@inline @generated function sums(a::Vec{W,T}, b::Vec{W,T}, c::Vec{W,T}, d::Vec{W,T}) where {W,T}
    t, code, names, w = llvm_type(T), "", ["%0", "%1", "%2", "%3"], W
    while w > 4
        h = div(w, 2)
        for (k, x) in enumerate(names)
            low, high = (join(("i32 $i" for i in from:from+h-1), ", ") for from in (0, h))
            code *= """
                %low$h$k = shufflevector <$w x $t> $x, <$w x $t> undef, <$h x i32> <$low>
                %high$h$k = shufflevector <$w x $t> $x, <$w x $t> undef, <$h x i32> <$high>
                %half$h$k = fadd <$h x $t> %low$h$k, %high$h$k
                """
            names[k] = "%half$h$k"
        end
        w = h
    end
    a, b, c, d = names
    pick(x, y, indices...) =
        "shufflevector <4 x $t> $x, <4 x $t> $y, <4 x i32> <$(join(("i32 $i" for i in indices), ", "))>"
    code *= """
        %ab0 = $(pick(a, b, 0, 4, 2, 6))
        %ab1 = $(pick(a, b, 1, 5, 3, 7))
        %ab = fadd <4 x $t> %ab0, %ab1
        %cd0 = $(pick(c, d, 0, 4, 2, 6))
        %cd1 = $(pick(c, d, 1, 5, 3, 7))
        %cd = fadd <4 x $t> %cd0, %cd1
        %low = $(pick("%ab", "%cd", 0, 1, 4, 5))
        %high = $(pick("%ab", "%cd", 2, 3, 6, 7))
        %r = fadd <4 x $t> %low, %high
        ret <4 x $t> %r"""
    D = NTuple{W,VecElement{T}}
    return :(Vec{4,T}(Base.llvmcall($code, NTuple{4,VecElement{T}}, Tuple{$D,$D,$D,$D}, a.data, b.data, c.data,
                                    d.data)))
end

"One register's worth."
register(::Type{T}) where {T<:BlasReal} = Vec{div(REGISTER, sizeof(T)),T}

"Vectors of four sums A[:, i:i+3]ᵀ B[:, j], …, A[:, i:i+3]ᵀ B[:, j+K-1] over `n` rows."
@inline @generated function tile(::Val{K}, A::Panel{Matrix{T}}, i::Int, B::Panel{Matrix{T}}, j::Int, n::Int) where {K,T}
    V, s = register(T), [Symbol(:s, p, :_, q) for p in 1:4, q in 1:K]
    return quote
        la, lb, a0, b0 = A.ld, B.ld, A.first - 1 + (i - 1) * A.ld, B.first - 1 + (j - 1) * B.ld
        a, b = A.data, B.data
        $((:($x = zero($V)) for x in s)...)
        GC.@preserve a b for r in 1:$(width(V)):n
            # The order matters: three registers for B, one for A and twelve sums are all there are.
            $((:($(Symbol(:b, q)) = load($V, b, b0 + $(q - 1) * lb + r)) for q in 1:K)...)
            $((quote
                x = load($V, a, a0 + $(p - 1) * la + r)
                $((:($(s[p, q]) = muladd(x, $(Symbol(:b, q)), $(s[p, q]))) for q in 1:K)...)
            end for p in 1:4)...)
        end
        return $(Expr(:tuple, (:(sums($(s[:, q]...))) for q in 1:K)...))
    end
end

@inline function add!(C::Array{T}, first::Int, rows::Int, x::Vec{4,T}) where {T}
    if rows >= 4
        GC.@preserve C store!(C, first, load(Vec{4,T}, C, first) + x)
    else
        @inbounds for p in 1:rows
            C[first+p-1] += x.data[p].value
        end
    end
    return nothing
end

"""
    columns_for(k)

How many columns an operand of [`gram!`](@ref) needs, `k` of them in use: tiles reach up to three columns further.
"""
columns_for(k::Int) = k + 3

const PANEL = 9     # columns of B, 18 kB, that stay in the first-level cache

"""
    gram!(C, p, q, A, B, n; lower = false)
    gram!(C, A, B, n)
    gram!(C, Z, n)

C += AᵀB over the first `n` rows, for panels C of p × q numbers, A of p columns and three more behind, and B of q. With
`lower` only tiles that reach the lower triangle. The second form takes whole matrices, the third adds the lower
triangle of ZᵀZ.

A few samples leave more time to the sums over registers than to the products; BLAS keeps no sums there (16 samples, 201
columns: 25 against 41 µs; 112 samples: 136 against 123 µs).
"""
function gram!(C::Panel{<:Array{T}}, p::Int, q::Int, A::Panel{Matrix{T}}, B::Panel{Matrix{T}}, n::Int,
               lower::Bool=false) where {T<:BlasReal}
    n < 64 && !lower && p * q > 100 && return gemm!('T', 'N', p, q, n, A, B, C)
    ld = C.ld
    for panel in 1:PANEL:q
        last = min(panel + PANEL - 1, q)
        for i in (lower ? panel - mod(panel - 1, 4) : 1):4:p
            j, rows, at = panel, p - i + 1, C.first - 1 + i + ld * (panel - 1)
            while j + 2 <= last && !(lower && j > i + 3)
                x, y, z = tile(Val(3), A, i, B, j, n)
                add!(C.data, at, rows, x)
                add!(C.data, at + ld, rows, y)
                add!(C.data, at + 2ld, rows, z)
                j, at = j + 3, at + 3ld
            end
            while j <= last && !(lower && j > i + 3)
                x, = tile(Val(1), A, i, B, j, n)
                add!(C.data, at, rows, x)
                j, at = j + 1, at + ld
            end
        end
    end
    return nothing
end

function gram!(C::Panel, p::Int, q::Int, A::Panel, B::Panel, n::Int, lower::Bool=false)
    @inbounds for j in 0:q-1, i in (lower ? j : 0):p-1
        s = zero(eltype(C.data))
        for r in 0:n-1
            s += A.data[A.first+r+A.ld*i] * B.data[B.first+r+B.ld*j]
        end
        C.data[C.first+i+C.ld*j] += s
    end
    return nothing
end

function gram!(C::Matrix, A::Matrix, B::Matrix, n::Int)
    gram!(Panel(C), size(C, 1), size(C, 2), Panel(A), Panel(B), n)
    return C
end

function gram!(C::Matrix, Z::Matrix, n::Int)
    gram!(Panel(C), size(C, 1), size(C, 2), Panel(Z), Panel(Z), n, true)
    return C
end

# For few samples the sums over registers at the end of each tile cost more than its products. Where the columns of Z
# are the samples, there are none: a sample adds an outer product.

"Write a register's worth of column sums, `rows` of them, to `C` or add them there."
@inline function put!(C::Matrix{T}, at::Int, rows::Int, x::Vec{W,T}, fresh::Bool) where {W,T}
    if rows >= W
        GC.@preserve C store!(C, at, fresh ? x : load(Vec{W,T}, C, at) + x)
    else
        @inbounds for k in 1:rows
            C[at+k-1] = fresh ? x.data[k].value : C[at+k-1] + x.data[k].value
        end
    end
    return nothing
end

"Rows `i` on, R registers of them, and columns j:j+3 of C = Z Zᵀ, or added to `C`, over the first `m` columns of `Z`."
@generated function outer_tile!(::Val{R}, C::Matrix{T}, Z::Matrix{T}, i::Int, j::Int, m::Int, fresh::Bool) where {R,T}
    V, W, s = register(T), width(register(T)), [Symbol(:s, x, :_, q) for x in 1:R, q in 1:4]
    return quote
        p, ld = size(C, 1), size(Z, 1)
        $((:($x = zero($V)) for x in s)...)
        GC.@preserve Z for row in 0:ld:(m-1)*ld
            $((:($(Symbol(:a, x)) = load($V, Z, row + i + $((x - 1) * W))) for x in 1:R)...)
            $((quote
                b = $V(@inbounds Z[row+j+$(q - 1)])
                $((:($(s[x, q]) = muladd($(Symbol(:a, x)), b, $(s[x, q]))) for x in 1:R)...)
            end for q in 1:4)...)
        end
        at, rows = i + (j - 1) * p, p + 1 - i
        $((quote
            j + $(q - 1) > p && return nothing
            $((:(put!(C, at + $((q - 1)) * p + $((x - 1) * W), rows - $((x - 1) * W), $(s[x, q]),
                      fresh)) for x in 1:R)...)
        end for q in 1:4)...)
        return nothing
    end
end

"How many rows the operand of [`outer!`](@ref) needs, `p` of them in use: tiles reach beyond."
rows_for(p::Int) = p + 24

"""
    outer!(C, Z, m, fresh)

The lower triangle of C = Z Zᵀ, or C += Z Zᵀ unless `fresh`, over the first `m` columns of `Z`, which has `rows_for(p)`
rows for C of p × p.
"""
function outer!(C::Matrix{T}, Z::Matrix{T}, m::Int, fresh::Bool) where {T<:BlasReal}
    p, W = size(C, 1), width(register(T))
    for j in 1:4:p
        i = j
        while p + 1 - i > 2W
            outer_tile!(Val(3), C, Z, i, j, m, fresh)
            i += 3W
        end
        if p + 1 - i > W
            outer_tile!(Val(2), C, Z, i, j, m, fresh)
        elseif p + 1 - i > 0
            outer_tile!(Val(1), C, Z, i, j, m, fresh)
        end
    end
    return C
end
