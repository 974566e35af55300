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
    return :(Vec{4,T}(Base.llvmcall($code, NTuple{4,VecElement{T}}, Tuple{$D,$D,$D,$D}, a.data, b.data, c.data, d.data)))
end

"One register's worth."
register(::Type{T}) where {T<:BlasReal} = Vec{div(32, sizeof(T)),T}

"Vectors of four sums A[:, i:i+3]ᵀ B[:, j], …, A[:, i:i+3]ᵀ B[:, j+K-1] over `n` rows."
@inline @generated function tile(::Val{K}, A::Matrix{T}, i::Int, B::Matrix{T}, j::Int, n::Int) where {K,T}
    V, s = register(T), [Symbol(:s, p, :_, q) for p in 1:4, q in 1:K]
    return quote
        la, lb = size(A, 1), size(B, 1)
        a0, b0 = (i - 1) * la, (j - 1) * lb
        $((:($x = zero($V)) for x in s)...)
        GC.@preserve A B for r in 1:$(width(V)):n
            # The order matters: three registers for B, one for A and twelve sums are all there are.
            $((:($(Symbol(:b, q)) = load($V, B, b0 + $(q - 1) * lb + r)) for q in 1:K)...)
            $((quote
                a = load($V, A, a0 + $(p - 1) * la + r)
                $((:($(s[p, q]) = muladd(a, $(Symbol(:b, q)), $(s[p, q]))) for q in 1:K)...)
            end for p in 1:4)...)
        end
        return $(Expr(:tuple, (:(sums($(s[:, q]...))) for q in 1:K)...))
    end
end

@inline function add!(C::Matrix{T}, i::Int, j::Int, x::Vec{4,T}) where {T}
    first = (j - 1) * size(C, 1) + i
    if i + 3 <= size(C, 1)
        GC.@preserve C store!(C, first, load(Vec{4,T}, C, first) + x)
    else
        @inbounds for p in 0:size(C, 1)-i
            C[first+p] += x.data[p+1].value
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
    gram!(C, A, B, n; lower = false)

C += AᵀB over the first `n` rows for C of size p × q; `A` has at least `columns_for(p)` columns, B `q`. With `lower` only
tiles that reach the lower triangle.
"""
function gram!(C::Matrix{T}, A::Matrix{T}, B::Matrix{T}, n::Int, lower::Bool=false) where {T<:BlasReal}
    p, q = size(C)
    for panel in 1:PANEL:q
        for i in (lower ? panel - mod(panel - 1, 4) : 1):4:p
            j, last = panel, min(panel + PANEL - 1, q)
            while j + 2 <= last
                lower && j > i + 3 && break
                x, y, z = tile(Val(3), A, i, B, j, n)
                add!(C, i, j, x)
                add!(C, i, j + 1, y)
                add!(C, i, j + 2, z)
                j += 3
            end
            while j <= last
                lower && j > i + 3 && break
                x, = tile(Val(1), A, i, B, j, n)
                add!(C, i, j, x)
                j += 1
            end
        end
    end
    return C
end

function gram!(C::Matrix, A::Matrix, B::Matrix, n::Int, lower::Bool=false)
    @inbounds for j in 1:size(C, 2), i in (lower ? j : 1):size(C, 1)
        s = zero(eltype(C))
        for r in 1:n
            s += A[r, i] * B[r, j]
        end
        C[i, j] += s
    end
    return C
end

"""
    gram!(C, Z, n)

Lower triangle of C += ZᵀZ; `Z` has `columns_for(size(C, 1))` columns.
"""
gram!(C::Matrix, Z::Matrix, n::Int) = gram!(C, Z, Z, n, true)

# A few samples leave more time to the sums over registers than to the products: BLAS, which keeps no sums there, is
# faster for 16 samples and 201 columns (25 against 41 µs), slower for 112 (136 against 123 µs).
function gram!(C::Matrix{T}, Z::Matrix{T}, n::Int) where {T<:BlasReal}
    p = size(C, 1)
    n < 64 && p > 64 ? syrk!(p, n, one(T), Z, size(Z, 1), C, p) : gram!(C, Z, Z, n, true)
    return C
end
