# The three matrix products of a layer, over the n rows of a block. Below these sizes BLAS spends more on
# packing than the product costs (measured on 256 rows: 2 → 100 units 5 µs in loops, 11 µs in BLAS; equal at 8 → 8).
by_blas(k, m) = k >= 8 && m >= 8
by_blas(l::Layer) = by_blas(l.fan_in, l.width)

"C[:, j] = c₀ + Σᵢ wᵢ A[:, i], or added to C[:, j] when not `first`."
@inline function add_columns!(C, j, A, i, w::Tuple{T}, first::Bool, c0::T, n) where {T}
    @inbounds @lanes r n C[r, j] = muladd(w[1], A[r, i], ifelse(first, c0, C[r, j]))
end
@inline function add_columns!(C, j, A, i, w::Tuple{T,T}, first::Bool, c0::T, n) where {T}
    @inbounds @lanes r n C[r, j] = muladd(w[2], A[r, i+1], muladd(w[1], A[r, i], ifelse(first, c0, C[r, j])))
end
@inline function add_columns!(C, j, A, i, w::Tuple{T,T,T,T}, first::Bool, c0::T, n) where {T}
    @inbounds @lanes r n C[r, j] = muladd(w[4], A[r, i+3], muladd(w[3], A[r, i+2],
        muladd(w[2], A[r, i+1], muladd(w[1], A[r, i], ifelse(first, c0, C[r, j])))))
end

"C[:, j] = c₀ + Σᵢ A[:, i] θ[p + s(i - 1)] for i in 1:k"
function combine_column!(C::Matrix{T}, j::Int, A::Matrix{T}, k::Int, θ, p::Int, s::Int, c0::T, n::Int) where {T}
    i = 1
    @inbounds while i + 3 <= k
        add_columns!(C, j, A, i, (θ[p], θ[p+s], θ[p+2s], θ[p+3s]), i == 1, c0, n)
        i, p = i + 4, p + 4s
    end
    @inbounds if i + 1 <= k
        add_columns!(C, j, A, i, (θ[p], θ[p+s]), i == 1, c0, n)
        i, p = i + 2, p + 2s
    end
    @inbounds i <= k && add_columns!(C, j, A, i, (θ[p],), i == 1, c0, n)
    return nothing
end

"""
    combine!(C, m, A, k, θ, o, si, sj, oc, n)

C[r, j] = θ[oc + j] + Σᵢ A[r, i] θ[o + si(i - 1) + sj(j - 1)] for j in 1:m, i in 1:k; `oc < 0` is no constant.
"""
function combine!(C::Matrix{T}, m::Int, A::Matrix{T}, k::Int, θ, o::Int, si::Int, sj::Int, oc::Int, n::Int) where {T}
    blas = by_blas(k, m)
    @inbounds for j in 1:m
        c0 = oc < 0 ? zero(T) : θ[oc+j]
        if blas
            @lanes r n C[r, j] = c0
        else
            combine_column!(C, j, A, k, θ, o + sj * (j - 1), si, c0, n)
        end
    end
    blas && gemm!('N', si == 1 ? 'N' : 'T', n, m, k, one(T), A, 1, size(A, 1), θ, o, max(si, sj), one(T), C, 1,
                  size(C, 1))
    return C
end

"H = A Wᵀ + b, or one column of it"
linear!(H, A, θ, l::Layer, n) =
    combine!(H, l.width, A, l.fan_in, θ, l.offset + 1, 1, l.fan_in, l.bias ? bias_offset(l) : -1, n)
linear_column!(H::Matrix{T}, j, A, θ, l::Layer, n) where {T} =
    combine_column!(H, j, A, l.fan_in, θ, l.offset + 1 + l.fan_in * (j - 1), 1,
                    l.bias ? θ[bias_offset(l)+j] : zero(T), n)

"E = Δ W, the derivative with respect to the layer's input"
pullback!(E, Δ, θ, l::Layer, n) = combine!(E, l.fan_in, Δ, l.width, θ, l.offset + 1, l.fan_in, 1, -1, n)

"C = D ∘ E in columns 1:k, or in one of them"
function hadamard!(C, D, E, n::Int, k::Int)
    for j in 1:k
        hadamard_column!(C, D, E, n, j)
    end
    return C
end
@inline hadamard_column!(C, D, E, n::Int, j::Int) = @inbounds @lanes r n C[r, j] = D[r, j] * E[r, j]

"""
    column_dots(Val(K), Δ, j, A, i, n) -> (Δ[:, j]ᵀ A[:, i], …, Δ[:, j]ᵀ A[:, i + K - 1])
"""
@inline @generated function column_dots(::Val{K}, Δ::Matrix{T}, j::Int, A::Matrix{T}, i::Int, n::Int) where {K,T}
    V, s = lanes(T), [Symbol(:s, k) for k in 1:K]
    return quote
        m = size(A, 1)
        d0, a0 = (j - 1) * size(Δ, 1), (i - 1) * m
        $((:($x = zero($V)) for x in s)...)
        GC.@preserve Δ A for r in 1:$(width(V)):n
            d = load($V, Δ, d0 + r)
            $((:($x = muladd(d, load($V, A, a0 + $(k - 1) * m + r), $x)) for (k, x) in enumerate(s))...)
        end
        return $(Expr(:tuple, (:(sum($x)) for x in s)...))
    end
end
"""
    backpropagate!(Val(K), Δ, j, D, E, c, w, A, n) -> (Σ Δ[:, j], Δ[:, j]ᵀ A[:, 1], …, Δ[:, j]ᵀ A[:, K])

Δ[:, j] = w D[:, j] ∘ E[:, c] and its products with the columns of `A`, in one pass.
"""
@inline @generated function backpropagate!(::Val{K}, Δ::Matrix{T}, j::Int, D::Matrix{T}, E::Matrix{T}, c::Int, w::T,
                                           A::Matrix{T}, n::Int) where {K,T}
    V, s = lanes(T), [Symbol(:s, k) for k in 1:K]
    return quote
        m = size(A, 1)
        d0, e0 = (j - 1) * size(Δ, 1), (c - 1) * size(E, 1)
        total = zero($V)
        $((:($x = zero($V)) for x in s)...)
        GC.@preserve Δ D E A for r in 1:$(width(V)):n
            d = load($V, E, e0 + r) * w * load($V, D, d0 + r)
            store!(Δ, d0 + r, d)
            total += d
            $((:($x = muladd(d, load($V, A, $(k - 1) * m + r), $x)) for (k, x) in enumerate(s))...)
        end
        return $(Expr(:tuple, :(sum(total)), (:(sum($x)) for x in s)...))
    end
end

column_dot(Δ, j, A, i, n) = column_dots(Val(1), Δ, j, A, i, n)[1]

function column_sum(Δ::Matrix{T}, j, n) where {T}
    s = zero(T)
    @inbounds @simd for r in 1:n
        s += Δ[r, j]
    end
    return s
end

"g += Δᵀ A and the column sums of Δ for the bias, at the layer's place in g"
function accumulate!(g, Δ::Matrix{T}, A::Matrix{T}, l::Layer, n::Int) where {T}
    accumulate_weights!(g, Δ, A, l, n)
    l.bias && @inbounds for j in 1:l.width
        g[bias_offset(l)+j] += column_sum(Δ, j, n)
    end
    return g
end
function accumulate_weights!(g, Δ::Matrix{T}, A::Matrix{T}, l::Layer, n::Int) where {T}
    k = l.fan_in
    if by_blas(l)
        gemm!('T', 'N', k, l.width, n, one(T), A, 1, size(A, 1), Δ, 1, size(Δ, 1), one(T), g, l.offset + 1, k)
        return g
    end
    for j in 1:l.width
        accumulate_weights!(g, Δ, j, A, l, 1, n)
    end
    return g
end
"What column `j` of Δ adds for the inputs from `i` on"
function accumulate_weights!(g, Δ::Matrix{T}, j::Int, A::Matrix{T}, l::Layer, i::Int, n::Int) where {T}
    o = l.offset + (j - 1) * l.fan_in
    @inbounds while i + 2 <= l.fan_in          # three sums of four vectors each fill the registers
        s = column_dots(Val(3), Δ, j, A, i, n)
        g[o+i] += s[1]
        g[o+i+1] += s[2]
        g[o+i+2] += s[3]
        i += 3
    end
    @inbounds while i <= l.fan_in
        g[o+i] += column_dot(Δ, j, A, i, n)
        i += 1
    end
    return nothing
end
